"""Cursors: where a page of a list ended, as a word that the client sends back to get the next page."""

from __future__ import annotations

import base64


def write_cursor(*values: object) -> str:
    """The sort key of a page's last row as one word; no value may contain a space."""
    text = " ".join(map(str, values))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str, n_values: int) -> list[str]:
    """The values of a cursor. A client may have changed it: check each value.

    Raises
    ------
    ValueError
        It is not a cursor with this number of values.
    """
    # binascii.Error and UnicodeError are ValueErrors
    values = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode("ascii").split(" ")
    if len(values) != n_values:
        raise ValueError("another number of values")
    return values
