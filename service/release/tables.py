"""The programme's tables that are in force: of the setting, else of the last release, else those that ship."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import structlog

from data_specs.next_steps.table import BadTable, Table, read_table, table_of
from service.release.kept import last_release
from service.release.signed import NotTaken, Release
from service.settings import Settings

NEXT_STEPS = "next_steps"
READERS: dict[str, Callable[[str, str], Any]] = {NEXT_STEPS: lambda text, where: table_of(text.encode(), where)}
"""How each table that a release may have is read: its text, and where it came from, for the error."""

log = structlog.get_logger()


class Tables:
    """The tables, read again when another release is in force.

    Raises
    ------
    BadTable
        The table in force cannot be used at the start. Later the table before it stays.
    """

    def __init__(self, settings: Settings) -> None:
        self._bundles = settings.bundles
        self._own = None if settings.next_steps is None else read_table(settings.next_steps)
        self._shipped = read_table()
        self._last = self._own or self._released() or self._shipped

    @property
    def next_steps(self) -> Table:
        """What to do next."""
        if self._own is not None:
            return self._own
        try:
            self._last = self._released() or self._shipped
        except BadTable as error:
            _say_once(str(error))
        return self._last

    def _released(self) -> Table | None:
        kept = last_release(self._bundles)
        text = kept.release.tables.get(NEXT_STEPS) if kept else None
        return _read(text, f"release {kept.release.number}") if kept and text is not None else None


def check_tables(release: Release) -> None:
    """Check that every table of a release can be used.

    Raises
    ------
    NotTaken
        ``table``. One that this software does not know is refused too: it would have no effect.
    """
    for name, text in release.tables.items():
        if name not in READERS:
            raise NotTaken("table", f"{name}: known are {', '.join(READERS)}")
        try:
            READERS[name](text, name)
        except BadTable as error:
            raise NotTaken("table", str(error)) from None


@lru_cache(maxsize=4)
def _read(text: str, where: str) -> Table:
    return table_of(text.encode(), where)


@lru_cache(maxsize=16)
def _say_once(reason: str) -> None:
    log.error("table_not_used", reason=reason)
