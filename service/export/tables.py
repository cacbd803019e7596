"""The tables of a package: a row for each visit, counts without small cells, and how anonymous the rows are.

References
----------
k-anonymity: Sweeney L., Int J Uncertainty Fuzziness Knowl-Based Syst 2002;10:557-570. Small cells: the policy of the
Centers for Medicare & Medicaid Services, by which no cell of 1 to 10 is shown.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from data_specs.person import OLDEST_TOLD_YEARS
from data_specs.schema import Schema
from service.export.visit import SharedVisit
from service.followup.cells import csv_lines

BAND_YEARS = 10
QUASI_IDENTIFIERS = ("age_band", "sex", "site", "month")
VISIT_COLUMNS = ("visit", "person", *QUASI_IDENTIFIERS, "priority", "flagged")
COUNT_COLUMNS = ("site", "month", "finding", "visits")


class Anonymity(Schema):
    """How many persons share each combination of the quasi-identifiers.

    Parameters
    ----------
    k
        Persons in the smallest class: each person is alike to ``k - 1`` others at least.
    persons_below
        Persons in classes smaller than ``smallest_cell``.
    """

    quasi_identifiers: tuple[str, ...]
    k: int
    classes: int
    persons: int
    smallest_cell: int
    persons_below: int


def visit_rows(visits: Iterable[SharedVisit]) -> list[dict[str, str]]:
    """A row for each visit, in the order of pseudonyms, which shows nothing."""
    return [_row(visit) for visit in sorted(visits, key=lambda each: each.visit)]


def visits_csv(rows: Iterable[dict[str, str]]) -> str:
    return csv_lines(VISIT_COLUMNS, rows)


def counts_csv(rows: Iterable[dict[str, str]], smallest_cell: int) -> str:
    """Visits by site, month and flagged finding.

    Small cells are told as ``<11``. Where one cell of a site's month is small and alone, the smallest of the others is
    told as ``withheld``: the small one would be what these leave of the visits of the package.
    """
    months: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for row in rows:
        months[row["site"], row["month"]].update(row["flagged"].split() or ["none"])
    lines = [
        {"site": site, "month": month, "finding": finding, "visits": told}
        for (site, month), counts in sorted(months.items())
        for finding, told in sorted(_told(counts, smallest_cell).items())
    ]
    return csv_lines(COUNT_COLUMNS, lines)


def _told(counts: Counter[str], smallest_cell: int) -> dict[str, str]:
    told = {finding: str(n) if n >= smallest_cell else f"<{smallest_cell}" for finding, n in counts.items()}
    large = [finding for finding, n in counts.items() if n >= smallest_cell]
    if large and len(large) == len(counts) - 1:
        told[min(large, key=lambda finding: (counts[finding], finding))] = "withheld"
    return told


def anonymity(rows: Sequence[dict[str, str]], smallest_cell: int) -> Anonymity:
    """k of the rows, by persons: two visits of one person do not hide anybody."""
    classes: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for row in rows:
        classes[tuple(row[name] for name in QUASI_IDENTIFIERS)].add(row["person"])
    sizes = [len(persons) for persons in classes.values()]
    below: set[str] = set().union(*(persons for persons in classes.values() if len(persons) < smallest_cell))
    return Anonymity(
        quasi_identifiers=QUASI_IDENTIFIERS,
        k=min(sizes, default=0),
        classes=len(sizes),
        persons=len({row["person"] for row in rows}),
        smallest_cell=smallest_cell,
        persons_below=len(below),
    )


def _row(visit: SharedVisit) -> dict[str, str]:
    person, on = visit.context.person, visit.context.visited_on
    return {
        "visit": visit.visit,
        "person": visit.person,
        "age_band": _band(person.age_years),
        "sex": person.sex or "unknown",
        "site": visit.site,
        "month": f"{on:%Y-%m}" if on else "unknown",
        "priority": visit.priority,
        "flagged": " ".join(each.name for each in visit.findings if each.positive),
    }


def _band(years: float | None) -> str:
    if years is None:
        return "unknown"
    if years >= OLDEST_TOLD_YEARS:
        return f"{OLDEST_TOLD_YEARS}+"
    first = int(years) // BAND_YEARS * BAND_YEARS
    return f"{first}-{first + BAND_YEARS - 1}"
