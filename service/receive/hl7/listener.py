"""The HL7 v2 listener: order messages over MLLP from the peers of a list, each acknowledged once it is committed.

Whatever bytes come, nothing but a well-formed order changes anything: a message is taken whole or not at all, and
what cannot be used is answered with a code and a place (ERR), never with what stood there.
"""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol

import structlog
from sqlalchemy.exc import IntegrityError

from service.logs import where_it_failed
from service.protocols.er7 import (
    ERRORS,
    INTERNAL,
    OUR_APPLICATION,
    VERSIONS,
    NotUsable,
    Segment,
    composed,
    encoded,
    header_of,
    line,
    segment,
)
from service.protocols.mllp import MAX_MESSAGE_BYTES, BadFrame, framed, read_frame
from service.protocols.peers import Callers, read_callers
from service.receive.hl7.order_messages import carry_out, read_orders

if TYPE_CHECKING:
    from service.settings import Settings
    from service.storage.database import Database

MAX_CONNECTIONS = 32
IDLE_SECONDS = 600.0
"""Peers keep their connection between orders; one that says nothing for so long is let go."""
FRAME_SECONDS = 30.0
"""For a message to arrive once it has begun, and for its answer to be taken."""
log = structlog.get_logger()


class HasDatabase(Protocol):
    """The service, of which the listener needs no more."""

    @property
    def database(self) -> Database: ...


# ---------------------------------------------------------------- the server
async def start(service: HasDatabase, settings: Settings) -> Listener | None:
    """Listen where the settings say; ``None`` where they say not to.

    Raises
    ------
    OSError
        The port cannot be had.
    """
    if not settings.hl7_port:
        return None
    callers = Callers(read_callers(settings.hl7_peers, with_ae_title=False))
    listener = Listener(service.database, callers, settings.drain_seconds)
    await listener.open(settings.host, settings.hl7_port)
    return listener


class Listener:
    """Takes connections, up to :data:`MAX_CONNECTIONS`, and answers their messages in the order of their coming."""

    def __init__(self, database: Database, callers: Callers, drain_seconds: float) -> None:
        self._database = database
        self._callers = callers
        self._drain_seconds = drain_seconds
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], bool] = {}
        """Whether a message of it is in hand."""
        self._closing = False

    async def open(self, host: str, port: int) -> None:
        self._server = await asyncio.start_server(self._connected, host, port, limit=MAX_MESSAGE_BYTES)

    async def aclose(self) -> None:
        """Take nothing more on; finish and acknowledge the messages in hand, as long as the drain may last."""
        self._closing = True
        if self._server is not None:
            self._server.close()
        for task, busy in self._connections.items():
            if not busy:
                task.cancel()
        if self._connections:
            _, late = await asyncio.wait(list(self._connections), timeout=max(self._drain_seconds, 0.1))
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._closing or len(self._connections) >= MAX_CONNECTIONS:
            log.warning("hl7_connection_refused", reason="closing" if self._closing else "too_many")
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._converse(reader, writer))
        self._connections[task] = False
        task.add_done_callback(lambda ended: self._ended(ended, writer))

    def _ended(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        del self._connections[task]
        writer.close()  # here, for a task that was cancelled before it began too

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, to its end."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101
        caller = (writer.get_extra_info("peername") or ("",))[0]
        try:
            site = await asyncio.to_thread(self._callers.site_of, caller)
            if site is None:
                log.warning("hl7_peer_not_listed", address=caller)
                return
            while not self._closing:
                frame = await read_frame(reader, idle_seconds=IDLE_SECONDS, frame_seconds=FRAME_SECONDS)
                if frame is None:
                    return
                self._connections[task] = True
                writer.write(framed(await self.answer(frame, site)))
                async with asyncio.timeout(FRAME_SECONDS):
                    await writer.drain()
                self._connections[task] = False
            writer.close()  # sends what is still to be sent
            async with asyncio.timeout(FRAME_SECONDS):
                await writer.wait_closed()
        except BadFrame:
            log.warning("hl7_frame_not_usable")
        except OSError as error:  # the peer went away, or was too slow
            log.info("hl7_connection_ended", reason=type(error).__name__)
        except Exception as error:
            log.error("hl7_connection_failed", **where_it_failed(error))

    async def answer(self, frame: bytes, site: str) -> bytes:
        """Do what a message asks for; its acknowledgement, once that is committed."""
        now = datetime.now(UTC)
        wrong: NotUsable | None
        try:
            message = await asyncio.to_thread(read_orders, frame, now.date())
            try:
                wrong = await self._database.write(lambda session: carry_out(session, site, message, now))
            except IntegrityError:  # the same order at the same moment over another connection
                wrong = await self._database.write(lambda session: carry_out(session, site, message, now))
        except NotUsable as error:
            wrong = error
        except Exception as error:
            log.error("hl7_message_failed", **where_it_failed(error))
            wrong = NotUsable(INTERNAL, rejected=True)
        log.info(
            "hl7_message", site=site, error=wrong.code if wrong else None, location=wrong.location if wrong else ""
        )
        return acknowledgement(frame, site, now, wrong)


# ---------------------------------------------------------------- the answer
def acknowledgement(frame: bytes, site: str, now: datetime, wrong: NotUsable | None) -> bytes:
    """ACK of a message, with an ERR where it could not be used.

    References
    ----------
    HL7 v2.5.1, chapter 2: ACK (2.14.1), MSA (2.15.8), ERR (2.15.5); tables 0008, 0357, 0516.
    """
    header = header_of(frame)
    version = _said(header, 12)
    code = "AA" if wrong is None else "AR" if wrong.rejected else "AE"
    segments = [
        segment(
            "MSH",
            {
                3: OUR_APPLICATION,
                4: line(site),
                5: _said(header, 3),
                6: _said(header, 4),
                7: f"{now:%Y%m%d%H%M%S}+0000",
                9: composed("ACK", _said(header, 9, 2), "ACK"),
                10: uuid.uuid4().hex[:20],
                11: "P",
                12: version if version in VERSIONS else "2.5.1",
                18: "UNICODE UTF-8",
            },
        ),
        segment("MSA", {1: code, 2: _said(header, 10)}),
    ]
    if wrong is not None:
        segments.append(
            segment("ERR", {2: wrong.location, 3: composed(str(wrong.code), ERRORS[wrong.code], "HL70357"), 4: "E"})
        )
    return encoded(segments)


def _said(header: Segment | None, field: int, component: int = 1) -> str:
    """What a header says there, to be said back; nothing where it is not text that could be."""
    if header is None:
        return ""
    try:
        text = header.text(field, component)
    except NotUsable:
        return ""
    return line(text) if text.isascii() and len(text) <= 199 else ""
