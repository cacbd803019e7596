"""The kinds of destinations, one row of :data:`KINDS` each: how reports are sent there, its addresses, its secret.

A new kind is a sender in this folder and a row here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import structlog

from data_specs.visit.followup import DeliveryAnswer
from data_specs.visit.report import Report
from data_specs.vocabulary import Language
from service.delivery.addresses import check_web_address
from service.delivery.health_book.clock import standing
from service.delivery.health_book.table import book_of
from service.delivery.message import (
    ALARM,
    HEALTH_BOOK,
    NO_ANSWER,
    SENDINGS_AT_ONCE,
    Delivery,
    NotDelivered,
    Options,
)
from service.delivery.outside import outside_addresses
from service.protocols.peers import read_ae_address, read_host_and_port

if TYPE_CHECKING:
    import httpx

    from service.delivery.senders.health_book import Login
    from service.parts import Parts

RENDERINGS_AT_ONCE = 2
"""Reports that are rendered for deliveries at a time: most of the machine is for new visits."""

log = structlog.get_logger()


class Senders:
    """Sends deliveries, and keeps HTTP connections for the next ones.

    The senders are imported when they are first needed: many services have no destination of their kind.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._timeout_s = parts.settings.delivery_timeout_seconds
        self._rendering = asyncio.Semaphore(RENDERINGS_AT_ONCE)
        # own threads, because a destination that does not answer must not block those that read the visits' files
        self._threads = ThreadPoolExecutor(SENDINGS_AT_ONCE, thread_name_prefix="sender")
        self._clients: dict[bool, httpx.AsyncClient] = {}
        """By whether they may connect inside our own network."""
        self._logins: dict[str, Login] = {}
        """At the gateways of health books, by destination."""

    async def send(self, delivery: Delivery) -> DeliveryAnswer | None:
        """Deliver; what the destination answered, where that says more than that it arrived.

        Raises
        ------
        NotDelivered
            The destination was not reached, or did not take it.
        """
        from service.report.issue import issue  # noqa: PLC0415  it imports all renderings

        report = await issue(self._parts, delivery.visit_id, delivery.version)
        try:
            return await KINDS[delivery.kind].send(self, delivery, report)
        except NotDelivered as reason:
            if delivery.may_be_inside or reason.code not in NO_ANSWER:
                raise
            log.warning("no_answer_from_a_site", destination=delivery.destination_id, problem=reason.code)
            raise NotDelivered("unreachable", may_have_arrived=reason.may_have_arrived) from None

    async def send_webhook(self, delivery: Delivery, report: Report) -> None:
        from service.delivery.senders import webhook  # noqa: PLC0415  it imports httpx

        with_report = delivery.options.content == "report"
        rendered = await self._rendered(report, "json", delivery.language) if with_report else None
        await webhook.send(self._http(delivery), delivery, report, rendered, timeout_s=self._timeout_s)

    async def send_fhir(self, delivery: Delivery, report: Report) -> None:
        from service.delivery.senders import fhir  # noqa: PLC0415  it imports httpx

        rendered = await self._rendered(report, "fhir", delivery.language)
        await fhir.send(self._http(delivery), delivery, rendered, timeout_s=self._timeout_s)

    async def send_dicom(self, delivery: Delivery, report: Report) -> None:
        from service.delivery.senders import dicom  # noqa: PLC0415  it imports pydicom

        files = await self._dicom_files(report, delivery.language)
        ae_title = self._parts.settings.dicom_ae_title
        await self._in_thread(partial(dicom.send, delivery, files, ae_title, timeout_s=self._timeout_s))

    async def send_stow(self, delivery: Delivery, report: Report) -> None:
        from service.delivery.senders import stow  # noqa: PLC0415  it imports httpx

        files = await self._dicom_files(report, delivery.language)
        await self._in_thread(partial(stow.send, delivery, files, timeout_s=self._timeout_s))

    async def send_hl7(self, delivery: Delivery, report: Report) -> None:
        from service.delivery.senders import hl7  # noqa: PLC0415  as the other senders

        rendered = await self._rendered(report, "hl7", delivery.language)
        await hl7.send(delivery, rendered, self._threads, timeout_s=self._timeout_s)

    async def refuse(self, _: Delivery, __: Report) -> None:
        """A destination of alarms takes no reports; a server of before it had this kind may have written one for it."""
        raise NotDelivered("no_reports", permanent=True)

    async def send_health_book(self, delivery: Delivery, report: Report) -> DeliveryAnswer:
        from service.delivery.senders import health_book  # noqa: PLC0415  it imports httpx and what signs

        book = book_of(self._parts.settings)
        if book is None:
            raise NotDelivered("book_table")
        found = await self._parts.database.read(lambda session: standing(session, delivery))
        prepare = partial(health_book.prepare, book, delivery, report, found, self._parts.settings.time_zone)
        async with self._rendering:
            request = await asyncio.get_running_loop().run_in_executor(self._threads, prepare)
        login = self._logins.setdefault(delivery.destination_id, health_book.Login())
        client = self._http(delivery)
        return await health_book.send(client, delivery, request, book, login, timeout_s=self._timeout_s)

    async def _rendered(self, report: Report, rendering: Literal["json", "fhir", "hl7"], language: Language) -> bytes:
        from service.report import render  # noqa: PLC0415  it imports all renderings

        async with self._rendering:
            return await render.rendering(self._parts, report, rendering, language)

    async def _dicom_files(self, report: Report, language: Language) -> list[bytes]:
        from service.report.render import dicom_files  # noqa: PLC0415  it imports all renderings

        async with self._rendering:
            return [content for _, content in await dicom_files(self._parts, report, language)]

    async def _in_thread(self, send: Callable[[], None]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._threads, send)

    def _http(self, delivery: Delivery) -> httpx.AsyncClient:
        inside = delivery.may_be_inside
        if inside not in self._clients:
            from service.delivery.senders.http import new_client  # noqa: PLC0415  it imports httpx

            self._clients[inside] = new_client(SENDINGS_AT_ONCE, None if inside else self._look_up)
        return self._clients[inside]

    async def _look_up(self, host: str) -> Sequence[str]:
        """The addresses of a host, found in the senders' threads: a name may be as slow as a destination."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, outside_addresses, host)

    async def aclose(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for client in self._clients.values():
            await client.aclose()


@dataclass(frozen=True, slots=True)
class DestinationKind:
    """One kind of destination.

    Parameters
    ----------
    send
        Sends a report there; raises ``NotDelivered``.
    address_form
        How an address is written, as the refusal of another one says it.
    check_address
        Takes an address, the destination's options, and whether an admin gave it; raises ``ValueError`` if nothing can
        be sent there.
    min_secret
        Least number of characters of its secret; ``None`` if it has no secret.
    makes_secret
        Whether a secret is made here if none is given.
    needs
        The setting without which nothing can be sent there.
    """

    send: Callable[[Senders, Delivery, Report], Awaitable[DeliveryAnswer | None]]
    address_form: str
    check_address: Callable[[str, Options, bool], object]
    min_secret: int | None = None
    makes_secret: bool = False
    needs: str | None = None


WEB = "https://…"
KINDS = {
    "webhook": DestinationKind(
        Senders.send_webhook, WEB, partial(check_web_address, may_have_query=True), min_secret=16, makes_secret=True
    ),
    "fhir": DestinationKind(Senders.send_fhir, WEB, check_web_address, min_secret=1),
    "dicom": DestinationKind(Senders.send_dicom, "AE_TITLE@HOST:PORT", lambda address, *_: read_ae_address(address)),
    "stow": DestinationKind(Senders.send_stow, WEB, check_web_address, min_secret=1),
    "hl7": DestinationKind(Senders.send_hl7, "HOST:PORT", lambda address, *_: read_host_and_port(address)),
    ALARM: DestinationKind(
        Senders.refuse, WEB, partial(check_web_address, may_have_query=True), min_secret=16, makes_secret=True
    ),
    HEALTH_BOOK: DestinationKind(Senders.send_health_book, WEB, check_web_address, needs="health_book"),
}
"""In the order in which the API's document lists them."""

if TYPE_CHECKING:
    Kind = str
else:
    Kind = Literal[tuple(KINDS)]
    """A key of :data:`KINDS`, as pydantic checks it."""
