"""What the sessions of a bundle cost here, measured by a process of its own at the lowest priority, beside the service.

``python -m inference.bundles.measuring FOLDER DEVICE THREADS`` prints it as JSON.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

from pydantic import TypeAdapter, ValidationError

from inference.bundles.loading import Bundle, read_bundle
from inference.runtime.batcher import BatcherCounts
from inference.runtime.choice import resolve_device, setups
from inference.runtime.costs import measure
from inference.runtime.remembered import Measured, Remembered, key_of, recall, remember
from inference.runtime.session import Machine

MAX_S = 600.0
"""A measurement that takes longer is given up: on a machine without any idle time it may never end."""
CHECK_S = 3600.0
"""How often it is asked whether a bundle is to be measured again, also after a measurement that failed."""
FAR_ABOVE = 5.0
"""A row that takes so many times what was measured, on average since the last check, is not explained by a busy machine
(waiting for a core, a run takes two or three times as long): the bundle is measured again."""
MIN_ROWS = 1000
NICE = 19
ENVIRONMENT = ("PATH", "LD_LIBRARY_PATH", "LANG", "CUDA_VISIBLE_DEVICES")

_MEASURED = TypeAdapter(tuple[Measured, ...])

log = logging.getLogger(__name__)


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    bundle: Bundle
    began: float


@dataclass
class _Checked:
    """When a bundle was looked at last, and what its batcher had done then."""

    at: float
    rows: int
    run_seconds: float


class Measuring:
    """Measures bundle after bundle, and keeps what was found in the machine's folder.

    Parameters
    ----------
    machine
        Nothing is measured where its session is fixed, or where there is no folder to keep it in.
    """

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._running: _Running | None = None
        self._checked: dict[str, _Checked] = {}

    @property
    def is_busy(self) -> bool:
        return self._running is not None

    def wants(self, bundle: Bundle, counts: BatcherCounts) -> bool:
        """Whether nothing is known of the bundle's candidates, nothing new enough, or nothing that is still true."""
        name, now = bundle.manifest.weights.sha256, monotonic()
        before = self._checked.get(name, _Checked(-CHECK_S, 0, 0.0))
        if self._machine.session != "auto" or self._machine.cache is None or now < before.at + CHECK_S:
            return False
        self._checked[name] = _Checked(now, counts.rows, counts.run_seconds)
        device = resolve_device(self._machine.device)
        if not setups(bundle.manifest, device, self._machine.threads):
            return False
        known = recall(self._machine.cache).get(key_of(bundle.manifest, device, self._machine.threads))
        if known is None or known.is_old(datetime.now(UTC)):
            return True
        rows, seconds = counts.rows - before.rows, counts.run_seconds - before.run_seconds
        return rows >= MIN_ROWS and is_far_above(bundle, 1000 * seconds / rows)

    def start(self, bundle: Bundle) -> None:
        """Begin to measure a bundle; :meth:`finished` is asked until it has ended."""
        device = resolve_device(self._machine.device)
        root = str(Path(__file__).resolve().parents[2])
        process = subprocess.Popen(
            command_for(bundle.folder, device, self._machine.threads),
            env={**{name: os.environ[name] for name in ENVIRONMENT if name in os.environ}, "PYTHONPATH": root},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._running = _Running(process, bundle, monotonic())

    def finished(self) -> Bundle | None:
        """The bundle whose costs are known now; ``None`` while it is not so far, or where it failed."""
        running = self._running
        if running is None or (running.process.poll() is None and monotonic() < running.began + MAX_S):
            return None
        self._running = None
        running.process.kill()
        printed, _ = running.process.communicate()
        manifest, machine = running.bundle.manifest, self._machine
        try:
            measured = _MEASURED.validate_json(printed)
        except ValidationError:
            log.warning("session_not_measured: %s", manifest.name)
            return None
        key = key_of(manifest, resolve_device(machine.device), machine.threads)
        remember(machine.cache, key, Remembered(measured=measured, measured_at=datetime.now(UTC)))
        return running.bundle

    def close(self) -> None:
        if self._running is not None:
            self._running.process.kill()
            self._running.process.communicate()
            self._running = None


def command_for(folder: Path, device: str, threads: int) -> list[str]:
    """What measures the bundle in ``folder``."""
    return [sys.executable, "-P", "-m", "inference.bundles.measuring", str(folder), device, str(threads)]


def is_far_above(bundle: Bundle, ms_per_row: float) -> bool:
    """Whether a run takes much longer than the session that computes was measured to cost."""
    setup = str(bundle.session.setup)
    costs = [each.core_ms for each in bundle.chosen.measured if each.setup == setup and each.core_ms is not None]
    return any(ms_per_row > FAR_ABOVE * cost for cost in costs)


def main(folder: str, device: str, threads: str) -> None:
    os.nice(NICE)
    bundle = read_bundle(Path(folder))
    candidates = setups(bundle.manifest, device, int(threads))
    found = measure(bundle.model, bundle.manifest, bundle.golden, candidates, device)
    sys.stdout.buffer.write(_MEASURED.dump_json(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
