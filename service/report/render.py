"""A report in any of its formats, and the pictures that stand in it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from data_specs.problems import Refused
from data_specs.visit.report import Report, ReportFinding
from data_specs.vocabulary import Language
from service.errors import StoredFileDamaged, StoredFileMissing
from service.parts import Parts

if TYPE_CHECKING:
    from service.report.dicom.identity import MadeInstance

Kind = Literal["json", "fhir", "html", "pdf", "hl7"]
PICTURE_PX = 640
"""Longest side of a film on the report's page."""
FILM_PX = 1024
"""Longest side of a film that is sent to an archive."""
UNSHOWN = (Refused, StoredFileMissing, StoredFileDamaged)
"""Why a film cannot be shown, whoever asks and however often: the report goes out without its picture."""


async def rendering(parts: Parts, report: Report, kind: Kind, language: Language) -> bytes:
    """The report as JSON, FHIR document, page, PDF or HL7 v2 message, in ``language``."""
    if kind in ("html", "pdf"):
        pictures = await _pictures(parts, report)
        return await asyncio.to_thread(_page, report, kind, language, pictures)
    return await asyncio.to_thread(_message, report, kind, language)


def _page(report: Report, kind: Kind, language: Language, pictures: dict[int, bytes]) -> bytes:
    from service.report import html, pdf  # noqa: PLC0415  a layout engine, for who asks for a page

    render = html.render if kind == "html" else pdf.render
    return render(report, language, pictures=pictures)


def _message(report: Report, kind: Kind, language: Language) -> bytes:
    from service.report import as_json  # noqa: PLC0415  loaded when a report is asked for
    from service.report.fhir import document as fhir  # noqa: PLC0415
    from service.report.hl7 import message as hl7  # noqa: PLC0415

    render = {"json": as_json.render, "fhir": fhir.render, "hl7": hl7.render}[kind]
    return render(report, language)


async def dicom_files(parts: Parts, report: Report, language: Language) -> list[tuple[MadeInstance, bytes]]:
    """All DICOM objects of this version: the structured report, then what shows its evidence, where it can be shown."""
    from service.report.dicom.identity import instances  # noqa: PLC0415

    made = []
    for each in instances(report, language):
        with suppress(*UNSHOWN):
            made.append((each, await dicom_file(parts, report, language, each)))
    return made


async def dicom_file(parts: Parts, report: Report, language: Language, instance: MadeInstance) -> bytes:
    """One of them."""
    from service.report.dicom import images as dicom_images  # noqa: PLC0415  highdicom
    from service.report.dicom import sr as dicom_sr  # noqa: PLC0415

    if instance.kind == "sr":
        return await asyncio.to_thread(dicom_sr.render, report, language)
    finding, index = instance.finding, instance.index
    assert finding is not None  # noqa: S101
    assert index is not None  # noqa: S101
    if instance.kind == "gsps":
        posted = await parts.read_file(_sha256(report, index))
        return await asyncio.to_thread(dicom_images.render_presentation, report, language, finding, index, posted)
    picture = await _evidence_picture(parts, report, finding, index, FILM_PX)
    return await asyncio.to_thread(dicom_images.render_heatmap, report, language, finding, index, picture)


async def _evidence_picture(parts: Parts, report: Report, finding: str, index: int, max_px: int | None) -> bytes:
    """PNG of a film with the heatmap of one finding over it."""
    from inference.render.pictures import evidence_png  # noqa: PLC0415  decoders are loaded by who decodes

    (evidence,) = (
        each for found in report.findings if found.name == finding for each in found.evidence if each.input == index
    )
    content = await parts.read_file(_sha256(report, index))
    return await asyncio.to_thread(evidence_png, content, evidence, max_px)


def _sha256(report: Report, index: int) -> str:
    return next(each.sha256 for each in report.inputs if each.index == index)


async def _pictures(parts: Parts, report: Report) -> dict[int, bytes]:
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
            pictures[index] = await _evidence_picture(parts, report, finding.name, index, PICTURE_PX)
    return pictures
