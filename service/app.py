"""The application: makes its parts, joins its routes, starts what runs in the background, and drains it at the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog
from fastapi import Depends, FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from inference.bundles.registry import read_log
from inference.readers.pool import Readers
from service import sites
from service.api import audit as audit_api
from service.api import bulk as bulk_api
from service.api import destinations, open_inference, operations, session
from service.api import drift as drift_api
from service.api import followup as followup_api
from service.api import keys as admin
from service.api import learning as learning_api
from service.api import node as node_api
from service.api import pictures as pictures_api
from service.api import releases as releases_api
from service.api import reports as reports_api
from service.api import sessions as sessions_api
from service.api import statistics as statistics_api
from service.api import uploads as tus
from service.api import visits as api
from service.api.dicomweb import routes as web
from service.api.edge import Edge
from service.api.openapi import openapi, operation_id
from service.api.parameters import known_parameters
from service.api.refusals import add_refusals
from service.audit.decisions import follow
from service.audit.looks import Looks
from service.delivery.health_book.table import book_of
from service.delivery.worker import DeliveryWorker
from service.drift.notices import NoticeWorker
from service.drift.worker import DriftWorker
from service.errors import StorageUnavailable
from service.first_key import first_key
from service.incidents.deadlines import read_deadlines
from service.logs import where_it_failed
from service.pages import audit as audit_pages
from service.pages import drift as drift_page
from service.pages import events as page_events
from service.pages import exchange as exchange_page
from service.pages import export as export_page
from service.pages import health_book as health_book_page
from service.pages import interface as interface_pages
from service.pages import keys as keys_page
from service.pages import learning as learning_pages
from service.pages import normals as normals_page
from service.pages import planning as planning_page
from service.pages import post as post_page
from service.pages import provider as provider_pages
from service.pages import sessions as sessions_page
from service.pages import signing
from service.pages import statistics as statistics_page
from service.pages import visit as followup_pages
from service.pages import worklist as pages
from service.pages.refused import NOT_PAGES, refused
from service.parts import Parts
from service.places import Places
from service.protocols.tensors import Tensors
from service.receive import uploads
from service.receive.dicom import listener as dicom
from service.receive.dicom.gathering import Gathering
from service.receive.hl7 import listener as hl7
from service.release.in_force import finish_what_was_decided
from service.settings import PREFIX, Settings
from service.state import Service
from service.storage.migrate import migrate
from service.visits.engine import Engine
from service.visits.work import Work

if TYPE_CHECKING:
    from service.exchange.worker import Upstream
    from service.provider.sign_in import Provider

API_VERSION = "1.0.0"
TENSOR_BODIES = 4
"""How many of the largest tensor bodies are held in memory at a time; smaller ones may be more."""
log = structlog.get_logger()


class CompressedPages:
    """Compresses pages, their styles and scripts, for slow networks. The answers to programs are not compressed: that
    would take longer than the rest of the answer, and pictures and PDF do not get smaller.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._plain, self._compressed = app, GZipMiddleware(app, minimum_size=1000, compresslevel=6)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and not scope["path"].startswith(NOT_PAGES)
        await (self._compressed if is_page else self._plain)(scope, receive, send)


def build(
    settings: Settings,
    engine: Engine | None,
    stop: Callable[[], None],
    readers: Readers | None = None,
    loaded: Callable[[], None] = lambda: None,
) -> FastAPI:
    """The application for ``settings``; its other parameters are those of :func:`service.create_app`.

    Parameters
    ----------
    loaded
        Called when the bundles are loaded, before the service says that it is ready.
    """
    read_deadlines(settings.incident_deadlines)  # a table that cannot be used is refused at the start
    book_of(settings)
    parts = Parts.open(settings, readers)
    service = Service(
        **vars(parts),
        work=Work(parts),
        deliveries=DeliveryWorker(parts),
        drift=DriftWorker(parts),
        notices=NoticeWorker(parts),
        uploads=Places(settings.concurrent_uploads),
        upstream=_upstream(parts),
        tensors=Tensors(max_rows=settings.max_queue, max_bytes=TENSOR_BODIES * settings.max_upload_bytes),
        provider=_provider(settings),
        looks=Looks(parts.database, parts.metrics, parts.keys.wrong.take_count),
    )

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        try:
            await asyncio.to_thread(migrate, settings, service.database)
        except Exception as error:
            log.error("database_cannot_be_used", setting=f"{PREFIX}DATABASE_URL", **where_it_failed(error))
            raise
        if (made := await first_key(service.database, settings)) is not None:
            log.info("admin_key_made", path=str(made))
        service.looks.start()
        with suppress(StorageUnavailable):  # an object store may be away: what has expired is looked for again later
            await uploads.remove_expired(service)
        closing = AsyncExitStack()
        loading = asyncio.create_task(_load(service, engine, stop, loaded, closing))
        following = asyncio.create_task(follow(service.database, settings.bundles))
        yield
        service.stop()
        loading.cancel()
        await asyncio.gather(loading, return_exceptions=True)
        await closing.aclose()
        exchange = [service.upstream.drain()] if service.upstream else []
        watching = (service.drift.drain(), service.notices.drain())
        await asyncio.gather(service.work.drain(), service.deliveries.drain(), *watching, *exchange)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await service.looks.drain()
        if service.engine is not None:
            await service.engine.aclose()
        if readers is None:
            await asyncio.to_thread(service.readers.close)
        if service.provider is not None:
            await service.provider.aclose()
        service.database.close()

    app = FastAPI(
        title="Sàng Lọc",
        version=API_VERSION,
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        generate_unique_id_function=operation_id,
        dependencies=[Depends(known_parameters)],
        middleware=[Middleware(Edge, service=service, answer=refused), Middleware(CompressedPages)],
    )
    app.state.service = service
    add_refusals(app, refused)
    for module in (
        *(api, bulk_api, pictures_api, followup_api, reports_api, statistics_api, admin, destinations, operations),
        *(open_inference, web, tus, node_api, releases_api, post_page, session, pages, page_events, followup_pages),
        *(statistics_page, planning_page, signing, keys_page, exchange_page, export_page, sessions_page),
        *(provider_pages, sessions_api, interface_pages, audit_api, audit_pages, drift_api, drift_page),
        *(normals_page, learning_api, learning_pages, health_book_page),
    ):
        app.include_router(module.router)
    app.mount("/static", StaticFiles(packages=[("service.pages", "static")]))
    for (
        route
    ) in app.routes:  # FastAPI completes the routes of a router, for 0.1 s, when it first compares a path with them
        route.matches({"type": "http", "method": "GET", "path": "/", "root_path": "", "headers": []})
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]  # FastAPI's own way to extend the document
    return app


def _upstream(parts: Parts) -> Upstream | None:
    """The exchange with the centre that the settings name."""
    settings = parts.settings
    if not settings.upstream:
        return None
    from service.exchange.worker import Upstream  # noqa: PLC0415  it imports httpx and the machine's certificates

    return Upstream(parts, settings.upstream, settings.upstream_key, settings.upstream_ask_seconds)


def _provider(settings: Settings) -> Provider | None:
    if not settings.oidc_issuer:
        return None
    from service.provider.opening import open_provider  # noqa: PLC0415  it imports httpx and the machine's certificates

    return open_provider(settings)


async def _load(
    service: Service,
    engine: Engine | None,
    stop: Callable[[], None],
    loaded: Callable[[], None],
    closing: AsyncExitStack,
) -> None:
    """Load the bundles while the server runs and answers that it is starting; then listen."""
    settings = service.settings
    await asyncio.to_thread(_finish_release, settings)
    if engine is None:
        try:
            engine_loading = asyncio.to_thread(_inference_engine, settings, service.readers)
            made, _ = await asyncio.gather(engine_loading, asyncio.to_thread(service.readers.start))
            engine = made
            loaded()
        except Exception as error:
            # the message may be logged here: bundles are the operator's own files and name no person
            log.error("bundles_not_loaded", path=str(settings.bundles), reason=str(error), **where_it_failed(error))
            service.failed = True
            stop()
            return
    service.metrics.add_readers(lambda: dict(service.readers.ended))
    service.metrics.add_batchers(lambda: (engine.bundles, engine.batchers))
    service.work.start(engine)
    service.deliveries.start()
    service.drift.start()
    service.notices.start()
    if service.upstream is not None:
        service.upstream.start()
    await _warn_of_unknown_sites(service)
    models = engine.models()
    for model in models:
        if session := model.get("session"):
            log.info("session_chosen", model=f"{model['name']} {model['version']}", **session)
    try:
        listening = await _listen(service, closing)
    except Exception as error:
        log.error("not_listening", **where_it_failed(error))
        listening = False
    service.engine = engine  # ready from now on, and every listener too
    if not listening:
        service.failed = True
        stop()
        return
    log.info("ready", models=[f"{model.get('name')} {model.get('version')}" for model in models])


async def _warn_of_unknown_sites(service: Service) -> None:
    """Log the sites that the settings or the registry name, and nobody has a key for: perhaps they are mistyped."""
    acceptances, _ = read_log(service.settings.bundles)
    for named_in, named in (
        ("peers", sites.of_callers(service.settings)),
        ("acceptances", {entry.site for entry in acceptances if entry.site}),
    ):
        with suppress(StorageUnavailable):  # the service starts without its database too, and says so elsewhere
            if unknown := await service.database.read(partial(sites.without_key, named=named)):
                log.warning("sites_without_key", named_in=named_in, sites=unknown)


async def _listen(service: Service, closing: AsyncExitStack) -> bool:
    """Gather what arrives by DICOM, and listen on the ports of the settings; ``False`` where a port is not free."""
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


def _finish_release(settings: Settings) -> None:
    """Put a release in force that a process before this one had decided for; what cannot be done is tried again."""
    try:
        finish_what_was_decided(settings.bundles)
    except Exception as error:
        log.error("release_not_finished", path=str(settings.bundles), **where_it_failed(error))


def _inference_engine(settings: Settings, readers: Readers) -> Engine:
    from inference.engine import Engine as InferenceEngine  # noqa: PLC0415  the runtimes take seconds to load
    from inference.runtime.session import Machine  # noqa: PLC0415

    machine = Machine(settings.device, session=settings.session, cache=settings.data_dir)
    engine: Engine = InferenceEngine(
        settings.bundles,
        machine,
        readers=readers,
        coverage=None if settings.coverage == "none" else float(settings.coverage),
    )
    return engine
