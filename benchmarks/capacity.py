"""``python -m benchmarks capacity``: from measured core-milliseconds to the machines of a national programme.

Visits arrive at clinics over a week of working days, wait there while the link is down, go up it one after the other,
and are served in the order of their arrival by as many cores as there are: in one data centre, or in each province.
Every visit of the week is simulated. ``docs/capacity.md`` says what is assumed and what came out.
"""

from __future__ import annotations

import argparse
import heapq
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import COLOURS, Cell, Report, table

Times = NDArray[np.float64]
OUT = Path(__file__).parent / "out"
HOUR_S, DAY_S = 3600.0, 86400.0

POPULATION = {
    "TP. Hồ Chí Minh": 14_002_598, "Hà Nội": 8_807_523, "An Giang": 4_952_238, "Hải Phòng": 4_664_124,
    "Đồng Nai": 4_491_408, "Ninh Bình": 4_412_264, "Đồng Tháp": 4_370_046, "Thanh Hóa": 4_324_783,
    "Vĩnh Long": 4_257_581, "Cần Thơ": 4_199_824, "Phú Thọ": 4_022_638, "Lâm Đồng": 3_872_999,
    "Nghệ An": 3_831_694, "Bắc Ninh": 3_619_433, "Gia Lai": 3_583_693, "Hưng Yên": 3_567_943,
    "Đắk Lắk": 3_346_853, "Tây Ninh": 3_254_170, "Đà Nẵng": 3_065_628, "Cà Mau": 2_606_672,
    "Khánh Hòa": 2_243_554, "Quảng Ngãi": 2_161_755, "Quảng Trị": 1_870_845, "Tuyên Quang": 1_865_270,
    "Thái Nguyên": 1_799_489, "Lào Cai": 1_778_785, "Hà Tĩnh": 1_622_901, "Quảng Ninh": 1_497_447,
    "Huế": 1_432_986, "Sơn La": 1_404_587, "Lạng Sơn": 881_384, "Điện Biên": 673_091,
    "Cao Bằng": 573_119, "Lai Châu": 512_601,
}  # fmt: skip
"""The 34 provinces of 2025, used for their ratios only.

References
----------
National Assembly of Viet Nam, Resolution 202/2025/QH15 of 12 June 2025, for the 23 provinces it forms; for the eleven
that it leaves as they are, figures of public listings of the 34, not checked against an official table.
"""

PROFILE = ((7.5, 0.20), (8.5, 0.24), (9.5, 0.20), (10.5, 0.10), (11.5, 0.02), (13.0, 0.10), (14.0, 0.09), (15.0, 0.05))
"""Begin of a span, in hours, and its share of the day's visits; the last one ends with the working day. Assumed: most
come in the morning, and few at noon."""
WEEKDAYS = (1.30, 1.05, 0.95, 0.90, 0.80)
"""Monday to Friday, as multiples of the mean working day. Assumed."""


@dataclass(frozen=True)
class Programme:
    """What is assumed; every value is an option of the command.

    Parameters
    ----------
    season
        The busiest week, as a multiple of the mean week.
    closes_h
        End of the working day.
    clinics
        Sites that post, spread over the provinces by population. Viet Nam has had 3,321 communes since July 2025.
    visit_mb, link_mbit_s
        What one visit sends, and how fast a clinic's link is; together the time a visit takes to go up.
    link_down_share, link_repair_h
        Share of time that a link is down, and the mean length of a failure (both exponential).
    core_ms, core_cv
        Core time of a visit and its coefficient of variation (gamma; 0: every visit the same).
    cores
        Of one machine, of the kind that was measured.
    wait_s
        What 99 of 100 visits may wait at most between their arrival at the service and the start of their work.
    """

    people: float = 100e6
    visits_per_person: float = 1.0
    days: int = 250
    season: float = 1.25
    closes_h: float = 16.5
    clinics: int = 3321
    visit_mb: float = 8.5
    link_mbit_s: float = 20.0
    link_down_share: float = 0.02
    link_repair_h: float = 3.0
    core_ms: float = 100.0
    core_cv: float = 0.5
    cores: int = 2
    wait_s: float = 60.0
    outage_h: float = 1.0
    seed: int = 2026

    @property
    def visits_per_day(self) -> float:
        """Of a mean working day."""
        return self.people * self.visits_per_person / self.days

    @property
    def upload_s(self) -> float:
        return self.visit_mb * 8 / self.link_mbit_s


@dataclass(frozen=True)
class Visits:
    """One week's visits, sorted by ``posted_s``; all times in seconds from Monday midnight.

    Parameters
    ----------
    made_s
        When the person was there.
    posted_s
        When the visit had come up the link.
    province
        Index into :data:`POPULATION`.
    work_s
        Core time it needs.
    """

    made_s: Times
    posted_s: Times
    province: NDArray[np.int64]
    work_s: Times

    def __len__(self) -> int:
        return len(self.made_s)

    def where(self, chosen: NDArray[np.bool_]) -> Visits:
        return Visits(self.made_s[chosen], self.posted_s[chosen], self.province[chosen], self.work_s[chosen])


def lindley(arrivals_s: Times, work_s: Times) -> Times:
    """Departures from one server, first come first served.

    ``D(k) = max(A(k), D(k-1)) + S(k)``, written without a loop as a running maximum (Lindley 1952).
    """
    worked = np.cumsum(work_s)
    return np.asarray(worked + np.maximum.accumulate(arrivals_s - (worked - work_s)), np.float64)


def departures(arrivals_s: Times, work_s: Times, servers: int) -> Times:
    """Departures from ``servers`` equal servers with one queue, first come first served.

    Parameters
    ----------
    arrivals_s
        Sorted.
    """
    if servers == 1:
        return lindley(arrivals_s, work_s)
    free = [-np.inf] * servers
    left = np.empty(len(arrivals_s))
    for i, (arrived, work) in enumerate(zip(arrivals_s.tolist(), work_s.tolist(), strict=True)):
        done = max(arrived, free[0]) + work
        heapq.heapreplace(free, done)
        left[i] = done
    return left


def queue_length(arrivals_s: Times, starts_s: Times, at_s: Times) -> NDArray[np.int64]:
    """How many have arrived and not begun at each of ``at_s``."""
    return np.searchsorted(np.sort(arrivals_s), at_s, "right") - np.searchsorted(np.sort(starts_s), at_s, "right")


def clinics_of(programme: Programme) -> NDArray[np.int64]:
    """The province of each clinic: as many clinics as people, and one at least."""
    people = np.array(list(POPULATION.values()), float)
    wanted = np.maximum(1.0, programme.clinics * people / people.sum())
    upto = np.round(np.cumsum(wanted)).astype(int)
    return np.repeat(np.arange(len(people)), np.diff(upto, prepend=0))


def week(programme: Programme, outage: tuple[float, float] | None = None, only: Sequence[int] = ()) -> Visits:
    """The busiest week.

    Parameters
    ----------
    outage
        Begin and end, seconds from Monday midnight, between which nothing reaches the service.
    only
        Provinces whose links the outage takes; empty: all of them.
    """
    chance = np.random.default_rng(programme.seed)
    provinces = clinics_of(programme)
    people = np.array(list(POPULATION.values()), float)
    clinics_in = np.bincount(provinces, minlength=len(people))
    weights = (people / people.sum() / clinics_in)[provinces]
    edges_h = np.array([begin for begin, _ in PROFILE] + [programme.closes_h])
    shares = np.array([share for _, share in PROFILE])
    made, clinic = [], []
    for day, factor in enumerate(WEEKDAYS):
        mean = programme.visits_per_day * programme.season * factor / float(np.mean(WEEKDAYS))
        n = int(chance.poisson(mean))
        span = chance.choice(len(shares), n, p=shares / shares.sum())
        hours = edges_h[span] + chance.random(n) * np.diff(edges_h)[span]
        made.append(day * DAY_S + hours * HOUR_S)
        clinic.append(chance.choice(len(provinces), n, p=weights))
    made_s, clinics = np.concatenate(made), np.concatenate(clinic)
    order = np.lexsort((made_s, clinics))
    made_s, clinics = made_s[order], clinics[order]
    posted_s = np.empty_like(made_s)
    ends = np.cumsum(np.bincount(clinics, minlength=len(provinces)))
    for number, (begin, end) in enumerate(zip(np.concatenate([[0], ends[:-1]]), ends, strict=True)):
        down = failures(programme, chance)
        if outage is not None and (not only or provinces[number] in only):
            down = merged([*down, outage])
        posted_s[begin:end] = uploaded(made_s[begin:end], programme.upload_s, down)
    cv = programme.core_cv
    work_s = (
        chance.gamma(1 / cv**2, programme.core_ms / 1000 * cv**2, len(made_s))
        if cv
        else np.full(len(made_s), programme.core_ms / 1000)
    )
    order = np.argsort(posted_s, kind="stable")
    return Visits(made_s[order], posted_s[order], provinces[clinics][order], work_s[order])


def failures(programme: Programme, chance: np.random.Generator) -> list[tuple[float, float]]:
    """When one link is down in the week, ``(begin, end)`` in seconds."""
    if not programme.link_down_share:
        return []
    repair_s = programme.link_repair_h * HOUR_S
    between_s = repair_s * (1 - programme.link_down_share) / programme.link_down_share
    down, at = [], float(chance.exponential(between_s))
    while at < 7 * DAY_S:
        lasts = float(chance.exponential(repair_s))
        down.append((at, at + lasts))
        at += lasts + float(chance.exponential(between_s))
    return down


def merged(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The same spans, sorted and without overlaps."""
    out: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if out and begin <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], end))
        else:
            out.append((begin, end))
    return out


def uploaded(made_s: Times, upload_s: float, down: Sequence[tuple[float, float]]) -> Times:
    """When each of a clinic's visits has come up a link that is down in the spans ``down``.

    On a clock that runs only while the link is up this is one server (:func:`lindley`); the clock is turned back after.
    """
    if not len(made_s):
        return made_s
    clock, uptime = [0.0], [0.0]
    for begin, end in down:
        uptime += [uptime[-1] + begin - clock[-1]] * 2
        clock += [begin, end]
    # Past the last failure the link is up for good.
    clock.append(clock[-1] + 1e9)
    uptime.append(uptime[-1] + 1e9)
    done = lindley(np.interp(made_s, clock, uptime), np.full(len(made_s), upload_s))
    after = np.searchsorted(uptime, done, "left")
    return np.asarray(np.array(clock)[after] - (np.array(uptime)[after] - done), np.float64)


@dataclass(frozen=True)
class Told:
    """What a layout did in the week. Waits are between arrival at the service and the start of the work, seconds."""

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
    """When each visit is done; ``servers`` are the cores of each province, or a single number for the centre."""
    if len(servers) == 1:
        return departures(visits.posted_s, visits.work_s, int(servers[0]))
    done = np.empty(len(visits))
    for province, cores in enumerate(servers):
        mine = visits.province == province
        done[mine] = departures(visits.posted_s[mine], visits.work_s[mine], int(cores))
    return done


def machines_needed(programme: Programme, visits: Visits) -> int:
    """The fewest machines at which 99 of 100 visits wait no longer than ``wait_s``, found by halving."""
    low = max(1, int(visits.work_s.sum() / (visits.posted_s[-1] - visits.posted_s[0]) / programme.cores))
    high = low
    while not enough(programme, visits, high):
        low, high = high + 1, 2 * high
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(programme, visits, middle) else (middle + 1, high)
    return high


def enough(programme: Programme, visits: Visits, machines: int) -> bool:
    starts = departures(visits.posted_s, visits.work_s, machines * programme.cores) - visits.work_s
    return bool(np.percentile(starts - visits.posted_s, 99) <= programme.wait_s)


def tell(
    layout: str,
    programme: Programme,
    visits: Visits,
    machines: NDArray[np.int64],
    outage: tuple[float, float] | None = None,
) -> tuple[Told, Times]:
    """Simulate a layout; ``machines`` as ``servers`` in :func:`served`. What it did, and when each visit's work began.

    ``drained_after_min`` counts from the outage's end until nobody waits for longer than ``wait_s`` any more.
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
    told = Told(
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
    return told, starts


def drained_after_min(programme: Programme, waits: Times, starts: Times, end_s: float) -> float:
    """Minutes from ``end_s`` until the last visit begins that has waited for longer than ``wait_s``; 0: none has."""
    late = starts[(waits > programme.wait_s) & (starts > end_s)]
    return float(late.max() - end_s) / 60 if len(late) else 0.0


def steps(names: Sequence[str]) -> Iterator[str]:
    """The names, under a progress bar where tqdm is installed (on standard error)."""
    try:
        from tqdm import tqdm  # noqa: PLC0415
    except ImportError:
        yield from names
        return
    bar = tqdm(names)
    for name in bar:
        bar.set_description(name)
        yield name


def simulate(programme: Programme) -> tuple[list[Told], dict[str, tuple[Visits, Times]]]:
    """Both layouts, as they are and with an outage on Monday morning; and the visits behind the plot."""
    begin = 9 * HOUR_S
    outage = (begin, begin + programme.outage_h * HOUR_S)
    told, behind = [], {}
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
        one, starts = tell(step, programme, visits, machines, outage if cut is not None else None)
        told.append(one)
        behind[step] = (visits, starts)
    return told, behind


def core_ms_of(path: Path, kinds: Sequence[str]) -> float:
    """Core-milliseconds of a visit of these kinds of file, from the JSON of the ``http`` benchmark.

    Raises
    ------
    SystemExit
        There is no such file, or it lacks one of the kinds.
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
    """Print what a programme needs; write its JSON and its plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks capacity", description=__doc__.split("\n")[0])
    for name, default in asdict(Programme()).items():
        if name != "core_ms":
            parser.add_argument(
                f"--{name.replace('_', '-')}", type=type(default), default=default, help="(%(default)s)"
            )
    parser.add_argument("--core-ms", type=float, help="core-milliseconds of a visit, in place of the measured ones")
    parser.add_argument("--http", type=Path, default=OUT / "http.json", help="JSON of the http benchmark (%(default)s)")
    parser.add_argument("--files", nargs="+", default=["dicom", "wfdb"], help="what a visit brings (%(default)s)")
    parser.add_argument("--machine-cost", type=float, help="of one machine for a year, in any currency")
    parser.add_argument("--out", type=Path, default=OUT)
    told = parser.parse_args(arguments)
    core_ms = told.core_ms if told.core_ms is not None else core_ms_of(told.http, told.files)
    given = {name: getattr(told, name) for name in asdict(Programme())}
    programme = replace(Programme(), **given | {"core_ms": core_ms})
    layouts, behind = simulate(programme)
    print_layouts(programme, layouts)
    report = Report("capacity", told.out)
    report.plot(lambda axes: draw(axes, programme, behind), title="Visits that wait for a core, busiest Monday")
    yearly = programme.people * programme.visits_per_person
    costs = {one.layout: one.machines * told.machine_cost / yearly for one in layouts} if told.machine_cost else None
    if costs:
        for layout in ("centre", "provinces"):
            print(f"{layout}: {costs[layout]:.6f} a visit at {told.machine_cost:g} a machine and year")
    report.end(
        {
            "programme": asdict(programme),
            "core_ms_from": "--core-ms" if told.core_ms is not None else {"http": str(told.http), "files": told.files},
            "visits_per_year": yearly,
            "machine_years_per_million_visits": {one.layout: one.machines / yearly * 1e6 for one in layouts},
            "cost_per_visit": costs,
            "layouts": [asdict(one) for one in layouts],
        }
    )


def print_layouts(programme: Programme, layouts: Sequence[Told]) -> None:
    rows: list[list[Cell]] = [
        [
            one.layout, one.machines, 100 * one.utilisation_working_hours, 100 * one.utilisation_busiest_hour,
            one.wait_p50_s, one.wait_p95_s, one.wait_p99_s, one.wait_max_s, one.longest_queue, one.held_by_outage,
            one.drained_after_min,
        ]
        for one in layouts
    ]  # fmt: skip
    columns = ["layout", "machines", "used %", "used % at most", "wait p50 s", "p95", "p99", "max", "longest queue"]
    table(
        f"{programme.visits_per_day:,.0f} visits on a mean working day, {programme.core_ms:.1f} core-ms each, "
        f"{programme.cores} cores a machine; the busiest week, {layouts[0].visits:,} visits",
        [*columns, "held", "drained after min"],
        rows,
    )


def draw(axes: Any, programme: Programme, behind: dict[str, tuple[Visits, Times]]) -> None:
    """Queue over Monday, minute by minute."""
    minutes = np.arange(7 * HOUR_S, 19 * HOUR_S, 60.0)
    for colour, (name, (visits, starts)) in zip(COLOURS, behind.items(), strict=False):
        axes.plot(minutes / HOUR_S, 1 + queue_length(visits.posted_s, starts, minutes), color=colour, label=name, lw=1)
    axes.axvspan(9, 9 + programme.outage_h, color="#eeeeee", zorder=0)
    axes.set(yscale="log", xlabel="hour of the day (grey: outage)", ylabel="visits waiting, plus one")
    axes.legend(fontsize=8, frameon=False)
