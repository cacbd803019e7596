"""The look-back: whom of an archive's persons another version of a bundle would recall, and whom no longer.

Both versions have scored the same archive. A visit (where none is stated, a case) is recalled for a finding where one
of its cases is (:func:`data_specs.visit.assessment.is_recalled`); compared are visits that both versions have decided.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pyarrow.compute as pc  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
from scipy.stats import binomtest

from inference.archive.parts import BadArchive, parts_of
from inference.archive.rows import Partition

DONE, CANNOT = 0, 2
ANY = "any"
"""In the place of a finding: recalled for one at least."""
COLUMNS = ["day", "site", "input", "visit", "person", "version", "finding", "probability", "recalled"]
BOTH, NEW, OLD, NEITHER = "both", "new_only", "old_only", "neither"
UNDECIDED, ONE = "undecided", "by_one_version"
LAST = "9999-12-31"


@dataclass(frozen=True)
class Recall:
    """What one version says of a visit and a finding; ``recalled`` is ``None`` where it is undecided."""

    recalled: bool | None
    probability: float | None

    def or_(self, other: Recall) -> Recall:
        """Of two cases of a visit: the one that recalls, else the one that is undecided."""
        return max(self, other, key=lambda each: (False, None, True).index(each.recalled))


Recalls = dict[tuple[str, str], Recall]
"""By visit and finding."""


@dataclass(frozen=True)
class Turned:
    """A visit on whose recall the two versions differ."""

    day: str
    site: str
    visit: str
    person: str
    finding: str
    recalled_by: str
    old: float | None
    new: float | None


@dataclass
class LookBack:
    """Counts by day, site and finding of how two versions recall, and the visits on which they differ."""

    counts: dict[tuple[str, str, str], Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    turned: list[Turned] = field(default_factory=list)

    def add(self, partition: Partition, old: Recalls, new: Recalls, persons: Mapping[str, str | None]) -> None:
        """The visits of one day and site."""
        day, site = (partition.day.isoformat() if partition.day else ""), partition.site or ""
        for visit, finding in sorted(old.keys() | new.keys()):
            before, after = old.get((visit, finding)), new.get((visit, finding))
            if before is None or after is None:
                self.counts[day, site, finding][ONE] += 1
                continue
            how = _how(before.recalled, after.recalled)
            self.counts[day, site, finding][how] += 1
            if how in (NEW, OLD):
                numbers = before.probability, after.probability
                person = persons.get(visit) or ""
                self.turned.append(Turned(day, site, visit, person, finding, how.partition("_")[0], *numbers))

    def over_all_days(self) -> dict[tuple[str, str, str], Counter[str]]:
        """Counts with the day left empty."""
        total: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
        for (_, site, finding), counted in self.counts.items():
            total["", site, finding] += counted
        return total


def look_back(folder: Path, bundle: str, old: str, new: str, since: str = "", until: str = LAST) -> LookBack:
    """Compare two versions on the rows of an archive.

    Parameters
    ----------
    since, until
        First and last day, ``YYYY-MM-DD``; cases without a day are left out where one is given.

    Raises
    ------
    BadArchive
        One of the versions has no row that decides.
    """
    found = LookBack()
    versions: set[str] = set()
    folders: dict[Path, list[Path]] = defaultdict(list)
    for part in parts_of(folder):
        folders[part.parent].append(part)
    for parts in folders.values():
        by_partition: dict[Partition, list[dict[str, Any]]] = defaultdict(list)
        for row in _rows(parts, bundle, (old, new)):
            by_partition[Partition(row["day"], row["site"])].append(row)
        for partition, rows in by_partition.items():
            day = partition.day.isoformat() if partition.day else ""
            if (since or until != LAST) and not (day and since <= day <= until):
                continue
            recalls, persons = _recalls(rows)
            versions |= recalls.keys()
            found.add(partition, recalls.get(old, {}), recalls.get(new, {}), persons)
    if lacking := {old, new} - versions:
        raise BadArchive(f"{folder}: in these days {bundle} {min(lacking)} has decided nothing")
    return found


def _rows(parts: Iterable[Path], bundle: str, versions: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The findings that may decide; measured ones and those for information recall nobody."""
    of_both = (pc.field("bundle") == bundle) & pc.field("version").isin(list(versions))
    for part in parts:
        with pq.ParquetFile(part) as opened:
            table = opened.read(columns=[*COLUMNS, "bundle", "operating_point"])
        yield from table.filter(of_both & pc.field("operating_point").is_valid()).select(COLUMNS).to_pylist()


def _recalls(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Recalls], dict[str, str | None]]:
    """What each version says of each visit and finding, and of any; the visits' persons."""
    found: dict[str, Recalls] = defaultdict(dict)
    persons: dict[str, str | None] = {}
    for row in rows:
        visit, recalls = row["visit"] or row["input"], found[row["version"]]
        persons[visit] = row["person"]
        for finding, probability in ((row["finding"], row["probability"]), (ANY, None)):
            recall = Recall(row["recalled"], probability)
            recalls[visit, finding] = recalls.get((visit, finding), recall).or_(recall)
    return found, persons


def _how(before: bool | None, after: bool | None) -> str:
    if before is None or after is None:
        return UNDECIDED
    return {(True, True): BOTH, (False, True): NEW, (True, False): OLD, (False, False): NEITHER}[before, after]


# ---------------------------------------------------------------- what is shown
def share(k: int, n: int) -> str:
    """A share of ``n`` in percent with its 95 % interval (Wilson, J Am Stat Assoc 1927;22:209)."""
    if not n:
        return ""
    interval = binomtest(k, n).proportion_ci(method="wilson")
    return f"{100 * k / n:.1f} ({100 * interval.low:.1f} to {100 * interval.high:.1f})"


def lines(counts: Mapping[tuple[str, str, str], Counter[str]]) -> list[dict[str, str | int]]:
    """One line for each day, site and finding: visits that both versions decided, and how."""
    found: list[dict[str, str | int]] = []
    for (day, site, finding), counted in sorted(counts.items()):
        n = sum(counted[how] for how in (BOTH, NEW, OLD, NEITHER))
        found.append(
            {
                "day": day,
                "site": site,
                "finding": finding,
                "visits": n,
                "old_recalls": counted[BOTH] + counted[OLD],
                "old_percent": share(counted[BOTH] + counted[OLD], n),
                "new_recalls": counted[BOTH] + counted[NEW],
                "new_percent": share(counted[BOTH] + counted[NEW], n),
                "new_only": counted[NEW],
                "new_only_percent": share(counted[NEW], n),
                "old_only": counted[OLD],
                "old_only_percent": share(counted[OLD], n),
                "undecided": counted[UNDECIDED],
                "by_one_version": counted[ONE],
            }
        )
    return found


def table(rows: Sequence[Mapping[str, str | int]], columns: Sequence[str]) -> str:
    """Lines as text."""
    texts = [list(columns), *([str(row[name]) for name in columns] for row in rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(columns))]
    padded = ([cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in texts)
    return "\n".join("  ".join(row) for row in padded)


def main(arguments: Sequence[str]) -> int:
    """Print the table over all days, and write CSV; its exit code."""
    given = _parser().parse_args(arguments)
    try:
        found = look_back(given.folder, given.bundle, given.old, given.new, given.since, given.until)
    except (BadArchive, OSError) as error:
        print(f"archive: {error}", file=sys.stderr)
        return CANNOT
    by_day = lines(found.counts)
    print(f"{given.bundle} {given.old} and {given.new}: visits recalled, percent (95 % interval)")
    print(table(lines(found.over_all_days()), [name for name in by_day[0] if name != "day"]))
    if given.csv is not None:
        _write(given.csv, by_day, list(by_day[0]))
    if given.visits is not None:
        _write(given.visits, [vars(each) for each in found.turned], [each.name for each in fields(Turned)])
    return DONE


def _write(file: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        written = csv.DictWriter(opened, columns, lineterminator="\n")
        written.writeheader()
        written.writerows(rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m inference.archive recall", description="Whom another version of a bundle would recall."
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="an archive that both versions have scored")
    parser.add_argument("--bundle", required=True, help="lung or cardiac")
    parser.add_argument("--old", required=True, metavar="VERSION")
    parser.add_argument("--new", required=True, metavar="VERSION")
    parser.add_argument("--since", default="", metavar="YYYY-MM-DD", help="first day")
    parser.add_argument("--until", default=LAST, metavar="YYYY-MM-DD", help="last day")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the counts by day, site and finding")
    parser.add_argument("--visits", type=Path, metavar="FILE", help="write the visits on which the versions differ")
    return parser
