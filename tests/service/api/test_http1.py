"""Connections without a request, over real sockets from several addresses of the loopback network."""

from __future__ import annotations

import contextlib
import re
import resource
import socket
import statistics
import time

import httpx
import pytest

from service import run
from tests.service.serving import ADMIN, serving, settings_for, until, visit_files

CROWD = 2100
FILES = 2 * CROWD + 1000


@pytest.fixture(scope="module")
def many_files():
    """Both ends of every connection are in this process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < FILES:
        pytest.skip(f"this machine allows a process only {hard} open files")
    if soft != resource.RLIM_INFINITY and soft < FILES:
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def served(tmp_path_factory, many_files):
    with serving(settings_for(tmp_path_factory.mktemp("http1"), idle_seconds=1)) as it:
        yield it


@pytest.fixture
def held():
    with contextlib.ExitStack() as stack:
        yield stack


def connect(served, held, address, begin=b"GET / HTTP/1.1\r\n"):
    connection = socket.create_connection(("127.0.0.1", served.port), timeout=15, source_address=(address, 0))
    held.enter_context(connection)
    if begin:
        with contextlib.suppress(ConnectionError):  # it was closed for a newer one
            connection.sendall(begin)
    return connection


def client_from(served, address, **headers):
    transport = httpx.HTTPTransport(local_address=address, verify=False)
    headers = {"Authorization": f"Bearer {ADMIN}", **headers}
    return httpx.Client(transport=transport, base_url=served.address, headers=headers, timeout=30)


def n_open(client):
    return float(re.search(r"^sangloc_connections_open (\S+)", client.get("/metrics").text, re.MULTILINE)[1])


@pytest.mark.parametrize("n_addresses", [1, 11])
def test_a_crowd_without_requests_keeps_nobody_out(served, held, n_addresses):
    """The client comes from the address of the crowd, as behind one NAT, or from another one."""
    addresses = [f"127.0.0.{2 + i}" for i in range(n_addresses)]
    for i in range(CROWD):
        connect(served, held, addresses[i % n_addresses])
    seconds = []
    for _ in range(15):
        with client_from(served, addresses[0]) as client:
            started = time.monotonic()
            assert client.get("/healthz").status_code == 200
            seconds.append(time.monotonic() - started)
    assert statistics.median(seconds) < 0.1, seconds
    for address in (addresses[0], "127.0.0.1"):
        with client_from(served, address) as client:
            assert client.get("/readyz").status_code == 200
            assert client.post("/v1/visits", files=visit_files()).status_code == 201
            assert n_open(client) <= min(run.MAX_CONNECTIONS, 200 * n_addresses + 1)


def test_a_request_that_is_worked_on_outlives_a_crowd(served, held):
    head = f"POST /v1/keys HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ADMIN}\r\nContent-Type: application/json\r\n"
    body = b'{"role": "site", "site": "xa"}'
    slow = connect(served, held, "127.0.0.40", f"{head}Content-Length: {len(body)}\r\n\r\n".encode())
    for _ in range(300):
        connect(served, held, "127.0.0.40")
    slow.sendall(body)
    assert slow.recv(65536).startswith(b"HTTP/1.1 201")


def test_where_all_connections_are_worked_on_only_the_state_is_told(tmp_path, held, monkeypatch):
    monkeypatch.setattr(run, "MAX_CONNECTIONS", 4)
    with serving(settings_for(tmp_path)) as served:
        for i in (2, 2, 3, 4, 5, 6):
            connect(served, held, f"127.0.0.{i}", b"POST /login HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n")
        with client_from(served, "127.0.0.1", **{"Accept-Language": "vi"}) as client:
            until(lambda: client.get("/v1/models").status_code == 503, 10)
            refused = client.get("/v1/visits")
            assert (refused.status_code, refused.json()["code"]) == (503, "busy")
            assert refused.headers["content-type"] == "application/problem+json"
            assert (refused.headers["retry-after"], refused.headers["connection"]) == ("5", "close")
            assert "Dịch vụ đang bận" in refused.json()["detail"]
            assert client.get("/v2/models/lung").json() == {"error": refused.json()["detail"]}
            for path in ("/healthz", "/readyz", "/v2/health/live", "/v2/health/ready"):
                assert client.get(path).status_code == 200, path
            held.close()
            until(lambda: client.get("/v1/visits").status_code == 200, 10)


def test_an_answer_that_nobody_reads_ends(served, held):
    with client_from(served, "127.0.0.1") as client:
        assert len(client.get("/openapi.json").content) > 50_000
        before = n_open(client)
        reader = socket.socket()
        held.enter_context(reader)
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        reader.bind(("127.0.0.41", 0))
        reader.connect(("127.0.0.1", served.port))
        reader.sendall(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 30)
        until(lambda: n_open(client) > before, 10)
        until(lambda: n_open(client) <= before, 15)


def test_an_empty_line_between_requests_does_not_stop_the_clock(served, held, monkeypatch):
    monkeypatch.setattr("service.api.http1.HEADER_SECONDS", 0.3)
    connection = connect(served, held, "127.0.0.42", b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    connection.sendall(b"\r\n")
    connection.settimeout(10)  # less than uvicorn's own clock for an idle connection
    assert connection.recv(65536) == b""


def test_fewer_connections_where_the_system_allows_few_files(monkeypatch):
    limits = {"now": (1024, 1024)}
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(resource, "setrlimit", lambda _, now: limits.update(now=now))
    assert run.max_connections(564) == 460
    limits["now"] = (1024, 4096)
    assert (run.max_connections(564), limits["now"]) == (2000, (2564, 4096))
    limits["now"] = (1024, resource.RLIM_INFINITY)
    assert (run.max_connections(564), limits["now"][0]) == (2000, 2564)
    limits["now"] = (100, 100)
    assert run.max_connections(564) == 1
