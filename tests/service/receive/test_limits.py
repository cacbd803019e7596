"""Bodies that are too large, too slow, too many or not what they say: bounded in memory and in time."""

from __future__ import annotations

import json
import re
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.receive.posted import clean_filename
from tests.service.serving import ADMIN, serving, settings_for, visit_files

HEAD = f"POST /v1/visits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\n"
MULTIPART = "Content-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    given = settings_for(tmp_path_factory.mktemp("limits"), max_upload_mb=1, body_seconds=1.5, idle_seconds=0.7)
    with serving(given) as it:
        yield it


def talk(served, *pieces, seconds=15.0):
    """Send the pieces, then read until the server closes: the answer, and how much could be sent."""
    sent = 0
    with socket.create_connection(("127.0.0.1", served.port), timeout=seconds) as connection:
        try:
            for piece in pieces:
                if isinstance(piece, float):
                    time.sleep(piece)
                    continue
                connection.sendall(piece)
                sent += len(piece)
        except OSError:  # the server has closed: what it said before is what counts
            pass
        return read_answer(connection), sent


def read_answer(connection):
    answer = b""
    try:
        while piece := connection.recv(65536):
            answer += piece
    except ConnectionResetError:
        pass
    head, _, body = answer.partition(b"\r\n\r\n")
    status = int(head.split()[1]) if head else 0
    return status, head.lower(), json.loads(body) if body.startswith(b"{") else body


def test_ten_gigabytes_are_refused_on_their_word(served):
    started = time.monotonic()
    (status, head, body), _ = talk(served, f"{HEAD}{MULTIPART}Content-Length: 10000000000\r\n\r\n".encode())
    assert (status, body["code"]) == (413, "body_too_large")
    assert b"connection: close" in head
    assert time.monotonic() - started < 5


def test_who_goes_on_sending_is_cut_off(served):
    piece = b"x" * 100_000
    head = f"{HEAD}{MULTIPART}Content-Length: 10000000000\r\n\r\n".encode()
    (status, _, body), sent = talk(served, head, *[piece] * 1000)
    assert (status, body["code"]) == (413, "body_too_large")
    assert sent < 50_000_000


def test_chunked_overrun_is_refused_while_it_comes(served):
    chunk = b"%x\r\n" % 100_000 + b"x" * 100_000 + b"\r\n"
    head = f"{HEAD}{MULTIPART}Transfer-Encoding: chunked\r\n\r\n".encode()
    first = b"%x\r\n" % len(PART) + PART + b"\r\n"
    (status, head, body), sent = talk(served, head, first, *[chunk] * 1000)
    assert (status, body["code"]) == (413, "body_too_large")
    assert b"connection: close" in head
    assert sent < 50_000_000


def test_body_without_a_key_is_not_read_to_its_end(served):
    head = f"POST /v1/visits HTTP/1.1\r\nHost: x\r\n{MULTIPART}Transfer-Encoding: chunked\r\n\r\n".encode()
    chunk = b"%x\r\n" % 100_000 + b"x" * 100_000 + b"\r\n"
    (status, head, body), sent = talk(served, head, *[chunk] * 1000)
    assert (status, body["code"]) == (401, "unauthorised")
    assert b"connection: close" in head
    assert sent < 50_000_000


@pytest.mark.parametrize("pause", [0.3, 5.0], ids=["trickle", "silence"])
def test_slow_body_is_given_up(served, pause):
    started = time.monotonic()
    head = f"{HEAD}{MULTIPART}Content-Length: 100000\r\n\r\n".encode()
    pieces = [piece for _ in range(8) for piece in (b"-", pause)] if pause < 1 else [b"-"]
    (status, head, body), _ = talk(served, head, *pieces)
    assert (status, body["code"]) == (408, "body_too_slow")
    assert b"connection: close" in head
    assert time.monotonic() - started < 6


def test_headers_are_bounded_in_size(served):
    many = "".join(f"X-{i}: {'y' * 500}\r\n" for i in range(100))
    (status, _, _), _ = talk(served, f"{HEAD}{many}".encode())
    assert status == 400
    (status, _, _), _ = talk(served, f"{HEAD}X: ".encode(), *[b"y" * 10_000] * 100)
    assert status in (0, 400)


def test_headers_are_bounded_in_time(served, monkeypatch):
    monkeypatch.setattr("service.api.http1.HEADER_SECONDS", 0.3)
    started = time.monotonic()
    assert talk(served, HEAD.encode())[0][0] == 0
    assert talk(served)[0][0] == 0
    assert time.monotonic() - started < 5


def test_part_headers_and_parts_are_bounded(served):
    huge = b"--b\r\nContent-Disposition: form-data; name=" + b"x" * 100_000
    tiny = b'--b\r\nContent-Disposition: form-data; name="image"; filename=""\r\n\r\n\r\n'
    with served.client() as client:
        for body in (huge, tiny * 5000, PART + b"x", b"--b", b"", b"x" * 1000, b"\r\n" * 1000):
            answer = client.post(
                "/v1/visits", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"}
            )
            assert answer.status_code == 422, (body[:50], answer.text)
            assert answer.json()["code"] == "invalid_request"
        assert client.post("/v1/visits", files=visit_files()).status_code == 201


def test_nothing_is_left_of_a_refused_body(served, tmp_path):
    service = served.app.state.service
    assert list(service.store.drafts.iterdir()) == []


def test_empty_file_field_of_a_form_is_no_input(served):
    empty = b'--b\r\nContent-Disposition: form-data; name="ecg"; filename=""\r\n\r\n\r\n'
    body = empty + PART + b"pixels\r\n--b--\r\n"
    with served.client() as client:
        answer = client.post("/v1/visits", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert [each["field"] for each in answer.json()["inputs"]] == ["image"]


@pytest.mark.parametrize(
    ("posted", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\a\\film.dcm", "film.dcm"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("x" * 300 + ".hea", "x" * 116 + ".hea"),
        ("Nguyễn.png", "Nguyễn.png"),
        ("..", ""),
        ("a\x00b\r\n.png", "ab.png"),
        ("", ""),
    ],
)
def test_filenames(posted, kept):
    assert clean_filename(posted) == kept


@given(st.text(max_size=400))
def test_any_filename_becomes_a_plain_one(posted):
    kept = clean_filename(posted)
    assert len(kept) <= 120
    assert "/" not in kept
    assert "\\" not in kept
    assert kept.isprintable() or re.search(r"\s", kept)
    assert kept not in (".", "..")


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=300),
    st.lists(st.sampled_from([b"--b", b"\r\n", b"--", PART, b":", b"name=", b"\x00", b"form-data;"]), max_size=12),
)
def test_any_body_is_answered_below_500(served, noise, pieces):
    body = b"".join(pieces) + noise
    with served.client(Prefer="respond-async") as client:
        answer = client.post("/v1/visits", content=body, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert answer.status_code in (201, 202, 422), answer.text


@settings(max_examples=40, deadline=None)
@given(
    st.binary(max_size=200)
    | st.recursive(st.none() | st.floats() | st.text(max_size=5), st.lists).map(str).map(str.encode)
)
def test_any_context_is_answered_below_500(served, document):
    with served.client(Prefer="respond-async") as client:
        answer = client.post("/v1/visits", files={"context": (None, document)})
    assert answer.status_code in (202, 422), answer.text


@settings(max_examples=40, deadline=None)
@given(
    st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=60),
    st.sampled_from(
        ["Idempotency-Key", "Prefer", "Accept-Language", "Content-Type", "Authorization", "Cookie", "Origin"]
    ),
)
def test_any_header_is_answered_below_500(served, value, name):
    with served.client() as client:
        answer = client.post("/v1/visits", headers={name: value.strip(" \t\x85\xa0").encode("latin-1")})
    assert answer.status_code in (400, 401, 403, 415, 422), (answer.status_code, answer.text)
