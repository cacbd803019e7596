"""The OpenAPI document: FastAPI's, completed by what FastAPI cannot know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service import errors
from service.api.edge import ALWAYS_ANSWERED
from service.api.examples import schemas_beyond_the_routes
from service.api.refusals import PROTOCOL, problem_responses, protocol_responses
from service.errors import ServiceError


def openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            routes=app.routes,
            summary="AI screening inference for chest X-ray and ECG",
            description="Refusals are RFC 9457 problem documents. A refused file is part of its visit's result, not an "
            "error. Sentences are in the language of `Accept-Language`: vi, fr or en.",
        )
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(schemas_beyond_the_routes())
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        for path, operations_ in document["paths"].items():
            for method, operation in operations_.items():
                secured = path.startswith(("/v1/", "/dicomweb/")) and path != "/v1/models" and method != "options"
                _complete(path, operation, secured=secured or path.endswith("/infer"))
        app.openapi_schema = document
    return app.openapi_schema


def _complete(path: str, operation: dict[str, Any], *, secured: bool) -> None:
    """Mark the operations that need a key, add what every operation may answer, and remove FastAPI's own form of 422,
    which no answer here has."""
    if secured:
        operation["security"] = [{"key": []}]
        _add(path, operation, errors.TooManyWrongKeys, errors.DatabaseUnavailable)
    if "requestBody" in operation:
        _add(path, operation, errors.BodyTooSlow, errors.BodyTooLarge)
    if "{" in path:
        _add(path, operation, errors.NotFound)
    if path not in ALWAYS_ANSWERED:
        _add(path, operation, errors.Busy)
    invalid = operation["responses"].get("422", {}).get("content", {})
    if "application/json" in invalid:
        del operation["responses"]["422"]


def _add(path: str, operation: dict[str, Any], *kinds: type[ServiceError]) -> None:
    """Declare refusals of an operation; where it has one of the same status, name them in its description."""
    is_protocol = path == PROTOCOL or path.startswith(f"{PROTOCOL}/")
    declared = operation["responses"]
    for kind in kinds:
        ((number, response),) = (protocol_responses if is_protocol else problem_responses)(kind).items()
        known = declared.get(str(number))
        if known is None:
            declared[str(number)] = response
        elif f"`{kind.code}`" not in known["description"]:
            declared[str(number)] = {**known, "description": f"{known['description']}, or `{kind.code}`"}
