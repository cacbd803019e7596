"""Requests that are too large, too slow, or not HTTP as it should be: refused within limits of memory and time."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.service.serving import ADMIN, serving, settings_for, until, visit_files

HEAD = f"POST /v1/visits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\n"
MULTIPART = "Content-Type: multipart/form-data; boundary=b\r\n"
PART = b'--b\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    given = settings_for(tmp_path_factory.mktemp("limits"), max_upload_mb=1, body_seconds=1.5, idle_seconds=0.7)
    with serving(given) as it:
        yield it


@pytest.fixture(scope="module")
def unhurried(tmp_path_factory):
    """Bodies have long, but may pause for a second only."""
    given = settings_for(tmp_path_factory.mktemp("unhurried"), max_upload_mb=1, body_seconds=60, idle_seconds=1.5)
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


def doors(served):
    """The beginning of a request to every kind of address that reads a body."""
    with served.client() as client:
        tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "90000"}
        upload = client.post("/v1/uploads", headers=tus).headers["location"]
        cookie = client.post("/login", data={"key": ADMIN}).cookies["session"]
    posted = {
        "form": ("POST /v1/visits", MULTIPART),
        "raw": ("POST /v1/visits", "Content-Type: image/png\r\n"),
        "stow": ("POST /dicomweb/studies", 'Content-Type: multipart/related; type="application/dicom"; boundary=b\r\n'),
        "tus": (
            f"PATCH {upload}",
            "Tus-Resumable: 1.0.0\r\nUpload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\n",
        ),
        "visit of uploads": ("POST /v1/uploads/visit", "Content-Type: application/json\r\n"),
        "small JSON": ("POST /v1/keys", "Content-Type: application/json\r\n"),
        "sign in": ("POST /login", "Content-Type: application/x-www-form-urlencoded\r\n"),
        "page": ("POST /post", f"{MULTIPART}Cookie: session={cookie}\r\nSec-Fetch-Site: same-origin\r\n"),
    }
    for name, (line, headers) in posted.items():
        key = "" if name == "page" else f"Authorization: Bearer {ADMIN}\r\n"
        yield name, f"{line} HTTP/1.1\r\nHost: x\r\n{key}{headers}Content-Length: 90000\r\n\r\n".encode()


def test_a_body_that_comes_byte_by_byte_is_refused_at_every_door(unhurried):
    def drip(door):
        name, head = door
        pieces = [piece for at in range(20) for piece in (PART[at : at + 1], 0.4)]
        return name, talk(unhurried, head, *pieces)[0]

    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        answers = dict(pool.map(drip, doors(unhurried)))
    assert {name: (status, body["code"]) for name, (status, _, body) in answers.items()} == dict.fromkeys(
        answers, (408, "body_too_slow")
    )
    assert all(b"connection: close" in head for _, head, _ in answers.values())
    assert len(answers) == 8
    assert time.monotonic() - started < 15, "none of them had the 60 s of a body"


def test_a_thin_link_that_keeps_the_least_rate_is_read_to_its_end(unhurried):
    body = PART + b"x" * 6000 + b"\r\n--b--\r\n"
    pieces = [piece for at in range(0, len(body), 400) for piece in (body[at : at + 400], 0.15)]
    head = f"{HEAD}{MULTIPART}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    for _ in range(3):  # a busy machine may itself pause for longer than a link may
        started = time.monotonic()
        (status, _, _), _ = talk(unhurried, head, *pieces)
        if status == 201:
            break
    assert status == 201
    assert time.monotonic() - started > 2, "it has to take longer than a pause may, to show anything"


def begun(served, key, *, n_bytes):
    """A posted body of which the first bytes have come."""
    head = f"{HEAD.replace(ADMIN, key)}{MULTIPART}Content-Length: 900000\r\n\r\n"
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=15)
    connection.sendall(head.encode() + (PART + b"x" * n_bytes)[:n_bytes])
    return connection


def test_bodies_that_do_not_come_take_no_turn_and_slow_ones_leave_turns_to_other_keys(tmp_path):
    given = settings_for(tmp_path, max_upload_mb=1, concurrent_uploads=4, idle_seconds=20)
    with serving(given) as served, contextlib.ExitStack() as open_until_the_end:
        greedy, other = served.key("site", "xa"), served.key("site", "xb")
        turns = served.app.state.service.uploads._shares

        def post(key):
            with served.client(key) as client:
                started = time.monotonic()
                assert client.post("/v1/visits", files=visit_files()).status_code == 201
                assert time.monotonic() - started < 10, "it waited until a slow body was given up"

        for _ in range(40):
            open_until_the_end.enter_context(begun(served, greedy, n_bytes=1))
        post(greedy)
        post(other)
        for _ in range(40):
            open_until_the_end.enter_context(begun(served, greedy, n_bytes=100_000))
        until(lambda: turns.free == 2, 10)
        for _ in range(3):
            post(other)
        assert turns.free == 2, "the slow bodies have what they had"


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
