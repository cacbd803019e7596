"""Posted forms: their parts, empty fields, and bodies that are no form."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.serving import serving, settings_for, visit_files

PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'
FORM = {"Content-Type": "multipart/form-data; boundary=b"}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(settings_for(tmp_path_factory.mktemp("multipart"), max_upload_mb=1)) as it:
        yield it


def test_the_number_of_parts_and_the_size_of_their_headers_are_limited(served):
    huge = b"--b\r\nContent-Disposition: form-data; name=" + b"x" * 100_000
    tiny = b'--b\r\nContent-Disposition: form-data; name="image"; filename=""\r\n\r\n\r\n'
    with served.client() as client:
        for body in (huge, tiny * 5000, PART + b"x", b"--b", b"", b"x" * 1000, b"\r\n" * 1000):
            answer = client.post("/v1/visits", content=body, headers=FORM)
            assert answer.status_code == 422, (body[:50], answer.text)
            assert answer.json()["code"] == "invalid_request"
        assert client.post("/v1/visits", files=visit_files()).status_code == 201
    assert list(served.app.state.service.store.drafts.iterdir()) == []


def test_a_file_field_that_was_left_empty_is_no_input(served):
    empty = b'--b\r\nContent-Disposition: form-data; name="ecg"; filename=""\r\n\r\n\r\n'
    body = empty + PART + b"pixels\r\n--b--\r\n"
    with served.client() as client:
        answer = client.post("/v1/visits", content=body, headers=FORM)
    assert [each["field"] for each in answer.json()["inputs"]] == ["image"]


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=300),
    st.lists(st.sampled_from([b"--b", b"\r\n", b"--", PART, b":", b"name=", b"\x00", b"form-data;"]), max_size=12),
)
def test_any_body_is_answered_below_500(served, noise, pieces):
    body = b"".join(pieces) + noise
    with served.client(Prefer="respond-async") as client:
        answer = client.post("/v1/visits", content=body, headers=FORM)
    assert answer.status_code in (201, 202, 422), answer.text
