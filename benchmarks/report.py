"""The report of a measurement: tables, a plot, and JSON as the last line."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.figures import percentiles

Cell = str | int | float | None
DISTRIBUTIONS = ("onnxruntime-gpu", "onnxruntime", "openvino", "torch", "numpy", "imagecodecs", "uvicorn")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442", "#999999", "#000000")
"""Colours that colour-blind readers can distinguish (Okabe and Ito 2008)."""


@dataclass(frozen=True)
class Report:
    """The output of one command.

    Parameters
    ----------
    name
        The command; ``NAME.json`` and ``NAME.png`` are written under ``out``.
    """

    name: str
    out: Path

    def end(self, figures: Mapping[str, Any]) -> None:
        """Print the JSON as the last line, and write it to ``out``."""
        self.out.mkdir(parents=True, exist_ok=True)
        line = json.dumps({"benchmark": self.name, **circumstances(), **figures})
        (self.out / f"{self.name}.json").write_text(line + "\n")
        print(line, flush=True)

    def plot(self, draw: Callable[[Any], None], *, title: str, size: tuple[float, float] = (7.0, 4.2)) -> None:
        """Write ``NAME.png``, whose axes are filled by ``draw``; prints a note if matplotlib is not installed."""
        try:
            from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
            from matplotlib.figure import Figure  # noqa: PLC0415
        except ImportError:
            print("no plot: matplotlib is not installed")
            return
        figure = Figure(figsize=size, dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        draw(axes)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / f"{self.name}.png"
        figure.savefig(path, metadata={"Software": None})
        print(f"plot: {path}")


@dataclass(frozen=True)
class Line:
    """One figure; ``value`` is ``None`` if it was not measured, and ``note`` says why."""

    name: str
    value: float | None
    at_least: float | None = None
    at_most: float | None = None
    note: str = ""

    @property
    def reached(self) -> bool | None:
        if self.value is None or (self.at_least is None and self.at_most is None):
            return None
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)

    def cells(self) -> list[Cell]:
        goals = ((sign, goal) for sign, goal in (("≥", self.at_least), ("≤", self.at_most)) if goal is not None)
        goal = " ".join(f"{sign} {goal:g}" for sign, goal in goals)
        verdict = {True: "reached", False: "MISSED", None: "not measured" if self.value is None else ""}[self.reached]
        return [self.name, self.value, goal, verdict, self.note]


def circumstances() -> dict[str, Any]:
    """Date, machine and versions, which a figure depends on."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": cpu_name(),
        "cores": cores(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {name: found for name in DISTRIBUTIONS if (found := _version(name))},
    }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print a table; the first column is left-aligned, the others right-aligned."""
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = [max(len(column), *(len(row[i]) for row in texts), 0) for i, column in enumerate(columns)]
    print(f"\n{title}")
    for row in (list(columns), *texts):
        first, *rest = (f"{cell:<{w}}" if i == 0 else f"{cell:>{w}}" for i, (cell, w) in enumerate(zip(row, widths)))  # noqa: B905
        print("  ".join([first, *rest]).rstrip())


def _text(cell: Cell) -> str:
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.0f}" if abs(cell) >= 100 else f"{cell:.1f}" if abs(cell) >= 10 else f"{cell:.2f}"
    return str(cell)


def latency_cells(seconds: Sequence[float]) -> list[Cell]:
    """p50, p95 and p99 in milliseconds."""
    return [1000 * value for value in percentiles(seconds, (50, 95, 99))]
