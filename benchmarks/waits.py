"""What a PostgreSQL does meanwhile: transactions, rows, and what its server processes wait for."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from sqlalchemy import Connection, Engine, text

EVERY_S = 0.05
REPORTED_S = 1.1
"""A server process tells its figures once a second."""
_COUNTED = text(
    "SELECT xact_commit, tup_inserted + tup_updated + tup_deleted, tup_fetched + tup_returned FROM pg_stat_database "
    "WHERE datname = current_database()"
)
_WAITS = text(
    "SELECT coalesce(wait_event_type, 'CPU'), coalesce(wait_event, '') FROM pg_stat_activity "
    "WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid() "
    "AND datname = current_database()"
)


@dataclass
class Watched:
    """What was seen.

    Parameters
    ----------
    samples
        How often it was looked; ``waits`` counts, by kind and event, the server processes that were at work then.
        ``CPU``: they waited for nothing.
    """

    seconds: float = 0.0
    commits: int = 0
    written: int = 0
    read: int = 0
    samples: int = 0
    waits: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Watched) -> Watched:
        return Watched(
            self.seconds + other.seconds,
            self.commits + other.commits,
            self.written + other.written,
            self.read + other.read,
            self.samples + other.samples,
            self.waits + other.waits,
        )

    @property
    def per_s(self) -> dict[str, float]:
        """Transactions and rows per second; server processes that wait, and that are at work, at a time."""
        seconds, samples = max(self.seconds, 1e-9), max(self.samples, 1)
        return {
            "commits": self.commits / seconds,
            "rows written": self.written / seconds,
            "rows read": self.read / seconds,
            "waits for locks": self._of("Lock") / samples,
            "waits for the log": (self._of("IO:WAL") + self._of("LWLock:WAL")) / samples,
            "busy on average": self.waits.total() / samples,
        }

    def _of(self, prefix: str) -> int:
        return sum(n for wait, n in self.waits.items() if wait.startswith(prefix))


@contextmanager
def watched(engine: Engine) -> Iterator[Watched]:
    """Look meanwhile what the database of ``engine`` does; its figures are complete at the end."""
    found, ended = Watched(), threading.Event()
    with engine.connect() as connection:
        time.sleep(REPORTED_S)
        before, began = _counted(connection), time.perf_counter()

        def watch() -> None:
            with engine.connect() as other:
                while not ended.wait(EVERY_S):
                    found.waits.update(f"{kind}:{event}".rstrip(":") for kind, event in other.execute(_WAITS))
                    found.samples += 1

        watcher = threading.Thread(target=watch, name="waits", daemon=True)
        watcher.start()
        try:
            yield found
        finally:
            ended.set()
            watcher.join()
            found.seconds = time.perf_counter() - began
            time.sleep(REPORTED_S)
            after = _counted(connection)
            found.commits, found.written, found.read = (b - a for a, b in zip(before, after, strict=True))


def _counted(connection: Connection) -> tuple[int, int, int]:
    commits, written, read = connection.execute(_COUNTED).one()
    return int(commits), int(written), int(read)
