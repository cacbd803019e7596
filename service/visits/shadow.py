"""What bundles in the shadow say of finished visits: stored for comparison, and nowhere shown.

A visit is taken up after its outcome is written, one at a time, and only while this process has no visit in hand; its
files are read from the store again, so that what waits is a few rows. What does not fit is dropped and counted: a
sample is enough for a comparison, and a visit's own time is worth more.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.orm import Session

from data_specs.visit.context import Context
from service.logs import where_it_failed
from service.parts import Parts
from service.storage.database import database_now
from service.storage.store import StoredInput
from service.storage.tables import ShadowRow, VisitRow

if TYPE_CHECKING:
    from inference.engine import ShadowAnswer
    from service.visits.engine import Engine

MAX_WAITING = 64
LOOK_S = 0.1
"""How often a waiting shadow looks whether the process has a moment."""

log = structlog.get_logger()


class ShadowWork:
    """The shadow's queue of one process.

    Parameters
    ----------
    busy
        Whether the process has visits of its own in hand.
    """

    def __init__(self, parts: Parts, busy: Callable[[], bool]) -> None:
        self._database = parts.database
        self._store = parts.store
        self._metrics = parts.metrics
        self._busy = busy
        self._engine: Engine | None = None
        self._waiting: deque[VisitRow] = deque()
        self._offered = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, engine: Engine) -> None:
        self._engine = engine
        self._task = asyncio.create_task(self._serve())

    def offer(self, row: VisitRow) -> None:
        """A visit that is finished, whose files all went through the decoders; costs nothing without a shadow."""
        if self._engine is None or not self._engine.has_shadows:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._metrics.shadows.labels("dropped").inc()
            return
        self._waiting.append(row)
        self._offered.set()

    async def stop(self) -> None:
        """Leave what waits: a shadow is no reason to hold up an end."""
        self._metrics.shadows.labels("dropped").inc(len(self._waiting))
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _serve(self) -> None:
        while True:
            await self._offered.wait()
            if not self._waiting:
                self._offered.clear()
                continue
            while self._busy():  # noqa: ASYNC110  a moment without visits is a state, no event
                await asyncio.sleep(LOOK_S)
            row = self._waiting.popleft()
            try:
                await self._assess(row)
            except Exception as error:
                self._metrics.shadows.labels("failed").inc()
                log.error("shadow_fault", visit=row.id, **where_it_failed(error))

    async def _assess(self, row: VisitRow) -> None:
        assert self._engine is not None  # noqa: S101  start() comes first
        inputs = [StoredInput.of(each, self._store) for each in row.inputs]
        answers = await self._engine.assess_shadows(inputs, Context.model_validate_json(row.context))
        if answers:
            await self._database.write(lambda session: _store(session, row.id, answers))
            self._metrics.shadows.labels("stored").inc(len(answers))


def _store(session: Session, visit_id: str, answers: list[ShadowAnswer]) -> None:
    now = database_now(session)
    for each in answers:
        session.merge(
            ShadowRow(
                visit_id=visit_id,
                name=each.model.name,
                version=each.model.version,
                sha256=each.model.sha256,
                in_service=each.in_service,
                answered_at=now,
                assessment=each.assessment.model_dump_json(),
            )
        )
