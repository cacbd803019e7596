"""For operators: whether the service runs and is ready, its metrics, and the loaded models."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import func, select

from service import errors
from service.api.refusals import problem_responses
from service.errors import Unavailable
from service.logs import where_it_failed
from service.state import Service, service_of
from service.storage.tables import VisitRow

ON_A_GPU = ("CUDA", "Tensorrt")
PROBE_S = 5.0

router = APIRouter(tags=["operations"])


class Health(BaseModel):
    status: str


class Readiness(BaseModel):
    """``checks`` are ``ok`` or name the problem; ``providers`` are those that the loaded models run on."""

    ready: bool
    checks: dict[str, str]
    device: str
    providers: list[str]


class ModelList(BaseModel):
    items: list[dict[str, Any]]


@router.get("/healthz")
async def alive() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "Not ready"}})
async def ready(request: Request) -> Response:
    """Whether the bundles are loaded and have passed their golden cases on the device of the setting, and the database
    and the store can be used."""
    service = service_of(request)
    checks = {
        "engine": "ok" if service.engine is not None else "starting",
        "device": _device(service),
        "process": "draining" if service.draining else "ok",
        "database": await _probe(service.database.probe()),
        "store": await _probe(asyncio.to_thread(service.store.probe)),
    }
    is_ready = set(checks.values()) == {"ok"}
    content = Readiness(ready=is_ready, checks=checks, device=service.settings.device, providers=_providers(service))
    return JSONResponse(content.model_dump(), 200 if is_ready else 503)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Metrics for Prometheus; they name no person."""
    service = service_of(request)
    query = select(func.count()).select_from(VisitRow).where(VisitRow.status == "accepted")
    service.metrics.unfinished.set(await service.database.read(lambda session: session.scalars(query).one()))
    service.metrics.ready.set(service.available)
    return Response(service.metrics.exposition(), media_type=service.metrics.media_type)


@router.get("/v1/models", responses=problem_responses(errors.Unavailable))
async def models(request: Request) -> ModelList:
    """The loaded models, each with its card and its evaluation."""
    service: Service = service_of(request)
    if service.engine is None:
        raise Unavailable(retry_after_s=1)
    return ModelList(items=service.engine.models())


def _providers(service: Service) -> list[str]:
    found = service.engine.models() if service.engine is not None else []
    return sorted({str(model["provider"]) for model in found if "provider" in model})


def _device(service: Service) -> str:
    """Whether the setting's device is used: a service that asks for a GPU and runs on the CPU is not ready."""
    providers = _providers(service)
    if service.settings.device == "cuda" and not any(each.startswith(ON_A_GPU) for each in providers):
        return f"not active: {', '.join(providers) or 'starting'}"
    return "ok"


async def _probe(check: Awaitable[object]) -> str:
    try:
        await asyncio.wait_for(check, PROBE_S)
    except Exception as error:
        return str(where_it_failed(error)["error"])
    return "ok"
