"""For operators: whether the service runs and is ready, its metrics, and the loaded models."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service import errors
from service.api.refusals import problem_responses
from service.delivery.backlog import measure_backlog
from service.delivery.health_book.clock import WHY, count_late
from service.delivery.health_book.table import book_of
from service.drift.actions import count_open as count_open_alarms
from service.drift.worker import oldest_check_s
from service.errors import ServiceError, StorageUnavailable, Unavailable
from service.incidents.actions import count_open
from service.logs import where_it_failed
from service.receive.dicom.gathering import oldest_arrival_s
from service.release.kept import last_release
from service.state import Service, service_of
from service.storage.database import age_s, database_now
from service.storage.tables import VisitRow
from service.visits.normals import count_stopped

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
async def get_health() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz", response_model=Readiness, responses={503: {"model": Readiness, "description": "Not ready"}})
async def get_readiness(request: Request) -> Response:
    """Whether the bundles are loaded and have passed their golden cases on the device of the setting, the database and
    the store can be written, and their disks have the room that the setting reserves."""
    service = service_of(request)
    checks = {
        "engine": "ok" if service.engine is not None else "starting",
        "device": _device(service),
        "process": "draining" if service.draining else "ok",
        "database": await _probe(service.database.probe()),
        "store": await _probe(asyncio.to_thread(service.store.probe)),
        "room": await _probe(service.room.wait_for_check()),
    }
    is_ready = set(checks.values()) == {"ok"}
    content = Readiness(ready=is_ready, checks=checks, device=service.settings.device, providers=_providers(service))
    return JSONResponse(content.model_dump(), 200 if is_ready else 503)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def get_metrics(request: Request) -> Response:
    """Metrics for Prometheus; they name no person."""
    service = service_of(request)
    await _measure_room(service)
    await _measure_queues(service)
    kept = await asyncio.to_thread(last_release, service.settings.bundles)
    service.metrics.release.set(kept.release.number if kept else 0)
    return Response(service.metrics.exposition(), media_type=service.metrics.media_type)


@router.get("/v1/models", responses=problem_responses(errors.Unavailable))
async def list_models(request: Request) -> ModelList:
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
    """``ok``, or the code of the outage."""
    try:
        await asyncio.wait_for(check, PROBE_S)
    except ServiceError as error:
        return error.code
    except TimeoutError:
        return "timeout"
    except Exception as error:
        return str(where_it_failed(error)["error"])
    return "ok"


async def _measure_room(service: Service) -> None:
    """The room on the disks; without enough of it, no visit is accepted."""
    metrics = service.metrics
    try:
        for folder, n_bytes in (await asyncio.to_thread(service.room.free_bytes)).items():
            metrics.free_bytes.labels(folder).set(n_bytes)
    except StorageUnavailable:
        metrics.free_bytes.clear()
    metrics.ready.set(service.available and await _probe(service.room.wait_for_check()) == "ok")


async def _measure_queues(service: Service) -> None:
    """What waits in the database. While it is away nothing is known, and metrics are needed the more."""
    metrics, book = service.metrics, book_of(service.settings)
    by_kind = metrics.deliveries_waiting, metrics.deliveries_oldest, metrics.deliveries_given_up
    try:
        n_visits, visits_s = await service.database.read(_unfinished)
        arrivals_s = await service.database.read(oldest_arrival_s)
        backlog = await service.database.read(measure_backlog)
        n_incidents, n_overdue = await service.database.read(count_open)
        n_alarms: float = await service.database.read(count_open_alarms)
        check_s = await service.database.read(oldest_check_s)
        bundles = service.settings.bundles
        n_stopped: float = await service.database.read(lambda session: count_stopped(session, bundles))
        late = await service.database.read(lambda session: count_late(session, book)) if book else None
    except StorageUnavailable:
        n_visits = visits_s = arrivals_s = n_incidents = n_overdue = n_alarms = check_s = n_stopped = math.nan
        backlog, late = {}, None
        for gauge in (*by_kind, metrics.health_book_late):
            gauge.clear()
    metrics.unfinished.set(n_visits)
    metrics.visits_oldest.set(visits_s)
    metrics.arrivals_oldest.set(arrivals_s)
    metrics.incidents_open.set(n_incidents)
    metrics.incidents_overdue.set(n_overdue)
    metrics.drift_alarms_open.set(n_alarms)
    metrics.drift_checked.set(check_s)
    metrics.normals_stopped.set(n_stopped)
    if late is not None:
        for why in WHY:
            metrics.health_book_late.labels(why).set(late[why])
    for kind, found in backlog.items():
        for gauge, value in zip(by_kind, (found.n, found.oldest_s, found.given_up), strict=True):
            gauge.labels(kind).set(value)


def _unfinished(session: Session) -> tuple[float, float]:
    """How many visits have no outcome, and how many seconds ago the first of them was received."""
    query = select(func.count(), func.min(VisitRow.received_at)).where(VisitRow.status == "accepted")
    n, oldest = session.execute(query).one()
    return n, age_s(oldest, database_now(session))
