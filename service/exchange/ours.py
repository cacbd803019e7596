"""What this side has of a visit, as it is sent to the other one."""

from __future__ import annotations

import uuid

from sqlalchemy import select
from sqlalchemy.orm import Session

from data_specs.dicom.reference import DicomReference
from data_specs.visit.followup import RecordedOutcome
from data_specs.visit.opinion import Author, Opinion
from service.exchange.record import FileRecord, Followup, OpinionRecord, OutcomeRecord, ReferralRecord, VisitRecord
from service.storage.tables import InputRow, OpinionRow, OutcomeRow, ReferralRow, VisitRow


def record_of(session: Session, visit_id: str) -> VisitRecord:
    """All that is here of a finished visit."""
    row = session.get_one(VisitRow, visit_id)
    assert row.completed_at is not None and row.assessment is not None  # noqa: S101, PT018  it is finished
    return VisitRecord(
        received_at=row.received_at,
        started_at=row.started_at,
        completed_at=row.completed_at,
        status=row.status,  # type: ignore[arg-type]  # a finished visit has no other
        context=row.context,
        assessment=row.assessment,
        study_uid=row.study_uid,
        accession_number=row.accession_number,
        body_hash=row.body_hash,
        files=tuple(_file(each) for each in row.inputs),
        followup=followup_of(session, visit_id),
    )


def followup_of(session: Session, visit_id: str) -> Followup:
    """What was done here since the visit was assessed."""
    opinions = session.scalars(
        select(OpinionRow).where(OpinionRow.visit_id == visit_id).order_by(OpinionRow.number)
    ).all()
    uids = {each.number: uid_of(each) for each in opinions}
    referrals = select(ReferralRow).where(ReferralRow.visit_id == visit_id).order_by(ReferralRow.asked_at)
    outcomes = select(OutcomeRow).where(OutcomeRow.visit_id == visit_id).order_by(OutcomeRow.recorded_at)
    return Followup(
        opinions=tuple(OpinionRecord(uid=uid_of(x), opinion=Opinion.model_validate_json(x.opinion)) for x in opinions),
        referrals=tuple(_referral(each, uids) for each in session.scalars(referrals)),
        outcomes=tuple(_outcome(each) for each in session.scalars(outcomes)),
    )


def uid_of(row: OpinionRow) -> str:
    """The identity of an opinion; of one that was signed before there were nodes, by its visit and number."""
    return row.uid or str(uuid.uuid5(uuid.NAMESPACE_OID, f"{row.visit_id}/{row.number}"))


def _file(row: InputRow) -> FileRecord:
    return FileRecord(
        index=row.index,
        field=row.field,  # type: ignore[arg-type]  # the column holds no other value
        filename=row.filename,
        sha256=row.sha256,
        n_bytes=row.n_bytes,
        dicom=DicomReference.model_validate_json(row.dicom) if row.dicom else None,
    )


def _referral(row: ReferralRow, uids: dict[int, str]) -> ReferralRecord:
    return ReferralRecord(
        id=row.id,
        to_site=row.to_site,
        asked_by=Author.model_validate_json(row.asked_by),
        asked_at=row.asked_at,
        question=row.question,
        blind=row.blind,
        answered_by=None if row.answered_by is None else uids[row.answered_by],
        closed_at=row.closed_at,
    )


def _outcome(row: OutcomeRow) -> OutcomeRecord:
    said = RecordedOutcome(
        finding=row.finding,
        outcome=row.outcome,  # type: ignore[arg-type]  # the column holds no other value
        source=row.source,
        recorded_at=row.recorded_at,
    )
    return OutcomeRecord(id=row.id, outcome=said)
