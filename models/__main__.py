"""``python -m models list|show|promote|rollback|shadow|compare|recalls``: which version of a bundle serves, and why.

``catalog`` and ``fetch`` (:mod:`models.community`) bring networks that others trained.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from inference.bundles.deciding import NotDone, changed
from inference.bundles.registry import LOG, Entry, Registry, read_registry
from models.community import add_commands
from models.registry import promote, read_manifest, rollback, set_shadow

if TYPE_CHECKING:
    from models.compare import FindingAnswer

DONE, REFUSED, CANNOT = 0, 1, 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; 0: done, 1: refused, 2: cannot be done."""
    given = _parser().parse_args(arguments)
    try:
        given.run(given)
    except NotDone as refusal:
        print("Not done:\n" + "".join(f"  - {reason}\n" for reason in refusal.reasons), end="", file=sys.stderr)
        if not refusal.final:
            print('To do it nevertheless, and to have that in the log: --override "reason"', file=sys.stderr)
        return REFUSED
    except (OSError, LookupError) as error:
        print(f"models: {error}", file=sys.stderr)
        return CANNOT
    return DONE


def _list(given: argparse.Namespace) -> None:
    registry = read_registry(given.bundles)
    rows = []
    for name, versions in registry.versions.items():
        for version in versions:
            manifest = read_manifest(registry, name, version)
            decision = registry.last(name) if registry.in_service(name) == version else None
            state = _state(registry, name, version)
            if changed(registry, name, version):
                state += ", CHANGED since it was logged"
            rows.append(
                (name, version, state, f"{decision.at:%Y-%m-%d %H:%M}" if decision else "",
                 decision.who if decision else "", manifest.weights.sha256[:12])
            )  # fmt: skip
    print(table(("name", "version", "state", "since (UTC)", "by", "weights"), rows))
    for name in sorted({entry.name for entry in registry.entries}):
        if registry.in_service(name) not in registry.versions.get(name, ()):
            print(f"{name} {registry.in_service(name)} should be in service, and is not there")
    if registry.damaged:
        print(f"{LOG}: lines that are not used (incomplete or changed): {', '.join(map(str, registry.damaged))}")


def _state(registry: Registry, name: str, version: str) -> str:
    if registry.in_service(name) == version:
        return "in service" if registry.last(name) else "in service (the highest; no log)"
    return "shadow" if registry.shadow(name) == version else "-"


def _show(given: argparse.Namespace) -> None:
    registry = read_registry(given.bundles)
    version = given.version or registry.in_service(given.name)
    if version not in registry.versions.get(given.name, ()):
        raise NotDone(f"{given.name} {version or ''} is not there")
    manifest = read_manifest(registry, given.name, version)
    state = _state(registry, manifest.name, version)
    print(f"{manifest.name} {manifest.version}: {state}\n{manifest.purpose}\nweights {manifest.weights.sha256}\n")
    rows = []
    for spec in manifest.findings:
        ages = f"{spec.age_years[0]:g}-{spec.age_years[1] - 1:g}" if spec.age_years else "any"
        shown = ("auroc", f"sensitivity@{spec.decides_at}", f"specificity@{spec.decides_at}", f"share with {spec.name}")
        for figure in spec.evaluation:
            if figure.metric in shown:
                found = figure.estimate
                positive = "" if found.n_positive is None else f" ({found.n_positive})"
                rows.append((spec.name, ages, figure.cohort, figure.subgroup, figure.metric, f"{found.value:.3f}",
                             f"{found.low:.3f} to {found.high:.3f}", f"{found.n}{positive}"))  # fmt: skip
    print(table(("finding", "ages", "cohort", "group", "figure", "value", "95 %", "n (positive)"), rows))
    history = [_history(entry) for entry in registry.entries if entry.name == given.name]
    if history:
        print("\n" + table(("when (UTC)", "what", "from", "to", "who", "why", "overridden because"), history))


def _history(entry: Entry) -> tuple[str, ...]:
    what = f"accept by {entry.site}" if entry.site else entry.action
    found = "".join(f"; {finding}: {verdict}" for finding, verdict in entry.verdicts.items())
    return (
        f"{entry.at:%Y-%m-%d %H:%M}", what, entry.from_version or "-", entry.to_version or "-",
        entry.who, entry.why + found, f"{entry.override} [{'; '.join(entry.overridden)}]" if entry.override else "",
    )  # fmt: skip


def _promote(given: argparse.Namespace) -> None:
    database = _database(given)
    if database is not None:
        try:
            _print_recalls(given, database, given.version)
        except (SQLAlchemyError, LookupError) as error:  # a bundle is put in service with the database away, too
            print(f"Not shown: what would have happened to recent visits ({type(error).__name__})")
    entry, not_compared = promote(
        given.bundles,
        given.name,
        given.version,
        who=given.who,
        why=given.why,
        override=given.override,
        database=database,
    )
    print("".join(f"Not compared: {reason}\n" for reason in not_compared), end="")
    print("".join(f"Overridden: {reason}\n" for reason in entry.overridden), end="")
    print(f"{entry.name} {entry.to_version} is in service, in the place of {entry.from_version or 'none'}.")


def _rollback(given: argparse.Namespace) -> None:
    entry = rollback(given.bundles, given.name, who=given.who, why=given.why)
    print(f"{entry.name} {entry.to_version} is in service again, in the place of {entry.from_version}.")


def _shadow(given: argparse.Namespace) -> None:
    version = None if given.version == "off" else given.version
    entry = set_shadow(given.bundles, given.name, version, who=given.who, why=given.why)
    print(f"{entry.name} {entry.to_version} runs in the shadow." if version else f"{entry.name}: the shadow is off.")


def _compare(given: argparse.Namespace) -> None:
    from models.compare import compare  # noqa: PLC0415  only this command needs the database

    found = compare(_expect_database(given), given.name, shadow=given.version)
    if not found:
        print(f"{given.name}: no answer of a shadow is stored yet")
    for (served, shadow), both in found.items():
        print(f"{given.name} {served} in service, {shadow} in the shadow: {both.visits} visits\n")
        rows = [
            (
                name, str(pairs.n), str(pairs.one_only), *(str(pairs.cells.get(cell, "")) for cell in _CELLS),
                _number(pairs.agreement, percent=True), _number(pairs.kappa), _number(pairs.correlation),
                _number(pairs.distance),
            )
            for name, pairs in both.findings.items()
        ]  # fmt: skip
        print(table(_COMPARED, rows))
        print(f"\nDiffering: {len(both.differing)}" + (f", {given.limit} shown" * (len(both.differing) > given.limit)))
        if both.differing:
            shown = [
                (pair.visit_id, pair.finding, _answer(pair.served), _answer(pair.shadow))
                for pair in both.differing[: given.limit]
            ]
            print(table(("visit", "finding", f"in service ({served})", f"shadow ({shadow})"), shown))


def _recalls(given: argparse.Namespace) -> None:
    registry = read_registry(given.bundles)
    version = given.version or registry.shadow(given.name)
    if version is None:
        raise LookupError(f"{given.name}: no version is in the shadow; name one that was")
    _print_recalls(given, _expect_database(given), version)


def _print_recalls(given: argparse.Namespace, database: str, version: str) -> None:
    """What would have happened to the site's last visits, and the thresholds at which as many are recalled or found."""
    from models.change_plan import read_plan  # noqa: PLC0415  only this and a promotion need the database
    from models.recalls import HEAD, rows, scores, thresholds  # noqa: PLC0415
    from models.recent import recent  # noqa: PLC0415

    registry = read_registry(given.bundles)
    before = registry.in_service(given.name)
    if before is None or version not in registry.versions.get(given.name, ()):
        return
    plan = read_plan(given.bundles, given.name)
    days = given.days or (plan[0].protocol.days if plan else DAYS)
    manifest = read_manifest(registry, given.name, version)
    found = recent(database, registry, manifest, before, days, site=given.site)
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


def _database(given: argparse.Namespace) -> str | None:
    """Address of the service's database; ``None`` where none is named and SQLite's file is not there."""
    address = given.database or f"sqlite:///{given.data_dir.absolute()}/sangloc.db"
    is_there = not address.startswith("sqlite:///") or Path(address.removeprefix("sqlite:///")).exists()
    return str(address) if is_there else None


def _expect_database(given: argparse.Namespace) -> str:
    address = _database(given)
    if address is None:
        raise LookupError(f"there is no database at {given.database or given.data_dir / 'sangloc.db'}")
    return address


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


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their widest cell, two spaces between them."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m models", description=__doc__)
    folder = Path(os.environ.get("SANGLOC_BUNDLES") or "models/bundles")
    parser.add_argument("--bundles", type=Path, default=folder, help="folder of the bundles (SANGLOC_BUNDLES)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        return added

    command("list", _list, "every version, and which serves")
    show = command("show", _show, "a version's figures, and what was decided about its name")
    promoting = command("promote", _promote, "put a version in service, if it can be served and is no worse")
    back = command("rollback", _rollback, "return to the version before")
    shadow = command("shadow", _shadow, "run a version next to the one in service; 'off': none")
    compared = command("compare", _compare, "how far the shadow agrees with the one in service, and where it does not")
    recalled = command("recalls", _recalls, "whom the shadow would have recalled, and its thresholds at equal recalls")
    for added in (show, promoting, back, shadow, compared, recalled):
        added.add_argument("name")
    for added, number in ((show, "?"), (promoting, None), (shadow, None), (recalled, "?")):
        added.add_argument("version", nargs=number)
    for added in (promoting, back):
        added.add_argument("--who", required=True, help="who decides")
        added.add_argument("--why", required=True, help="and why")
    shadow.add_argument("--who", default=_login(), help="who decides; by default who is logged in")
    shadow.add_argument("--why", default="to be compared", help="and why")
    promoting.add_argument(
        "--override", metavar="REASON", help="promote although it is worse; the log keeps the reason"
    )
    compared.add_argument("--version", help="only this version in the shadow")
    data_dir = Path(os.environ.get("SANGLOC_DATA_DIR") or "var")
    database = os.environ.get("SANGLOC_DATABASE_URL")
    for added in (compared, recalled, promoting):
        added.add_argument("--database", default=database, help="SANGLOC_DATABASE_URL")
        added.add_argument("--data-dir", type=Path, default=data_dir, help="SANGLOC_DATA_DIR, where SQLite's file is")
    for added in (recalled, promoting):
        added.add_argument("--days", type=int, help=f"visits of so many days (by default those of the plan, or {DAYS})")
        added.add_argument("--site", help="show only visits of this site")
        added.add_argument("--scores", type=Path, metavar="FILE", help="write probabilities and outcomes as CSV")
    compared.add_argument("--limit", type=int, default=20, help="differing cases shown")
    add_commands(command, table)
    return parser


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user in a container may have no name
        return f"uid {os.getuid()}"


if __name__ == "__main__":
    sys.exit(main())
