"""The OpenAPI document: FastAPI's, completed by what FastAPI cannot know."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from service.api.examples import schemas_beyond_the_routes
from service.api.refusals import problem_responses
from service.errors import DatabaseUnavailable


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
            for operation in operations_.values():
                secured = path.startswith(("/v1/", "/dicomweb/")) and path != "/v1/models"
                _complete(operation, secured=secured or path.endswith("/infer"))
        app.openapi_schema = document
    return app.openapi_schema


_OUTAGE = problem_responses(DatabaseUnavailable)[503]
"""Each key is looked up in the database, which may be away."""


def _complete(operation: dict[str, Any], *, secured: bool) -> None:
    """Mark the operations that need a key, and remove FastAPI's own form of 422, which no answer here has."""
    if secured:
        operation["security"] = [{"key": []}]
        operation["responses"].setdefault("503", _OUTAGE)
    invalid = operation["responses"].get("422", {}).get("content", {})
    if "application/json" in invalid:
        del operation["responses"]["422"]
