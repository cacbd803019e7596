"""Takes a package of visits into a site of its own at the other end, where it is screened and answered like any visit.

All of it comes in one transaction, or nothing. The visits are then in the queue, as if they had been posted.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from pydantic import ValidationError
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from data_specs.problems import Refused
from data_specs.visit.opinion import Author
from data_specs.visit.teaching import TEACHING, teaches
from data_specs.vocabulary import Language, display
from inference.readers.pool import Readers
from service.export.package import FILES, FORMAT, VISITS, Package, read_package
from service.export.record import note, noted
from service.export.visit import SharedVisit
from service.language.texts import text
from service.receive.commit import StoredFile, new_visit
from service.receive.dicom.header import read_reference
from service.receive.posted import LIMITS
from service.storage import audit
from service.storage.database import Database, database_now, insert_rows
from service.storage.drafts import Drafts
from service.storage.store import Store
from service.storage.tables import Base, ReferralRow, VisitRow

IMPORTED = "import"
"""Instead of the id of a key."""
Beside = Callable[[VisitRow, SharedVisit], Base]


def visit_key(digest: str, pseudonym: str) -> str:
    """The ``Idempotency-Key`` of an imported visit: it comes once, and its answers find back."""
    return f"{digest}:{pseudonym}"


def import_package(
    database: Database,
    store: Store,
    readers: Readers,
    folder: Path,
    digest: str,
    *,
    site: str,
    who: str,
    language: Language,
    max_queue: int,
    case: Beside | None = None,
) -> int:
    """Take a package; how many visits came, 0 where it was taken before. It blocks.

    Parameters
    ----------
    site
        Where the visits are to be; no other visits may be there.
    language
        Of the question to the specialists.
    case
        Makes what stands beside each visit at a teaching site. Elsewhere it is a question to the specialists.

    Raises
    ------
    Refused
        As :func:`service.export.package.read_package`; ``export_site_teaches``, ``export_site_in_use``,
        ``export_no_room``.
    StorageUnavailable, Unavailable, OSError
        Nothing came.
    """
    if teaches(site) is not (case is not None):
        raise Refused("export_site_teaches", site, TEACHING)
    package = read_package(folder, digest, "visits")
    visits = _visits(package)
    with database.transaction() as session:
        _expect_own_site(session, site)
        if noted(session, "imported", digest) is not None:
            return 0
    rows = [_stored(package, visit, site, store, readers) for visit in visits]
    with database.transaction(write=True) as session:
        _expect_own_site(session, site)
        if noted(session, "imported", digest) is not None:
            return 0
        _expect_room(session, len(rows), max_queue)
        now = database_now(session)
        for row, visit in zip(rows, visits, strict=True):
            row.received_at = now
            beside = case(row, visit) if case else _question(row, visit, language, now)
            insert_rows(session, row, *row.inputs, beside)
            audit.note(
                session,
                "visit_posted",
                row.id,
                site=site,
                files=len(row.inputs),
                body=row.body_hash,
                manifest=digest,
            )
            if isinstance(beside, ReferralRow):
                audit.note(session, "question_asked", row.id, question=beside.id, blind=beside.blind)
        counts = {"visits": len(rows), "persons": len({visit.person for visit in visits})}
        note(session, "imported", who=who, partner=site, manifest=digest, about=None, counts=counts)
    return len(rows)


def _visits(package: Package) -> list[SharedVisit]:
    """The visits of a package, each with files that are in it, and each file in one visit."""
    try:
        visits = [
            SharedVisit.model_validate_json(package.read(name))
            for name in package.manifest.files
            if name.startswith(f"{VISITS}/")
        ]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Refused("export_unknown_format", ".".join(map(str, first["loc"]))[:60], FORMAT) from None
    named = sorted(f"{FILES}/{name}" for visit in visits for name in visit.files)
    there = sorted(name for name in package.manifest.files if name.startswith(f"{FILES}/"))
    if named != there or len({visit.visit for visit in visits}) != len(visits):
        raise Refused("export_other_files", len(there), len(named))
    for visit in visits:
        n_films = sum(name.endswith(".dcm") for name in visit.files)
        if n_films > LIMITS["image"] or len(visit.files) - n_films > 2 * LIMITS["ecg"]:
            raise Refused("export_other_files", len(visit.files), LIMITS["image"] + LIMITS["ecg"])
    return visits


def _stored(package: Package, visit: SharedVisit, site: str, store: Store, readers: Readers) -> VisitRow:
    """The row of a visit whose files are in the store."""
    drafts = Drafts(store.drafts)
    files = []
    try:
        for name in visit.files:
            draft = drafts.new()
            draft.write(package.read(f"{FILES}/{name}"))
            dicom = read_reference(readers, draft)
            store.put(draft)
            files.append(
                StoredFile("image" if name.endswith(".dcm") else "ecg", name, draft.sha256, draft.n_bytes, dicom)
            )
    finally:
        drafts.remove()
    key = visit_key(package.digest, visit.visit)
    body = package.manifest.files[f"{VISITS}/{visit.visit}.json"].sha256
    return new_visit(site, IMPORTED, visit.context, files, body, idempotency_key=key)


def _question(row: VisitRow, visit: SharedVisit, language: Language, now: datetime) -> ReferralRow:
    """A question to any specialist here: what was asked about at home, in coded terms."""
    asked = ", ".join(display(name, language) for name in visit.asked_about)
    words = text("export_asked_about", language, terms=asked) if asked else text("export_asked", language)
    return ReferralRow(
        id=str(uuid.uuid4()),
        visit_id=row.id,
        to_site=None,
        key_id=IMPORTED,
        asked_by=Author(id=IMPORTED, name=row.site, facility=row.site, role="referrer").model_dump_json(),
        asked_at=now,
        question=words,
        blind=False,
    )


def _expect_own_site(session: Session, site: str) -> None:
    others = select(VisitRow.id).where(VisitRow.site == site, VisitRow.key_id != IMPORTED)
    if session.scalars(others.limit(1)).one_or_none() is not None:
        raise Refused("export_site_in_use", site)


def _expect_room(session: Session, n_visits: int, max_queue: int) -> None:
    waiting = session.execute(select(func.count()).where(VisitRow.status == "accepted")).scalar_one()
    if waiting + n_visits > max_queue:
        raise Refused("export_no_room", n_visits, max(0, max_queue - waiting))
