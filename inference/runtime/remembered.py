"""What sessions were measured to cost on this machine, kept in a file so that the next start need not measure again."""

from __future__ import annotations

import json
import logging
import platform
import tempfile
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import AwareDatetime, BaseModel, ConfigDict, TypeAdapter, ValidationError

from data_specs.bundle import BundleManifest

CACHE_FILE = "sessions.json"
MAX_AGE = timedelta(days=30)
"""After this a machine is measured again: kernels, neighbours and clock rates change without a new version."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """One candidate: what it costs, or in ``out`` why that is not known.

    Parameters
    ----------
    core_ms
        Processor time of one row; on a GPU, whose work no processor counts, the time that passes.
    """

    setup: str
    core_ms: float | None = None
    out: str | None = None


class Remembered(BaseModel):
    """What was measured of one bundle, and when."""

    model_config = ConfigDict(extra="forbid")
    measured: tuple[Measured, ...]
    measured_at: AwareDatetime

    def is_old(self, now: datetime) -> bool:
        """Whether it is to be measured again; a time that lies ahead comes from a clock that was wrong."""
        return not timedelta(0) <= now - self.measured_at < MAX_AGE


_CACHE = TypeAdapter(dict[str, Remembered])


def key_of(manifest: BundleManifest, device: str, threads: int) -> str:
    """A hash of weights, runtimes and machine: where one of them changes, sessions are measured again."""
    versions = []
    for name in ("onnxruntime", "onnxruntime-gpu", "openvino"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"{name} none")
    parts = [manifest.weights.sha256, *versions, device, threads, _machine(device)]
    return sha256(json.dumps(parts).encode()).hexdigest()


def _machine(device: str) -> str:
    """The CPU and its features, or the GPUs and their driver, as the system names them."""
    if device == "cuda":
        driver = Path("/proc/driver/nvidia")
        files = [driver / "version", *sorted(driver.glob("gpus/*/information"))]
    else:
        files = [Path("/proc/cpuinfo")]
    found: dict[str, None] = {}
    for file in files:
        if file.is_file():
            lines = file.read_text(errors="replace").splitlines()
            found.update({line: None for line in lines if line.startswith(("model name", "flags", "NVRM", "Model"))})
    return "\n".join(found) or f"{platform.machine()} {platform.processor()}"


def recall(cache: Path | None) -> dict[str, Remembered]:
    """What is kept, by :func:`key_of`; empty where there is no file, or none that can be read."""
    if cache is None:
        return {}
    try:
        return _CACHE.validate_json((cache / CACHE_FILE).read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValidationError) as error:
        log.warning("sessions_not_remembered: %s", type(error).__name__)
        return {}


def remember(cache: Path | None, key: str, found: Remembered) -> None:
    """Keep what was measured. Processes that share the folder replace the file as a whole; the last to write wins."""
    if cache is None:
        return
    try:
        cache.mkdir(parents=True, exist_ok=True)
        content = _CACHE.dump_json({**recall(cache), key: found}, indent=1)
        with tempfile.TemporaryDirectory(dir=cache, prefix=".sessions-") as partial:
            file = Path(partial) / CACHE_FILE
            file.write_bytes(content)
            file.replace(cache / CACHE_FILE)
    except OSError as error:
        log.warning("sessions_not_remembered: %s", type(error).__name__)
