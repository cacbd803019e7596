"""Servers of the tests: in a thread of this process, or as a process of their own that can be killed."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time

import httpx
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.serving import free_port
from service import create_app
from service.run import server_of
from service.settings import Settings
from tests.conftest import ROOT
from tests.readers import shared_readers
from tests.service import serve_standin
from tests.service.forked import Forked
from tests.service.standin import StandIn

ADMIN = "admin-key-for-the-tests"


@contextlib.contextmanager
def serving(settings, engine=None):
    """A server in a thread of this process; gives its address."""
    app = create_app(settings, engine or StandIn(), readers=shared_readers())
    server = server_of(app, settings)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            until(lambda: server.started and app.state.service.available, 20)
            yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", app)
        finally:
            server.should_exit = True
            app.state.service.stop()
            thread.join(20)
    assert not thread.is_alive()


class Served:
    def __init__(self, address, app=None):
        self.address = address
        self.app = app
        self.port = int(address.rsplit(":", 1)[1])

    # loopback without TLS: loading the machine's certificates is what a client would spend its time on
    def client(self, key=ADMIN, **headers):
        return httpx.Client(
            verify=False, base_url=self.address, headers={"Authorization": f"Bearer {key}", **headers}, timeout=30
        )

    def key(self, role, site, **more):
        with self.client() as client:
            made = client.post("/v1/keys", json={"role": role, "site": site, **more})
            assert made.status_code == 201, made.text
            return made.json()["key"]


def settings_for(folder, **given):
    return Settings(**{"data_dir": folder, "bootstrap_key": ADMIN, "drain_seconds": 2, **given})


class Process:
    """``server.py`` with the stand-in engine, in a process of its own that can be killed.

    It is forked, or started with a Python of its own from ``script``.
    """

    def __init__(self, folder, database_url="", seconds=0.0, script=None, **environment):
        self.folder, self.seconds, self.script = folder, seconds, script
        self.journal = folder / "journal.jsonl"
        self.log = folder / "log.jsonl"
        self.environment = {"SANGLOC_DATABASE_URL": database_url, **environment}
        self.process = None
        self.served = None

    def start(self, *, wait=True, seconds=30):
        port = free_port()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SANGLOC_")}
        environment |= {
            "SANGLOC_DATA_DIR": str(self.folder),
            "SANGLOC_PORT": str(port),
            "SANGLOC_BOOTSTRAP_KEY": ADMIN,
            "SANGLOC_LEASE_SECONDS": "3",
            "SANGLOC_DRAIN_SECONDS": "3",
            "JOURNAL": str(self.journal),
            "SECONDS": str(self.seconds),
            **self.environment,
        }
        if self.script is None:
            self.process = Forked(serve_standin.main, environment, self.log)
        else:
            with self.log.open("ab") as log:
                self.process = subprocess.Popen([sys.executable, self.script], env=environment, stderr=log, stdout=log)
        self.served = Served(f"http://127.0.0.1:{port}")
        if wait:
            until(self._answers, seconds)
        return self

    def _answers(self):
        assert self.process.poll() is None, self.log.read_text()[-2000:]
        try:
            return httpx.get(f"{self.served.address}/readyz", verify=False).status_code == 200
        except httpx.TransportError:
            return False

    def kill(self):
        self.process.kill()
        return self.process.wait(10)

    def stop(self):
        self.process.terminate()
        return self.process.wait(60)

    def events(self):
        if not self.journal.exists():
            return []
        return [json.loads(line) for line in self.journal.read_text().splitlines()]


def real_server(folder, **environment):
    """``server.py`` itself with the bundles that ship, in fp32 so that its numbers are those of any other session."""
    bundles = str(ROOT / "models/bundles")
    environment = {"SANGLOC_BUNDLES": bundles, "SANGLOC_SESSION": "onnxruntime:fp32", **environment}
    return Process(folder, script=ROOT / "server.py", **environment)


PATIENCE = 6
"""How much longer is waited, on a machine that does other work beside, for what takes its time on a quiet one."""


def until(condition, seconds):
    end, pause = time.monotonic() + PATIENCE * seconds, 0.01
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(pause)
        pause = min(1.5 * pause, 0.1)  # a condition that reads a database costs more than what is waited for


def told(served):
    """What ``/metrics`` says: ``{(name, *labels): value}``."""
    with served.client() as client:
        answer = client.get("/metrics")
    assert answer.status_code == 200
    families = text_string_to_metric_families(answer.text)
    return {(sample.name, *sample.labels.values()): sample.value for each in families for sample in each.samples}


def visit_files(image=b"an image", **context):
    files = [("image", ("film.png", image, "image/png"))]
    if context:
        files.append(("context", (None, json.dumps(context), "application/json")))
    return files
