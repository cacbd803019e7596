"""Render a report in any format, with the pictures of its evidence."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import tzinfo
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Literal

from data_specs.problems import Refused
from data_specs.visit.contract import NO_COMMON_GAIN
from data_specs.visit.report import Report
from data_specs.vocabulary import Language
from service.errors import StoredFileDamaged, StoredFileMissing
from service.language.zone import zone_named
from service.parts import Parts
from service.report.sheet import outlined
from service.storage.tables import VisitRow

if TYPE_CHECKING:
    from service.report.dicom.identity import MadeInstance
    from service.report.html import Bar

Kind = Literal["json", "fhir", "html", "pdf", "hl7"]
PICTURE: dict[str, tuple[int, Literal["png", "jpeg"]]] = {"html": (640, "png"), "pdf": (1280, "jpeg")}
"""Longest side of a film on the HTML page and in the PDF, in pixels, and its format."""
FILM_PX = 1024
"""Longest side of a film in a DICOM secondary capture, in pixels."""
CANNOT_BE_SHOWN = (Refused, StoredFileMissing, StoredFileDamaged)
"""Lasting reasons why a film cannot be shown. The report is then rendered without its picture."""


async def rendering(parts: Parts, report: Report, kind: Kind, language: Language) -> bytes:
    """The report in the format ``kind`` and in ``language``."""
    if kind in ("html", "pdf"):
        films = await _films(parts, report, kind)
        traces = await _traces(parts, report) if kind == "pdf" else {}
        zone = zone_named(parts.settings.time_zone)
        return await asyncio.to_thread(_page, report, kind, language, films, traces, zone)
    return await asyncio.to_thread(_message, report, kind, language)


async def page_with_bar(parts: Parts, report: Report, language: Language, bar: Bar) -> bytes:
    """The report as a page of HTML under a bar of links."""
    from service.report import html  # noqa: PLC0415  loaded when a page is asked for

    films, zone = await _films(parts, report, "html"), zone_named(parts.settings.time_zone)
    return await asyncio.to_thread(html.render, report, language, pictures=films, bar=bar, zone=zone)


def _page(
    report: Report, kind: Kind, language: Language, films: dict[int, bytes], traces: dict[int, bytes], zone: tzinfo
) -> bytes:
    from service.report import html, pdf  # noqa: PLC0415  loaded when a page is asked for

    if kind == "html":
        return html.render(report, language, pictures=films, zone=zone)
    return pdf.render(report, language, pictures=films, traces=traces, zone=zone)


def _message(report: Report, kind: Kind, language: Language) -> bytes:
    from service.report import as_json  # noqa: PLC0415  loaded when a report is asked for
    from service.report.fhir import document as fhir  # noqa: PLC0415
    from service.report.hl7 import message as hl7  # noqa: PLC0415

    render = {"json": as_json.render, "fhir": fhir.render, "hl7": hl7.render}[kind]
    return render(report, language)


async def dicom_files(parts: Parts, report: Report, language: Language) -> list[tuple[MadeInstance, bytes]]:
    """All DICOM objects of this version with their files; without those whose film cannot be shown."""
    from service.report.dicom.identity import instances  # noqa: PLC0415

    files = []
    for instance in instances(report, language):
        with suppress(*CANNOT_BE_SHOWN):
            files.append((instance, await dicom_file(parts, report, language, instance)))
    return files


async def dicom_file(parts: Parts, report: Report, language: Language, instance: MadeInstance) -> bytes:
    """The file of one DICOM object.

    Raises
    ------
    Refused, StoredFileMissing, StoredFileDamaged
        The film of its evidence cannot be shown.
    """
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
    """PNG of a film with the heatmap of one finding over it, ``max_px`` on its longest side at most."""
    from inference.render.reading import draw_evidence  # noqa: PLC0415  loads Pillow

    (evidence,) = (
        evidence
        for found in report.findings
        if found.name == finding
        for evidence in found.evidence
        if evidence.input == index
    )
    read = await parts.read_stored(draw_evidence, [_sha256(report, index)], evidence, max_px)
    return read.arrays[0].tobytes()


def _sha256(report: Report, index: int) -> str:
    return next(posted.sha256 for posted in report.inputs if posted.index == index)


async def _films(parts: Parts, report: Report, kind: Kind) -> dict[int, bytes]:
    """A picture of each film that was used, with the numbered outlines of its flagged findings."""
    from inference.render.reading import draw_outlined  # noqa: PLC0415  loads Pillow

    found = {}
    for posted in report.inputs:
        if posted.field == "image" and posted.accepted:
            maps = [
                next(each for each in finding.evidence if each.kind == "heatmap" and each.input == posted.index)
                for finding in outlined(report, posted.index)
            ]
            with suppress(*CANNOT_BE_SHOWN):
                read = await parts.read_stored(draw_outlined, [posted.sha256], maps, *PICTURE[kind])
                found[posted.index] = read.arrays[0].tobytes()
    return found


async def _traces(parts: Parts, report: Report) -> dict[int, bytes]:
    """A PNG in print size for each recording that was used, by the index of its first file."""
    from inference.render.reading import draw_trace  # noqa: PLC0415  loads the ECG readers

    files = [posted for posted in report.inputs if posted.field == "ecg" and posted.accepted]
    if not files:
        return {}
    row = await parts.database.read(lambda session: session.get(VisitRow, report.visit))
    unit = row.read_context().ecg_unit if row else None
    names = [(posted.index, posted.filename) for posted in files]
    first = {PurePosixPath(posted.filename).stem: posted for posted in reversed(files)}
    found = {}
    for posted in sorted(first.values(), key=lambda each: each.index):
        voltage = NO_COMMON_GAIN.isdisjoint(problem.code for problem in posted.problems)
        with suppress(*CANNOT_BE_SHOWN):
            read = await parts.read_stored(
                draw_trace, [each.sha256 for each in files], names, posted.index, unit, None, "print", voltage
            )
            found[posted.index] = read.arrays[0].tobytes()
    return found
