"""What is done with incidents: raised from a visit, listed, closed.

An incident keeps what the audit log had of its visit when it was raised: which entries, and a digest of their digests.
So it can be shown later that nothing was added between, and what the bundles had answered, also when the visit is gone.
"""

from __future__ import annotations

import json
import uuid
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from service.errors import FieldFault, Forbidden, InvalidRequest, NotFound
from service.incidents.deadlines import read_deadlines
from service.keys import PERSONS, Key
from service.parts import Parts
from service.storage.audit import AUDIT, digest_of_digests, note
from service.storage.database import database_now, insert_rows, rowcount
from service.storage.tables import IncidentRow, VisitRow
from service.visits.stored import load_visit

Kind = Literal["wrong_result", "missed_finding", "wrong_person", "delay", "display", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)
MAX_TEXT = 4000
MAX_LISTED = 500
FreeText = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_TEXT, pattern=r"^[^\x00]*$")
]


class NewIncident(BaseModel):
    """An incident to raise. ``severity`` is a name of the programme's table of deadlines; ``text`` says what happened,
    without names and numbers of persons."""

    model_config = ConfigDict(extra="forbid")

    kind: Kind
    severity: Annotated[str, Field(max_length=60, pattern=r"^[a-z][a-z0-9_]*$")]
    text: FreeText


class Closing(BaseModel):
    """What was found about an incident, without names and numbers of persons."""

    model_config = ConfigDict(extra="forbid")

    found: FreeText


class FrozenRecord(BaseModel):
    """What the audit log had of the visit when the incident was raised.

    Parameters
    ----------
    first, last, entries
        Numbers of the first and last entry about the visit, and how many there were.
    sha256
        Over the digests of these entries in their order, each followed by a line feed.
    models
        Name and version of each bundle that had answered.
    """

    first: int
    last: int
    entries: int
    sha256: str
    models: list[str]


class Incident(BaseModel):
    """An incident. ``overdue``: it is not closed, and its deadline has passed."""

    id: str
    visit: str
    site: str
    kind: Kind
    severity: str
    text: str
    raised_by: str
    raised_at: datetime
    due_at: datetime
    overdue: bool
    record: FrozenRecord
    closed_at: datetime | None
    closed_by: str | None
    found: str | None


async def raise_incident(parts: Parts, key: Key, visit_id: str, new: NewIncident) -> Incident:
    """Raise an incident from a visit, with what the log has of it.

    Raises
    ------
    NotFound, Forbidden
        There is no such visit, or this key may not see it, or is neither a doctor's nor an admin's.
    InvalidRequest
        The table of deadlines has no such severity.
    """
    if key.role not in (*PERSONS, "admin"):
        raise Forbidden
    visit = await load_visit(parts, key, visit_id)
    deadlines = read_deadlines(parts.settings.incident_deadlines)
    if new.severity not in deadlines:
        raise InvalidRequest(FieldFault("body.severity", "field_invalid", " | ".join(deadlines)))
    incident_id = str(uuid.uuid4())

    def insert(session: Session) -> Incident:
        now = database_now(session)
        record = _freeze(session, visit_id)
        row = IncidentRow(
            id=incident_id,
            visit=visit_id,
            site=visit.site,
            kind=new.kind,
            severity=new.severity,
            text=new.text,
            key_id=key.id,
            raised_at=now,
            due_at=now + timedelta(days=deadlines[new.severity].days),
            record=record.model_dump_json(),
        )
        insert_rows(session, row)
        told = record.model_dump(exclude={"models"})
        note(session, "incident_raised", visit_id, incident=row.id, severity=new.severity, record=told)
        return incident_of(row, now)

    return await parts.database.write(insert)


async def close_incident(parts: Parts, key: Key, incident_id: str, closing: Closing) -> Incident:
    """Close an incident with what was found. Who raised it may, and an admin.

    Raises
    ------
    NotFound
        There is no such open incident, or this key may not close it.
    """

    def close(session: Session) -> Incident:
        now = database_now(session)
        mine = update(IncidentRow).where(IncidentRow.id == incident_id, IncidentRow.closed_at.is_(None))
        if key.role != "admin":
            mine = mine.where(IncidentRow.key_id == key.id)
        if rowcount(session.execute(mine.values(closed_at=now, closed_by=key.id, found=closing.found))) != 1:
            raise NotFound
        row = session.get_one(IncidentRow, incident_id)
        note(session, "incident_closed", row.visit, incident=incident_id)
        return incident_of(row, now)

    return await parts.database.write(close)


async def list_incidents(
    parts: Parts, key: Key, *, visit: str | None = None, is_open: bool | None = None
) -> list[Incident]:
    """Incidents, those first whose deadline is nearest: an admin sees all, whoever else those that they raised."""

    def read(session: Session) -> list[Incident]:
        query = select(IncidentRow).order_by(IncidentRow.closed_at.is_not(None), IncidentRow.due_at, IncidentRow.id)
        if key.role != "admin":
            query = query.where(IncidentRow.key_id == key.id)
        if visit is not None:
            query = query.where(IncidentRow.visit == visit)
        if is_open is not None:
            query = query.where(IncidentRow.closed_at.is_(None) if is_open else IncidentRow.closed_at.is_not(None))
        now = database_now(session)
        return [incident_of(row, now) for row in session.scalars(query.limit(MAX_LISTED))]

    return await parts.database.read(read)


def count_open(session: Session) -> tuple[float, float]:
    """How many incidents are open, and how many of these are overdue."""
    is_open = select(func.count()).select_from(IncidentRow).where(IncidentRow.closed_at.is_(None))
    overdue = is_open.where(IncidentRow.due_at < database_now(session))
    return session.execute(is_open).scalar_one(), session.execute(overdue).scalar_one()


def incident_of(row: IncidentRow, now: datetime) -> Incident:
    record: dict[str, Any] = json.loads(row.record)
    return Incident(
        id=row.id,
        visit=row.visit,
        site=row.site,
        kind=row.kind,  # type: ignore[arg-type]  # the column holds no other value
        severity=row.severity,
        text=row.text,
        raised_by=row.key_id,
        raised_at=row.raised_at,
        due_at=row.due_at,
        overdue=row.closed_at is None and row.due_at < now,
        record=FrozenRecord.model_validate(record),
        closed_at=row.closed_at,
        closed_by=row.closed_by,
        found=row.found,
    )


def _freeze(session: Session, visit_id: str) -> FrozenRecord:
    of_visit = select(AUDIT.c.number, AUDIT.c.digest).where(AUDIT.c.visit == visit_id).order_by(AUDIT.c.number)
    rows = session.execute(of_visit).all()
    visit = session.get(VisitRow, visit_id)
    if visit is None:  # it was erased since it was read
        raise NotFound
    assessment = visit.read_assessment()
    return FrozenRecord(
        first=rows[0].number if rows else 0,
        last=rows[-1].number if rows else 0,
        entries=len(rows),
        sha256=digest_of_digests([row.digest for row in rows]),
        models=[f"{model.name} {model.version}" for model in assessment.models] if assessment else [],
    )
