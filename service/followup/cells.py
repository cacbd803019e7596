"""Cells of tables that are opened in a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence

BOM = "\ufeff"
"""Where a text begins with it, spreadsheets read it as UTF-8."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")


def safe(value: object) -> object:
    """The value, with a quote before text that a spreadsheet would run as a formula.

    References
    ----------
    OWASP, CSV Injection: the characters by which a formula begins, full-width ones included.
    """
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def csv_lines(columns: Sequence[str], rows: Iterable[Mapping[str, object]], *, header: bool = True) -> str:
    """Lines of CSV (RFC 4180). The first line holds the names of the columns."""
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\r\n")
    if header:
        writer.writeheader()
    writer.writerows({name: safe(value) for name, value in row.items()} for row in rows)
    return out.getvalue()
