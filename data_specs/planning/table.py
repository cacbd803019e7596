"""A plan as rows of a table: every threshold for a spreadsheet, a few for the eye."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from io import StringIO

from data_specs.planning.consequences import FIGURES, MONEY, Consequences, Figure, Row

SHOWN = 12
HEAD = ("population", "people", "prevalence", "cases", "threshold", "operating_point", "decides", "currency")


def a_few(rows: Sequence[Row], n: int = SHOWN) -> list[Row]:
    """Operating points, both ends, and thresholds spread between them."""
    spread = {round(i * (len(rows) - 1) / max(1, n - 1)) for i in range(n)}
    return [row for i, row in enumerate(rows) if row.name or i in spread]


def as_csv(found: Iterable[Consequences], currency: str) -> str:
    """Every threshold with the low and high ends of its intervals; shares are between 0 and 1."""
    written = StringIO()
    lines = csv.writer(written, lineterminator="\n")
    lines.writerow([*HEAD, *(f"{name}{end}" for name in FIGURES for end in ("", "_low", "_high"))])
    for each in found:
        of_all = (_text(each.population), each.people, str(each.prevalence), _text(each.performance.cases))
        for row in each.rows:
            ends = [end for name in FIGURES for end in _ends(row.figures[name], is_money=name in MONEY)]
            lines.writerow([*of_all, repr(row.threshold), row.name, int(row.decides), currency, *ends])
    return written.getvalue()


def _text(words: str) -> str:
    """Words that a spreadsheet does not take for a formula."""
    return f"'{words}" if words[:1] in ("=", "+", "-", "@", "\t", "\r") else words


def _ends(figure: Figure, *, is_money: bool) -> list[str]:
    values = (figure.value, figure.low, figure.high)
    return ["" if math.isnan(value) else f"{value:.2f}" if is_money else f"{value:.6g}" for value in values]
