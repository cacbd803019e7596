"""``python -m benchmarks capacity``: from measured core-milliseconds to the machines of a national programme.

Visits are made at clinics over a week of working days, wait there while the link is down, are uploaded one after the
other, and are served in the order of arrival by all cores of one data centre, or of each province. Every visit of the
week is simulated. ``docs/why/capacity.md`` has the assumptions and the results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.programme import (
    HOUR_S,
    POPULATION,
    PROFILE,
    WEEKDAYS,
    Programme,
    Times,
    Visits,
    departures,
    queue_length,
    week,
)
from benchmarks.report import COLOURS, Cell, Report, table

OUT = Path(__file__).parent / "out"


@dataclass(frozen=True)
class LayoutResult:
    """Result of a layout in the week. Waits are from arrival at the service to the start of the work, in seconds."""

    layout: str
    machines: int
    visits: int
    utilisation_working_hours: float
    utilisation_busiest_hour: float
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    wait_max_s: float
    longest_queue: int
    held_by_outage: int = 0
    drained_after_min: float | None = None


def served(visits: Visits, servers: NDArray[np.int64]) -> Times:
    """When each visit is done, in seconds; ``servers`` are the cores of each province, or one number for the centre."""
    if len(servers) == 1:
        return departures(visits.posted_s, visits.work_s, int(servers[0]))
    done = np.empty(len(visits))
    for province, cores in enumerate(servers):
        mine = visits.province == province
        done[mine] = departures(visits.posted_s[mine], visits.work_s[mine], int(cores))
    return done


def machines_needed(programme: Programme, visits: Visits) -> int:
    """The fewest machines with which 99 of 100 visits wait at most ``wait_s``, found by bisection."""
    low = max(1, int(visits.work_s.sum() / (visits.posted_s[-1] - visits.posted_s[0]) / programme.cores))
    high = low
    while not enough(programme, visits, high):
        low, high = high + 1, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(programme, visits, middle) else (middle + 1, high)
    return high


def enough(programme: Programme, visits: Visits, machines: int) -> bool:
    """Whether 99 of 100 visits wait at most ``wait_s``."""
    starts = departures(visits.posted_s, visits.work_s, machines * programme.cores) - visits.work_s
    return bool(np.percentile(starts - visits.posted_s, 99) <= programme.wait_s)


def simulate_layout(
    layout: str,
    programme: Programme,
    visits: Visits,
    machines: NDArray[np.int64],
    outage: tuple[float, float] | None = None,
) -> tuple[LayoutResult, Times]:
    """Simulate a layout; returns its result, and when the work of each visit starts.

    ``machines`` are those of each province, or one number for the centre.
    """
    starts = served(visits, machines * programme.cores) - visits.work_s
    waits = starts - visits.posted_s
    cores = int(machines.sum()) * programme.cores
    open_s = programme.closes_h * HOUR_S - PROFILE[0][0] * HOUR_S
    minutes = np.arange(0, starts.max() + HOUR_S, 60.0)
    hourly = np.bincount((starts // HOUR_S).astype(int), weights=visits.work_s) / HOUR_S / cores
    p50, p95, p99 = np.percentile(waits, [50, 95, 99])
    held = np.zeros(len(visits), bool)
    if outage is not None:
        held = (visits.made_s >= outage[0]) & (visits.made_s < outage[1]) & (visits.posted_s >= outage[1])
    result = LayoutResult(
        layout=layout,
        machines=int(machines.sum()),
        visits=len(visits),
        utilisation_working_hours=float(visits.work_s.sum() / (len(WEEKDAYS) * open_s) / cores),
        utilisation_busiest_hour=float(hourly.max()),
        wait_p50_s=float(p50),
        wait_p95_s=float(p95),
        wait_p99_s=float(p99),
        wait_max_s=float(waits.max()),
        longest_queue=int(queue_length(visits.posted_s, starts, minutes).max()),
        held_by_outage=int(held.sum()),
        drained_after_min=drained_after_min(programme, waits, starts, outage[1]) if outage else None,
    )
    return result, starts


def drained_after_min(programme: Programme, waits: Times, starts: Times, end_s: float) -> float:
    """Minutes from the end of the outage to the start of the last visit that waited longer than ``wait_s``, else 0."""
    late = starts[(waits > programme.wait_s) & (starts > end_s)]
    return float(late.max() - end_s) / 60 if len(late) else 0.0


def steps(names: Sequence[str]) -> Iterator[str]:
    """The names, with a progress bar if tqdm is installed."""
    try:
        from tqdm import tqdm  # noqa: PLC0415
    except ImportError:
        yield from names
        return
    bar = tqdm(names)
    for name in bar:
        bar.set_description(name)
        yield name


def simulate(programme: Programme) -> tuple[list[LayoutResult], dict[str, tuple[Visits, Times]]]:
    """Both layouts, without and with an outage on Monday morning; also the visits of each, for the plot."""
    begin = 9 * HOUR_S
    outage = (begin, begin + programme.outage_h * HOUR_S)
    results, simulated = [], {}
    usual, cut = week(programme), None
    centre = provinces = np.zeros(1, np.int64)
    for step in steps(["centre", "provinces", "outage", "centre, outage", "centre + 1, outage", "provinces, outage"]):
        if step == "outage":
            cut = week(programme, outage)
            continue
        if step == "centre":
            centre = np.array([machines_needed(programme, usual)])
        if step == "provinces":
            parts = [usual.where(usual.province == p) for p in range(len(POPULATION))]
            provinces = np.array([machines_needed(programme, part) for part in parts])
        machines = provinces if step.startswith("provinces") else centre + step.startswith("centre + 1")
        visits = usual if cut is None else cut
        result, starts = simulate_layout(step, programme, visits, machines, outage if cut is not None else None)
        results.append(result)
        simulated[step] = (visits, starts)
    return results, simulated


def core_ms_of(path: Path, kinds: Sequence[str]) -> float:
    """Core-milliseconds of a visit of these kinds of file, from the JSON of the ``http`` benchmark.

    Raises
    ------
    SystemExit
        The file does not exist, or has no figure for one of the kinds.
    """
    try:
        files = json.loads(path.read_text())["files"]
        return float(sum(files[kind]["core_ms_per_visit"] for kind in kinds))
    except (OSError, ValueError, KeyError) as error:
        raise SystemExit(
            f"{path} has no core-milliseconds of {' and '.join(kinds)} ({type(error).__name__}): "
            "run `python -m benchmarks http` first, or give --core-ms"
        ) from None


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the machines that a programme needs; write JSON and plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks capacity", description=__doc__.split("\n")[0])
    for name, default in asdict(Programme()).items():
        if name != "core_ms":
            parser.add_argument(
                f"--{name.replace('_', '-')}", type=type(default), default=default, help="(%(default)s)"
            )
    parser.add_argument("--core-ms", type=float, help="core-milliseconds of a visit, instead of the measured ones")
    parser.add_argument("--http", type=Path, default=OUT / "http.json", help="JSON of the http benchmark (%(default)s)")
    parser.add_argument("--files", nargs="+", default=["check-up"], help="files of a visit (%(default)s)")
    parser.add_argument("--machine-cost", type=float, help="of one machine for a year, in any currency")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    core_ms = options.core_ms if options.core_ms is not None else core_ms_of(options.http, options.files)
    given = {name: getattr(options, name) for name in asdict(Programme())}
    programme = replace(Programme(), **given | {"core_ms": core_ms})
    layouts, simulated = simulate(programme)
    print_layouts(programme, layouts)
    report = Report("capacity", options.out)
    report.plot(lambda axes: draw(axes, programme, simulated), title="Visits that wait for a core, busiest Monday")
    yearly = programme.people * programme.visits_per_person
    costs = None
    if options.machine_cost:
        costs = {layout.layout: layout.machines * options.machine_cost / yearly for layout in layouts}
        for name in ("centre", "provinces"):
            print(f"{name}: {costs[name]:.6f} a visit at {options.machine_cost:g} a machine and year")
    report.end(
        {
            "programme": asdict(programme),
            "core_ms_from": "--core-ms"
            if options.core_ms is not None
            else {"http": str(options.http), "files": options.files},
            "visits_per_year": yearly,
            "machine_years_per_million_visits": {layout.layout: layout.machines / yearly * 1e6 for layout in layouts},
            "cost_per_visit": costs,
            "layouts": [asdict(layout) for layout in layouts],
        }
    )


def print_layouts(programme: Programme, layouts: Sequence[LayoutResult]) -> None:
    rows: list[list[Cell]] = [
        [
            layout.layout, layout.machines,
            100 * layout.utilisation_working_hours, 100 * layout.utilisation_busiest_hour,
            layout.wait_p50_s, layout.wait_p95_s, layout.wait_p99_s, layout.wait_max_s,
            layout.longest_queue, layout.held_by_outage, layout.drained_after_min,
        ]
        for layout in layouts
    ]  # fmt: skip
    columns = ["layout", "machines", "used %", "used % at most", "wait p50 s", "p95", "p99", "max", "longest queue"]
    table(
        f"{programme.visits_per_day:,.0f} visits on a mean working day, {programme.core_ms:.1f} core-ms each, "
        f"{programme.cores} cores a machine; the busiest week, {layouts[0].visits:,} visits",
        [*columns, "held", "drained after min"],
        rows,
    )


def draw(axes: Any, programme: Programme, simulated: dict[str, tuple[Visits, Times]]) -> None:
    """Queue over Monday, minute by minute."""
    minutes = np.arange(7 * HOUR_S, 19 * HOUR_S, 60.0)
    for colour, (name, (visits, starts)) in zip(COLOURS, simulated.items(), strict=False):
        axes.plot(minutes / HOUR_S, 1 + queue_length(visits.posted_s, starts, minutes), color=colour, label=name, lw=1)
    axes.axvspan(9, 9 + programme.outage_h, color="#eeeeee", zorder=0)
    axes.set(yscale="log", xlabel="hour of the day (grey: outage)", ylabel="visits waiting, plus one")
    axes.legend(fontsize=8, frameon=False)
