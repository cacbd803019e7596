"""Caddy with ``deploy/Caddyfile`` before server processes, over TLS with an authority of its own."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.chaos.asking import Client, Lost
from benchmarks.files import ROOT
from benchmarks.serving import free_port

START_S = 30.0
SITE = "localhost"


def installed() -> bool:
    return shutil.which("caddy") is not None


class Proxy:
    """A running Caddy.

    Parameters
    ----------
    folder
        For its log, its certificate and its authority's; it is made.
    ports
        Of the server processes on loopback.

    Attributes
    ----------
    port
        Where it listens for HTTPS.
    authority
        File of the certificate by which its own is checked.
    """

    def __init__(self, folder: Path, ports: Sequence[int]) -> None:
        folder.mkdir()
        self.port = free_port()
        self.log = folder / "log"
        self.authority = folder / "caddy" / "pki" / "authorities" / "local" / "root.crt"
        self._environment = {
            **dict.fromkeys(("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"), str(folder)),
            "SITE": SITE,
            "LISTEN": "127.0.0.1",
            "HTTP_PORT": str(free_port()),
            "HTTPS_PORT": str(self.port),
            "UPSTREAMS": " ".join(f"127.0.0.1:{port}" for port in ports),
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"https://{SITE}:{self.port}"

    @property
    def pid(self) -> int:
        """Of the running process; 0 where none runs."""
        return self._process.pid if self._process is not None else 0

    @property
    def context(self) -> ssl.SSLContext:
        """With which a client trusts its certificate."""
        return ssl.create_default_context(cafile=self.authority)

    def start(self) -> None:
        """Start it, and wait until a server answers through it.

        Raises
        ------
        RuntimeError
            None did in time; the message has the end of its log.
        """
        executable = shutil.which("caddy") or "caddy"
        command = [executable, "run", "--config", str(ROOT / "deploy" / "Caddyfile"), "--adapter", "caddyfile"]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)
        end = time.monotonic() + START_S
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError(f"the proxy does not answer: {self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def _answers(self) -> bool:
        if not self.authority.exists():
            return False
        try:
            with Client(self.port, context=self.context, timeout_s=10) as client:
                return client.ask("GET", "/readyz").status == 200
        except Lost:
            return False
