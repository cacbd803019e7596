"""Proves the chain: every entry has the digest that its content and the entry before it give.

What a chain cannot show by itself is that its end was cut off, or that all of it was computed anew. For that its head is
written down elsewhere from time to time (``python -m service.audit head``), and compared here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, select

from service.storage.audit import AUDIT, BEFORE_THE_FIRST, Entry, Head, digest_of, digest_of_opinion, digest_of_text
from service.storage.tables import VISITS, OpinionRow

AT_ONCE = 500
MOST_FAULTS = 1000
"""Faults that are told; a chain that was computed anew has one at each noted head, a torn one one at each tear."""


class Stored(NamedTuple):
    """An entry as it is stored, with its digest."""

    entry: Entry
    digest: str


@dataclass
class Proof:
    """What was found.

    Parameters
    ----------
    head
        The last entry.
    faults
        One sentence each; none where the chain is whole.
    compared
        Rows of visits and opinions that were compared with what the log says of them.
    """

    head: Head = Head(0, BEFORE_THE_FIRST)
    faults: list[str] = field(default_factory=list)
    compared: int = 0

    def found(self, fault: str) -> None:
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(fault)


def entries(connection: Connection, first: int = 1, last: int | None = None) -> Iterator[Stored]:
    """The entries in the order of their numbers."""
    query = select(AUDIT).where(AUDIT.c.number >= first).order_by(AUDIT.c.number)
    if last is not None:
        query = query.where(AUDIT.c.number <= last)
    for row in connection.execute(query.execution_options(yield_per=AT_ONCE)):
        entry = Entry(row.number, row.at, row.actor, row.role, row.action, row.visit, row.detail)
        yield Stored(entry, row.digest)


def prove(connection: Connection, heads: Iterable[Head] = ()) -> Proof:
    """Read the whole chain, and say where it is broken.

    Parameters
    ----------
    connection
        Of a snapshot: what is appended meanwhile is not read.
    heads
        Heads that were written down earlier.
    """
    proof = Proof()
    noted = {head.number: head.digest for head in heads}
    noted.pop(0, None)
    expected, previous = 1, BEFORE_THE_FIRST
    for stored in _entries_from_the_lowest(connection):
        number = stored.entry.number
        if number < 1:
            proof.found(f"entry {number}: inserted: the first entry is 1")
            continue
        if number > expected:
            proof.found(f"{_range(expected, number - 1)}: missing")
        elif stored.digest != digest_of(previous, stored.entry.content()):
            proof.found(_why(stored, previous))
        if number in noted and noted.pop(number) != stored.digest:
            proof.found(f"entry {number}: is not the one whose digest was written down")
        expected, previous = number + 1, stored.digest
        proof.head = Head(number, stored.digest)
    for number in sorted(noted):
        proof.found(f"entry {number}: was written down as the head, and the chain ends at {proof.head.number}")
    return proof


def compare_rows(connection: Connection, proof: Proof) -> None:
    """Compare stored assessments and opinions with the digests that the log has of them.

    A row that was erased is not missed; one that was changed is.
    """
    wanted: list[Stored] = []
    noted = ("visit_assessed", "visit_received", "opinion_signed")
    query = select(AUDIT).where(AUDIT.c.action.in_(noted)).order_by(AUDIT.c.number)
    for row in connection.execute(query.execution_options(yield_per=AT_ONCE)):
        entry = Entry(row.number, row.at, row.actor, row.role, row.action, row.visit, row.detail)
        wanted.append(Stored(entry, row.digest))
        if len(wanted) >= AT_ONCE:
            _compare(connection, proof, wanted)
            wanted = []
    _compare(connection, proof, wanted)


def _entries_from_the_lowest(connection: Connection) -> Iterator[Stored]:
    return entries(connection, first=-(2**62))


def _why(stored: Stored, previous: str) -> str:
    number = stored.entry.number
    return (
        f"entry {number}: its digest does not follow from its content and entry {number - 1}: "
        "one of the two was changed, put elsewhere, or inserted"
        if number > 1
        else "entry 1: its digest does not follow from its content: it was changed, or those before it were removed"
    )


def _range(first: int, last: int) -> str:
    return f"entry {first}" if first == last else f"entries {first} to {last}"


def _compare(connection: Connection, proof: Proof, wanted: Sequence[Stored]) -> None:
    ids = {stored.entry.visit for stored in wanted if stored.entry.visit}
    if not ids:
        return
    visits = select(VISITS.c.id, VISITS.c.assessment).where(VISITS.c.id.in_(ids))
    assessed: Mapping[str, str | None] = {row.id: row.assessment for row in connection.execute(visits)}
    opinions: dict[str, set[str]] = {}
    signed = select(OpinionRow.visit_id, OpinionRow.opinion).where(OpinionRow.visit_id.in_(ids))
    for row in connection.execute(signed):
        opinions.setdefault(row.visit_id, set()).add(digest_of_opinion(row.opinion))
    for stored in wanted:
        entry = stored.entry
        if entry.visit not in assessed:  # it was erased
            continue
        proof.compared += 1
        detail: dict[str, Any] = _read(entry.detail)
        if entry.action == "opinion_signed":
            if detail.get("opinion") not in opinions.get(entry.visit, set()):
                proof.found(f"visit {entry.visit}: an opinion is not the one that entry {entry.number} says was signed")
        elif detail.get("assessment") != digest_of_text(assessed[entry.visit] or ""):
            proof.found(f"visit {entry.visit}: its assessment is not the one of entry {entry.number}")


def _read(detail: str) -> dict[str, Any]:
    try:
        found = json.loads(detail)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
