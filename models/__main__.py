"""``python -m models list|show|promote|rollback|shadow|compare|recalls|certify``: which version serves, and why.

``catalog`` and ``fetch`` (:mod:`models.community`) bring networks that others trained.
"""

from __future__ import annotations

import argparse
import getpass
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from inference.bundles.deciding import NotDone, changed
from inference.bundles.registry import LOG, Entry, Registry, read_registry
from models import certify, on_visits
from models.community import add_commands
from models.registry import promote, read_manifest, rollback, set_shadow

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
    except SQLAlchemyError as error:  # its message has the address
        print(f"models: the database cannot be read ({type(error).__name__})", file=sys.stderr)
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
    action = "end certificate" if entry.action == "certify" and entry.certificate is None else entry.action
    what = f"{action} by {entry.site}" if entry.site else action
    found = "".join(f"; {finding}: {verdict}" for finding, verdict in entry.verdicts.items())
    return (
        f"{entry.at:%Y-%m-%d %H:%M}", what, entry.from_version or "-", entry.to_version or "-",
        entry.who, entry.why + found, f"{entry.override} [{'; '.join(entry.overridden)}]" if entry.override else "",
    )  # fmt: skip


def _promote(given: argparse.Namespace) -> None:
    database = on_visits.show_before_promotion(given, table)
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
    for added in (show, promoting, back, shadow):
        added.add_argument("name")
    for added, number in ((show, "?"), (promoting, None), (shadow, None)):
        added.add_argument("version", nargs=number)
    for added in (promoting, back):
        added.add_argument("--who", required=True, help="who decides")
        added.add_argument("--why", required=True, help="and why")
    shadow.add_argument("--who", default=_login(), help="who decides; by default who is logged in")
    shadow.add_argument("--why", default="to be compared", help="and why")
    promoting.add_argument(
        "--override", metavar="REASON", help="promote although it is worse; the log keeps the reason"
    )
    on_visits.add_commands(command, table)
    on_visits.add_options(promoting)
    certify.add_commands(command, table)
    add_commands(command, table)
    return parser


def _login() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user in a container may have no name
        return f"uid {os.getuid()}"


if __name__ == "__main__":
    sys.exit(main())
