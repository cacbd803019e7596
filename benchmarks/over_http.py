"""``http``: closed and open loop over HTTP with real files, from another process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.clients import Outcome
from benchmarks.files import KINDS
from benchmarks.report import COLOURS, Cell, Report, latency_cells, table
from benchmarks.serving import BUNDLES, Server, serving

CLIENTS = (1, 8, 32, 64, 128, 256)
SHARES = (0.3, 0.5, 0.7, 0.9)
"""Rates of the open loop, as shares of the best closed rate."""
SWEPT = "png"
AT_ONCE = 32
COLUMNS = ("", "rate/s", "p50 ms", "p95 ms", "p99 ms", "core-ms", "done", "429", "failed")


@contextmanager
def bundles_of(network: str, shipped: Path = BUNDLES) -> Iterator[Path]:
    """Folder of bundles with the shipped ``lung``, or DenseNet-121 instead."""
    if network == "lung":
        yield shipped
        return
    from benchmarks.densenet import densenet_bundles  # noqa: PLC0415  torch

    with tempfile.TemporaryDirectory() as folder:
        yield densenet_bundles(shipped, Path(folder))


def run(
    report: Report,
    *,
    network: str = "lung",
    kinds: Sequence[str] = tuple(KINDS),
    clients: Sequence[int] = CLIENTS,
    shares: Sequence[float] = SHARES,
    seconds: float = 5.0,
    raw: bool = False,
) -> dict[str, Any]:
    """Vary the number of clients with one kind of file, then the open loop, then all kinds of files."""
    with bundles_of(network) as bundles, serving(bundles) as server:
        body = KINDS[SWEPT](raw)
        warm_up(server, SWEPT, min(seconds, 3.0))
        own, trivial_ms = server.trivial(clients=AT_ONCE, seconds=min(seconds, 2.0))
        closed = {n: server.post(body, clients=n, seconds=seconds) for n in clients}
        best = max(outcome.rate_per_s for outcome, _ in closed.values())
        opened = {s: server.post(body, clients=256, rate_per_s=s * best, seconds=seconds) for s in shares if best}
        files = {kind: server.post(KINDS[kind](raw), clients=AT_ONCE, seconds=seconds) for kind in kinds}
        peak, ready = server.peak.pss_mb, server.ready_s
    how = "raw body" if raw else "multipart"
    table(f"closed loop, {network}, PNG 512², {how}", COLUMNS, [row(f"{n} clients", *o) for n, o in closed.items()])
    table(
        "open loop, Poisson, by share of the best closed rate", COLUMNS, [row(f"{s:g}", *o) for s, o in opened.items()]
    )
    table(f"kinds of file, {AT_ONCE} clients", COLUMNS, [row(kind, *o) for kind, o in files.items()])
    client_ms = 1000 * own.client_cpu_s / max(1, own.done)
    print(
        f"\nready after {ready:.1f} s, at most {peak:.0f} MB of memory. The client itself: {own.rate_per_s:.0f} "
        f"trivial requests/s at {client_ms:.2f} core-ms each (the server's part of a trivial route: {trivial_ms:.2f})."
    )
    report.plot(lambda axes: _draw(axes, closed, opened), title=f"{network}, PNG 512²: throughput against latency")
    figures = {
        "network": network,
        "raw_body": raw,
        "seconds": seconds,
        "best_per_s": best,
        "ready_s": ready,
        "peak_memory_mb": peak,
        "trivial_route": {"rate_per_s": own.rate_per_s, "client_core_ms": client_ms, "server_core_ms": trivial_ms},
        "closed": {str(n): outcome_json(*o) for n, o in closed.items()},
        "open": {f"{s:g}": outcome_json(*o) for s, o in opened.items()},
        "files": {kind: outcome_json(*o) for kind, o in files.items()},
    }
    report.end(figures)
    return figures


def row(name: str, outcome: Outcome, core_ms: float) -> list[Cell]:
    latency = latency_cells(outcome.seconds)
    return [name, outcome.rate_per_s, *latency, core_ms, outcome.done, outcome.statuses.get("429", 0), outcome.failed]


def outcome_json(outcome: Outcome, core_ms: float) -> dict[str, Any]:
    """One outcome, for the JSON line."""
    return {
        "rate_per_s": outcome.rate_per_s,
        "latency_ms": {f"p{p}": outcome.latency_ms(p) for p in (50, 95, 99)},
        "core_ms_per_visit": core_ms,
        "client_core_ms_per_visit": 1000 * outcome.client_cpu_s / max(1, outcome.done),
        "statuses": outcome.statuses,
        "failed": outcome.failed,
    }


Measured = dict[Any, tuple[Outcome, float]]


def _draw(axes: Any, closed: Measured, opened: Measured) -> None:
    for colour, (name, measured) in zip(COLOURS, (("closed loop", closed), ("open loop", opened)), strict=False):
        for percent, style in ((50, "o-"), (99, "o--")):
            x = [outcome.rate_per_s for outcome, _ in measured.values()]
            y = [outcome.latency_ms(percent) for outcome, _ in measured.values()]
            axes.plot(x, y, style, color=colour, markersize=4, label=f"{name}, p{percent}")
        for key, (outcome, _) in measured.items():
            axes.annotate(f"{key:g}", (outcome.rate_per_s, outcome.latency_ms(99)), fontsize=7, xytext=(3, 3),
                          textcoords="offset points")  # fmt: skip
    axes.set(xlabel="visits per second", ylabel="latency, ms", yscale="log")
    axes.legend(fontsize=8, frameon=False)


def warm_up(server: Server, kind: str, seconds: float = 3.0) -> None:
    """Wait for the choice of sessions, then post for some seconds, so that the server is warm for the measurement."""
    server.wait_until_measured()
    server.post(KINDS[kind](False), clients=AT_ONCE, seconds=seconds)
