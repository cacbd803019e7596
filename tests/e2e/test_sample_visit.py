"""``python server.py`` as a stranger starts it: the sample visit over HTTP, in three languages, and across a kill."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.serving import free_port
from client.shown import text
from data_specs.visit.contract import Visit
from samples.demo import FILES, SAMPLES
from tests.conftest import ROOT


class Server:
    """A server process on a folder of its own, which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("SANGLOC_")}
        environment |= {"SANGLOC_DATA_DIR": str(self.folder / "var"), "SANGLOC_PORT": str(self.port)}
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "server.py"], cwd=ROOT, env=environment, stdout=log, stderr=log
            )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.address}/readyz").status_code == 200:
                    return
            time.sleep(0.1)
        raise AssertionError((self.folder / "log").read_text())

    def stop(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(how)
        self.process.wait(30)

    @property
    def key(self) -> str:
        return (self.folder / "var" / "admin.key").read_text().strip()

    def client(self, language: str = "en") -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}", "Accept-Language": language}
        return httpx.Client(base_url=self.address, headers=headers, timeout=90)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.stop(signal.SIGTERM)


def sample_files() -> list[tuple[str, tuple[str, bytes, str]]]:
    posted = [(field, name, "application/octet-stream") for field, name in FILES]
    posted.append(("context", "context.json", "application/json"))
    return [(field, (name, (SAMPLES / name).read_bytes(), kind)) for field, name, kind in posted]


def test_the_sample_visit_in_three_languages(server: Server) -> None:
    with server.client() as client:
        answer = client.post("/v1/visits", files=sample_files(), headers={"Prefer": "wait=60"})
        assert answer.status_code == 201, answer.text
        visit = Visit.model_validate(answer.json())
        assert visit.status == "complete"
        assert {name: organ.status for name, organ in visit.organs.items()} == {
            "lung": "assessed",
            "cardiac": "assessed",
            "kidney": "assessed",
        }
        assert "CLEARLY FLAGGED" in text(answer.json())
        displays = {}
        for language in ("vi", "fr", "en"):
            said = client.get(f"/v1/visits/{visit.id}", headers={"Accept-Language": language}).json()
            displays[language] = [f["display"] for o in said["organs"].values() for f in o["findings"]]
            probabilities = [f["probability"] for o in said["organs"].values() for f in o["findings"]]
            assert probabilities == [f.probability for o in visit.organs.values() for f in o.findings]
        assert len({tuple(d) for d in displays.values()}) == 3


def test_evidence_and_renderings_are_served(server: Server) -> None:
    with server.client() as client:
        visit = client.post("/v1/visits", files=sample_files(), headers={"Prefer": "wait=60"}).json()
        evidence = [e for o in visit["organs"].values() for f in o["findings"] for e in f["evidence"]]
        assert {e["kind"] for e in evidence} == {"heatmap", "trace"}
        for each in evidence:
            picture = client.get(each["href"])
            assert picture.status_code == 200
            assert picture.headers["content-type"] == "image/png"
            assert picture.content.startswith(b"\x89PNG")
        for path in ("inputs/0/film.png", "inputs/2/trace.svg", "inputs/4/trace.svg", "inputs/1"):
            assert client.get(f"/v1/visits/{visit['id']}/{path}").status_code == 200, path


def test_models_say_what_they_are(server: Server) -> None:
    models = httpx.get(f"{server.address}/v1/models").json()
    models = models if isinstance(models, list) else next(iter(v for v in models.values() if isinstance(v, list)))
    assert {m["name"] for m in models} == {"cxr_gate", "lung", "cardiac", "kidney"}
    assert all(m["card"].startswith("# ") and len(m["sha256"]) == 64 for m in models)


def test_a_killed_server_finishes_what_it_accepted(tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.start()
    try:
        with server.client() as client:
            ids = []
            for _ in range(12):
                answer = client.post("/v1/visits", files=sample_files(), headers={"Prefer": "respond-async"})
                assert answer.status_code == 202
                ids.append(answer.json()["id"])
        server.stop(signal.SIGKILL)
        server.start()
        with server.client() as client:
            deadline = time.monotonic() + 90
            while time.monotonic() < deadline:
                visits = [client.get(f"/v1/visits/{visit_id}").json() for visit_id in ids]
                if all(v["status"] == "complete" for v in visits):
                    break
                time.sleep(0.3)
        assert [v["status"] for v in visits] == ["complete"] * 12, json.dumps(visits[0])[:500]
        risks = {json.dumps(v["organs"]["kidney"], sort_keys=True) for v in visits}
        assert len(risks) == 1
        assert all(v["organs"]["lung"]["status"] == "assessed" for v in visits)
    finally:
        server.stop(signal.SIGTERM)


def printed_in(page: Path) -> list[str]:
    """What a page says that the demo prints, without what is left out there and what differs by visit."""
    (block,) = [each for each in page.read_text().split("```") if each.startswith("\nPriority:")]
    return [line for line in block.splitlines() if line and "…" not in line]


def without_numbers(line: str) -> str:
    """Another runtime may round the last digit otherwise."""
    return re.sub(r"\d+", "0", line).rstrip()


def test_the_demo_prints_the_findings_and_takes_its_server_along(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SANGLOC_")}
    environment |= {"SANGLOC_DATA_DIR": str(tmp_path), "SANGLOC_PORT": str(port)}
    command = [sys.executable, "-m", "samples.demo"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        said = []
        for line in demo.stdout:
            said.append(line)
            if "Ctrl-C" in line:
                break
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(30) == 0
    assert f"http://127.0.0.1:{port}/visits/" in "".join(said)
    known = {without_numbers(line.replace(str(tmp_path), "var")) for line in said}
    for page in ("README.md", "docs/tutorials/first-visit.md"):
        shown = printed_in(ROOT / page)
        assert len(shown) > 12
        assert [line for line in shown if without_numbers(line) not in known] == [], page
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{port}/healthz")
