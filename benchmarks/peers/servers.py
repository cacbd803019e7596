"""One peer as a real server in the peers' environment: started, asked, and stopped with all its processes."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.files import ROOT, Body, multipart, numbered, png
from benchmarks.memory import memory_of

APPS = Path(__file__).parent / "apps"
PYTHON = ROOT / ".venv-peers" / "bin" / "python"
START_S = 180.0
STOP_S = 20.0
TOLERANCE = 1e-4
"""Largest difference of a probability from that of the session alone, for the same file resized by the same code."""
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class PeerFailed(Exception):
    """A peer could not be installed or started, or its answers are wrong; the message says why."""


@dataclass(frozen=True)
class Setting:
    """How a peer uses the cores: processes, threads of ONNX Runtime in each, and the largest batch."""

    workers: int
    threads: int
    batch: int

    def __str__(self) -> str:
        return f"{self.workers} × {self.threads}, batch {self.batch}"


@dataclass(frozen=True)
class Peer:
    """A framework, and the script that sets it up.

    Parameters
    ----------
    distribution
        Name of its distribution, for the version.
    ready, path
        Route of its readiness, and route for films.
    body
        Makes the body from a PNG, in the cheapest form that the framework accepts.
    read
        Probabilities from an answer.
    batches
        Whether it forms batches, so that the batch size is a setting.
    """

    name: str
    distribution: str
    script: str
    ready: str
    path: str
    body: Callable[[bytes], Body]
    read: Callable[[bytes], list[float]]
    headers: Callable[[bytes], dict[str, str]] = lambda _: {}
    batches: bool = True

    def settings(self, cores: int) -> list[Setting]:
        """Settings to try: one process with all cores, one for each core; without batches also one with one thread."""
        if self.batches:
            tried = [Setting(1, cores, 16), Setting(cores, 1, 16)]
        else:
            tried = [Setting(1, cores, 1), Setting(cores, 1, 1), Setting(1, 1, 1)]
        return list(dict.fromkeys(tried))

    def command(self, port: int) -> list[str]:
        if self.distribution != "bentoml":
            return [str(PYTHON), str(APPS / self.script)]
        where = ["--host", "127.0.0.1", "--port", str(port), "--working-dir", str(APPS)]
        return [str(PYTHON), "-m", "bentoml", "serve", f"{self.script.removesuffix('.py')}:Films", *where]


def _raw(content: bytes) -> Body:
    return Body(content, "image/png", "lung", len(content))


def _multipart(field: str) -> Callable[[bytes], Body]:
    return lambda content: multipart([(field, "f.png", content)], "lung")


def _tensor_head(content: bytes) -> bytes:
    tensor = {"name": "image", "shape": [1, 1], "datatype": "BYTES"}
    tensor["parameters"] = {"binary_data_size": 4 + len(content)}
    wanted = {"name": "probabilities", "parameters": {"binary_data": True}}
    return json.dumps({"inputs": [tensor], "outputs": [wanted]}).encode()


def _tensor(content: bytes) -> Body:
    """Open Inference Protocol with binary tensors: JSON, then one BYTES element with its length before it."""
    whole = _tensor_head(content) + struct.pack("<I", len(content)) + content
    return Body(whole, "application/octet-stream", "lung", len(content))


def _read_tensor(answer: bytes) -> list[float]:
    end = answer.rindex(b"}") + 1 if not answer.startswith(b"{") else _end_of_json(answer)
    return [float(p) for p in np.frombuffer(answer[end:], "<f4")]


def _end_of_json(answer: bytes) -> int:
    text = answer.decode("latin-1")
    return json.JSONDecoder().raw_decode(text)[1]


def _read_json(answer: bytes) -> list[float]:
    return [float(p) for p in json.loads(answer)["probabilities"]]


def _read_list(answer: bytes) -> list[float]:
    (only,) = json.loads(answer)
    return [float(p) for p in only["probabilities"]]


PEERS = (
    Peer(
        "FastAPI + ONNX Runtime", "fastapi", "fastapi_ort.py", "/ready", "/predict", _raw, _read_json, batches=False
    ),
    Peer("LitServe", "litserve", "litserve_app.py", "/health", "/predict", _multipart("image"), _read_json),
    Peer("BentoML", "bentoml", "bentoml_app.py", "/readyz", "/predict", _multipart("images"), _read_list),
    Peer("Mosec", "mosec", "mosec_app.py", "/", "/inference", _raw, _read_json),
    Peer("Ray Serve", "ray", "ray_serve.py", "/-/healthz", "/", _raw, _read_json),
    Peer(
        "Triton, Python back end", "nvidia-pytriton", "triton.py", "/v2/models/film/ready", "/v2/models/film/infer",
        _tensor, _read_tensor,
        headers=lambda content: {"Inference-Header-Content-Length": str(len(_tensor_head(content)))},
    ),
)  # fmt: skip


@dataclass(frozen=True)
class RunningPeer:
    """A peer that is ready; ``mark`` is in the environment of each of its processes."""

    peer: Peer
    port: int
    mark: str
    ready_s: float

    def core_s(self) -> float:
        """CPU time of all its running processes, seconds."""
        ticks = 0
        for pid in processes_marked(self.mark):
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / CLOCK_TICKS

    def memory_mb(self) -> float:
        """Proportional set size of all its processes now, megabytes."""
        return memory_of(processes_marked(self.mark)).pss_mb

    def ask(self) -> list[float]:
        """Probabilities of the sample film."""
        content = numbered(png(), 0)
        body = self.peer.body(content)
        headers = {"Content-Type": body.content_type, **self.peer.headers(content)}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{self.peer.path}", data=body.content, headers=headers
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
                return self.peer.read(answer.read())
        except urllib.error.HTTPError as refusal:
            raise PeerFailed(f"it answers {refusal.code}: {refusal.read()[:300]!r}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise PeerFailed(f"its answer cannot be read: {type(error).__name__}: {error}") from None


def difference_from_bare(found: Sequence[float], expected: Sequence[float]) -> str | None:
    """How probabilities differ from those of the session alone; ``None`` if they do not."""
    if len(found) == len(expected) and np.allclose(found, expected, rtol=0, atol=TOLERANCE):
        return None
    return f"it answers {list(found[:3])}…, the bare session {list(expected[:3])}…"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(peer: Peer, model: Path, setting: Setting) -> Iterator[RunningPeer]:
    """A peer on a free port of loopback, with its own temporary home folder; stopped afterwards.

    Raises
    ------
    PeerFailed
        It ended, or was not ready in time; the message has the end of its log.
    """
    if not PYTHON.exists():
        raise PeerFailed("the peers' environment is missing: make bench-peers")
    port, mark = free_port(), f"PEER_RUN={uuid.uuid4().hex}"
    # Ray's sockets are in this folder, and the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="peer", ignore_cleanup_errors=True) as folder:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("SANGLOC_", "OMP_"))}
        environment |= {
            "PEER_MODEL": str(model),
            "PEER_PORT": str(port),
            "PEER_PORT_2": str(free_port()),
            "PEER_WORKERS": str(setting.workers),
            "PEER_THREADS": str(setting.threads),
            "PEER_BATCH": str(setting.batch),
            "PEER_FOLDER": folder,
            "PYTHONPATH": str(APPS),
            "PATH": f"{PYTHON.parent}:{os.environ.get('PATH', '')}",
            "HOME": folder,
            "PYTRITON_HOME": folder,
            "BENTOML_HOME": folder,
            "BENTOML_DO_NOT_TRACK": "True",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_raylet_start_wait_time_s": "150",
            mark.partition("=")[0]: mark.partition("=")[2],
        }
        log = Path(folder, "log")
        started = time.perf_counter()
        with log.open("wb") as stream:
            process = subprocess.Popen(
                peer.command(port), env=environment, stdout=stream, stderr=stream, cwd=folder, start_new_session=True
            )
        try:
            _wait_until_ready(process, peer, port, log)
            yield RunningPeer(peer, port, mark, time.perf_counter() - started)
        finally:
            stop(process, mark)


def _wait_until_ready(process: subprocess.Popen[bytes], peer: Peer, port: int, log: Path) -> None:
    end = time.monotonic() + START_S
    while time.monotonic() < end and process.poll() is None:
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            urllib.request.urlopen(f"http://127.0.0.1:{port}{peer.ready}", timeout=5).close()
            return
        time.sleep(0.1)
    what = "it was not ready in time" if process.poll() is None else f"it ended with {process.returncode}"
    raise PeerFailed(f"{what}: …{log.read_text(errors='replace')[-1500:]}")


def processes_marked(mark: str) -> list[int]:
    """Processes with ``mark`` in their environment, in any process group or session."""
    wanted, found = mark.encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                if wanted in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
    return found


def stop(process: subprocess.Popen[bytes], mark: str) -> None:
    """Terminate the server, then kill its remaining processes: workers of some frameworks outlive their parent."""
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    end = time.monotonic() + STOP_S
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.1)
    for _ in range(50):
        left = processes_marked(mark)
        if not left:
            break
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.poll()
        time.sleep(0.1)
    process.wait(10)
