"""One sender per kind of destination. Each delivers one version of a report, or says why it could not."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Literal

from data_specs.visit.report import Report
from data_specs.vocabulary import Language
from service.delivery.message import SENDINGS_AT_ONCE, Delivery

if TYPE_CHECKING:
    import httpx

    from service.parts import Parts

RENDERINGS_AT_ONCE = 2
"""Of reports that are to be sent: most of a machine is for the visits that come in."""


class Senders:
    """What sends; connections are kept for the next delivery."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._timeout_s = parts.settings.delivery_timeout_seconds
        self._rendering = asyncio.Semaphore(RENDERINGS_AT_ONCE)
        # their own: a destination that hangs would else hold the threads that read the visits' files
        self._threads = ThreadPoolExecutor(SENDINGS_AT_ONCE, thread_name_prefix="sender")
        self._client: httpx.AsyncClient | None = None

    async def send(self, delivery: Delivery) -> None:
        """Deliver.

        Raises
        ------
        NotDelivered
            The destination is away, or did not take it.
        """
        from service.report.issue import issue  # noqa: PLC0415  it comes with all the renderings

        report = await issue(self._parts, delivery.visit_id, delivery.version)
        if delivery.kind == "webhook":
            await self._send_webhook(delivery, report)
        elif delivery.kind == "fhir":
            await self._send_fhir(delivery, report)
        elif delivery.kind == "hl7":
            await self._send_hl7(delivery, report)
        else:
            await self._send_dicom(delivery, report)

    async def _send_webhook(self, delivery: Delivery, report: Report) -> None:
        from service.delivery.senders import webhook  # noqa: PLC0415  with httpx, which not every service needs

        whole = delivery.options.content == "report"
        rendered = await self._rendered(report, "json", delivery.language) if whole else None
        await webhook.send(self._http(), delivery, report, rendered, self._timeout_s)

    async def _send_fhir(self, delivery: Delivery, report: Report) -> None:
        from service.delivery.senders import fhir  # noqa: PLC0415

        await fhir.send(
            self._http(), delivery, await self._rendered(report, "fhir", delivery.language), timeout_s=self._timeout_s
        )

    async def _send_hl7(self, delivery: Delivery, report: Report) -> None:
        from service.delivery.senders import hl7  # noqa: PLC0415

        await hl7.send(delivery, await self._rendered(report, "hl7", delivery.language), timeout_s=self._timeout_s)

    async def _send_dicom(self, delivery: Delivery, report: Report) -> None:
        from service.delivery.senders import dicom_objects as dicom  # noqa: PLC0415
        from service.report.render import dicom_files  # noqa: PLC0415

        async with self._rendering:
            files = [content for _, content in await dicom_files(self._parts, report, delivery.language)]
        ours = self._parts.settings.dicom_ae_title
        send = partial(dicom.send, delivery, files, ours, self._timeout_s)
        await asyncio.get_running_loop().run_in_executor(self._threads, send)

    async def _rendered(self, report: Report, kind: Literal["json", "fhir", "hl7"], language: Language) -> bytes:
        from service.report.render import rendering  # noqa: PLC0415

        async with self._rendering:
            return await rendering(self._parts, report, kind, language)

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            from service.delivery.senders.http import new_client  # noqa: PLC0415

            self._client = new_client(SENDINGS_AT_ONCE)
        return self._client

    async def aclose(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            await self._client.aclose()
