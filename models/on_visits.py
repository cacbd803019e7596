"""``python -m models compare|recalls``: what the visits say that the version in the shadow answered, too.

Both read the service's database. A promotion shows the same as ``recalls`` before it decides.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from inference.bundles.registry import read_registry
from models.change_plan import MAX_DAYS, read_plan
from models.compare import FindingAnswer, compare
from models.recalls import HEAD, rows, scores, thresholds
from models.recent import recent
from models.registry import read_manifest

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def add_commands(command: Callable[[str, object, str], argparse.ArgumentParser], table: Table) -> None:
    """Add ``compare`` and ``recalls`` to ``python -m models``, whose tables are made by ``table``."""
    compared = command(
        "compare",
        lambda given: _compare(given, table),
        "how far the shadow agrees with the one in service, and where it does not",
    )
    compared.add_argument("name")
    compared.add_argument("--version", help="only this version in the shadow")
    compared.add_argument("--limit", type=int, default=20, help="differing cases shown")
    add_database(compared)
    recalled = command(
        "recalls",
        lambda given: _recalls(given, table),
        "whom the shadow would have recalled, and its thresholds at equal recalls",
    )
    recalled.add_argument("name")
    recalled.add_argument("version", nargs="?")
    add_options(recalled)
    recalled.add_argument(
        "--threshold",
        metavar="FINDING=VALUE",
        type=_threshold,
        action="append",
        default=[],
        help="what if the version in the shadow decided at another threshold",
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Which visits ``recalls`` and a promotion show."""
    add_database(parser)
    parser.add_argument("--days", type=_days, help=f"visits of so many days (by default those of the plan, or {DAYS})")
    parser.add_argument("--site", help="show only visits of this site")
    parser.add_argument("--scores", type=Path, metavar="FILE", help="write probabilities and outcomes as CSV")
    parser.set_defaults(threshold=[])


def add_database(parser: argparse.ArgumentParser) -> None:
    """Where the visits are."""
    folder = Path(os.environ.get("SANGLOC_DATA_DIR") or "var")
    address = os.environ.get("SANGLOC_DATABASE_URL")
    parser.add_argument("--database", default=address, help="SANGLOC_DATABASE_URL")
    parser.add_argument("--data-dir", type=Path, default=folder, help="SANGLOC_DATA_DIR, where SQLite's file is")


def show_before_promotion(given: argparse.Namespace, table: Table) -> str | None:
    """Print what would have happened to recent visits; the database's address, where there is one."""
    database = _database(given)
    if database is not None:
        try:
            _print_recalls(given, database, given.version, table)
        except (SQLAlchemyError, LookupError) as error:  # a bundle is put in service with the database away, too
            print(f"Not shown: what would have happened to recent visits ({type(error).__name__})")
    return database


def _compare(given: argparse.Namespace, table: Table) -> None:
    found = compare(expect_database(given), given.name, shadow=given.version)
    if not found:
        print(f"{given.name}: no answer of a shadow is stored yet")
    for (served, shadow), both in found.items():
        print(f"{given.name} {served} in service, {shadow} in the shadow: {both.visits} visits\n")
        compared = [
            (
                name, str(pairs.n), str(pairs.one_only), *(str(pairs.cells.get(cell, "")) for cell in _CELLS),
                _number(pairs.agreement, percent=True), _number(pairs.kappa), _number(pairs.correlation),
                _number(pairs.distance),
            )
            for name, pairs in both.findings.items()
        ]  # fmt: skip
        print(table(_COMPARED, compared))
        print(f"\nDiffering: {len(both.differing)}" + (f", {given.limit} shown" * (len(both.differing) > given.limit)))
        if both.differing:
            shown = [
                (pair.visit_id, pair.finding, _answer(pair.served), _answer(pair.shadow))
                for pair in both.differing[: given.limit]
            ]
            print(table(("visit", "finding", f"in service ({served})", f"shadow ({shadow})"), shown))


_CELLS = ((True, True), (True, False), (False, True), (False, False))
_COMPARED = (
    "finding", "n", "one only", "both +", "served +", "shadow +", "both -", "agree", "kappa", "correlation", "mean |dp|"
)  # fmt: skip


def _answer(answer: FindingAnswer | None) -> str:
    if answer is None:
        return "nothing"
    if isinstance(answer.verdict, str):
        return answer.verdict
    word = {True: "positive", False: "negative", None: "no verdict"}[answer.verdict]
    return word if answer.probability is None else f"{word}, {answer.probability:.3f}"


def _number(value: float | None, *, percent: bool = False) -> str:
    if value is None:
        return "-"
    return f"{100 * value:.1f} %" if percent else f"{value:.3f}"


def _recalls(given: argparse.Namespace, table: Table) -> None:
    registry = read_registry(given.bundles)
    version = given.version or registry.shadow(given.name)
    if version is None:
        raise LookupError(f"{given.name}: no version is in the shadow; name one that was")
    if version not in registry.versions.get(given.name, ()):
        raise LookupError(f"{given.name} {version} is not there")
    _print_recalls(given, expect_database(given), version, table)


def _print_recalls(given: argparse.Namespace, database: str, version: str, table: Table) -> None:
    """What would have happened to the site's last visits, and the thresholds at which as many are recalled or found."""
    registry = read_registry(given.bundles)
    before = registry.in_service(given.name)
    if before is None or version not in registry.versions.get(given.name, ()):
        return
    plan = read_plan(given.bundles, given.name)
    days = given.days or (plan[0].protocol.days if plan else DAYS)
    manifest = read_manifest(registry, given.name, version)
    found = recent(database, registry, manifest, before, days, site=given.site, thresholds=dict(given.threshold))
    print(f"{given.name} {before} in service, {version} in the shadow: {found.visits} visits of the last {days} days")
    if not found.answers:
        return
    print("\n" + table(HEAD, rows(found)))
    print("\n" + table(_EQUAL, thresholds(found)) + "\n")
    if given.scores is not None:
        given.scores.write_text(scores(found), encoding="utf-8")


DAYS = 30
"""What would have happened to the visits of so many days, unless a plan or the command says otherwise."""
_EQUAL = ("finding", "visits", "threshold at equal recalls", "at equal sensitivity (known cases)")


def _threshold(text: str) -> tuple[str, float]:
    finding, _, value = text.partition("=")
    try:
        threshold = float(value)
    except ValueError:
        threshold = -1.0
    if not (finding and 0 <= threshold <= 1):
        raise argparse.ArgumentTypeError(f"{text}: expected FINDING=VALUE, a value from 0 to 1")
    return finding, threshold


def _days(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 4 and 1 <= int(text) <= MAX_DAYS):
        raise argparse.ArgumentTypeError(f"{text}: expected a number of days from 1 to {MAX_DAYS}")
    return int(text)


def _database(given: argparse.Namespace) -> str | None:
    """Address of the service's database; ``None`` where none is named and SQLite's file is not there."""
    address = given.database or f"sqlite:///{given.data_dir.absolute()}/sangloc.db"
    is_there = not address.startswith("sqlite:///") or Path(address.removeprefix("sqlite:///")).exists()
    return str(address) if is_there else None


def expect_database(given: argparse.Namespace) -> str:
    """Address of the service's database.

    Raises
    ------
    LookupError
        It is not there.
    """
    address = _database(given)
    if address is None:
        raise LookupError(f"there is no database at {given.database or given.data_dir / 'sangloc.db'}")
    return address
