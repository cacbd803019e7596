"""Cursors are given back as they were given out, and anything else is refused."""

from __future__ import annotations

import base64

import pytest

from service.storage.cursor import read_cursor, write_cursor


@pytest.mark.parametrize("values", [("a",), ("2026-11-22T08:00:00+00:00", "b"), (1, "x", "0f-9"), ("ab", "c", "")])
def test_a_cursor_is_read_as_it_was_written(values):
    cursor = write_cursor(*values)
    assert cursor.isascii()
    assert not set("+/= ") & set(cursor)
    assert read_cursor(cursor, len(values)) == [str(value) for value in values]


NOT_ASCII = base64.urlsafe_b64encode("é é".encode()).decode()


@pytest.mark.parametrize("cursor", ["x", "ÿ", "\0", "", "YQ", "YSBiIGM", NOT_ASCII])
def test_what_is_not_a_cursor_is_refused(cursor):
    with pytest.raises(ValueError):  # noqa: PT011  base64 and the decoder have words of their own
        read_cursor(cursor, 2)
