"""``database``: what a PostgreSQL with a million visits costs, which plans it chooses, and what harms the queues."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.chaos.postgres import cluster, installed
from benchmarks.database import harms
from benchmarks.database.asked import ASKED
from benchmarks.database.first import First
from benchmarks.database.made import SETTINGS, counts_of, databases, sizes_of, without
from benchmarks.database.measured import Measured, large, measure, rows_of, scenes
from benchmarks.report import Report, table

OUT = Path(__file__).parents[1] / "out"
AS_IT_COMES = tuple(f"ALTER TABLE {name} RESET ({', '.join(harms.PARAMETERS)})" for name in harms.QUEUES)
"""The tables without the storage parameters that the service gives them."""


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Make the databases, measure, do harm, and print the tables."""
    options = _parse(arguments)
    programs = installed()
    if programs is None:
        raise SystemExit("PostgreSQL (initdb) or its driver (the extra 'postgres') is not installed")
    sizes = sorted({0, options.visits // 10, options.visits})
    figures: dict[str, Any] = {"visits": sizes, "rounds": options.rounds}
    with cluster(programs, SETTINGS, kept=options.kept) as made:
        first, urls = databases(made, sizes, kept=options.kept)
        largest = urls[sizes[-1]]
        figures["sizes_mb"], figures["rows"] = sizes_of(largest), counts_of(largest)
        table(f"{sizes[-1]} visits: MB", ("", "MB"), [[name, mb] for name, mb in figures["sizes_mb"].items()])
        if options.without:
            with without(list(urls.values()), options.without) as seconds:
                figures["before"] = _measured(f"without {options.without}", first, urls, options)
            figures["migration_s"] = seconds[-1]
            print(f"\nmigrated in {seconds[-1]:.1f} s with {sizes[-1]} visits, {seconds[0]:.1f} s with {sizes[0]}")
        figures["after"] = _measured("as it is", first, urls, options)
        if options.jobs:
            figures["held"] = _held(made, first, sizes[1], options.jobs)
        if options.updates:
            figures["leases"] = _leases(made, first, sizes[1], options.updates)
    Report("database", options.out).end(figures)
    return figures


def _measured(which: str, first: First, urls: Mapping[int, str], options: argparse.Namespace) -> dict[str, Any]:
    sizes = list(urls)
    with scenes(first, urls) as found:
        measured = measure(found, ASKED, options.rounds)
    tables = large(counts_of(urls[sizes[-1]]))
    columns = ["", *(f"ms, {n}" for n in sizes), "ratio", *(f"pages, {n}" for n in sizes), "read in full"]
    table(f"{which}: medians of {options.rounds}", columns, rows_of(measured, sizes, tables))
    _keep_plans(options.out / f"database-plans-{which.replace(' ', '-')}.json", measured)
    return {
        name: {
            "ms": {n: one.median_ms for n, one in by_size.items()},
            "pages": {n: one.plans.pages for n, one in by_size.items()},
            "read_in_full": by_size[sizes[-1]].plans.scans(tables),
        }
        for name, by_size in measured.items()
    }


def _keep_plans(path: Path, measured: Mapping[str, Mapping[int, Measured]]) -> None:
    plans = {
        name: {visits: one.plans.statements for visits, one in by_size.items()} for name, by_size in measured.items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(plans, indent=1))
    print(f"plans: {path}")


def _held(made: Any, first: First, visits: int, jobs: int) -> dict[str, Any]:
    found = {held: harms.held_snapshot(made, first, visits, jobs, held=held) for held in (False, True)}
    columns = ("", "jobs", "look, ms", "pages", "pages, deliveries", "dead visits", "dead deliveries")
    for held, moments in found.items():
        title = f"{jobs} jobs pass while {'a snapshot is held' if held else 'no snapshot is held'}, {visits} visits"
        table(title, columns, [list(each.cells()) for each in moments])
    return {("held" if held else "not held"): harms.as_json(moments) for held, moments in found.items()}


def _leases(made: Any, first: First, visits: int, updates: int) -> dict[str, Any]:
    ways = {"as PostgreSQL comes": AS_IT_COMES, "with the service's parameters": ()}
    found = {name: harms.lease_updates(made, first, visits, updates, *before) for name, before in ways.items()}
    columns = ("", "s", "without an index", "table grew MB", "indexes grew MB", "REINDEX gave back MB")
    rows = [
        [name, each.seconds, each.hot, each.table_mb, each.indexes_mb, each.given_back_mb]
        for name, each in found.items()
    ]
    table(f"leases of {harms.LEASED} visits extended {updates} times", columns, rows)
    return {name: harms.as_json(each) for name, each in found.items()}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks database", description=__doc__)
    parser.add_argument("--visits", type=int, default=1_000_000, help="of the largest database (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="alternations; medians are reported (%(default)s)")
    parser.add_argument("--jobs", type=int, default=10_000, help="that pass through the queues (%(default)s; 0: none)")
    parser.add_argument("--updates", type=int, default=1_000_000, help="of leases (%(default)s; 0: none)")
    parser.add_argument("--without", metavar="REVISION", help="measure without what this migration changed before")
    parser.add_argument("--kept", type=Path, help="folder in which the databases stay, to be measured again")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of plans and JSON (default: %(default)s)")
    return parser.parse_args(arguments)
