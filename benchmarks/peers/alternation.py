"""Rounds in which the session alone, the service and each peer are measured, one after the other."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.clients import Load, Outcome, send
from benchmarks.figures import median_ratio, percentiles
from benchmarks.files import ROOT, film, one_file, png
from benchmarks.peers.servers import (
    PEERS,
    PYTHON,
    Peer,
    PeerFailed,
    RunningPeer,
    Setting,
    difference_from_bare,
    running,
)
from benchmarks.peers.weights import NETWORKS, BareSession, bundles_with, model_of
from benchmarks.report import Report, cores, table
from benchmarks.serving import BUNDLES, serving
from data_specs.cxr.image import conform

BARE = "bare session, ORT fp32, batch 16"
BARE_BATCH = 16
SERVICE_ROWS: Mapping[str, Mapping[str, str]] = {
    "Sàng Lọc": {},
    "Sàng Lọc fp32": {"SANGLOC_SESSION": "onnxruntime:fp32"},
}
"""Rows of the service: with its own choice of session, and with the runtime and precision of the peers."""


@dataclass(frozen=True)
class Plan:
    """What to measure.

    Parameters
    ----------
    window_s, warm_s
        Seconds of a closed loop, and of the warm-up before it.
    service_rows
        Rows of the service: label to further settings, as environment variables.
    """

    rounds: int
    clients: int
    window_s: float
    warm_s: float
    tune_s: float
    bundles: Path
    networks: tuple[str, ...]
    peers: tuple[Peer, ...]
    service_rows: Mapping[str, Mapping[str, str]]
    out: Path


@dataclass
class Row:
    """Figures of one server, a value for each round, and the latencies of all rounds."""

    rates: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    core_ms: list[float] = field(default_factory=list)
    memory_mb: list[float] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)
    failed: Counter[str] = field(default_factory=Counter)
    setting: str = ""

    def add(self, outcome: Outcome, core_ms: float, memory_mb: float, ready_s: float) -> None:
        self.rates.append(outcome.rate_per_s)
        self.seconds += outcome.seconds
        self.core_ms.append(core_ms)
        self.memory_mb.append(memory_mb)
        self.ready_s.append(ready_s)
        self.failed.update({k: n for k, n in outcome.statuses.items() if k not in ("200", "201")})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m benchmarks peers``."""
    parser.add_argument("--rounds", type=int, default=5, help="alternations; medians are reported")
    parser.add_argument("--clients", type=int, default=32, help="clients of the closed loop")
    parser.add_argument("--seconds", type=float, default=5, help="length of one measurement")
    parser.add_argument("--warm", type=float, default=2, help="seconds of load before each measurement")
    parser.add_argument("--tune", type=float, default=3, help="seconds for each setting that a peer tries beforehand")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--only", nargs="*", metavar="PEER", help="peers whose name contains one of these; none: all")
    parser.add_argument("--bundles", type=Path, default=BUNDLES)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out")
    parser.add_argument(
        "--also", action="append", default=[], metavar="LABEL:NAME=VALUE,…",
        help="a further row of the service with these SANGLOC_ settings, such as a fixed precision",
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m benchmarks peers``: a table for each network, then one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks peers", description=main.__doc__)
    add_arguments(parser)
    run(parser.parse_args(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Measure, print and store the figures."""
    plan = Plan(
        rounds=arguments.rounds,
        clients=arguments.clients,
        window_s=arguments.seconds,
        warm_s=arguments.warm,
        tune_s=arguments.tune,
        bundles=arguments.bundles.absolute(),
        networks=tuple(arguments.networks),
        peers=chosen(arguments.only),
        service_rows={**SERVICE_ROWS, **dict(map(extra_row, arguments.also))},
        out=arguments.out,
    )
    if os.getloadavg()[0] > cores() / 2:
        busy = f"load {os.getloadavg()[0]:.1f}, {cores()} cores"
        print(f"other processes use this machine ({busy}): rates are unreliable, core-ms less affected")
    networks = {name: measure(name, plan) for name in plan.networks}
    Report("peers", plan.out).end(
        {
            "rounds": plan.rounds,
            "clients": plan.clients,
            "window_s": plan.window_s,
            "peers": versions(),
            "networks": networks,
        }
    )


def chosen(only: Sequence[str] | None) -> tuple[Peer, ...]:
    """The peers whose name contains one of ``only``.

    Raises
    ------
    SystemExit
        No peer has such a name.
    """
    if only is None:
        return PEERS
    for part in only:
        if not any(part.lower() in peer.name.lower() for peer in PEERS):
            raise SystemExit(f"no peer is called '{part}'; there are {', '.join(peer.name for peer in PEERS)}")
    return tuple(peer for peer in PEERS if any(part.lower() in peer.name.lower() for part in only))


def extra_row(text: str) -> tuple[str, dict[str, str]]:
    """Parse ``LABEL:NAME=VALUE,NAME=VALUE`` to a row's label and its settings."""
    label, colon, settings = text.partition(":")
    pairs = [pair.partition("=") for pair in settings.split(",")]
    if not colon or not label or any(not equals or not name for name, equals, _ in pairs):
        raise SystemExit(f"--also takes LABEL:NAME=VALUE,…, not '{text}'")
    return label, {name: value for name, _, value in pairs}


def measure(network: str, plan: Plan) -> dict[str, Any]:
    """Measure one network and print its table; returns the figures for the JSON line."""
    try:
        bundles = bundles_with(network, plan.bundles, plan.out)
    except ImportError as missing:
        print(f"\n{network}: not measured, {missing.name} is not installed (make test installs it)")
        return {"not_measured": f"{missing.name} is not installed"}
    model = model_of(bundles)
    bare = BareSession(model, cores())
    expected = bare_probabilities(bare)
    rows: dict[str, Row] = {BARE: Row(setting=f"{cores()} threads")}
    failed: dict[str, str] = {}
    settings: dict[str, Setting] = {}
    for peer in plan.peers:
        try:
            settings[peer.name] = best_setting(peer, model, bare, expected, plan)
            rows[peer.name] = Row(setting=str(settings[peer.name]))
        except PeerFailed as reason:
            failed[peer.name] = str(reason)
            log_progress(f"{network}: {peer.name} cannot be measured: {reason}")
    measurements: dict[str, Callable[[], None]] = {
        BARE: lambda: rows[BARE].rates.append(bare_rate(bare, plan.window_s))
    }
    for label, extra in plan.service_rows.items():
        rows[label] = Row(setting="as it chooses" if not extra else ", ".join(extra.values()))
        measurements[label] = lambda label=label, extra=extra: measure_service(rows[label], bundles, extra, plan)  # type: ignore[misc]
    for peer in plan.peers:
        if peer.name in settings:
            measurements[peer.name] = lambda peer=peer: measure_peer(  # type: ignore[misc]
                rows[peer.name], peer, model, settings[peer.name], expected, plan
            )
    for number in range(plan.rounds):
        order = list(measurements)[number % len(measurements) :] + list(measurements)[: number % len(measurements)]
        for name in order:
            if name in failed:
                continue
            try:
                measurements[name]()
            except (PeerFailed, RuntimeError) as reason:
                failed[name] = f"in round {number + 1}: {reason}"
            log_progress(
                f"{network}, round {number + 1} of {plan.rounds}: {name} {rows[name].rates[-1:] or failed.get(name)}"
            )
    for name in failed:
        rows.pop(name, None)
    return report_network(network, rows, failed, plan)


def best_setting(peer: Peer, model: Path, bare: BareSession, expected: Sequence[float], plan: Plan) -> Setting:
    """The setting with which the peer is fastest; settings that do not start are left out.

    Raises
    ------
    PeerFailed
        None of them works.
    """
    rates: dict[Setting, float] = {}
    reasons = []
    for setting in peer.settings(cores()):
        try:
            with running(peer, model, setting) as server:
                check_answers(server, expected)
                load(server, plan.clients, plan.warm_s)
                rate, alone = load(server, plan.clients, plan.tune_s).rate_per_s, bare_rate(bare, plan.tune_s / 2)
                # On a shared machine only ratios to a rate at the same time can be compared.
                rates[setting] = rate / alone
                log_progress(
                    f"{peer.name}, {setting}: {rate:.1f} per second, {rates[setting]:.2f} of the bare session, "
                    f"ready after {server.ready_s:.1f} s"
                )
        except PeerFailed as reason:
            reasons.append(f"{setting}: {reason}")
            log_progress(f"{peer.name}, {reasons[-1]}")
    if not rates:
        raise PeerFailed("; ".join(reasons))
    return max(rates, key=lambda setting: rates[setting])


def check_answers(server: RunningPeer, expected: Sequence[float]) -> None:
    """Check the peer's answer for the sample film.

    Raises
    ------
    PeerFailed
        The probabilities are not those of the session alone.
    """
    reason = difference_from_bare(server.ask(), expected)
    if reason:
        raise PeerFailed(reason)


def load(server: RunningPeer, clients: int, seconds: float) -> Outcome:
    """A closed loop of clients in another process."""
    content = png()
    body = server.peer.body(content)
    headers = {"Content-Type": body.content_type, **server.peer.headers(content)}
    number = int(time.time() * 1e3) % 10**14
    return send(
        Load(server.port, server.peer.path, headers, clients=clients, seconds=seconds, first_number=number), body
    )


def measure_peer(row: Row, peer: Peer, model: Path, setting: Setting, expected: Sequence[float], plan: Plan) -> None:
    with running(peer, model, setting) as server:
        check_answers(server, expected)
        load(server, plan.clients, plan.warm_s)
        before = server.core_s()
        outcome = load(server, plan.clients, plan.window_s)
        core_ms = 1000 * (server.core_s() - before) / max(1, outcome.done)
        row.add(outcome, core_ms, server.memory_mb(), server.ready_s)


def measure_service(row: Row, bundles: Path, extra: Mapping[str, str], plan: Plan) -> None:
    """Measure the service as shipped: each visit is stored on disk before it is answered.

    Raises
    ------
    RuntimeError
        It did not start, or did not assess the sample film.
    """
    with serving(bundles, settings=extra) as server:
        server.wait_until_measured()
        for raw in (True, False):
            body = one_file(png(), "f.png", "image/png", raw=raw)
            if server.post(body, visits=1)[0].statuses == {"201": 1}:
                break
        else:
            raise RuntimeError("it does not assess the sample film")
        server.post(body, clients=plan.clients, seconds=plan.warm_s)
        outcome, core_ms = server.post(body, clients=plan.clients, seconds=plan.window_s)
        row.add(outcome, core_ms, server.peak.pss_mb, server.ready_s)


def bare_probabilities(bare: BareSession) -> list[float]:
    """Probabilities of the sample film, resized by the same filter."""
    logits = bare.logits(conform(film(), bare.side_px)[None])[0].astype(np.float64)
    return [float(p) for p in 1 / (1 + np.exp(-logits))]


def bare_rate(bare: BareSession, seconds: float) -> float:
    """Films per second in full batches."""
    films = np.random.default_rng(0).integers(0, 256, (BARE_BATCH, 1, bare.side_px, bare.side_px), dtype=np.uint8)
    bare.logits(films)
    done, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        bare.logits(films)
        done += BARE_BATCH
    return done / (time.perf_counter() - started)


def report_network(network: str, rows: Mapping[str, Row], failed: Mapping[str, str], plan: Plan) -> dict[str, Any]:
    """Print the table and return its figures."""
    bare = rows[BARE].rates
    peers = {name: row for name, row in rows.items() if name != BARE and name not in plan.service_rows}
    best = max(peers, key=lambda name: statistics.median(peers[name].rates)) if peers else None
    figures: dict[str, Any] = {}
    lines: list[list[Any]] = []
    for name, row in rows.items():
        p50, p99 = (1000 * value for value in percentiles(row.seconds, (50, 99)))
        n_failed = sum(row.failed.values())
        figures[name] = {
            **{k: v for k, v in asdict(row).items() if k not in ("seconds", "failed")},
            "rate_per_s": statistics.median(row.rates),
            "share_of_bare": median_ratio(row.rates, bare),
            "times_best_peer": median_ratio(row.rates, rows[best].rates) if best else None,
            "latency_ms": {"p50": p50, "p99": p99} if row.seconds else None,
            "done": len(row.seconds),
            "failed": dict(row.failed),
        }
        has = bool(row.seconds)
        lines.append(
            [
                name, row.setting, figures[name]["rate_per_s"], figures[name]["share_of_bare"],
                figures[name]["times_best_peer"], p50 if has else None, p99 if has else None,
                n_failed if has else None, statistics.median(row.core_ms) if has else None,
                statistics.median(row.memory_mb) if has else None,
            ]
        )  # fmt: skip
    table(
        f"{network}: PNG 512², {plan.clients} clients of a second process, {plan.rounds} alternations, medians",
        ["", "set up as", "per s", "of bare", "× best peer", "p50 ms", "p99 ms", "failed", "core-ms", "MB"],
        lines,
    )
    for name, reason in failed.items():
        print(f"{name}: not measured: {reason}")
    return {"best_peer": best, "rows": figures, "not_measured": dict(failed)}


def versions() -> dict[str, dict[str, str]]:
    """Version and licence of each peer, as its distribution states them."""
    if not PYTHON.exists():
        return {}
    code = (
        "import json, sys\nfrom importlib.metadata import metadata, PackageNotFoundError\nfound = {}\n"
        "for name in sys.argv[1:]:\n"
        "    try: about = metadata(name)\n"
        "    except PackageNotFoundError: continue\n"
        "    said = about.get('License-Expression') or (about.get('License') or '').strip().split('\\n')[0]\n"
        "    said = said or '; '.join(c for c in about.get_all('Classifier') or [] if c.startswith('License'))\n"
        "    found[name] = {'version': about['Version'], 'licence': said[:80]}\n"
        "print(json.dumps(found))"
    )
    names = [*(peer.distribution for peer in PEERS), "onnxruntime"]
    done = subprocess.run([str(PYTHON), "-c", code, *names], capture_output=True, text=True, check=True)
    found: dict[str, dict[str, str]] = json.loads(done.stdout)
    return found


def log_progress(text: str) -> None:
    """Print progress on standard error, because stdout is for the result."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)
