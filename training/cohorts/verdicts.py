"""The result of one check of a cohort, and the report of all results."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from training.cohorts.inputs import Inputs
from training.cohorts.table import CohortTable

Verdict = Literal["ok", "doubtful", "unusable"]
Index = NDArray[np.intp]


@dataclass(frozen=True)
class Check:
    """Result of one check.

    Parameters
    ----------
    rows
        Rows of the table that it concerns, as a spreadsheet counts them (2 is the first case).
    names
        Files or persons of these rows.
    figure
        The number that decided, if there is one.
    """

    name: str
    verdict: Verdict
    message: str
    rows: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    figure: float | None = None


def check_of_rows(table: CohortTable, name: str, verdict: Verdict, message: str, index: Index, **more: object) -> Check:
    """A check of the rows at ``index``, with their files, or their persons where there are no files."""
    rows = table.frame.iloc[index]
    names = rows.file if table.manifest.modality != "labs" else rows.person
    return Check(
        name,
        verdict,
        message,
        tuple(int(r) for r in rows.row),
        tuple(str(n or "—") for n in names),
        **more,  # type: ignore[arg-type]
    )


def known_rows(table: CohortTable, inputs: Inputs, finding: str) -> Index:
    """Readable rows that are in a part and whose label is 0 or 1."""
    usable = inputs.readable & (table.frame.part.to_numpy(dtype=str) != "unused")
    return np.flatnonzero(usable & np.isin(table.labels[finding].to_numpy(), (0.0, 1.0)))


def unusable(checks: Sequence[Check]) -> bool:
    """Whether any check found the cohort unusable."""
    return any(check.verdict == "unusable" for check in checks)


def doubts(checks: Sequence[Check]) -> tuple[str, ...]:
    """The doubtful results as sentences for the model card, without rows and persons."""
    return tuple(f"{check.name}: {check.message}" for check in checks if check.verdict == "doubtful")


def report(checks: Sequence[Check], table: CohortTable) -> str:
    """All results as text."""
    counts = Counter(check.verdict for check in checks)
    lines = [
        f"{table.manifest.name}: {len(table.frame)} rows of {table.frame.person.nunique()} persons, "
        f"{', '.join(table.manifest.labels)}",
        "",
    ]
    for check in checks:
        start = f"{check.verdict:<9} {check.name:<25} "
        lines += textwrap.wrap(check.message, 118, initial_indent=start, subsequent_indent=" " * 36)
        if check.rows:
            named = zip(check.rows, check.names, strict=False)
            shown = (
                [f"{r} ({n})" for r, n in named] if len(check.names) == len(check.rows) else list(map(str, check.rows))
            )
            lines += textwrap.wrap(
                "rows " + listed(shown),
                118,
                initial_indent=" " * 36,
                subsequent_indent=" " * 36,
                break_long_words=False,
            )
    verdict = "UNUSABLE: nothing is trained on it" if counts["unusable"] else "usable"
    lines += ["", f"{verdict} ({counts['unusable']} unusable, {counts['doubtful']} doubtful, {counts['ok']} ok)"]
    return "\n".join(lines)


def listed(items: Sequence[str], most: int = 12) -> str:
    """The first ``most`` items, and how many more there are."""
    return ", ".join(items[:most]) + (f" and {len(items) - most} more" if len(items) > most else "")
