"""The visits that this process works on, from the moment when a visit is leased until its outcome is written.

Files are read in processes of their own (:mod:`inference.readers`). So where this process stops, none of its visits is
the cause: they are done again, however often that happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import select

from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedInput, AssessedOrgan, Assessment
from data_specs.visit.contract import ORGANS
from data_specs.visit.teaching import teaches
from inference.readers.pool import ReadersFailed
from service.background import POLL_S, RETRY_S, Worker, persist
from service.errors import StorageUnavailable
from service.logs import where_it_failed
from service.parts import Parts
from service.storage.owner import Owner
from service.storage.store import StoredInput
from service.storage.tables import VISITS, VisitRow
from service.visits.decided import decided
from service.visits.engine import Engine
from service.visits.leases import Lease, Leases
from service.visits.shadow import ShadowWork

MAX_FAULTS = 3
"""Errors of the engine itself, after which a visit is ``failed``."""
MIN_FREE_SHARE = 0.25
"""The share of the slots that has to be free before waiting visits are fetched: each fetch costs two transactions."""

log = structlog.get_logger()


class Work(Worker[str]):
    """The visits that this process works on, each in a slot; there are ``concurrent_visits`` slots."""

    def __init__(self, parts: Parts) -> None:
        settings = parts.settings
        owner, at_node = Owner(settings.data_dir / "owners"), bool(settings.upstream)
        self._leases = Leases(parts.database, owner, settings.lease_seconds, bundles=settings.bundles, at_node=at_node)
        super().__init__(self._leases, settings)
        self._parts = parts
        self._database = parts.database
        self._store = parts.store
        self._metrics = parts.metrics
        self._engine: Engine | None = None
        self._shadow = ShadowWork(parts, busy=lambda: bool(self._running))
        self._reserved = 0
        self._visits_waiting = False
        self._watched: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()

    def start(self, engine: Engine) -> None:
        """Begin to take visits, first those that stopped processes have left."""
        self._engine = engine
        self._shadow.start(engine)
        self._start_loops(self._watch_others)

    async def drain(self) -> None:
        self.stop_taking()
        await self._shadow.stop()
        await super().drain()

    # ------------------------------------------------------------------ a visit that this process accepts
    def reserve_slot(self) -> bool:
        """Reserve a slot for a visit that is about to be committed; :meth:`start_in_slot` has to follow.

        ``False`` where no slot is free. The visit then waits in the database for the first process that has one.
        """
        if not self._slots_free():
            self._visits_waiting = True
            return False
        self._reserved += 1
        return True

    def lease(self, row: VisitRow, now: datetime) -> None:
        """Write this process's lease into a row that is about to be inserted."""
        self._leases.lease_new(row, now)

    def start_in_slot(self, row: VisitRow | None) -> None:
        """Start on the committed visit in the reserved slot; ``None``: no visit was committed, the slot is free."""
        self._reserved -= 1
        if row is not None:
            self._start_visit(Lease(row, row.attempts))
        self._wake_if_free()

    # ------------------------------------------------------------------ waiting for an outcome
    async def wait(self, visit_id: str, seconds: float, left: Callable[[], Awaitable[bool]]) -> None:
        """Wait until a visit is finished, by this process or another.

        Returns earlier after ``seconds``, when this process drains, or when the client has left.
        """
        finished = self._watched.setdefault(visit_id, asyncio.Event())
        end = time.monotonic() + seconds
        while (remaining := end - time.monotonic()) > 0 and not self._draining and not await left():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(remaining, POLL_S)):
                    await finished.wait()
            if finished.is_set():
                return

    async def _watch_others(self) -> None:
        """Look which of the visits that somebody waits for another process has finished, all in one query."""
        while True:
            await asyncio.sleep(POLL_S)
            elsewhere = [visit_id for visit_id in list(self._watched) if visit_id not in self._running]
            if not elsewhere:
                continue
            query = select(VISITS.c.id).where(VISITS.c.id.in_(elsewhere), VISITS.c.status != "accepted")
            try:
                done = await self._database.read(lambda session, query=query: session.scalars(query).all())  # type: ignore[misc]
            except Exception as error:
                log.error("visits_not_watched", **where_it_failed(error))
                continue
            for visit_id in done:
                if (finished := self._watched.get(visit_id)) is not None:
                    finished.set()

    # ------------------------------------------------------------------ visits that wait in the database
    async def _take_some(self) -> bool:
        if not (free := self._slots_free()):
            return False
        self._visits_waiting = False
        n_waiting = await self._leases.waiting(self._running, free)
        slots = min(n_waiting, self._slots_free())  # some may have been reserved while the database was asked
        if not slots:
            return False
        self._reserved += slots
        try:
            leases = await self._leases.take(self._running, slots)
        finally:
            self._reserved -= slots
        # nothing is awaited from here until the visits are started: their slots are no longer reserved
        self._visits_waiting |= n_waiting >= free
        for lease in leases:
            self._start_visit(lease)
        return bool(leases)

    def _slots_free(self) -> int:
        if self._engine is None or self._draining:
            return 0
        return max(0, self._settings.concurrent_visits - len(self._running) - self._reserved)

    def _wake_if_free(self) -> None:
        """Wake the loop that takes visits where it waits for a slot; several visits are taken at a time."""
        enough = MIN_FREE_SHARE * self._settings.concurrent_visits
        if self._visits_waiting and self._slots_free() >= enough:
            self._wake.set()

    # ------------------------------------------------------------------ one visit
    def _start_visit(self, lease: Lease) -> None:
        self._start_task(lease.row.id, self._work_on(lease))

    async def _work_on(self, lease: Lease) -> None:
        row = lease.row
        started = time.monotonic()
        try:
            assessment = await self._assess(lease)
        except Exception as error:
            log.error("visit_fault", visit=row.id, attempt=lease.attempt, **where_it_failed(error))
            if row.faults + 1 >= MAX_FAULTS:
                await self._finish(lease, "failed", _no_assessment(row, type(error).__name__))
            else:
                await persist(lambda: self._leases.put_back(lease, RETRY_S * (row.faults + 1)))
            return
        self._metrics.stages.labels("assess").observe(time.monotonic() - started)
        await self._finish(lease, "complete", assessment)

    async def _assess(self, lease: Lease) -> Assessment:
        """Assess a visit, and try again for as long as its files cannot be reached or read: that is no fault of it."""
        assert self._engine is not None  # noqa: S101  start() comes first
        row = lease.row
        inputs = [StoredInput.of(file, self._store) for file in row.inputs]
        while True:
            try:
                found = await self._engine.assess(inputs, row.read_context(), row.site)
                return await decided(self._parts, row, found)
            except (StorageUnavailable, ReadersFailed) as error:
                log.warning("visit_waits", visit=row.id, attempt=lease.attempt, **where_it_failed(error))
                await asyncio.sleep(RETRY_S)

    async def _finish(self, lease: Lease, status: str, assessment: Assessment) -> None:
        """Write the outcome, unless another process has taken the visit meanwhile."""
        now = await persist(lambda: self._leases.finish(lease, status, assessment))
        if now is None:
            log.warning("visit_taken_over", visit=lease.row.id, attempt=lease.attempt)
            self._metrics.leases_lost.labels("visit").inc()
            return
        log.info("visit_finished", visit=lease.row.id, status=status, attempt=lease.attempt)
        self._metrics.visits.labels(status, assessment.priority).inc()
        self._metrics.stages.labels("total").observe(max(0.0, (now - lease.row.received_at).total_seconds()))
        if (finished := self._watched.get(lease.row.id)) is not None:
            finished.set()
        if status == "complete" and not teaches(lease.row.site):
            self._shadow.offer(lease.row)


def _no_assessment(row: VisitRow, found: str) -> Assessment:
    """The outcome of a visit that could not be assessed at all: nothing in it is normal, all has to be done again."""
    problem = Problem("inference_failed", "reject", found)
    return Assessment(
        organs={organ: AssessedOrgan(status="not_assessed", reasons=[problem]) for organ in ORGANS},
        inputs=[AssessedInput(index=file.index, accepted=False, problems=[problem]) for file in row.inputs],
        models=[],
        priority_reasons=[problem],
    )
