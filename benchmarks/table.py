"""``table``: all figures of the service that have a goal, with the goal and whether it was reached.

What is compared is measured alternately, and the median of the ratios is reported. ``make bench`` runs this.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import stages
from benchmarks.clients import Outcome
from benchmarks.files import KINDS
from benchmarks.over_http import AT_ONCE, bundles_of, warm_up
from benchmarks.peers.alternation import SERVICE_ROWS
from benchmarks.report import Line, Report, table
from benchmarks.serving import Server, serving

MANY = 256
STARTS = 3
COST_MS = {
    "png": 8.0,
    "explicit": 30.0,
    "rle": 30.0,
    "jpeg-lossless": 30.0,
    "jpeg-ls": 45.0,
    "j2k": 45.0,
    "htj2k": 30.0,
    "wfdb": 8.0,
    "check-up": 38.0,
}
"""What a visit of each kind is to cost at most."""
QUEUE = 50
"""Queue limit of the server that gets too many requests."""


def run(report: Report, *, rounds: int = 5, seconds: float = 3.0) -> dict[str, Any]:
    """The whole table, in under ten minutes on two cores."""
    lines: list[Line] = []
    for network in ("lung", "densenet121"):
        with _bundles_or_none(network) as bundles:
            if bundles is None:
                lines.append(
                    Line(f"{network}: visits/s, 32 clients", None, note="torch is not installed (extra train)")
                )
                continue
            lines += _peers(network, report.out)
            lines += _network_lines(network, bundles, rounds, seconds, whole=network == "lung")
    costs = stages.run(Report("stages", report.out), seconds=seconds / 4, rounds=rounds)
    lines.append(Line("lung: core-ms per visit ÷ sum of its stages alone", costs["ratio"], at_most=1.25))
    lines.append(Line("lung: the same, many visits in one request", costs["bulk_ratio"], at_most=1.10))
    rows = [line.cells() for line in lines]
    table(f"figures and goals, {rounds} alternations, medians", ("", "measured", "reach", "", ""), rows)
    figures = {"rounds": rounds, "seconds": seconds, "lines": [{**asdict(x), "reached": x.reached} for x in lines]}
    report.end(figures)
    return figures


@contextmanager
def _bundles_or_none(network: str) -> Iterator[Path | None]:
    try:
        import torch  # noqa: F401, PLC0415
    except ImportError:
        if network != "lung":
            yield None
            return
    with bundles_of(network) as bundles:
        yield bundles


def _network_lines(network: str, bundles: Path, rounds: int, seconds: float, *, whole: bool) -> list[Line]:
    with tempfile.TemporaryDirectory() as folder:
        starts = []
        for _ in range(1 + STARTS):
            with serving(bundles, data=Path(folder)) as server:
                starts.append(server.ready_s)
                server.wait_until_measured()  # the first start measures, and stores what it found
        with serving(bundles, data=Path(folder)) as server:
            warm_up(server, "png", seconds)
            turns = [turn(server, seconds) for _ in tqdm(range(rounds), desc=network, unit="turn")]
            by_kind = _costs_by_kind(server, rounds, seconds) if whole else {}
            peak = server.peak.pss_mb
    ready = statistics.median(starts[1:])
    rate = statistics.median(t.at_best.rate_per_s for t in turns)
    failed = sum(outcome.failed for t in turns for outcome in (t.at_best, t.many, t.open, t.alone))
    lines = [Line(f"{network}: visits/s, PNG 512², 32 clients", rate, note=f"{rate:.1f} visits/s")]
    lines += [
        Line(f"{network}: rate at 256 clients ÷ best rate",
             statistics.median(t.many_share for t in turns), at_least=0.95),
        Line(f"{network}: requests that failed", float(failed), at_most=0),
        Line(f"{network}: p99 at 70 % of the best rate ÷ single-request latency",
             statistics.median(t.tail for t in turns), at_most=4.5,
             note=f"single {statistics.median(t.alone.latency_ms(50) for t in turns):.0f} ms"),
        Line(f"{network}: ready after start, caches warm, s", ready, at_most=2.0,
             note=f"the first start: {starts[0]:.1f} s"),
        Line(f"{network}: memory at full load, all processes, MB", peak, at_most=600),
    ]  # fmt: skip
    if whole:
        lines += _kind_lines(by_kind)
        lines += flooded(bundles, seconds)
    return lines


def _costs_by_kind(server: Server, rounds: int, seconds: float) -> dict[str, list[tuple[Outcome, float]]]:
    """Outcome and core-milliseconds per visit of every kind, in turns."""
    bodies = {kind: KINDS[kind](False) for kind in COST_MS}
    turns = [
        {kind: server.post(body, clients=AT_ONCE, seconds=seconds) for kind, body in bodies.items()}
        for _ in tqdm(range(rounds), desc="kinds of file", unit="turn")
    ]
    return {kind: [each[kind] for each in turns] for kind in COST_MS}


def _kind_lines(by_kind: dict[str, list[tuple[Outcome, float]]]) -> list[Line]:
    lines = []
    for kind, turns in by_kind.items():
        rate = statistics.median(outcome.rate_per_s for outcome, _ in turns)
        failed = sum(outcome.failed for outcome, _ in turns)
        cost = statistics.median(core_ms for _, core_ms in turns)
        note = f"{rate:.1f} visits/s, {failed} failed"
        lines.append(Line(f"{kind}: core-ms per visit", cost, at_most=COST_MS[kind], note=note))
    rate = statistics.median(outcome.rate_per_s for outcome, _ in by_kind["wfdb"])
    return [*lines, Line("ECG: visits/s with a WFDB recording each", rate, at_least=200)]


@dataclass(frozen=True)
class Turn:
    """Outcomes that are compared, measured one after the other."""

    at_best: Outcome
    many: Outcome
    open: Outcome
    alone: Outcome

    @property
    def many_share(self) -> float:
        return self.many.rate_per_s / max(self.at_best.rate_per_s, self.many.rate_per_s)

    @property
    def tail(self) -> float:
        return self.open.latency_ms(99) / self.alone.latency_ms(50)


def turn(server: Server, seconds: float) -> Turn:
    """32 clients, 256 clients, Poisson arrivals at 70 % of the better of the two, one client."""
    body = KINDS["png"](False)
    best, _ = server.post(body, clients=AT_ONCE, seconds=seconds)
    many, _ = server.post(body, clients=MANY, seconds=seconds)
    rate = 0.7 * max(best.rate_per_s, many.rate_per_s)
    opened, _ = server.post(body, clients=MANY, rate_per_s=max(0.5, rate), seconds=seconds)
    alone, _ = server.post(body, clients=1, seconds=seconds / 2)
    return Turn(best, many, opened, alone)


def flooded(bundles: Path, seconds: float) -> list[Line]:
    """A server with a short queue and too many requests: it has to refuse some, and must not fail."""
    with serving(bundles, settings={"SANGLOC_MAX_QUEUE": str(QUEUE)}) as server:
        outcome, _ = server.post(KINDS["png"](False), prefer="respond-async", clients=MANY, seconds=seconds)
    refused = outcome.statuses.get("429", 0)
    note = ", ".join(f"{status}: {n}" for status, n in sorted(outcome.statuses.items()))
    return [
        Line("beyond the queue's limit: refused with 429", float(refused), at_least=1, note=note),
        Line("beyond the queue's limit: failed or timed out", float(outcome.failed), at_most=0),
    ]


SERVICE, SERVICE_FP32 = SERVICE_ROWS


def _peers(network: str, out: Path) -> list[Line]:
    """Lines of the comparison with peers, from its last run, because it needs another environment."""
    names = (
        (f"{network}: ÷ best of the peers, chosen precision", SERVICE, {"lung": 3.0, "densenet121": 5.0}[network]),
        (f"{network}: ÷ best of the peers, in their own fp32 runtime", SERVICE_FP32, 1.15),
    )
    path = out / "peers.json"
    if not path.exists():
        return [Line(name, None, at_least=goal, note="make bench-peers measures it") for name, _, goal in names]
    found = json.loads(path.read_text())
    measured = found["networks"].get(network, {})
    lines = []
    for name, row, goal in names:
        value = measured.get("rows", {}).get(row, {}).get("times_best_peer")
        note = f"{found['date']}, best peer {measured.get('best_peer')}, {found['rounds']} alternations"
        lines.append(
            Line(name, value, at_least=goal, note=note if value is not None else f"no row '{row}' in peers.json")
        )
    return lines
