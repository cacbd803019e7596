"""Many visits, several at a time; what was posted is noted beside the input, so that a second run goes on there."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client.cases import BadInput, Case
from client.connection import Connection, Refused


@dataclass(frozen=True)
class Outcome:
    """What became of a case: the visit, or the sentence of a refusal."""

    case: Case
    visit: dict[str, Any] | None = None
    refusal: str = ""
    code: str = ""


class Notes:
    """Which visit each posted case became, at which address: one line of JSON each, added as it happens.

    Parameters
    ----------
    path
        ``None``: nothing is noted.
    """

    def __init__(self, path: Path | None, address: str) -> None:
        self._path, self._address = path, address
        self._lock = threading.Lock()
        self.ids: dict[str, str] = {}
        for line in path.read_text("utf-8").splitlines() if path is not None and path.exists() else ():
            try:
                noted = json.loads(line)
                if noted["address"] == address:
                    self.ids[noted["digest"]] = noted["id"]
            except (ValueError, KeyError, TypeError):
                continue  # the last line of a run that was killed

    def add(self, case: Case, visit_id: str) -> None:
        """Note that the case was posted."""
        with self._lock:
            self.ids[case.digest] = visit_id
            if self._path is not None:
                line = json.dumps({"digest": case.digest, "id": visit_id, "address": self._address})
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(f"{line}\n")


def notes_beside(paths: Sequence[Path]) -> Path | None:
    """Where the notes of a folder or a table stand; ``None`` for the files of one visit."""
    only = paths[0].resolve()
    is_many = len(paths) == 1 and (only.is_dir() or only.suffix.lower() == ".csv")
    return only.with_name(f"{only.name}.posted.jsonl") if is_many else None


def post_all(
    connection: Connection, cases: Sequence[Case], notes: Notes, *, at_once: int, wait_for_them: bool
) -> Iterator[Outcome]:
    """Post each case that is not noted, and get each that is, in the order in which they are done.

    Raises
    ------
    Refused
        The key is not known, or may not post: the others would be refused too.
    NotReached
        The service does not answer. What was posted is noted.
    """

    def one(case: Case) -> Outcome:
        try:
            if case.digest in notes.ids:
                known = notes.ids[case.digest]
                return Outcome(case, connection.wait(known) if wait_for_them else connection.visit(known))
            visit = connection.post(case)
            notes.add(case, visit["id"])
            return Outcome(case, connection.wait(visit["id"]) if wait_for_them else visit)
        except Refused as refused:
            if refused.status in (401, 403):
                raise
            return Outcome(case, refusal=str(refused), code=refused.code)

    yield from _each(one, cases, at_once, connection.stop)


def wait_for_all(connection: Connection, cases: Sequence[Case], notes: Notes, *, at_once: int) -> Iterator[Outcome]:
    """Wait for each case that is noted.

    Raises
    ------
    BadInput
        None of them was posted.
    """
    noted = [case for case in cases if case.digest in notes.ids]
    if not noted:
        raise BadInput("none of these visits was posted to this address")

    def one(case: Case) -> Outcome:
        return Outcome(case, connection.wait(notes.ids[case.digest]))

    yield from _each(one, noted, at_once, connection.stop)


def _each(
    work: Callable[[Case], Outcome], cases: Sequence[Case], at_once: int, stop: Callable[[], None]
) -> Iterator[Outcome]:
    """The outcome of each case as it comes; after a failure or Ctrl-C none is begun, and none tried again."""
    with ThreadPoolExecutor(at_once) as pool, ExitStack() as at_end:
        at_end.callback(stop)
        waiting = iter(cases)
        running: set[Future[Outcome]] = set()
        while True:
            while len(running) < at_once and (case := next(waiting, None)) is not None:
                running.add(pool.submit(work, case))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for each in done:
                yield each.result()
