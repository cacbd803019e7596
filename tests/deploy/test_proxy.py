"""The Caddyfile that ships, run by a real Caddy before real servers, with a certificate of the tests' own authority."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest

from benchmarks.serving import free_port
from service.pages import events
from service.run import KEEP_ALIVE_S, MAX_CONNECTIONS
from tests.conftest import ROOT
from tests.deploy.certificates import Authority
from tests.service.receive.test_uploads import PIECE, TUS, begun, offset
from tests.service.serving import ADMIN, serving, settings_for, until, visit_files

CADDYFILE = ROOT / "deploy" / "Caddyfile"
LARGE_MB = 200
MAX_PROXY_MB = 120
"""A body of LARGE_MB that was kept on its way would be more."""


@contextlib.contextmanager
def caddy(folder, *upstreams):
    """Caddy with the file that ships, before ``upstreams``; gives its process, ports, log and authority."""
    executable = shutil.which("caddy")
    if executable is None:
        pytest.skip("caddy is not installed: the service is not tried behind a proxy in this run")
    folder.mkdir()
    authority, ports = Authority(folder), (free_port(), free_port())
    environment = {
        **{name: str(folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")},
        "LISTEN": "127.0.0.1",
        "HTTP_PORT": str(ports[0]),
        "HTTPS_PORT": str(ports[1]),
        "SITE": "localhost",
        "TLS": " ".join(map(str, authority.issue("localhost"))),
        "UPSTREAMS": " ".join(upstreams),
    }
    command = [executable, "run", "--config", CADDYFILE, "--adapter", "caddyfile"]
    with (folder / "log").open("w") as log, subprocess.Popen(command, env=environment, stderr=log) as process:
        try:
            until(lambda: all(map(_listens, ports)) or process.poll() is not None, 20)
            assert process.poll() is None, (folder / "log").read_text()
            yield Proxy(process, *ports, folder / "log", ssl.create_default_context(cafile=authority.certificate))
        finally:
            process.terminate()


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Proxy:
    def __init__(self, process, http_port, port, log, context):
        self.process, self.http_port, self.port, self.log, self.context = process, http_port, port, log, context
        self.address = f"https://localhost:{port}"

    def client(self, key=ADMIN, address="127.0.0.1", **headers):
        """A client at an address of this machine."""
        transport = httpx.HTTPTransport(verify=self.context, local_address=address)
        headers = {"Authorization": f"Bearer {key}", **headers} if key else headers
        return httpx.Client(transport=transport, base_url=self.address, headers=headers, timeout=30)

    def peak_mb(self):
        """The most memory that it has had."""
        said = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{self.process.pid}/status").read_text())
        return int(said[1]) / 1000

    def curl(self, *options):
        """Status and body by curl, over HTTP/2."""
        authority = self.log.parent / "authority.pem"
        command = ["curl", "-s", "--http2", "--cacert", authority, "-w", "\n%{http_version} %{http_code}", *options]
        for _ in range(3):  # on a busy machine the stream may end before curl has read the whole answer (18, 92)
            done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            if done.returncode == 0:
                break
        body, _, said = done.stdout.rpartition("\n")
        assert said.startswith("2 ")
        return int(said.split()[1]), body


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A server, and the proxy before it."""
    folder = tmp_path_factory.mktemp("proxied")
    with (
        serving(settings_for(folder / "data", max_upload_mb=2 * LARGE_MB, idle_seconds=3)) as served,
        caddy(folder / "caddy", f"127.0.0.1:{served.port}") as proxy,
    ):
        yield SimpleNamespace(served=served, proxy=proxy)


@pytest.fixture
def proxy(both):
    return both.proxy


# ---------------------------------------------------------------- TLS
def test_only_tls_1_2_and_newer_is_spoken_and_browsers_are_told_to_come_by_it(proxy):
    def spoken(version):
        context = ssl.create_default_context(cafile=proxy.log.parent / "authority.pem")
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with (
            socket.create_connection(("127.0.0.1", proxy.port)) as plain,
            context.wrap_socket(plain, server_hostname="localhost", do_handshake_on_connect=False) as over_tls,
        ):
            over_tls.do_handshake()
            return over_tls.version()

    assert [spoken(each) for each in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)] == ["TLSv1.2", "TLSv1.3"]
    for old in (ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1):
        with pytest.raises((ssl.SSLError, ConnectionError)), pytest.warns(DeprecationWarning, match="deprecated"):
            spoken(old)
    with proxy.client() as client:
        assert client.get("/healthz").headers["strict-transport-security"] == "max-age=31536000"
    moved = httpx.get(f"http://localhost:{proxy.http_port}/worklist", verify=False)
    assert (moved.status_code, moved.headers["location"]) == (308, "https://localhost/worklist")


def test_metrics_are_not_for_those_who_come_by_the_proxy(both):
    with both.proxy.client() as client, both.served.client() as direct:
        for path in ("/metrics", "/%6Detrics", "/METRICS", "/./metrics", "/x/../metrics"):
            assert "sangloc_ready" not in client.get(path).text, path
        assert "sangloc_ready" in direct.get("/metrics").text


# ---------------------------------------------------------------- what passes
def test_a_visit_and_an_upload_in_pieces(proxy):
    with proxy.client() as client:
        posted = client.post("/v1/visits", files=visit_files())
        assert posted.status_code == 201
        assert client.get(f"/v1/visits/{posted.json()['id']}").json()["status"] == "complete"
        where = begun(client, 10)
        for at, piece in ((0, b"01234"), (5, b"56789")):
            answer = client.patch(where, headers={**PIECE, "Upload-Offset": str(at)}, content=piece)
            assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(at + 5))
        made = client.post("/v1/uploads/visit", json={"uploads": [where.rpartition("/")[2]]})
        assert made.status_code == 201
        assert made.json()["inputs"][0]["index"] == 0


def test_a_person_signs_in_and_the_cookie_is_for_tls_only(proxy):
    with proxy.client(key=None) as client:
        origin = {"Origin": proxy.address, "Sec-Fetch-Site": "same-origin"}
        signed_in = client.post("/login", data={"key": ADMIN, "next": "/worklist"}, headers=origin)
        assert (signed_in.status_code, signed_in.headers["location"]) == (303, "/worklist")
        cookie = signed_in.headers["set-cookie"].lower()
        assert "secure" in cookie
        assert "httponly" in cookie
        page = client.get("/worklist", headers={"Accept": "text/html", "Accept-Encoding": "gzip"})
        assert page.status_code == 200
        assert page.headers["content-encoding"] == "gzip"
        other = {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"}
        assert client.post("/login", data={"key": ADMIN}, headers=other).status_code == 403


def test_addresses_in_dicomweb_answers_are_those_of_the_proxy(proxy):
    film = (ROOT / "samples/recording.dcm").read_bytes()
    boundary = b"--b\r\nContent-Type: application/dicom\r\n\r\n" + film + b"\r\n--b--\r\n"
    kind = 'multipart/related; type="application/dicom"; boundary=b'
    with proxy.client(key_of_a_site(proxy)) as client:
        stored = client.post("/dicomweb/studies", content=boundary, headers={"Content-Type": kind})
    assert stored.status_code == 200, stored.text
    assert f"{proxy.address}/dicomweb/studies/" in stored.text


def key_of_a_site(proxy):
    with proxy.client() as client:
        return client.post("/v1/keys", json={"role": "site", "site": "lao-cai"}).json()["key"]


def test_urgent_visits_are_told_at_once_over_an_open_stream(proxy, monkeypatch):
    monkeypatch.setattr(events, "LOOK_EVERY_S", 0.3)
    with proxy.client() as client, client.stream("GET", "/worklist/events") as stream:
        lines = stream.iter_lines()
        begun_at = time.monotonic()
        assert next(lines).startswith("retry:")
        with proxy.client() as another:
            visit = another.post("/v1/visits", files=visit_files(b"urgent")).json()["id"]
        for line in lines:
            if line.startswith("data:"):
                assert json.loads(line[5:])["id"] == visit
                break
        assert time.monotonic() - begun_at < 10


# ---------------------------------------------------------------- whose address
def test_wrong_keys_count_for_the_client_not_for_the_proxy(proxy):
    def statuses(address, n, **headers):
        with proxy.client(key="x" * 30, address=address, **headers) as client:
            return [client.get("/v1/visits").status_code for _ in range(n)]

    assert statuses("127.0.0.2", 110)[-5:].count(429) >= 4
    assert statuses("127.0.0.3", 5) == [401] * 5
    pretended = {"X-Forwarded-For": "192.0.2.1", "X-Real-IP": "192.0.2.1", "Forwarded": "for=192.0.2.1"}
    assert statuses("127.0.0.2", 5, **pretended).count(429) >= 4, "a client may say which address it has"
    with proxy.client(address="127.0.0.2") as client:
        assert client.get("/v1/visits").status_code == 200, "a right key works all the same"


# ---------------------------------------------------------------- large and slow bodies
def test_a_body_reaches_the_server_while_it_comes(proxy):
    with proxy.client() as client:
        where = begun(client, 2_000_000)
        head = (
            f"PATCH {where} HTTP/1.1\r\nHost: localhost:{proxy.port}\r\nAuthorization: Bearer {ADMIN}\r\n"
            "Tus-Resumable: 1.0.0\r\nContent-Type: application/offset+octet-stream\r\nUpload-Offset: 0\r\n"
            "Content-Length: 2000000\r\n\r\n"
        )
        with (
            socket.create_connection(("127.0.0.1", proxy.port)) as plain,
            proxy.context.wrap_socket(plain, server_hostname="localhost") as sender,
        ):
            sender.sendall(head.encode() + bytes(1_000_000))
            until(lambda: offset(client, where) >= 900_000, 5)
        until(lambda: offset(client, where) == 1_000_000, 5)  # nothing of what was sent is lost
        client.delete(where, headers=TUS)


def test_a_large_body_is_not_kept_on_its_way(proxy):
    def pieces():
        for _ in range(LARGE_MB):
            yield bytes(1_000_000)

    with proxy.client() as client:
        where = begun(client, LARGE_MB * 1_000_000)
        headers = {**PIECE, "Upload-Offset": "0", "Content-Length": str(LARGE_MB * 1_000_000)}
        answer = client.patch(where, headers=headers, content=pieces(), timeout=120)
        assert (answer.status_code, answer.headers["upload-offset"]) == (204, str(LARGE_MB * 1_000_000))
        client.delete(where, headers=TUS)
    assert proxy.peak_mb() < MAX_PROXY_MB
    folder = proxy.log.parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 1_000_000


def test_a_refusal_in_the_middle_of_a_body_reaches_the_client(proxy, tmp_path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate(20_000_000)
    bearer = f"Authorization: Bearer {ADMIN}"
    options = ("--header", bearer, "--header", "Content-Type: application/json", "--data-binary", f"@{large}")
    for sent in (("--http1.1",), ()):
        if sent:
            with proxy.client() as client, large.open("rb") as file:
                answer = client.post("/v1/keys", content=file, headers={"Content-Type": "application/json"})
            status, body = answer.status_code, answer.text
        else:
            status, body = proxy.curl(*options, f"{proxy.address}/v1/keys")
        assert (status, json.loads(body)["code"]) == (413, "body_too_large")


# ---------------------------------------------------------------- processes that come and go
def test_two_processes_share_the_work_and_one_that_is_killed_is_missed_by_nobody(new_process, postgres, s3, tmp_path):
    common = {"database_url": postgres(), "seconds": 1.0, "SANGLOC_STORE_URL": "s3://visits/proxy", **s3.environment}
    nodes = [new_process(folder=tmp_path / name, **common).start(seconds=60) for name in ("one", "two")]
    _one_is_killed(nodes, tmp_path)


def _one_is_killed(nodes, tmp_path):
    with caddy(tmp_path / "caddy", *(f"127.0.0.1:{node.served.port}" for node in nodes)) as proxy:
        clients = [f"127.0.0.{n}" for n in range(2, 14)]
        ids = {address: post(proxy, address) for address in clients}
        began = [{event["person"] for event in node.events() if event["event"] == "begin"} for node in nodes]
        assert all(began), "both take visits"
        assert began[0] & began[1] == set(), "each is assessed once"
        killed_at = time.monotonic()
        nodes[0].kill()
        more = {address: post(proxy, address, prefix="later-") for address in clients}
        with proxy.client() as client:
            until(lambda: all(finished(client, each) for each in [*ids.values(), *more.values()]), 60)
        assert time.monotonic() - killed_at < 60


def post(proxy, address, prefix=""):
    """Post a visit as a program does: again after a refusal or a lost connection, with the same key."""
    headers = {"Prefer": "respond-async", "Idempotency-Key": f"{prefix}{address}"}
    with proxy.client(address=address, **headers) as client:
        end = time.monotonic() + 30
        while True:
            answer = client.post("/v1/visits", files=visit_files(person={"id": f"{prefix}{address}"}))
            if answer.status_code < 300:
                return answer.json()["id"]
            assert answer.status_code in (502, 503), answer.text
            assert time.monotonic() < end
            time.sleep(0.2)


def finished(client, visit):
    return client.get(f"/v1/visits/{visit}").json()["status"] == "complete"


def test_a_process_that_takes_no_visits_says_why_and_shows_those_it_has(tmp_path):
    with (
        serving(settings_for(tmp_path / "data", min_free_mb=1_000_000)) as served,
        caddy(tmp_path / "caddy", f"127.0.0.1:{served.port}") as proxy,
        proxy.client() as client,
    ):
        until(lambda: client.get("/readyz").status_code == 503, 10)
        time.sleep(6)  # the proxy has looked by now, and knows that it is not ready
        refused = client.post("/v1/visits", files=visit_files())
        assert (refused.status_code, refused.json()["code"]) == (503, "storage_full")
        assert int(refused.headers["retry-after"]) >= 1
        assert client.get("/worklist", headers={"Accept": "text/html"}).status_code == 200


def test_the_log_names_no_address_that_somebody_asked_for(tmp_path):
    with caddy(tmp_path / "caddy", f"127.0.0.1:{free_port()}") as proxy, proxy.client() as client:
        assert client.get("/worklist?q=Nghiem").status_code in (502, 503)
        until(lambda: '"status":50' in proxy.log.read_text(), 5)
        said = proxy.log.read_text()
    assert "Nghiem" not in said
    assert ADMIN not in said


# ---------------------------------------------------------------- numbers that belong together
def test_the_limits_of_proxy_and_service_fit():
    text = CADDYFILE.read_text("utf-8")
    assert int(re.search(r"keepalive (\d+)s", text)[1]) < KEEP_ALIVE_S, "it would use connections that are closed"
    most = int(re.search(r"max_conns_per_host (\d+)", text)[1])
    assert most <= MAX_CONNECTIONS // 2
