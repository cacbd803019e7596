"""How PostgreSQL carries out what it is asked: its plans, and how many rows it read one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, Engine, event

_EXPLAINED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
_SCANNED = "SELECT relname, seq_tup_read FROM pg_stat_xact_user_tables WHERE seq_tup_read > 0"


@dataclass
class Plans:
    """What was seen.

    Parameters
    ----------
    statements
        Each statement with its plan, as ``EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON)`` gives it.
    scanned
        Rows that were read one after the other, by table: by the statements, and by the checks of foreign keys, which
        no plan shows. Each statement runs twice, once to be explained.
    """

    statements: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    scanned: Counter[str] = field(default_factory=Counter)

    @property
    def pages(self) -> int:
        """Pages of 8 kB that the statements looked at, in memory or on disk."""
        blocks = (plan["Plan"] for _, plan in self.statements)
        return sum(each["Shared Hit Blocks"] + each["Shared Read Blocks"] for each in blocks)

    def scans(self, large: Mapping[str, int]) -> list[str]:
        """Which of these tables, given with their numbers of rows, were read from end to end."""
        return [table for table, rows in large.items() if self.scanned[table] >= rows]


@contextmanager
def explained(engine: Engine) -> Iterator[Plans]:
    """Explain every statement meanwhile, in its own transaction, before it runs."""
    found = Plans()

    def explain(
        connection: Connection, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
    ) -> None:
        if many or not statement.lstrip().upper().startswith(_EXPLAINED):
            return
        with _cursor_of(connection) as cursor:
            cursor.execute("SAVEPOINT explained")
            cursor.execute(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {statement}", parameters)
            found.statements.append((statement, cursor.fetchone()[0][0]))
            cursor.execute("ROLLBACK TO SAVEPOINT explained")
            cursor.execute("RELEASE SAVEPOINT explained")

    def begin(connection: Connection) -> None:
        found.scanned.subtract(_scanned(connection))  # the server has not reported these of earlier transactions yet

    def end(connection: Connection) -> None:
        found.scanned.update(_scanned(connection))

    events = (("before_cursor_execute", explain), ("begin", begin), ("commit", end), ("rollback", end))
    for name, function in events:
        event.listen(engine, name, function)
    try:
        yield found
    finally:
        for name, function in events:
            event.remove(engine, name, function)


def _scanned(connection: Connection) -> dict[str, int]:
    """Rows that this connection's server process has read one after the other and not reported yet, by table."""
    with _cursor_of(connection) as cursor:
        cursor.execute(_SCANNED)
        return dict(cursor.fetchall())


def _cursor_of(connection: Connection) -> Any:
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101
    return driver.cursor()
