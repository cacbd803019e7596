"""Which session was chosen on this machine, kept in a file: the next start opens it without measuring again."""

from __future__ import annotations

import json
import logging
import platform
import tempfile
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from data_specs.bundle import BundleManifest

CACHE_FILE = "sessions.json"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measured:
    """One candidate: its rate, or why it was out."""

    setup: str
    rows_per_s: float | None = None
    out: str | None = None


class Remembered(BaseModel):
    model_config = ConfigDict(extra="forbid")
    setup: str
    measured: tuple[Measured, ...]


_CACHE = TypeAdapter(dict[str, Remembered])


def key_of(manifest: BundleManifest, device: str, threads: int) -> str:
    """Of the weights, the runtimes and the machine: where one changes, it is measured again."""
    versions = []
    for name in ("onnxruntime", "onnxruntime-gpu", "openvino"):
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"{name} none")
    what = [manifest.weights.sha256, *versions, device, threads, _machine(device)]
    return sha256(json.dumps(what).encode()).hexdigest()


def _machine(device: str) -> str:
    """CPU with what it can do, or GPUs with their driver."""
    if device == "cuda":
        driver = Path("/proc/driver/nvidia")
        files = [driver / "version", *sorted(driver.glob("gpus/*/information"))]
    else:
        files = [Path("/proc/cpuinfo")]
    said: dict[str, None] = {}
    for file in files:
        if file.is_file():
            lines = file.read_text(errors="replace").splitlines()
            said.update({line: None for line in lines if line.startswith(("model name", "flags", "NVRM", "Model"))})
    return "\n".join(said) or f"{platform.machine()} {platform.processor()}"


def recall(cache: Path | None) -> dict[str, Remembered]:
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
    """Keep a choice; processes that share the folder replace the file as a whole, and the last one stays."""
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
