"""What a campaign has measured so far: kept on disk while it runs, and continued by the next run."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.report import Line, circumstances

KEEP_EVERY_S = 60.0
MAX_LISTED = 12


@dataclass
class Figures:
    """The figures of one part of the campaign. All of them can be continued.

    Parameters
    ----------
    counts
        How often what has happened.
    most
        The largest of each measured amount.
    times
        Of each measured time, how often it was so many milliseconds, rounded up.
    notes
        What has to be said beside the figures, such as why a part was not run.
    seconds
        How long the part has run.
    done
        Whether it has come to its end.
    """

    counts: Counter[str] = field(default_factory=Counter)
    most: dict[str, float] = field(default_factory=dict)
    times: dict[str, Counter[int]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    done: bool = False

    def at_most(self, name: str, value: float) -> None:
        """Remember the larger of ``value`` and what was seen before."""
        self.most[name] = max(self.most.get(name, 0.0), value)

    def took(self, name: str, seconds: float) -> None:
        """Count one measured time."""
        self.times.setdefault(name, Counter())[int(-(-seconds * 1000 // 1))] += 1

    def note(self, text: str) -> None:
        """Say ``text`` once."""
        if text not in self.notes:
            self.notes.append(text)

    def percentile_ms(self, name: str, percent: float) -> float | None:
        """The smallest number of milliseconds with at least ``percent`` % of the times at or under it."""
        times = self.times.get(name)
        if not times:
            return None
        left = percent / 100 * times.total()
        for ms in sorted(times):
            left -= times[ms]
            if left <= 0:
                return float(ms)
        return float(max(times))

    def times_line(self, name: str, title: str, at_most_ms: float | None = None) -> Line:
        """The largest of a measured time as a row of the table, with its percentiles as a note."""
        p50, p99, top = (self.percentile_ms(name, percent) for percent in (50, 99, 100))
        note = "" if p50 is None else f"p50 {p50:.0f}, p99 {p99:.0f}, n {self.times[name].total()}"
        return Line(title, top, at_most=at_most_ms, note=note)

    def none(self, title: str, name: str, note: str = "") -> Line:
        """A count that has to be nothing, as a row of the table."""
        return Line(title, float(self.counts[name]), at_most=0, note=note)

    def memory_line(self, title: str, at_most_mb: float | None = None) -> Line:
        """The largest memory as a row of the table."""
        return Line(title, self.most.get("pss_mb"), at_most=at_most_mb, note=f"RSS {self.most.get('rss_mb', 0):.0f}")

    def listed(self, prefix: str) -> str:
        """The counts whose name begins with ``prefix``, the largest first."""
        found = [
            f"{name.removeprefix(prefix)}: {n}" for name, n in self.counts.most_common() if name.startswith(prefix)
        ]
        return ", ".join(found[:MAX_LISTED])

    def total(self, prefix: str, *, but: str = "") -> int:
        """The sum of the counts whose name begins with ``prefix``, without those that begin with ``but``."""
        return sum(
            n for name, n in self.counts.items() if name.startswith(prefix) and not (but and name.startswith(but))
        )

    def as_json(self) -> dict[str, Any]:
        """As :meth:`of` reads it."""
        return {
            "counts": dict(self.counts),
            "most": self.most,
            "times": {name: dict(found) for name, found in self.times.items()},
            "notes": self.notes,
            "seconds": round(self.seconds, 1),
            "done": self.done,
        }

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Figures:
        """The figures that were kept as JSON."""
        times = {name: Counter({int(ms): n for ms, n in found.items()}) for name, found in kept["times"].items()}
        return cls(**{**kept, "counts": Counter(kept["counts"]), "times": times})


class Record:
    """The figures of all parts, in a file.

    Parameters
    ----------
    options
        With which options the campaign was begun.
    """

    def __init__(self, path: Path, options: dict[str, Any]) -> None:
        self.path = path
        self.parts: dict[str, Figures] = {}
        self.about: dict[str, Any] = {**circumstances(), "options": options}
        self._kept_at = time.monotonic()

    @classmethod
    def read(cls, path: Path) -> Record:
        """The record of an earlier run.

        Raises
        ------
        FileNotFoundError
            There is none.
        """
        kept = json.loads(path.read_text())
        record = cls(path, kept["options"])
        record.about = {name: value for name, value in kept.items() if name not in ("benchmark", "parts")}
        record.parts = {name: Figures.of(figures) for name, figures in kept["parts"].items()}
        return record

    def keep(self, *, now: bool = False) -> None:
        """Write the file, at most once a minute unless it has to be ``now``."""
        if now or time.monotonic() - self._kept_at > KEEP_EVERY_S:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            parts = {name: figures.as_json() for name, figures in self.parts.items()}
            draft = self.path.with_suffix(".new")
            draft.write_text(json.dumps({"benchmark": "chaos", **self.about, "parts": parts}) + "\n")
            draft.replace(self.path)  # a stop in between leaves the file as it was
            self._kept_at = time.monotonic()
