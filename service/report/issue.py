"""A visit's report: made from what the machine found and what doctors signed, kept as it was issued, rendered."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from data_specs.dicom.reference import DicomReference
from data_specs.next_steps.rules import Facts
from data_specs.next_steps.table import Table, next_steps
from data_specs.problems import Refused
from data_specs.visit.assessment import AssessedInput, AssessedOrgan, Assessment, FoundFinding
from data_specs.visit.contract import Code, OperatingPoint, Organ
from data_specs.visit.opinion import Opinion
from data_specs.visit.report import Report, ReportFinding, ReportInput, ReportOrgan, Status, rounded, uid
from data_specs.vocabulary import Language, term_of
from service.errors import NotFound, StoredFileDamaged, StoredFileMissing
from service.state import Service
from service.storage.database import insert_rows
from service.storage.tables import InputRow, OpinionRow, ReportRow, VisitRow
from service.visits.stored import assessment_of, context_of

if TYPE_CHECKING:
    from service.report.dicom.identity import MadeInstance

Kind = Literal["json", "fhir", "html", "pdf", "hl7"]
PICTURE_PX = 640
"""Longest side of a film on the report's page."""
FILM_PX = 1024
"""Longest side of a film that is sent to an archive."""
UNSHOWN = (Refused, StoredFileMissing, StoredFileDamaged)
"""Why a film cannot be shown, whoever asks and however often: the report goes out without its picture."""


async def issue(service: Service, visit_id: str, version: int | None = None) -> Report:
    """One version of the report, the latest by default. The first who asks for it fixes it for all.

    Raises
    ------
    NotFound
        There is no such version yet.
    """

    def find(session: Session) -> tuple[Report, bool]:
        row = session.get(VisitRow, visit_id)
        if row is None or row.status == "accepted" or not 1 <= (version or row.version) <= row.version:
            raise NotFound
        wanted = version or row.version
        stored = session.get(ReportRow, (visit_id, wanted))
        if stored is not None:
            return Report.model_validate_json(stored.report), True
        return make_report(row, opinions_of(session, visit_id)[: wanted - 1], service.next_steps), False

    report, is_stored = await service.database.read(find)
    if is_stored:
        return report
    new = ReportRow(
        visit_id=report.visit, version=report.version, issued_at=report.issued_at, report=report.model_dump_json()
    )

    def keep(session: Session) -> str | None:
        """What somebody else fixed meanwhile, if anybody did."""
        first = session.get(ReportRow, (report.visit, report.version))
        if first is not None:
            return first.report
        insert_rows(session, new)
        return None

    try:
        fixed = await service.database.write(keep)
    except IntegrityError:  # PostgreSQL: another one was first, between our look and our insert
        return await issue(service, report.visit, report.version)
    return report if fixed is None else Report.model_validate_json(fixed)


def opinions_of(session: Session, visit_id: str) -> list[Opinion]:
    """Every signed opinion on a visit, in order."""
    query = select(OpinionRow.opinion).where(OpinionRow.visit_id == visit_id).order_by(OpinionRow.number)
    return [Opinion.model_validate_json(each) for each in session.scalars(query)]


def make_report(row: VisitRow, opinions: Sequence[Opinion], table: Table) -> Report:
    """The report's facts from a finished visit, the opinions up to this version, and the programme's table."""
    found, context = assessment_of(row), context_of(row)
    assert found is not None  # noqa: S101  every finished visit has one
    assert row.completed_at is not None  # noqa: S101
    organs = {name: _organ(name, organ) for name, organ in found.organs.items()}
    inputs = _inputs(row.inputs, found)
    facts = Facts(
        organs=organs,
        priority=found.priority,
        priority_reasons=tuple(found.priority_reasons),
        age_years=context.person.age_years,
        labs=context.labs,
        vitals=context.vitals,
        inputs=inputs,
    )
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
        study_instance_uid=row.study_uid or uid(row.id, 0, "study"),
        priority=found.priority,
        priority_reasons=tuple(found.priority_reasons),
        organs=organs,
        inputs=inputs,
        labs=context.labs,
        vitals=context.vitals,
        conditions=context.conditions,
        models=tuple(found.models),
        next_steps=next_steps(table, facts),
        opinions=tuple(opinions),
    )


def _organ(name: Organ, organ: AssessedOrgan) -> ReportOrgan:
    return ReportOrgan(
        status=organ.status,
        code=_code(name),
        reasons=tuple(organ.reasons),
        risk=None if organ.risk is None else rounded(organ.risk),
        category=organ.category,
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


# ---------------------------------------------------------------------- renderings
async def rendering(service: Service, report: Report, kind: Kind, language: Language) -> bytes:
    """The report as JSON, FHIR document, page, PDF or HL7 v2 message, in ``language``."""
    if kind in ("html", "pdf"):
        pictures = await _pictures(service, report)
        return await asyncio.to_thread(_page, report, kind, language, pictures)
    return await asyncio.to_thread(_message, report, kind, language)


def _page(report: Report, kind: Kind, language: Language, pictures: dict[int, bytes]) -> bytes:
    from service.report import html, pdf  # noqa: PLC0415  a layout engine, for who asks for a page

    render = html.render if kind == "html" else pdf.render
    return render(report, language, pictures=pictures)


def _message(report: Report, kind: Kind, language: Language) -> bytes:
    from service.report import as_json, hl7  # noqa: PLC0415  models of whole standards, for who asks for one
    from service.report.fhir import document as fhir  # noqa: PLC0415  models of whole standards, for who asks for one

    render = {"json": as_json.render, "fhir": fhir.render, "hl7": hl7.render}[kind]
    return render(report, language)


async def dicom_files(service: Service, report: Report, language: Language) -> list[tuple[MadeInstance, bytes]]:
    """All DICOM objects of this version: the structured report, then what shows its evidence, where it can be shown."""
    from service.report.dicom.identity import instances  # noqa: PLC0415

    made = []
    for each in instances(report, language):
        with suppress(*UNSHOWN):
            made.append((each, await dicom_file(service, report, language, each)))
    return made


async def dicom_file(service: Service, report: Report, language: Language, instance: MadeInstance) -> bytes:
    """One of them."""
    from service.report.dicom import images as dicom_images  # noqa: PLC0415  highdicom
    from service.report.dicom import sr as dicom_sr  # noqa: PLC0415

    if instance.kind == "sr":
        return await asyncio.to_thread(dicom_sr.render, report, language)
    finding, index = instance.finding, instance.index
    assert finding is not None  # noqa: S101
    assert index is not None  # noqa: S101
    if instance.kind == "gsps":
        posted = await service.read_file(_sha256(report, index))
        return await asyncio.to_thread(dicom_images.render_presentation, report, language, finding, index, posted)
    picture = await _evidence_picture(service, report, finding, index, FILM_PX)
    return await asyncio.to_thread(dicom_images.render_heatmap, report, language, finding, index, picture)


async def _evidence_picture(service: Service, report: Report, finding: str, index: int, max_px: int | None) -> bytes:
    """PNG of a film with the heatmap of one finding over it."""
    from inference.render.pictures import evidence_png  # noqa: PLC0415  decoders are loaded by who decodes

    (evidence,) = (
        each for found in report.findings if found.name == finding for each in found.evidence if each.input == index
    )
    content = await service.read_file(_sha256(report, index))
    return await asyncio.to_thread(evidence_png, content, evidence, max_px)


def _sha256(report: Report, index: int) -> str:
    return next(each.sha256 for each in report.inputs if each.index == index)


async def _pictures(service: Service, report: Report) -> dict[int, bytes]:
    """For each accepted film that a finding points at: the film under the heatmap of the likeliest one."""
    shown: dict[int, ReportFinding] = {}
    for finding in sorted(report.findings, key=lambda each: -(each.probability or 0)):
        for evidence in finding.evidence:
            if evidence.kind == "heatmap":
                shown.setdefault(evidence.input, finding)
    pictures = {}
    for index, finding in sorted(shown.items()):
        # what cannot be shown is left out of a page; its finding is not
        with suppress(*UNSHOWN):
            pictures[index] = await _evidence_picture(service, report, finding.name, index, PICTURE_PX)
    return pictures
