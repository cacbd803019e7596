"""Posted forms: their parts, empty fields, and bodies that are no form."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidRequest
from service.receive.multipart import PartsReader
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


class Parts(PartsReader):
    """The parts of a body, in memory."""

    def __init__(self, boundary):
        super().__init__(boundary, "parts")
        self.found = []

    def _begin_part(self, headers):
        return Memory()

    def _end_part(self, draft):
        self.found.append(bytes(draft.content))


class Memory:
    """As a draft, without a file."""

    def __init__(self):
        self.content = bytearray()

    def write(self, piece):
        self.content += piece


CONTENTS = (b"one\r\n--x", b"", b"x--bound \r\nnot a delimiter: no line end is before it", b"\r\n--boun", b"two\r")


def body_of(padding: bytes = b"", preamble: bytes = b"") -> bytes:
    lines = [b"--bound" + padding + b"\r\nContent-Type: application/dicom\r\n\r\n" + each for each in CONTENTS]
    return preamble + b"\r\n".join([*lines, b"--bound--" + padding + b"\r\nepilogue"])


def parts_in(body, sizes):
    reader, at = Parts(b"bound"), 0
    for size in sizes:
        reader.feed(body[at : at + size])
        at += size
    reader.feed(body[at:])
    assert reader._ended
    return reader.found


@pytest.mark.parametrize("padding", [b"", b" ", b"\t  \t", b" " * 900])
@pytest.mark.parametrize("preamble", [b"", b"\r\n", b"A message.\r\n", b"--boun\r\n\r\n", b"x" * 9000 + b"\r\n"])
def test_what_stands_around_delimiters_is_left_out(padding, preamble):
    body = body_of(padding, preamble)
    assert parts_in(body, []) == [*CONTENTS]
    for size in (1, 2, 3, 7, 8, 9, 10, 11, 64):
        assert parts_in(body, [size] * (len(body) // size)) == [*CONTENTS], size
    for cut in range(max(0, len(preamble) - 20), len(body), 1 if len(padding) < 10 else 97):
        assert parts_in(body, [cut]) == [*CONTENTS], cut


@pytest.mark.parametrize("body", [b"x" * 20_000, b"\r\n" * 10_000, b"--bound" + b" " * 2000, b"--boun\r\n" * 3000])
def test_more_of_it_than_anybody_writes_is_refused(body):
    with pytest.raises(InvalidRequest):
        parts_in(body, [1000] * 30)
