"""``/v1/visits/{id}/report…``: any version of the report, in any format and language."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import Response

from data_specs.visit.report import Report
from service import errors
from service.api.refusals import problem_responses
from service.api.session import CurrentKey
from service.errors import NotFound
from service.language.choice import language_of
from service.report.issue import issue
from service.report.render import Kind, dicom_file, rendering
from service.state import Service, service_of
from service.visits.stored import load_visit

MEDIA_TYPES: dict[Kind, str] = {
    "json": "application/json",
    "fhir": "application/fhir+json",
    "html": "text/html; charset=utf-8",
    "pdf": "application/pdf",
    "hl7": "application/hl7-v2; charset=utf-8",
}
DICOM = "application/dicom"
SUFFIXES: dict[str, Kind] = {"json": "json", "fhir.json": "fhir", "html": "html", "pdf": "pdf", "hl7": "hl7"}
router = APIRouter(
    prefix="/v1/visits",
    tags=["reports"],
    responses=problem_responses(
        errors.Unauthorised, errors.Forbidden, errors.NotFound, errors.InvalidRequest, errors.InternalFault
    ),
)
VisitId = Annotated[str, Path(max_length=36, description="The visit's id")]
Version = Annotated[int | None, Query(ge=1, description="Default: the latest")]
_CONTENT: dict[str, Any] = {"content": {each.partition(";")[0]: {} for each in MEDIA_TYPES.values()}}


@router.get(
    "/{visit_id}/report.{suffix}",
    response_class=Response,
    responses={200: {"description": "The report", **_CONTENT}},
)
async def get_report(
    request: Request,
    key: CurrentKey,
    visit_id: VisitId,
    suffix: Literal["json", "fhir.json", "html", "pdf", "hl7"],
    version: Version = None,
) -> Response:
    """The report as JSON, FHIR R4 document, page, PDF or HL7 v2 message, in the language of `Accept-Language`."""
    service, language, kind = service_of(request), language_of(request), SUFFIXES[suffix]
    report = await _report(service, key, visit_id, version)
    content = await rendering(service, report, kind, language)
    headers = _headers(report, f"{report.visit[:8]}-v{report.version}-{language}.{suffix}") | {
        "Content-Language": language,
        "Vary": "Accept-Language, Authorization, Cookie",
    }
    if kind == "html":
        from service.report.html import content_security_policy  # noqa: PLC0415  needed for pages only

        headers["Content-Security-Policy"] = f"{content_security_policy()}; frame-ancestors 'self'"
    return Response(content, 200, headers, MEDIA_TYPES[kind])


@router.get(
    "/{visit_id}/report/{uid}.dcm",
    response_class=Response,
    responses={200: {"description": "One of its DICOM objects", "content": {DICOM: {}}}},
)
async def get_report_object(
    request: Request,
    key: CurrentKey,
    visit_id: VisitId,
    uid: Annotated[str, Path(max_length=64, description="SOPInstanceUID, or `sr` for the structured report")],
    version: Version = None,
) -> Response:
    """The structured report, a heatmap (secondary capture) or a presentation state, as a DICOM file."""
    service, language = service_of(request), language_of(request)
    report = await _report(service, key, visit_id, version)
    from service.report.dicom.identity import instances  # noqa: PLC0415  needed for DICOM only

    for instance in instances(report, language):
        if uid == instance.sop_instance_uid or uid == instance.kind == "sr":
            content = await dicom_file(service, report, language, instance)
            headers = _headers(report, f"{report.visit[:8]}-v{report.version}-{instance.kind}.dcm")
            return Response(content, 200, headers, DICOM)
    raise NotFound


async def _report(service: Service, key: CurrentKey, visit_id: str, version: int | None) -> Report:
    """The report, if the key may see it: a specialist who has to read blind first may not."""
    row = await load_visit(service, key, visit_id)
    if row.blind:
        raise errors.Forbidden
    return await issue(service, row.id, version)


def _headers(report: Report, filename: str) -> dict[str, str]:
    return {"Content-Disposition": f'inline; filename="{filename}"', "ETag": f'"{report.version}"'}
