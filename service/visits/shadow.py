"""What shadow bundles find in finished visits: stored for a comparison, and shown nowhere.

A visit is assessed again after its outcome is written, one visit at a time, and only while this process works on no
visit. Its files are then read from the store, so that only rows wait in memory. When too many visits wait, the next one
is dropped and counted: a sample is enough for a comparison.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.orm import Session

from service.background import cancelled
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
"""How often a shadow that waits looks whether the process still works on visits."""

log = structlog.get_logger()


class ShadowWork:
    """The visits that this process has finished and its shadow bundles have not assessed yet.

    Parameters
    ----------
    busy
        Whether the process works on visits.
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
        """Queue a finished visit whose files were all decoded; does nothing where no bundle is in the shadow."""
        if self._engine is None or not self._engine.has_shadows:
            return
        if len(self._waiting) >= MAX_WAITING:
            self._metrics.shadows.labels("dropped").inc()
            return
        self._waiting.append(row)
        self._offered.set()

    async def stop(self) -> None:
        """Drop what waits, and end: the process does not wait for its shadow bundles."""
        self._metrics.shadows.labels("dropped").inc(len(self._waiting))
        self._waiting.clear()
        if self._task is not None:
            await cancelled(self._task)

    async def _serve(self) -> None:
        while True:
            await self._offered.wait()
            if not self._waiting:
                self._offered.clear()
                continue
            while self._busy():  # noqa: ASYNC110  no event says that there are no visits
                await asyncio.sleep(LOOK_S)
            row = self._waiting.popleft()
            try:
                await self._assess(row)
            except Exception as error:
                self._metrics.shadows.labels("failed").inc()
                log.error("shadow_fault", visit=row.id, **where_it_failed(error))

    async def _assess(self, row: VisitRow) -> None:
        assert self._engine is not None  # noqa: S101  start() comes first
        inputs = [StoredInput.of(file, self._store) for file in row.inputs]
        answers = await self._engine.assess_shadows(inputs, row.read_context())
        if answers:
            await self._database.write(lambda session: _store(session, row.id, answers))
            self._metrics.shadows.labels("stored").inc(len(answers))


def _store(session: Session, visit_id: str, answers: list[ShadowAnswer]) -> None:
    now = database_now(session)
    for answer in answers:
        session.merge(
            ShadowRow(
                visit_id=visit_id,
                name=answer.model.name,
                version=answer.model.version,
                sha256=answer.model.sha256,
                in_service=answer.in_service,
                answered_at=now,
                assessment=answer.assessment.model_dump_json(),
            )
        )
