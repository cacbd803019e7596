"""How much of everything a campaign does, and where it leaves what it found."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.files import ROOT

FULL_MINUTES = 80.0
MAX_FINDS = 1000
"""Failing inputs that are written to disk."""


@dataclass
class Plan:
    """The extent of one part.

    Parameters
    ----------
    seed
        The same seed gives the same inputs.
    seconds
        After which the part ends, also where it has done less than was asked for.
    minutes
        Of the whole campaign: amounts are those of a campaign of :data:`FULL_MINUTES`, divided accordingly.
    found
        Folder of failing inputs.
    keep
        Writes the figures to disk now and then.
    """

    seed: int
    seconds: float
    minutes: float
    found: Path
    keep: Callable[[], None] = lambda: None
    _began: float = field(default_factory=time.monotonic)

    def amount(self, in_full: int) -> int:
        """An amount of the full campaign, in proportion."""
        return max(1, round(in_full * min(1.0, self.minutes / FULL_MINUTES)))

    def begin(self) -> None:
        """Count the time from now on: what was needed to begin is not part of it."""
        self._began = time.monotonic()

    @property
    def left_s(self) -> float:
        return self.seconds - (time.monotonic() - self._began)

    @property
    def errors(self) -> Path:
        """The file for what servers log as errors."""
        return self.found / "errors.log"

    def save(self, name: str, content: bytes, about: dict[str, Any]) -> None:
        """Write a failing input, with the command that repeats it."""
        self.found.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256(content).hexdigest()[:12]
        path = self.found / f"{name}-{digest}"
        if len(list(self.found.glob("*.json"))) < MAX_FINDS:
            path.write_bytes(content)
            shown = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
            command = f".venv/bin/python -m benchmarks chaos --again {shown}.json"
            path.with_name(path.name + ".json").write_text(json.dumps({"command": command, **about}, indent=1) + "\n")
