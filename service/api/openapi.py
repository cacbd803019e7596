"""The OpenAPI document: FastAPI's, completed by what FastAPI cannot know."""

from __future__ import annotations

import re
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from service import errors
from service.api.edge import ALWAYS_ANSWERED
from service.api.examples import BODIES, VISIT_ID, schemas_beyond_the_routes
from service.api.refusals import MEDIA_TYPE, PROTOCOL, problem_responses, protocol_responses, with_refusal
from service.api.vocabulary import add_vocabulary
from service.errors import ServiceError

TAGS = {
    "visits": "Post a visit, read it, list visits, and get their files and pictures.",
    "nodes": "A commune's own server and its centre: visits are exchanged until both have the same.",
    "uploads": "Large files over a thin link: tus 1.0.0, and a visit made of what was uploaded.",
    "reports": "The report of a visit, as a page, PDF, FHIR document, DICOM object or HL7 v2 message.",
    "learning": "Teaching cases for trainees, how they do, and certificates. Nothing of it is clinical.",
    "follow-up": "Signed opinions, questions to specialists, outcomes, comparisons and figures.",
    "keys": "Keys of sites, doctors and specialists, and the open sessions of browsers.",
    "audit": "Who looked at, posted, signed, exported or changed what; incidents that were raised from a visit.",
    "drift": "Devices whose films are compared with those of before, and alarms.",
    "deliveries": "Where reports are sent by themselves.",
    "operations": "For those who run the service.",
    "DICOMweb": "STOW-RS, QIDO-RS and WADO-RS (DICOM PS3.18).",
    "open inference": "Open Inference Protocol v2: rows of tensors in, outputs out.",
}
"""Tag to what its operations are for, in the order in which they are shown."""


def operation_id(route: APIRoute) -> str:
    """The function's name: short, and unique, so that generated clients have good names."""
    return route.name


def plain(docstring: str) -> str:
    """A docstring as Markdown: names in backticks, without roles and without the rules under its headings."""
    named = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", docstring).replace("``", "`")
    return re.sub(r"^(\w+)\n-{3,}$", r"\1:", named, flags=re.MULTILINE)


def openapi(app: FastAPI) -> dict[str, Any]:
    """The document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            routes=app.routes,
            summary="AI screening inference for chest X-ray and ECG",
            description="Refusals are RFC 9457 problem documents. A refused file is part of its visit's result, not an "
            "error. Sentences are in the language of `Accept-Language`: vi, fr or en.",
            tags=[{"name": name, "description": words} for name, words in TAGS.items()],
        )
        components = document.setdefault("components", {})
        schemas = components.setdefault("schemas", {})
        schemas.update(schemas_beyond_the_routes())
        for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own form of 422
            schemas.pop(name, None)
        for schema in schemas.values():
            if "description" in schema:
                schema["description"] = plain(schema["description"])
        add_vocabulary(schemas)
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations_ in document["paths"].items():
            for method, operation in operations_.items():
                secured = path.startswith(("/v1/", "/dicomweb/")) and path != "/v1/models" and method != "options"
                _complete(path, method, operation, secured=secured or path.endswith("/infer"))
        upload = document["paths"]["/v1/uploads/{upload_id}"]
        upload["head"] = {**upload["get"], "operationId": "head_upload", "responses": _without_content(upload["get"])}
        app.openapi_schema = document
    return app.openapi_schema


def _complete(path: str, method: str, operation: dict[str, Any], *, secured: bool) -> None:
    """Mark the operations that need a key, add what every operation may answer and examples, and remove FastAPI's own
    form of 422, which no answer here has."""
    invalid = operation["responses"].get("422", {}).get("content", {})
    if "application/json" in invalid:
        del operation["responses"]["422"]
    if secured:
        operation["security"] = [{"key": []}]
        _add(path, operation, errors.TooManyWrongKeys, errors.DatabaseUnavailable)
    if "requestBody" in operation:
        _add(path, operation, errors.BodyTooSlow, errors.BodyTooLarge)
    if "{" in path:
        _add(path, operation, errors.NotFound)
    if method == "get" and path.startswith("/v1/"):
        _add(path, operation, errors.InvalidRequest)
    if path not in ALWAYS_ANSWERED:
        _add(path, operation, errors.Busy)
    responses = operation["responses"]
    operation["responses"] = {status: _at(path, response) for status, response in responses.items()}
    body = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if body is not None and operation["operationId"] in BODIES:
        body["example"] = BODIES[operation["operationId"]]


def _at(path: str, response: dict[str, Any]) -> dict[str, Any]:
    """A response with the examples of its refusals at this address."""
    problem = response.get("content", {}).get(MEDIA_TYPE)
    if problem is None:
        return response
    instance = re.sub(r"\{\w+\}", VISIT_ID, path)
    examples = {
        code: {"value": {**example["value"], "instance": instance}} for code, example in problem["examples"].items()
    }
    return {**response, "content": {**response["content"], MEDIA_TYPE: {**problem, "examples": examples}}}


def _without_content(operation: dict[str, Any]) -> dict[str, Any]:
    """The responses to HEAD: those to GET, without their content (RFC 9110, section 9.3.2)."""
    return {
        status: {name: part for name, part in response.items() if name != "content"}
        for status, response in operation["responses"].items()
    }


def _add(path: str, operation: dict[str, Any], *kinds: type[ServiceError]) -> None:
    """Declare refusals of an operation; where it has one of the same status, name them in its description."""
    is_protocol = path == PROTOCOL or path.startswith(f"{PROTOCOL}/")
    declared = operation["responses"]
    for kind in kinds:
        ((number, response),) = (protocol_responses if is_protocol else problem_responses)(kind).items()
        known = declared.get(str(number))
        if known is None:
            declared[str(number)] = response
        elif not is_protocol:
            declared[str(number)] = with_refusal(known, response)
        elif f"`{kind.code}`" not in known["description"]:
            declared[str(number)] = {**known, "description": f"{known['description']}, or `{kind.code}`"}
