"""Makes a package of visits: each visit without names, tables over all of them, the manifest, the record."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from data_specs.problems import Refused
from data_specs.visit.teaching import Truth
from inference.readers.pool import Readers
from service.export.film import header_of
from service.export.last_look import look, words_of
from service.export.names import Names
from service.export.package import FILES, TABLES, VISITS, Code, Manifest, PackedFile, finish, new_folder, write_file
from service.export.profile import CODES
from service.export.record import note
from service.export.tables import anonymity, counts_csv, visit_rows, visits_csv
from service.export.truth import IS_KNOWN, truths_of
from service.export.visit import Corners, Leaving, SharedVisit, leaving
from service.storage.commands import NotDone
from service.storage.database import Database
from service.storage.store import Store
from service.storage.tables import IS_CASE, ReferralRow, VisitRow

VISITS_AT_ONCE = 50
RULES = {
    "ages": "completed years, 90 and more told as 90 (45 CFR 164.514(b)(2)(i)(C))",
    "dates": "moved into the past by 1 to 364 days, the same for all days of a person",
    "free_text": "only the terms of the vocabulary that are in it, as coded names",
    "names": "HMAC-SHA256 by a key that does not leave",
    "pixels": "8 bits as displayed, made anew; text-like shapes blacked out",
    "recordings": "WFDB format 32, made anew, without comments",
}
"""What was done to each kind of content, for the manifest."""
TRUTH_RULE = {"truth": "outcomes and what specialists signed, as coded names; only visits that have one"}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which visits are exported, to whom, and why that may be done.

    Parameters
    ----------
    sites, visits
        Only these; empty: all.
    since, until
        Received at this moment or later, and before that one.
    legal_basis
        In the words of who exports.
    with_truth
        To learn from: only visits of which something became known, each with it.
    """

    recipient: str
    legal_basis: str
    who: str
    sites: tuple[str, ...] = ()
    visits: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    at_most: int | None = None
    with_truth: bool = False


@dataclass
class _Made:
    """What came together so far."""

    files: dict[str, PackedFile] = field(default_factory=dict)
    visits: list[SharedVisit] = field(default_factory=list)
    removed: Counter[str] = field(default_factory=Counter)
    withheld: Counter[str] = field(default_factory=Counter)
    blacked_out: dict[str, tuple[Corners, ...]] = field(default_factory=dict)


def make_package(
    database: Database,
    store: Store,
    readers: Readers,
    key: bytes,
    wanted: Wanted,
    folder: Path,
    smallest_cell: int,
) -> tuple[str, Manifest]:
    """Write a package into a new folder; the digest of its manifest, and what that says. It blocks.

    Raises
    ------
    NotDone
        The folder is not empty, there is no finished visit to export, or none with something to learn from.
    Refused
        ``export_too_many``; ``export_identifier_left``: the last look found one.
    StorageUnavailable, ReadersFailed, OSError
        Nothing is left in the folder.
    """
    names = Names(key, wanted.recipient)
    with database.transaction() as session:
        ids = list(session.scalars(_wanted(wanted)))
    if not ids:
        raise NotDone("there is no finished visit to export")
    if wanted.at_most is not None and len(ids) > wanted.at_most:
        raise Refused("export_too_many", len(ids), wanted.at_most)
    made, gone = _Made(), list[str]()
    stated = [each.encode() for each in (wanted.recipient, wanted.legal_basis, wanted.who)]
    with new_folder(folder):
        for row, left in _each(database, store, readers, names, ids, with_truth=wanted.with_truth):
            look([*stated, *_contents(left)], words_of(row))
            made.withheld += left.withheld
            if not wanted.with_truth or left.visit.truth is not None:
                _put(folder, left, made)
                gone.append(row.id)
        if not gone:
            raise NotDone("no file could leave in which something known can be seen")
        manifest = _manifest(folder, made, wanted, smallest_cell)
        counts = manifest.counts

        def record(digest: str) -> None:
            with database.transaction(write=True) as session:
                note(
                    session, "exported", who=wanted.who, partner=wanted.recipient, manifest=digest, about=None,
                    counts=counts, left=gone,
                )  # fmt: skip

        return finish(folder, manifest, record), manifest


def _wanted(wanted: Wanted) -> Select[str]:
    query = select(VisitRow.id).where(VisitRow.status == "complete", ~IS_CASE)
    query = query.order_by(VisitRow.received_at, VisitRow.id)
    if wanted.with_truth:
        query = query.where(IS_KNOWN)
    if wanted.sites:
        query = query.where(VisitRow.site.in_(wanted.sites))
    if wanted.visits:
        query = query.where(VisitRow.id.in_(wanted.visits))
    if wanted.since is not None:
        query = query.where(VisitRow.received_at >= wanted.since)
    if wanted.until is not None:
        query = query.where(VisitRow.received_at < wanted.until)
    return query if wanted.at_most is None else query.limit(wanted.at_most + 1)


def _each(
    database: Database, store: Store, readers: Readers, names: Names, ids: Sequence[str], *, with_truth: bool
) -> Iterator[tuple[VisitRow, Leaving]]:
    """The visits, some at a time, read by as many readers as there are."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(ids), VISITS_AT_ONCE):
            some = ids[start : start + VISITS_AT_ONCE]
            with database.transaction() as session:
                rows = session.scalars(select(VisitRow).where(VisitRow.id.in_(some)).order_by(VisitRow.id)).all()
                questions = _questions(session, some)
                truths = truths_of(session, rows) if with_truth else {}
                session.expunge_all()
            make = partial(_leaving, questions, truths, names, store, readers)
            yield from zip(rows, pool.map(make, rows), strict=True)


def _leaving(
    questions: dict[str, list[str]],
    truths: dict[str, Truth],
    names: Names,
    store: Store,
    readers: Readers,
    row: VisitRow,
) -> Leaving:
    return leaving(row, questions.get(row.id, []), names, store, readers, truths.get(row.id))


def _questions(session: Session, visits: Sequence[str]) -> dict[str, list[str]]:
    query = select(ReferralRow.visit_id, ReferralRow.question)
    asked: dict[str, list[str]] = {}
    for visit, question in session.execute(
        query.where(ReferralRow.visit_id.in_(visits), ReferralRow.closed_at.is_(None))
    ):
        asked.setdefault(visit, []).append(question)
    return asked


def _contents(left: Leaving) -> Iterator[bytes]:
    """What leaves of a visit, for the last look: all but pixels and samples, in which any few bytes stand by chance."""
    yield _document(left)
    for name, content in left.files.items():
        yield name.encode()
        if not name.endswith(".dat"):
            yield header_of(content) if name.endswith(".dcm") else content


def _put(folder: Path, left: Leaving, made: _Made) -> None:
    write_file(folder, f"{VISITS}/{left.visit.visit}.json", _document(left), made.files)
    for name, content in left.files.items():
        write_file(folder, f"{FILES}/{name}", content, made.files)
    made.visits.append(left.visit)
    made.removed += left.removed
    made.blacked_out |= left.blacked_out


def _document(left: Leaving) -> bytes:
    return left.visit.model_dump_json(exclude_none=True, indent=1).encode() + b"\n"


def _manifest(folder: Path, made: _Made, wanted: Wanted, smallest_cell: int) -> Manifest:
    rows = visit_rows(made.visits)
    write_file(folder, f"{TABLES}/visits.csv", visits_csv(rows).encode(), made.files)
    write_file(folder, f"{TABLES}/counts.csv", counts_csv(rows, smallest_cell).encode(), made.files)
    names = [name for visit in made.visits for name in visit.files]
    return Manifest(
        kind="visits",
        made_at=datetime.now(UTC).replace(microsecond=0),
        made_by=wanted.who,
        recipient=wanted.recipient,
        legal_basis=wanted.legal_basis,
        profile=tuple(Code(value=value, meaning=meaning) for value, meaning in CODES),
        rules=RULES | TRUTH_RULE if wanted.with_truth else RULES,
        counts={
            "visits": len(made.visits),
            "persons": len({visit.person for visit in made.visits}),
            "films": sum(name.endswith(".dcm") for name in names),
            "recordings": sum(name.endswith(".hea") for name in names),
            "films_blacked_out": len(made.blacked_out),
            "files_withheld": made.withheld.total(),
        },
        removed=dict(sorted(made.removed.items())),
        blacked_out=made.blacked_out,
        withheld=dict(sorted(made.withheld.items())),
        anonymity=anonymity(rows, smallest_cell),
        files=made.files,
    )
