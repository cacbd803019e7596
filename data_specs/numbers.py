"""Numbers that files write as text: converted where they can be read in one way only, else refused by their name."""

from __future__ import annotations

import math
import re

from data_specs.problems import Refused

MAX_SHOWN = 24
"""Characters of a refused value that the refusal quotes."""

_NUMBER = re.compile(r"[-+]?(?:\d{1,40}(?:[.,]\d{0,40})?|[.,]\d{1,40})(?:[eE][-+]?\d{1,3})?")


def number(text: str, name: str) -> float:
    """A finite number; a comma stands for the decimal point, as much software of countries that write it so does.

    Parameters
    ----------
    text
        The number, with blanks around it or without.
    name
        The keyword or field that has the value, for the refusal.

    Raises
    ------
    Refused
        ``unreadable``: it is empty, is no number, has a comma and a point, or two commas.
    """
    text = text.strip(" \0\t\r\n")
    value = float(text.replace(",", ".")) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(value):
        shown = "".join(c if c.isprintable() else "?" for c in text[:MAX_SHOWN])
        raise Refused("unreadable", f"{name} {shown or '—'}", f"{name} 0.5")
    return value
