"""The HL7 v2 listener: receives order messages over MLLP from listed peers, and acknowledges each once it is committed.

A message is carried out as a whole or not at all. A message that cannot be used is answered with an error code and a
location (ERR), never with the text that stands there.
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
from service.receive.hl7.instructions import carry_out
from service.receive.hl7.order_messages import read_orders

if TYPE_CHECKING:
    from service.settings import Settings
    from service.storage.database import Database

MAX_CONNECTIONS = 32
IDLE_SECONDS = 600.0
"""A connection on which no message comes for so long is closed. Peers keep their connection open between orders."""
FRAME_SECONDS = 30.0
"""How long a message may take to arrive once it has begun, and how long the peer may take to read the answer."""
log = structlog.get_logger()


class HasDatabase(Protocol):
    """What the listener needs of the service."""

    @property
    def database(self) -> Database: ...


# ---------------------------------------------------------------- the server
async def start(service: HasDatabase, settings: Settings) -> Listener | None:
    """Listen on the port of the settings; ``None`` where it is 0.

    Raises
    ------
    OSError
        The port cannot be bound.
    """
    if not settings.hl7_port:
        return None
    callers = Callers(read_callers(settings.hl7_peers, with_ae_title=False))
    listener = Listener(service.database, callers, settings.drain_seconds)
    await listener.open(settings.host, settings.hl7_port)
    return listener


class Listener:
    """Accepts up to :data:`MAX_CONNECTIONS` connections, and answers the messages of each in their order."""

    def __init__(self, database: Database, callers: Callers, drain_seconds: float) -> None:
        self._database = database
        self._callers = callers
        self._drain_seconds = drain_seconds
        self._server: asyncio.Server | None = None
        self._connections: dict[asyncio.Task[None], bool] = {}
        """Task of each connection, and whether it is working on a message."""
        self._closing = False

    async def open(self, host: str, port: int) -> None:
        self._server = await asyncio.start_server(self._connected, host, port, limit=MAX_MESSAGE_BYTES)

    async def aclose(self) -> None:
        """Stop listening. Messages that are worked on are finished and acknowledged, within the time for draining."""
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
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._connections[task] = False
        task.add_done_callback(lambda ended: self._ended(ended, writer))

    def _ended(self, task: asyncio.Task[None], writer: asyncio.StreamWriter) -> None:
        del self._connections[task]
        writer.close()  # here, since a task may be cancelled before it begins

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection until it ends."""
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
        except OSError as error:  # the peer closed the connection, or was too slow
            log.info("hl7_connection_ended", reason=type(error).__name__)
        except Exception as error:
            log.error("hl7_connection_failed", **where_it_failed(error))

    async def answer(self, frame: bytes, site: str) -> bytes:
        """Carry out a message; its acknowledgement, once it is committed."""
        now = datetime.now(UTC)
        refusal: NotUsable | None
        try:
            message = await asyncio.to_thread(read_orders, frame, now.date())
            try:
                refusal = await self._database.write(lambda session: carry_out(session, site, message, now))
            except IntegrityError:  # another connection committed the same order meanwhile
                refusal = await self._database.write(lambda session: carry_out(session, site, message, now))
        except NotUsable as error:
            refusal = error
        except Exception as error:
            log.error("hl7_message_failed", **where_it_failed(error))
            refusal = NotUsable(INTERNAL, rejected=True)
        code, location = (refusal.code, refusal.location) if refusal else (None, "")
        log.info("hl7_message", site=site, error=code, location=location)
        return acknowledgement(frame, site, now, refusal)


# ---------------------------------------------------------------- the answer
def acknowledgement(frame: bytes, site: str, now: datetime, refusal: NotUsable | None) -> bytes:
    """The ACK of a message, with an ERR where it could not be used.

    References
    ----------
    HL7 v2.5.1, chapter 2: ACK (2.14.1), MSA (2.15.8), ERR (2.15.5); tables 0008, 0357, 0516.
    """
    header = header_of(frame)
    version = _quoted(header, 12)
    code = "AA" if refusal is None else "AR" if refusal.rejected else "AE"
    segments = [
        segment(
            "MSH",
            {
                3: OUR_APPLICATION,
                4: line(site),
                5: _quoted(header, 3),
                6: _quoted(header, 4),
                7: f"{now:%Y%m%d%H%M%S}+0000",
                9: composed("ACK", _quoted(header, 9, 2), "ACK"),
                10: uuid.uuid4().hex[:20],
                11: "P",
                12: version if version in VERSIONS else "2.5.1",
                18: "UNICODE UTF-8",
            },
        ),
        segment("MSA", {1: code, 2: _quoted(header, 10)}),
    ]
    if refusal is not None:
        error = composed(str(refusal.code), ERRORS[refusal.code], "HL70357")
        segments.append(segment("ERR", {2: refusal.location, 3: error, 4: "E"}))
    return encoded(segments)


def _quoted(header: Segment | None, field: int, component: int = 1) -> str:
    """A value of the message's header, for the answer; empty where it is no short ASCII text."""
    if header is None:
        return ""
    try:
        text = header.text(field, component)
    except NotUsable:
        return ""
    return line(text) if text.isascii() and len(text) <= 199 else ""
