"""A node's exchange with its centre: one thing after the other, because the link is thin.

First what was found and done, of all visits; then their recordings and previews; then their films; the most urgent
visit first each time. A film is left between two pieces when something more urgent comes. Releases come down when no
visit waits (``service.exchange.releases``).
"""

from __future__ import annotations

import asyncio
import gzip
import random
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog

from data_specs.problems import Refused
from service.background import Worker, persist
from service.delivery.message import NotDelivered
from service.errors import StoredFileDamaged, StoredFileMissing, Unavailable
from service.exchange.centre import Centre
from service.exchange.ours import record_of
from service.exchange.queue import FILMS, SMALL, Exchanges, Turn
from service.exchange.record import FileRecord
from service.exchange.releases import Releases
from service.logs import where_it_failed
from service.storage.owner import Owner

if TYPE_CHECKING:
    from service.parts import Parts

PREVIEW_PX = 1024
WORTH = 0.95
"""A film is sent compressed where that makes it smaller than this share."""
LONGEST_PAUSE_S = 300.0
REFUSED_S = 3600.0
"""After so long a visit that the centre has refused is tried again: it may have got a newer release."""
NOTE_NEW_S = 3600.0
"""How often all visits are looked through for finished ones that were never noted: those of before this was a node."""
LOST = "file_not_here"

log = structlog.get_logger()


class Upstream(Worker[str]):
    """The visits that this node sends, one at a time."""

    def __init__(self, parts: Parts, address: str, key: str, ask_every_s: float) -> None:
        settings = parts.settings
        owner = Owner(settings.data_dir / "owners" / "exchange")
        self._exchanges = Exchanges(parts.database, owner, settings.lease_seconds)
        super().__init__(self._exchanges, settings)
        self._parts = parts
        self._centre = Centre(address, key)
        self._releases = Releases(parts, self._centre, self._is_idle)
        self._ask_every_s = ask_every_s
        self._note_new_at = 0.0
        self._failures = 0
        self._paused_until = 0.0
        """By the process's own clock: the link is down, or the centre asked for time."""

    def start(self) -> None:
        """Begin to exchange."""
        self._start_loops(self._ask_for_news, self._releases.follow)

    async def drain(self) -> None:
        await super().drain()
        await self._centre.aclose()

    async def _take_some(self) -> bool:
        if self._running or time.monotonic() < self._paused_until:
            return False
        if time.monotonic() >= self._note_new_at:
            await self._exchanges.note_new()
            self._note_new_at = time.monotonic() + NOTE_NEW_S
        turn = await self._exchanges.take()
        if turn is None:
            return False
        self._start_task(turn.visit_id, self._send(turn))
        return True

    async def _is_idle(self) -> bool:
        """Whether no visit is sent, and none waits."""
        return not self._running and await self._exchanges.is_idle()

    # ------------------------------------------------------------------ one turn
    async def _send(self, turn: Turn) -> None:
        try:
            left = await self._step(turn)
        except NotDelivered as reason:
            await self._not_sent(turn, reason)
        except Exception as error:  # a fault of this service: the centre is not to blame
            log.error("exchange_fault", visit=turn.visit_id, **where_it_failed(error))
            await persist(lambda: self._exchanges.put_back(turn, "fault", self._delay(turn.attempt)))
        else:
            self._failures = 0
            if left is None:
                await persist(lambda: self._exchanges.put_back(turn, None, 0.0))
            else:
                await persist(lambda: self._exchanges.done(turn, left))

    async def _step(self, turn: Turn) -> int | None:
        """Send what the turn is for; what is left then, ``None`` where something more urgent came first."""
        record = await self._parts.database.read(lambda session: record_of(session, turn.visit_id))
        answer = await self._centre.put(turn.visit_id, record)
        awaited = [file for file in record.files if file.index in answer.missing]
        recordings = [file for file in awaited if file.field == "ecg"]
        films = [file for file in awaited if file.field == "image"]
        small = [file for file in films if file.index in answer.without_preview]
        left = SMALL if recordings or small else FILMS if films else 0
        if not await persist(lambda: self._exchanges.adopted(turn, answer, left)):
            return 0  # another process has taken the visit
        if turn.step == SMALL:
            for file in recordings:
                if not await self._send_file(turn, file):
                    return None
            for file in small:
                if (preview := await self._preview(file)) is not None:
                    await self._centre.put_preview(turn.visit_id, file.index, preview)
            left = FILMS if films else 0
        elif turn.step == FILMS:
            for file in films:
                if not await self._send_file(turn, file):
                    return None
            left = 0
        return left

    async def _send_file(self, turn: Turn, file: FileRecord) -> bool:
        """Send a file; ``False`` where something more urgent came first."""
        try:
            content = await self._parts.read_file(file.sha256)
        except (StoredFileMissing, StoredFileDamaged):
            raise NotDelivered(LOST, permanent=True) from None
        packed = await asyncio.to_thread(gzip.compress, content, 6, mtime=0)
        is_smaller = len(packed) < WORTH * len(content)
        index, _, begun = (turn.upload or "").partition(":")

        async def keep(upload_id: str) -> None:
            await self._exchanges.keep_upload(turn, f"{file.index}:{upload_id}")

        async def may_go_on() -> bool:
            return not self._draining and not await self._exchanges.is_preceded(turn)

        upload_id = await self._centre.upload(
            packed if is_smaller else content, begun if index == str(file.index) else None, keep, may_go_on
        )
        if upload_id is None:
            return False
        try:
            await self._centre.put_file(turn.visit_id, file.index, upload_id, "gzip" if is_smaller else "identity")
        except NotDelivered as refusal:
            if refusal.permanent:  # what came is not what was sent: from the beginning, when it is its turn again
                await self._exchanges.keep_upload(turn, None)
            raise
        return True

    async def _preview(self, file: FileRecord) -> bytes | None:
        """A smaller picture of a film; ``None`` where it cannot be drawn."""
        from inference.render.reading import draw_film  # noqa: PLC0415  loads Pillow

        try:
            drawn = await self._parts.read_stored(draw_film, [file.sha256], PREVIEW_PX, "as_sent", "jpeg")
        except (Refused, StoredFileMissing, StoredFileDamaged):
            return None
        except Unavailable:
            raise NotDelivered("readers") from None
        return drawn.arrays[0].tobytes()

    async def _not_sent(self, turn: Turn, reason: NotDelivered) -> None:
        if reason.permanent:
            log.error("visit_refused_by_centre", visit=turn.visit_id, problem=reason.code)
            await persist(lambda: self._exchanges.put_back(turn, reason.code, REFUSED_S))
            return
        self._failures += 1
        delay_s = max(self._delay(self._failures), reason.retry_after_s or 0.0)
        self._paused_until = time.monotonic() + delay_s
        await persist(lambda: self._exchanges.put_back(turn, None, 0.0))

    def _delay(self, failures: int) -> float:
        """Seconds until the link is tried again: exponential with full jitter."""
        return random.uniform(0, min(LONGEST_PAUSE_S, 2.0 ** min(failures, 30)))  # noqa: S311  no secret

    # ------------------------------------------------------------------ what has changed at the centre
    async def _ask_for_news(self) -> None:
        while not self._draining:
            asked_at = datetime.now(UTC)
            try:
                news = await self._centre.news()
                await self._exchanges.heard(news, asked_at + (datetime.now(UTC) - asked_at) / 2)
                self._releases.heard(news.release)
                if self._failures:  # the link is back
                    self._failures, self._paused_until = 0, 0.0
                self._wake.set()
            except NotDelivered as reason:
                await self._note_silence(reason.code, asked_at)
            except Exception as error:
                log.error("news_not_read", **where_it_failed(error))
            await asyncio.sleep(self._ask_every_s)

    async def _note_silence(self, problem: str, at: datetime) -> None:
        try:
            await self._exchanges.not_heard(problem, at)
        except Exception as error:  # the database may be away for a moment
            log.error("silence_not_noted", **where_it_failed(error))
