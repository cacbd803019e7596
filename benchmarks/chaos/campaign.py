"""The campaign: its options, its parts one after the other, and their table."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.chaos import disk, http, kills, nodes, outages, processes, readers, schema, slow
from benchmarks.chaos.plan import FULL_MINUTES, Plan
from benchmarks.chaos.record import Figures, Record
from benchmarks.report import Line, table

PARTS: dict[str, ModuleType] = {
    "kills": kills,
    "readers": readers,
    "http": http,
    "schema": schema,
    "slow": slow,
    "outages": outages,
    "disk": disk,
    "nodes": nodes,
    "processes": processes,
}
SHARES = {
    "kills": 0.23,
    "readers": 0.255,
    "http": 0.095,
    "schema": 0.025,
    "slow": 0.035,
    "outages": 0.035,
    "disk": 0.025,
    "nodes": 0.15,
    "processes": 0.15,
}
"""Of the time."""
SHORT_MINUTES = 1.5
SHORT_S = {
    "kills": 10,
    "readers": 6,
    "http": 6,
    "schema": 6,
    "slow": 6,
    "outages": 8,
    "disk": 6,
    "nodes": 15,
    "processes": 15,
}
"""Seconds of each part of a short campaign; starting the servers comes on top."""
LEAST_S = 5.0
COLUMNS = ("", "measured", "goal", "", "")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m benchmarks chaos", description="tries to take the service down")
    made.add_argument(
        "--minutes", type=float, default=FULL_MINUTES, help="of the whole campaign (default: %(default)g)"
    )
    made.add_argument("--short", action="store_true", help="a few minutes, to see whether it runs")
    made.add_argument("--seed", type=int, default=2026, help="the same seed gives the same inputs (%(default)s)")
    made.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    made.add_argument("--resume", action="store_true", help="continue the campaign that was stopped")
    made.add_argument("--table", action="store_true", help="only print what the last campaign measured, as Markdown")
    made.add_argument("--again", type=Path, metavar="FILE", help="only repeat one failing input")
    made.add_argument(
        "--out", type=Path, default=Path(__file__).parents[1] / "out", help="folder (default: %(default)s)"
    )
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the options ask for."""
    options = parser().parse_args(arguments)
    path = options.out / "chaos.json"
    if options.again:
        print(repeated(options.again))
    elif options.table:
        print(markdown(Record.read(path)))
    else:
        asked = {
            "minutes": SHORT_MINUTES if options.short else options.minutes,
            "short": options.short,
            "seed": options.seed,
        }
        record = Record.read(path) if options.resume and path.exists() else Record(path, asked)
        run(record, options.parts, options.out / "chaos")


def run(record: Record, parts: Sequence[str], found: Path) -> None:
    """Run the parts that have not come to their end, and print the table and, as the last line, JSON."""
    for name in parts:
        figures = record.parts.setdefault(name, Figures())
        if not figures.done:
            _run_part(record, name, figures, found)
        rows = [cells(line) for line in PARTS[name].lines(figures, plan_of(record, name, figures))]
        table(f"{name}, {figures.seconds:.0f} s", COLUMNS, rows)
        for note in figures.notes:
            print(f"  {note}")
    print(record.path.read_text().strip())


def _run_part(record: Record, name: str, figures: Figures, found: Path) -> None:
    before, began = figures.seconds, time.monotonic()

    def keep(*, now: bool = False) -> None:
        figures.seconds = before + time.monotonic() - began
        record.keep(now=now)

    plan = plan_of(record, name, figures, found)
    plan.keep = keep
    try:
        PARTS[name].run(plan, figures)
        figures.done = True
    finally:
        keep(now=True)


def plan_of(record: Record, name: str, figures: Figures, found: Path = Path()) -> Plan:
    """The extent of a part; one that was stopped has the rest of its time."""
    options = record.about["options"]
    seconds = SHORT_S[name] if options["short"] else options["minutes"] * 60 * SHARES[name]
    return Plan(options["seed"], max(LEAST_S, seconds - figures.seconds), options["minutes"], found)


def repeated(path: Path) -> str:
    """What becomes of a failing input that was saved."""
    about: dict[str, Any] = json.loads(path.read_text())
    content = path.with_suffix("").read_bytes()
    said: str = PARTS[about["part"]].again(about, content)
    return said


# ---------------------------------------------------------------- the table
def cells(line: Line) -> list[str]:
    """A row of the table; whole numbers, because all that is measured is counted or has many of its unit."""
    name, _, _, verdict, note = line.cells()
    goals = ((sign, goal) for sign, goal in (("≥", line.at_least), ("≤", line.at_most)) if goal is not None)
    goal = " ".join(f"{sign} {limit:,.0f}" for sign, limit in goals)
    return [str(name), "–" if line.value is None else f"{line.value:,.0f}", goal, str(verdict), str(note)]


def markdown(record: Record) -> str:
    """The table of a campaign, and its circumstances."""
    about, options = record.about, record.about["options"]
    command = "--short" if options["short"] else f"--minutes {options['minutes']:g}"
    if list(record.parts) != list(PARTS):
        command += f" --parts {' '.join(record.parts)}"
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    text = [
        f"`python -m benchmarks chaos {command} --seed {options['seed']}`, {about['date'][:10]}, {about['cpu']}, "
        f"{about['cores']} cores, load before {about['load_before']:g}. Python {about['python']}, {versions}.",
        "",
        "| part | | measured | goal | | |",
        "|---|---|---|---|---|---|",
    ]
    for name, figures in record.parts.items():
        part = f"{name}, {figures.seconds:.0f} s"
        for line in PARTS[name].lines(figures, plan_of(record, name, figures)):
            row = [part, *(cell.replace("|", "\\|") for cell in cells(line))]
            row[4] = f"**{row[4].lower()}**" if row[4] == "MISSED" else row[4]
            text.append("| " + " | ".join(row) + " |")
            part = ""
    notes = [f"{name}: {note}" for name, figures in record.parts.items() for note in figures.notes]
    return "\n".join([*text, *(["", *(f"- {note}" for note in notes)] if notes else [])])
