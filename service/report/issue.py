"""Make a visit's report from the machine's findings and the signed opinions, and store it as it was issued."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from data_specs.dicom.reference import DicomReference, named_study
from data_specs.next_steps.decision import decide, facts_of
from data_specs.next_steps.table import Table
from data_specs.visit.assessment import AssessedInput, AssessedOrgan, Assessment, FoundFinding, rounded
from data_specs.visit.context import Context
from data_specs.visit.contract import Code, OperatingPoint, Organ
from data_specs.visit.next_step import NextStep
from data_specs.visit.opinion import Opinion
from data_specs.visit.report import Report, ReportFinding, ReportInput, ReportOrgan, Status, own_study
from data_specs.vocabulary import term_of
from service.errors import NotFound
from service.parts import Parts
from service.storage.database import insert_rows
from service.storage.tables import InputRow, OpinionRow, ReportRow, VisitRow


async def issue(parts: Parts, visit_id: str, version: int | None = None) -> Report:
    """Return one version of the report, the latest by default. It is stored when it is first asked for.

    Raises
    ------
    NotFound
        There is no such version.
    """

    def find(session: Session) -> tuple[Report, bool]:
        """The report, and whether it is stored already."""
        row = session.get(VisitRow, visit_id)
        if row is None or row.status == "accepted" or not 1 <= (version or row.version) <= row.version:
            raise NotFound
        wanted = version or row.version
        stored = session.get(ReportRow, (visit_id, wanted))
        if stored is not None:
            return Report.model_validate_json(stored.report), True
        return make_report(row, opinions_of(session, visit_id)[: wanted - 1], parts.next_steps), False

    report, is_stored = await parts.database.read(find)
    if is_stored:
        return report
    new = ReportRow(
        visit_id=report.visit, version=report.version, issued_at=report.issued_at, report=report.model_dump_json()
    )

    def store(session: Session) -> str | None:
        """Store it; return the report that another request has stored meanwhile, if there is one."""
        stored = session.get(ReportRow, (report.visit, report.version))
        if stored is not None:
            return stored.report
        insert_rows(session, new)
        return None

    try:
        earlier = await parts.database.write(store)
    except IntegrityError:  # PostgreSQL: another request stored it between our query and our insert
        return await issue(parts, report.visit, report.version)
    return report if earlier is None else Report.model_validate_json(earlier)


def opinions_of(session: Session, visit_id: str) -> list[Opinion]:
    """Every signed opinion on a visit, in order."""
    query = select(OpinionRow.opinion).where(OpinionRow.visit_id == visit_id).order_by(OpinionRow.number)
    return [Opinion.model_validate_json(opinion) for opinion in session.scalars(query)]


def make_report(row: VisitRow, opinions: Sequence[Opinion], table: Table) -> Report:
    """Make the report of a finished visit.

    Parameters
    ----------
    opinions
        Signed up to this version, in order.
    table
        The screening programme's table of next steps, for visits that were assessed before it gave them their priority.
    """
    found, context = row.read_assessment(), row.read_context()
    assert found is not None  # noqa: S101  every finished visit has one
    assert row.completed_at is not None  # noqa: S101
    organs = {name: _organ(name, organ) for name, organ in found.organs.items()}
    inputs = _inputs(row.inputs, found)
    statuses: tuple[Status, ...] = ("preliminary", "final", "amended")
    return Report(
        visit=row.id,
        version=1 + len(opinions),
        status=statuses[min(len(opinions), 2)],
        issued_at=opinions[-1].signed_at if opinions else row.completed_at,
        received_at=row.received_at,
        completed_at=row.completed_at,
        visited_on=context.visited_on,
        site=row.site,
        person=context.person,
        referrer=context.referrer,
        order=context.order,
        study_instance_uid=named_study(each.dicom for each in inputs if each.dicom) or own_study(row.id),
        priority=found.priority,
        priority_reasons=tuple(found.priority_reasons),
        organs=organs,
        inputs=inputs,
        labs=context.labs,
        vitals=context.vitals,
        conditions=context.conditions,
        models=tuple(found.models),
        next_steps=_next_steps(row, found, context, table),
        opinions=tuple(opinions),
    )


def _next_steps(row: VisitRow, found: Assessment, context: Context, table: Table) -> tuple[NextStep, ...]:
    """Those that were decided with the priority; of today's table for a visit that is older than such decisions."""
    if found.next_steps is not None:
        return tuple(found.next_steps)
    fields = {file.index: file.field for file in row.inputs}
    return decide(table, facts_of(found, context, fields)).next_steps


def _organ(name: Organ, organ: AssessedOrgan) -> ReportOrgan:
    return ReportOrgan(
        status=organ.status,
        code=_code(name),
        reasons=tuple(organ.reasons),
        risk=None if organ.risk is None else rounded(organ.risk),
        category=organ.category,
        category_basis=organ.category_basis,
        looked_for=tuple(organ.looked_for),
        not_looked_for=tuple(organ.not_looked_for),
        findings=tuple(_finding(name, each) for each in organ.findings),
    )


def _finding(organ: Organ, found: FoundFinding) -> ReportFinding:
    return ReportFinding(
        name=found.name,
        organ=organ,
        code=_code(found.name),
        value=found.value,
        unit=found.unit,
        probability=None if found.probability is None else rounded(found.probability),
        calibrated=found.calibrated,
        positive=found.positive,
        strength=found.strength,
        likelihood_ratio=found.likelihood_ratio,
        use=found.use,
        alternative=found.alternative,
        operating_point=_point(found.operating_point) if found.operating_point else None,
        evidence=tuple(found.evidence),
    )


def _point(point: OperatingPoint) -> OperatingPoint:
    shares = {name: getattr(point, name) for name in ("threshold", "sensitivity", "specificity")}
    return point.model_copy(update={name: rounded(share) for name, share in shares.items() if share is not None})


def _code(name: str) -> Code:
    term = term_of(name)
    return Code(system=term.system, code=term.code)


def _inputs(rows: Sequence[InputRow], found: Assessment) -> tuple[ReportInput, ...]:
    assessed = {each.index: each for each in found.inputs}
    return tuple(_input(row, assessed[row.index]) for row in rows if row.index in assessed and row.field != "context")


def _input(row: InputRow, assessed: AssessedInput) -> ReportInput:
    return ReportInput(
        index=row.index,
        field=row.field,  # type: ignore[arg-type]  # image and ecg only
        filename=row.filename,
        sha256=row.sha256,
        format=assessed.format,
        accepted=assessed.accepted,
        problems=tuple(assessed.problems),
        dicom=DicomReference.model_validate_json(row.dicom) if row.dicom else None,
    )
