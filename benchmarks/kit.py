"""``kit``: what a film costs on your own server, whatever it is written in, with the files and clients of this project.

Start your server on this machine, then run this command with its address and its process. Each kind of file is posted
by the same clients in turns, and the table has rates, latencies, core-milliseconds and memory of all its processes;
``--beside`` measures this service in the same turns. ``--write`` only writes the files.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tqdm import tqdm

from benchmarks.clients import Load, Outcome, send
from benchmarks.figures import CoreTime, median_ratio, percentiles
from benchmarks.files import KINDS, ROOT, SYNTAXES, Body, multipart, numbered
from benchmarks.memory import Memory, peak_memory
from benchmarks.over_http import warm_up
from benchmarks.report import Report, table
from benchmarks.serving import MEMORY_EVERY_S, serving

EXTENSIONS = {"png": "png", **dict.fromkeys(SYNTAXES, "dcm"), "wfdb": "zip"}
"""Kinds of which each is one file, with the extension of its name."""
LOOPBACK = ("127.0.0.1", "localhost")
COLUMNS = ("", "per s", "p50 ms", "p99 ms", "failed", "core-ms", "MB", "service, core-ms", "÷ the service")


@dataclass(frozen=True)
class Yours:
    """The server that is measured.

    Parameters
    ----------
    form_field
        Of a multipart form that holds the file; ``None``: the body is the file.
    expect
        Text that an answer has to contain to count.
    pids
        Its processes; those that come from them are counted too. Without any, core-milliseconds are not known.
    """

    port: int
    path: str
    form_field: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    expect: str = ""
    pids: tuple[int, ...] = ()

    def post(self, kind: str, *, clients: int, seconds: float, first_number: int) -> Measured:
        """A closed loop of one kind of file."""
        body = body_of(kind, self.form_field)
        headers = {"Content-Type": body.content_type, **self.headers}
        load = Load(self.port, self.path, headers, expect=self.expect, clients=clients, seconds=seconds,
                    first_number=first_number)  # fmt: skip
        before = [CoreTime.of(pid) for pid in self.pids]
        with peak_memory(lambda: self.pids, MEMORY_EVERY_S) as memory:
            outcome = send(load, body)
        after = [CoreTime.of(pid) for pid in self.pids]
        spent = sum(b.ms_per(a, outcome.done) for b, a in zip(before, after, strict=True))
        return Measured(outcome, spent if self.pids else None, memory)


@dataclass(frozen=True)
class Measured:
    """One turn; ``core_ms`` is for each answer that counts."""

    outcome: Outcome
    core_ms: float | None
    memory: Memory


def body_of(kind: str, form_field: str | None) -> Body:
    """The request of one kind of file."""
    raw = KINDS[kind](True)
    if form_field is None:
        return raw
    return multipart([(form_field, f"film.{EXTENSIONS[kind]}", raw.content)], raw.organ, context=None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``python -m benchmarks kit``."""
    parser.add_argument("--url", help="where files are posted, such as http://127.0.0.1:8000/predict")
    parser.add_argument("--pid", type=int, action="append", default=[], help="its process, or several")
    parser.add_argument("--field", help="the file is a part of this name of a multipart form (default: the body)")
    parser.add_argument("--header", action="append", default=[], metavar="NAME: VALUE")
    parser.add_argument("--expect", default="", help="text without which an answer counts as failed")
    parser.add_argument("--kinds", nargs="+", choices=EXTENSIONS, default=["png", *SYNTAXES])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each turn")
    parser.add_argument("--rounds", type=int, default=5, help="turns; medians are reported")
    parser.add_argument("--beside", action="store_true", help="measure this service in the same turns")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write a file of each kind, and end")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "out")


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m benchmarks kit``: a table with a row for each kind of file, then one JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks kit", description=__doc__)
    add_arguments(parser)
    options = parser.parse_args(arguments)
    if options.write:
        write(options.kinds, options.write)
        return
    try:
        yours = yours_of(options.url or "", options.field, options.header, options.expect, options.pid)
    except ValueError as wrong:
        parser.error(str(wrong))
    turns = measure(yours, options.kinds, options.clients, options.seconds, options.rounds, beside=options.beside)
    report(turns, Report("kit", options.out), options)


def write(kinds: Sequence[str], folder: Path) -> None:
    """Write one file of each kind."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        path = folder / f"{kind}.{EXTENSIONS[kind]}"
        path.write_bytes(numbered(KINDS[kind](True).content, 0))
        print(f"{path}  {path.stat().st_size:,} bytes")


def yours_of(url: str, form_field: str | None, headers: Sequence[str], expect: str, pids: Sequence[int]) -> Yours:
    """The server that the options describe.

    Raises
    ------
    ValueError
        The address is not of this machine; a header has no colon; there is no such process.
    """
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname not in LOOPBACK or parts.port is None:
        raise ValueError(f"--url takes http://127.0.0.1:PORT/PATH, a server on this machine, not '{url}'")
    pairs = [header.partition(":") for header in headers]
    if any(not colon or not name.strip() for name, colon, _ in pairs):
        raise ValueError("--header takes 'NAME: VALUE'")
    for pid in pids:
        if not Path(f"/proc/{pid}").exists():
            raise ValueError(f"there is no process {pid}")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Yours(parts.port, path, form_field, {n.strip(): v.strip() for n, _, v in pairs}, expect, tuple(pids))


@dataclass
class Turns:
    """What was measured of one kind of file, a value for each turn."""

    yours: list[Measured] = field(default_factory=list)
    service_core_ms: list[float] = field(default_factory=list)


def measure(
    yours: Yours, kinds: Sequence[str], clients: int, seconds: float, rounds: int, *, beside: bool
) -> dict[str, Turns]:
    """Each kind of file in turns; the service, where it is measured too, directly after.

    Raises
    ------
    SystemExit
        An answer to the first file of a kind does not count.
    """
    numbers = iter(range(10**6, 10**12, 10**6))  # so that no two requests have the same bytes
    for kind in kinds:
        first = yours.post(kind, clients=1, seconds=0.1, first_number=next(numbers)).outcome
        if first.failed or not first.done:
            raise SystemExit(f"{kind}: the server does not answer as expected: {first.statuses}")
    found = {kind: Turns() for kind in kinds}
    with ExitStack() as running:
        service: Callable[[str], float] | None = None
        if beside:
            server = running.enter_context(serving())
            server.wait_until_measured()
            warm_up(server, kinds[0], seconds)
            service = lambda kind: server.post(KINDS[kind](False), clients=clients, seconds=seconds)[1]  # noqa: E731
        for _ in tqdm(range(rounds), unit="turn"):
            for kind, turns in found.items():
                number = next(numbers)
                turns.yours.append(yours.post(kind, clients=clients, seconds=seconds, first_number=number))
                if service:
                    turns.service_core_ms.append(service(kind))
    return found


def report(found: Mapping[str, Turns], to: Report, options: argparse.Namespace) -> dict[str, Any]:
    """Print the table and the JSON line."""
    rows: list[list[Any]] = []
    figures: dict[str, Any] = {}
    for kind, turns in found.items():
        times = [s for each in turns.yours for s in each.outcome.seconds]
        p50, p99 = (1000 * value for value in percentiles(times, (50, 99)))
        core = [each.core_ms for each in turns.yours if each.core_ms is not None]
        figures[kind] = {
            "rate_per_s": statistics.median(each.outcome.rate_per_s for each in turns.yours),
            "latency_ms": {"p50": p50, "p99": p99},
            "failed": sum(each.outcome.failed for each in turns.yours),
            "core_ms": statistics.median(core) if core else None,
            "memory_mb": max(each.memory.pss_mb for each in turns.yours) if core else None,
            "service_core_ms": statistics.median(turns.service_core_ms) if turns.service_core_ms else None,
            "over_the_service": median_ratio(core, turns.service_core_ms) if core and turns.service_core_ms else None,
            "turns": [{**asdict(each.outcome), "seconds": None, "core_ms": each.core_ms} for each in turns.yours],
        }
        one = figures[kind]
        rows.append(
            [kind, one["rate_per_s"], p50, p99, one["failed"], one["core_ms"], one["memory_mb"], one["service_core_ms"],
             one["over_the_service"]]
        )  # fmt: skip
    table(f"{options.url}: {options.clients} clients, {options.rounds} turns, medians", COLUMNS, rows)
    to.end({"url": options.url, "clients": options.clients, "rounds": options.rounds, "kinds": figures})
    return figures
