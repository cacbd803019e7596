"""A week of a national programme: visits are made at clinics, uploaded over links that fail, and served in order.

``benchmarks.capacity`` computes the machines that it needs; ``docs/why/capacity.md`` has the assumptions.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]
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
"""Population of the 34 provinces of 2025; only the ratios are used.

References
----------
National Assembly of Viet Nam, Resolution 202/2025/QH15 of 12 June 2025, for the 23 new provinces; for the eleven
unchanged ones public lists of the 34, not checked against an official table.
"""

PROFILE = ((7.5, 0.20), (8.5, 0.24), (9.5, 0.20), (10.5, 0.10), (11.5, 0.02), (13.0, 0.10), (14.0, 0.09), (15.0, 0.05))
"""Start of a time span, in hours, and its share of the day's visits; the last span ends with the working day. Assumed:
most visits are in the morning, and few at noon."""
WEEKDAYS = (1.30, 1.05, 0.95, 0.90, 0.80)
"""Visits from Monday to Friday, as multiples of the mean working day. Assumed."""


@dataclass(frozen=True)
class Programme:
    """The assumptions; every value is an option of the command.

    Parameters
    ----------
    season
        The busiest week, as a multiple of the mean week.
    closes_h
        End of the working day.
    clinics
        Sites that post, spread over the provinces by population. Viet Nam has had 3,321 communes since July 2025.
    visit_mb, link_mbit_s
        Size of a visit and speed of a clinic's link; they give the upload time.
    link_down_share, link_repair_h
        Share of time that a link is down, and mean length of a failure (exponentially distributed).
    core_ms, core_cv
        Core time of a visit and its coefficient of variation (gamma; 0: every visit the same).
    cores
        Cores of one machine of the measured kind.
    wait_s
        Longest wait of 99 of 100 visits, from the arrival at the service to the start of the work.
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
        """Visits of a mean working day."""
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
        When the visit was made.
    posted_s
        When the visit was uploaded.
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
    """Number of visits that have arrived and not started, at each of ``at_s``."""
    return np.searchsorted(np.sort(arrivals_s), at_s, "right") - np.searchsorted(np.sort(starts_s), at_s, "right")


def clinics_of(programme: Programme) -> NDArray[np.int64]:
    """The province of each clinic, in proportion to the population, and at least one in each province."""
    people = np.array(list(POPULATION.values()), float)
    wanted = np.maximum(1.0, programme.clinics * people / people.sum())
    upto = np.round(np.cumsum(wanted)).astype(int)
    return np.repeat(np.arange(len(people)), np.diff(upto, prepend=0))


def week(programme: Programme, outage: tuple[float, float] | None = None) -> Visits:
    """Visits of the busiest week.

    Parameters
    ----------
    outage
        Start and end, in seconds from Monday midnight, between which no visit reaches the service.
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
    for begin, end in zip(np.concatenate([[0], ends[:-1]]), ends, strict=True):
        down = failures(programme, chance)
        if outage is not None:
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
    """Failures of one link in the week, ``(begin, end)`` in seconds."""
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
    """When each visit of a clinic is uploaded over a link that is down in the spans ``down``.

    Times are converted to a clock that runs only while the link is up, where the link is one server (:func:`lindley`),
    and converted back.
    """
    if not len(made_s):
        return made_s
    clock, uptime = [0.0], [0.0]
    for begin, end in down:
        uptime += [uptime[-1] + begin - clock[-1]] * 2
        clock += [begin, end]
    # After the last failure the link stays up.
    clock.append(clock[-1] + 1e9)
    uptime.append(uptime[-1] + 1e9)
    done = lindley(np.interp(made_s, clock, uptime), np.full(len(made_s), upload_s))
    after = np.searchsorted(uptime, done, "left")
    return np.asarray(np.array(clock)[after] - (np.array(uptime)[after] - done), np.float64)
