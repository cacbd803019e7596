"""``/dicomweb``: STOW-RS to post objects, QIDO-RS and WADO-RS for the objects that the service makes of them.

Posted objects are not returned: the hospital's archive has them.

References
----------
DICOM PS3.18, chapter 10 (Studies Service and Resources).
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from fastapi.responses import Response, StreamingResponse

from service import errors
from service.api.dicomweb.matching import (
    LIMIT,
    MAX_LIMIT,
    MAX_OFFSET,
    MAX_VALUE,
    Level,
    named_uid,
    read_query,
)
from service.api.dicomweb.query import find_made, search
from service.api.dicomweb.retrieve import (
    DICOM,
    EXPLICIT_LITTLE,
    JSON,
    RELATED,
    address_of,
    as_metadata,
    as_picture,
    as_related,
    begun,
    chosen,
    new_boundary,
)
from service.api.refusals import problem_responses
from service.api.session import CurrentKey
from service.audit.routes import shows
from service.errors import OUTAGE_RETRY_AFTER_S, Forbidden, Unavailable
from service.keys import Key
from service.language.choice import language_of
from service.receive.commit import RETRY_AFTER_S
from service.receive.dicom.stow import response_document, status_of, store_objects
from service.report.render import dicom_file
from service.state import service_of

ROOT = "/dicomweb"
VARY = {"Vary": "Accept, Accept-Language"}

router = APIRouter(prefix=ROOT, tags=["DICOMweb"], responses=problem_responses(errors.Unauthorised))

_UID = {"pattern": "^[0-9.]{1,64}$"}
Study = Annotated[str, Path(description="StudyInstanceUID, also one that breaks the rules of DICOM")]
Series = Annotated[str, Path(description="SeriesInstanceUID", json_schema_extra=_UID)]
Instance = Annotated[str, Path(description="SOPInstanceUID", json_schema_extra=_UID)]

_STORED = {"content": {JSON: {"schema": {"type": "object"}}}}
_STORE: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {"description": "All objects were accepted (Store Instances Response Module)", **_STORED},
        202: {"description": "Some were accepted; FailedSOPSequence lists the others, with the reason", **_STORED},
        409: {"description": "None was accepted", **_STORED},
        **problem_responses(
            errors.Forbidden,
            errors.NotFound,
            errors.NotAcceptable,
            errors.BodyTooLarge,
            errors.BodyTooSlow,
            errors.UnsupportedMediaType,
            errors.InvalidRequest,
            errors.QueueFull,
            errors.Unavailable,
            errors.InternalFault,
        ),
    },
    "openapi_extra": {
        "requestBody": {"required": True, "content": {RELATED: {"schema": {"type": "string", "format": "binary"}}}}
    },
}
_WARNED = {"Warning": {"description": "299, if there are more matches than are listed", "schema": {"type": "string"}}}
_COUNT = {"type": "integer", "minimum": 0, "maximum": MAX_OFFSET}
_TEXT = {"type": "string", "maxLength": MAX_VALUE}
_DAYS = {"type": "string", "pattern": r"^\s*([0-9]{8}|[0-9]{8}-([0-9]{8})?|-[0-9]{8})?\s*$"}
_SEARCH: dict[str, Any] = {
    "response_class": Response,
    "responses": {
        200: {
            "description": "The matches; an empty array if there are none",
            "headers": _WARNED,
            "content": {JSON: {"schema": {"type": "array", "items": {"type": "object"}}}},
        },
        **problem_responses(errors.NotFound, errors.NotAcceptable, errors.InvalidRequest, errors.InternalFault),
    },
    "openapi_extra": {
        "parameters": [
            {"name": name, "in": "query", "schema": schema, "description": words}
            for name, schema, words in (
                ("limit", _COUNT, f"Largest number of matches; {LIMIT} where it is not said, and {MAX_LIMIT} at most"),
                ("offset", _COUNT, "Number of matches to skip"),
                ("fuzzymatching", {"type": "boolean"}, "Accepted; only literal matching is performed"),
                ("includefield", {"type": "string"}, "Without effect: all known attributes are always returned"),
                ("StudyInstanceUID", _TEXT, "One, or several separated by commas; other attributes by their name"),
                ("AccessionNumber", _TEXT, "May have the wildcards * and ?"),
                ("PatientID", _TEXT, "May have the wildcards * and ?"),
                ("StudyDate", _DAYS, "YYYYMMDD, or a range YYYYMMDD-YYYYMMDD, one end of which may be left out"),
                ("ModalitiesInStudy", _TEXT, "SR, OT, PR"),
            )
        ]
    },
}
_REFUSED = problem_responses(errors.NotFound, errors.NotAcceptable, errors.InternalFault)


def _answers(description: str, *kinds: str) -> dict[str, Any]:
    content: dict[str, Any] = {kind: {} for kind in kinds}
    return {
        "response_class": Response,
        "responses": {200: {"description": description, "content": content}, **_REFUSED},
    }


# ---------------------------------------------------------------------- STOW-RS
@router.post("/studies", **_STORE)
async def store_studies(request: Request, key: CurrentKey) -> Response:
    """Post DICOM objects. The objects of one study become one visit."""
    return await _store(request, key, None)


@router.post("/studies/{study}", **_STORE)
async def store_study(request: Request, key: CurrentKey, study: Study) -> Response:
    """Post DICOM objects of one study; an object of another study is refused."""
    return await _store(request, key, named_uid(study))


async def _store(request: Request, key: Key, study: str | None) -> Response:
    service = service_of(request)
    if not key.may_post:
        raise Forbidden
    if service.draining:
        raise Unavailable(retry_after_s=RETRY_AFTER_S)
    chosen(request, JSON, "application/json")
    outcomes = await store_objects(service, key, request, study)
    response = _json(response_document(outcomes, _root(request)), status_of(outcomes))
    if response.status_code == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(OUTAGE_RETRY_AFTER_S)
    return response


# ---------------------------------------------------------------------- QIDO-RS
@router.get("/studies", **_SEARCH)
async def search_studies(request: Request, key: CurrentKey) -> Response:
    """Search studies for which objects were made."""
    return await _search(request, key, "study")


@router.get("/series", **_SEARCH)
async def search_series(request: Request, key: CurrentKey) -> Response:
    """Search series that were made."""
    return await _search(request, key, "series")


@router.get("/instances", **_SEARCH)
async def search_instances(request: Request, key: CurrentKey) -> Response:
    """Search objects that were made."""
    return await _search(request, key, "instance")


@router.get("/studies/{study}/series", **_SEARCH)
async def search_series_of_study(request: Request, key: CurrentKey, study: Study) -> Response:
    """Search series that were made for a study."""
    return await _search(request, key, "series", study)


@router.get("/studies/{study}/instances", **_SEARCH)
async def search_instances_of_study(request: Request, key: CurrentKey, study: Study) -> Response:
    """Search objects that were made for a study."""
    return await _search(request, key, "instance", study)


@router.get("/studies/{study}/series/{series}/instances", **_SEARCH)
async def search_instances_of_series(request: Request, key: CurrentKey, study: Study, series: Series) -> Response:
    """Search objects of one series."""
    return await _search(request, key, "instance", study, series)


async def _search(
    request: Request, key: Key, level: Level, study: str | None = None, series: str | None = None
) -> Response:
    chosen(request, JSON, "application/json")
    asked = request.query_params.multi_items()
    query = read_query(level, asked, StudyInstanceUID=study, SeriesInstanceUID=series)
    answer = await search(service_of(request), key, language_of(request), query, _root(request))
    response = _json(answer.items)
    for warning in answer.warnings:
        response.headers.append("Warning", f'299 sangloc "{warning}"')
    return response


# ---------------------------------------------------------------------- WADO-RS
_OBJECTS = _answers("The objects, as the parts of a multipart body", RELATED)
_OBJECT = _answers("The object", RELATED, DICOM)
_METADATA = _answers("All attributes but the pixels", JSON)
_PICTURE = _answers("A secondary capture as a picture", "image/png", "image/jpeg")


@router.get("/studies/{study}", **_OBJECTS)
async def retrieve_study(request: Request, key: CurrentKey, study: Study) -> Response:
    """The objects that were made for a study, of every report version, in the language of the request."""
    return await _retrieve(request, key, study)


@router.get("/studies/{study}/metadata", **_METADATA)
async def study_metadata(request: Request, key: CurrentKey, study: Study) -> Response:
    """The attributes of the objects that were made for a study."""
    return await _metadata(request, key, study)


@router.get("/studies/{study}/series/{series}", **_OBJECTS)
async def retrieve_series(request: Request, key: CurrentKey, study: Study, series: Series) -> Response:
    """The objects of one series."""
    return await _retrieve(request, key, study, series)


@router.get("/studies/{study}/series/{series}/metadata", **_METADATA)
async def series_metadata(request: Request, key: CurrentKey, study: Study, series: Series) -> Response:
    """The attributes of the objects of one series."""
    return await _metadata(request, key, study, series)


@router.get("/studies/{study}/series/{series}/instances/{instance}", **_OBJECT)
async def retrieve_instance(
    request: Request, key: CurrentKey, study: Study, series: Series, instance: Instance
) -> Response:
    """One object, in a multipart body or as a file."""
    return await _retrieve(request, key, study, series, instance)


@router.get("/studies/{study}/series/{series}/instances/{instance}/metadata", **_METADATA)
async def instance_metadata(
    request: Request, key: CurrentKey, study: Study, series: Series, instance: Instance
) -> Response:
    """The attributes of one object."""
    return await _metadata(request, key, study, series, instance)


@router.get("/studies/{study}/series/{series}/instances/{instance}/rendered", **_PICTURE)
async def rendered_instance(
    request: Request, key: CurrentKey, study: Study, series: Series, instance: Instance
) -> Response:
    """A secondary capture as a picture."""
    service = service_of(request)
    kind = chosen(request, "image/png", "image/jpeg")
    found = await find_made(service, key, language_of(request), study, series, instance)
    shows(request.scope, (version.report.visit for version, _ in found))
    return Response(await as_picture(service, found, kind), 200, VARY, kind)


async def _retrieve(request: Request, key: Key, *uids: str) -> Response:
    service, root = service_of(request), _root(request)
    kind = chosen(request, *((RELATED, DICOM) if len(uids) == 3 else (RELATED,)))
    found = await find_made(service, key, language_of(request), *uids)
    shows(request.scope, (version.report.visit for version, _ in found))
    if kind == DICOM:
        ((version, instance),) = found
        content = await dicom_file(service, version.report, version.language, instance)
        headers = VARY | {"Content-Location": address_of(instance, root)}
        return Response(content, 200, headers, f"{DICOM}; transfer-syntax={EXPLICIT_LITTLE}")
    boundary = new_boundary()
    pieces = await begun(as_related(service, found, boundary, root))
    return StreamingResponse(pieces, 200, VARY, f'{RELATED}; type="{DICOM}"; boundary={boundary}')


async def _metadata(request: Request, key: Key, *uids: str) -> Response:
    service = service_of(request)
    chosen(request, JSON, "application/json")
    found = await find_made(service, key, language_of(request), *uids)
    shows(request.scope, (version.report.visit for version, _ in found))
    return StreamingResponse(await begun(as_metadata(service, found)), 200, VARY, JSON)


def _root(request: Request) -> str:
    return f"{str(request.base_url).rstrip('/')}{ROOT}"


def _json(document: Any, status: int = 200) -> Response:
    return Response(json.dumps(document, ensure_ascii=False), status, VARY, JSON)
