"""Requests that are too large, too slow, or not HTTP as it should be: refused within limits of memory and time."""

from __future__ import annotations

import json
import socket
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.serving import ADMIN, serving, settings_for

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


def test_a_body_that_declares_ten_gigabytes_is_refused_unread(served):
    started = time.monotonic()
    (status, head, body), _ = talk(served, f"{HEAD}{MULTIPART}Content-Length: 10000000000\r\n\r\n".encode())
    assert (status, body["code"]) == (413, "body_too_large")
    assert b"connection: close" in head
    assert time.monotonic() - started < 5


def test_a_client_that_goes_on_sending_is_disconnected(served):
    piece = b"x" * 100_000
    head = f"{HEAD}{MULTIPART}Content-Length: 10000000000\r\n\r\n".encode()
    (status, _, body), sent = talk(served, head, *[piece] * 1000)
    assert (status, body["code"]) == (413, "body_too_large")
    assert sent < 50_000_000


def test_a_chunked_body_is_refused_once_it_is_too_large(served):
    chunk = b"%x\r\n" % 100_000 + b"x" * 100_000 + b"\r\n"
    head = f"{HEAD}{MULTIPART}Transfer-Encoding: chunked\r\n\r\n".encode()
    first = b"%x\r\n" % len(PART) + PART + b"\r\n"
    (status, head, body), sent = talk(served, head, first, *[chunk] * 1000)
    assert (status, body["code"]) == (413, "body_too_large")
    assert b"connection: close" in head
    assert sent < 50_000_000


def test_a_body_without_a_key_is_not_read_to_its_end(served):
    head = f"POST /v1/visits HTTP/1.1\r\nHost: x\r\n{MULTIPART}Transfer-Encoding: chunked\r\n\r\n".encode()
    chunk = b"%x\r\n" % 100_000 + b"x" * 100_000 + b"\r\n"
    (status, head, body), sent = talk(served, head, *[chunk] * 1000)
    assert (status, body["code"]) == (401, "unauthorised")
    assert b"connection: close" in head
    assert sent < 50_000_000


@pytest.mark.parametrize("pause", [0.3, 5.0], ids=["trickle", "silence"])
def test_a_slow_body_is_refused(served, pause):
    started = time.monotonic()
    head = f"{HEAD}{MULTIPART}Content-Length: 100000\r\n\r\n".encode()
    pieces = [piece for _ in range(8) for piece in (b"-", pause)] if pause < 1 else [b"-"]
    (status, head, body), _ = talk(served, head, *pieces)
    assert (status, body["code"]) == (408, "body_too_slow")
    assert b"connection: close" in head
    assert time.monotonic() - started < 6


def test_the_size_of_headers_is_limited(served):
    many = "".join(f"X-{i}: {'y' * 500}\r\n" for i in range(100))
    (status, _, _), _ = talk(served, f"{HEAD}{many}".encode())
    assert status == 400
    (status, _, _), _ = talk(served, f"{HEAD}X: ".encode(), *[b"y" * 10_000] * 100)
    assert status in (0, 400)


def test_the_time_for_headers_is_limited(served, monkeypatch):
    monkeypatch.setattr("service.api.http1.HEADER_SECONDS", 0.3)
    started = time.monotonic()
    assert talk(served, HEAD.encode())[0][0] == 0
    assert talk(served)[0][0] == 0
    assert time.monotonic() - started < 5


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
