"""Proves the chain: every entry has the digest that its content and the entry before it give.

What a chain cannot show by itself is that its end was cut off, or that all of it was computed anew. For that its head
is written down elsewhere from time to time (``python -m service.audit head``), and compared here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, Select, select

from service.storage.audit import (
    AUDIT,
    BEFORE_THE_FIRST,
    Entry,
    Head,
    digest_of,
    digest_of_digests,
    digest_of_opinion,
    digest_of_text,
)
from service.storage.tables import VISITS, IncidentRow, OpinionRow

START = Head(0, BEFORE_THE_FIRST)
AT_ONCE = 500
MOST_FAULTS = 1000
"""Faults that are told."""


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
    entries
        How many were read.
    compared
        Assessments, opinions and incidents that were compared with what the log says of them.
    """

    head: Head = START
    faults: list[str] = field(default_factory=list)
    entries: int = 0
    compared: int = 0

    def found(self, fault: str) -> None:
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(fault)


def stored_entries(connection: Connection, query: Select[Any] | None = None) -> Iterator[Stored]:
    """The entries of a query over the log, or all of them, in the order of their numbers."""
    query = select(AUDIT) if query is None else query
    for row in connection.execute(query.order_by(AUDIT.c.number).execution_options(yield_per=AT_ONCE)):
        yield stored_of(row)


def stored_of(row: Row[Any]) -> Stored:
    return Stored(Entry(row.number, row.at, row.actor, row.role, row.action, row.visit, row.detail), row.digest)


def prove(found: Iterable[Stored], heads: Iterable[Head] = ()) -> Proof:
    """Follow the chain from its beginning, and say where it is broken.

    Parameters
    ----------
    found
        All entries, in the order of their numbers.
    heads
        Heads that were written down earlier.
    """
    proof = Proof()
    noted: dict[int, set[str]] = {}
    for head in heads:
        if head.number > 0:
            noted.setdefault(head.number, set()).add(head.digest)
    expected, previous = 1, START.digest
    for entry, digest in found:
        proof.entries += 1
        number = entry.number
        if number < 1:
            proof.found(f"entry {number}: inserted: the first entry is 1")
            continue
        if number > expected:
            proof.found(f"{_range(expected, number - 1)}: missing")
        elif digest != digest_of(previous, entry.content()):
            proof.found(_broken(number))
        if noted.get(number, set()) - {digest}:
            proof.found(f"entry {number}: is not the one whose digest was written down")
        expected, previous = number + 1, digest
        proof.head = Head(number, digest)
    for number in sorted(noted):
        if number > proof.head.number:
            proof.found(f"entry {number}: was written down as the head, and the chain ends at {proof.head.number}")
    return proof


def _broken(number: int) -> str:
    if number == 1:
        return "entry 1: was changed: its digest does not follow from its content"
    return (
        f"entry {number}: its digest does not follow from its content and the digest of entry {number - 1}: "
        "one of the two was changed, put elsewhere or inserted"
    )


def _range(first: int, last: int) -> str:
    return f"entry {first}" if first == last else f"entries {first} to {last}"


def compare_rows(connection: Connection, proof: Proof) -> None:
    """Compare stored assessments and opinions with the digests that the log has of them.

    A row that was erased is not missed; one that was changed is.
    """
    _compare_incidents(connection, proof)
    wanted: list[Stored] = []
    noted = ("visit_assessed", "visit_received", "opinion_signed")
    for stored in stored_entries(connection, select(AUDIT).where(AUDIT.c.action.in_(noted))):
        wanted.append(stored)
        if len(wanted) >= AT_ONCE:
            _compare(connection, proof, wanted)
            wanted = []
    _compare(connection, proof, wanted)


def _compare_incidents(connection: Connection, proof: Proof) -> None:
    """Look whether the log still has of each visit what an incident has kept of it."""
    for row in connection.execute(select(IncidentRow.id, IncidentRow.visit, IncidentRow.record)):
        kept = _read(row.record)
        between = AUDIT.c.number.between(kept.get("first", 0), kept.get("last", 0))
        query = select(AUDIT.c.digest).where(AUDIT.c.visit == row.visit, between).order_by(AUDIT.c.number)
        proof.compared += 1
        if digest_of_digests(connection.execute(query).scalars().all()) != kept.get("sha256"):
            proof.found(f"incident {row.id}: the log has other entries about its visit than when it was raised")


def _compare(connection: Connection, proof: Proof, wanted: Sequence[Stored]) -> None:
    ids = {entry.visit for entry, _ in wanted if entry.visit}
    if not ids:
        return
    visits = select(VISITS.c.id, VISITS.c.assessment).where(VISITS.c.id.in_(ids))
    assessed: Mapping[str, str | None] = {row.id: row.assessment for row in connection.execute(visits)}
    opinions: dict[str, set[str]] = {}
    signed = select(OpinionRow.visit_id, OpinionRow.opinion).where(OpinionRow.visit_id.in_(ids))
    for row in connection.execute(signed):
        opinions.setdefault(row.visit_id, set()).add(digest_of_opinion(row.opinion))
    for entry, _ in wanted:
        if entry.visit is None or entry.visit not in assessed:  # it was erased
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
