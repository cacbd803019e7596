"""The application: its parts made, its routes joined, its life from first start to drain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.staticfiles import StaticFiles
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from data_specs.next_steps.table import read_table
from service.api import destinations, open_inference, operations, session
from service.api import followup as followup_api
from service.api import keys as admin
from service.api import reports as reports_api
from service.api import statistics as statistics_api
from service.api import uploads as tus
from service.api import visits as api
from service.api.dicomweb import routes as web
from service.api.edge import Edge
from service.api.examples import schemas_beyond_the_routes
from service.api.refusals import add_refusals
from service.delivery.worker import Courier
from service.keys import Keys
from service.logs import where_it_failed
from service.metrics import Metrics
from service.pages import post as post_page
from service.pages import visit as followup_pages
from service.pages import worklist as pages
from service.protocols.tensors import Tensors
from service.receive import uploads
from service.receive.dicom import listener as dicom
from service.receive.dicom.gathering import Gathering
from service.receive.hl7 import listener as hl7
from service.settings import PREFIX, Settings
from service.state import Service
from service.storage.database import Database
from service.storage.migrate import migrate
from service.storage.store import open_store
from service.visits.work import Engine, Work

NOT_PAGES = ("/v1/", "/v2/", "/dicomweb/", "/metrics")
API_VERSION = "1.0.0"
TENSOR_BODIES = 4
"""The largest bodies of tensors that are held at a time; so many more of smaller ones."""
log = structlog.get_logger()


class CompressedPages:
    """Pages, their styles and scripts, compressed for thin links. What programs ask for is not: it would cost more than
    the rest of the answer, and pictures and PDF do not get smaller.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._plain, self._compressed = app, GZipMiddleware(app, minimum_size=1000, compresslevel=6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and not scope["path"].startswith(NOT_PAGES)
        await (self._compressed if is_page else self._plain)(scope, receive, send)


def build(settings: Settings, engine: Engine | None, stop: Callable[[], None]) -> FastAPI:
    """The application under ``settings``.

    Parameters
    ----------
    engine
        What assesses visits; ``None``: the one of ``inference``, loaded from the bundles while the service starts.
    stop
        Called when the bundles cannot be loaded: there is nothing to serve then.
    """
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    database = Database(settings.database)
    store = open_store(settings.store, settings.data_dir)
    metrics = Metrics()
    service = Service(
        settings=settings,
        database=database,
        store=store,
        keys=Keys(database, settings.bootstrap_key),
        metrics=metrics,
        work=Work(database, store, settings, metrics),
        next_steps=read_table(settings.next_steps),
        uploads=asyncio.Semaphore(settings.concurrent_uploads),
        tensors=Tensors(max_rows=settings.max_queue, max_bytes=TENSOR_BODIES * settings.max_upload_bytes),
    )
    service.courier = Courier(service)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        try:
            await asyncio.to_thread(migrate, settings, database)
        except Exception as error:
            log.error("database_cannot_be_used", setting=f"{PREFIX}DATABASE_URL", **where_it_failed(error))
            raise
        if (made := await service.keys.first_start(settings.data_dir)) is not None:
            log.info("admin_key_made", path=str(made))
        await uploads.remove_expired(service)
        closing = AsyncExitStack()
        loading = asyncio.create_task(_load(service, engine, stop, closing))
        yield
        service.stop()
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await closing.aclose()
        await asyncio.gather(service.work.drain(), service.courier.drain())
        if service.engine is not None:
            await service.engine.aclose()
        database.close()

    app = FastAPI(
        title="Sàng Lọc",
        version=API_VERSION,
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        middleware=[Middleware(Edge, service=service), Middleware(CompressedPages)],
    )
    app.state.service = service
    add_refusals(app)
    for part in (
        *(api, followup_api, reports_api, statistics_api, admin, destinations, operations),
        *(open_inference, web, tus, post_page, session, pages, followup_pages),
    ):
        app.include_router(part.router)
    app.mount("/static", StaticFiles(packages=[("service.pages", "static")]))
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's own way to extend the document
    return app


async def _load(service: Service, engine: Engine | None, stop: Callable[[], None], closing: AsyncExitStack) -> None:
    """Load the bundles beside the running server, which meanwhile says that it is starting; then listen."""
    settings = service.settings
    if engine is None:
        try:
            engine = await asyncio.to_thread(_inference_engine, settings)
        except Exception as error:
            # bundles are the operator's own files and name no person: here the message may be told
            log.error("bundles_not_loaded", path=str(settings.bundles), reason=str(error), **where_it_failed(error))
            service.failed = True
            stop()
            return
    service.work.start(engine)
    service.courier.start()
    models = engine.models()
    for model in models:
        if session := model.get("session"):
            log.info("session_chosen", model=f"{model['name']} {model['version']}", **session)
    try:
        listening = await _listen(service, closing)
    except Exception as error:
        log.error("not_listening", **where_it_failed(error))
        listening = False
    service.engine = engine  # ready from here on, every listener included
    if not listening:
        service.failed = True
        stop()
        return
    log.info("ready", models=[f"{model.get('name')} {model.get('version')}" for model in models])


async def _listen(service: Service, closing: AsyncExitStack) -> bool:
    """Gather what comes by DICOM, and listen where the settings say; ``False`` where a port cannot be had."""
    settings = service.settings
    gathering = Gathering(service)
    gathering.start()
    closing.push_async_callback(gathering.aclose)
    setting = "DICOM_PORT"
    try:
        associations = await asyncio.to_thread(dicom.start, service, settings)
        if associations is not None:
            closing.push_async_callback(associations.aclose)
        setting = "HL7_PORT"
        orders = await hl7.start(service, settings)
        if orders is not None:
            closing.push_async_callback(orders.aclose)
    except OSError as error:
        log.error("port_not_bound", setting=f"{PREFIX}{setting}", reason=error.strerror)
        return False
    return True


def _inference_engine(settings: Settings) -> Engine:
    from inference.engine import Engine as InferenceEngine  # noqa: PLC0415  the runtimes take seconds to load
    from inference.runtime.session import Machine  # noqa: PLC0415

    machine = Machine(settings.device, session=settings.session, cache=settings.data_dir)
    engine: Engine = InferenceEngine(settings.bundles, machine)
    return engine


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(
            title=app.title,
            version=app.version,
            routes=app.routes,
            summary="AI screening inference for chest X-ray and ECG",
            description="Refusals are RFC 9457 problem documents. A refused file is an outcome of its visit, not an "
            "error. Sentences come in the language of `Accept-Language`: vi, fr or en.",
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


def _complete(operation: dict[str, Any], *, secured: bool) -> None:
    """Say which operations need a key, and drop the framework's own shape of a 422: nothing here answers in it."""
    if secured:
        operation["security"] = [{"key": []}]
    invalid = operation["responses"].get("422", {}).get("content", {})
    if "application/json" in invalid:
        del operation["responses"]["422"]
