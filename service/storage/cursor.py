"""Cursors: where a page of a list ended, as text that a client gives back to get the next page."""

from __future__ import annotations

import base64


def write_cursor(*values: object) -> str:
    """The values of the last row's sort key, which have no spaces in them, as one word."""
    text = " ".join(map(str, values))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, n_values: int) -> list[str]:
    """The values of a cursor, which anybody may have changed.

    Raises
    ------
    ValueError
        It is not a cursor with so many values.
    """
    # binascii.Error and UnicodeError are ValueErrors
    values = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii").split(" ")
    if len(values) != n_values:
        raise ValueError("another number of values")
    return values
