"""What this process works on, from the moment a visit is leased until its outcome is written.

A native decoder can take the whole process down. A visit whose process died is therefore tried again *carefully*:
alone in its process, and with the file that is about to be decoded committed to the row beforehand. If that process
dies too, the committed file did it: tried twice, it is refused as ``unreadable`` and never decoded again.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import structlog
from sqlalchemy import select

from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedInput, AssessedOrgan, Assessment
from data_specs.visit.context import Context
from data_specs.visit.contract import ORGANS
from service.logs import where_it_failed
from service.metrics import Metrics
from service.settings import Settings
from service.storage.database import Database
from service.storage.owner import Owner
from service.storage.store import Store, StoredInput
from service.storage.tables import VISITS, VisitRow
from service.visits.leases import Lease, Leases
from service.visits.shadow import ShadowWork

if TYPE_CHECKING:
    from inference.engine import Input, ShadowAnswer

T = TypeVar("T")
POLL_S = 0.5
MAX_FAULTS = 3
"""Errors of the engine itself, after which a visit is ``failed``."""
SPARE_DEATHS = 2
"""Deaths beyond one per file, after which a visit is ``failed``: something other than decoding a file kills it."""
RETRY_S = 1.0
HANDS_AT_ONCE = 4
"""While visits wait in the database, they are fetched when one hand in so many is free: fetching costs two turns."""

log = structlog.get_logger()


class Engine(Protocol):
    """What the service needs of ``inference.engine.Engine``.

    ``assess`` raises for no input whatsoever. ``before_decode`` is awaited with the index of a file before native code
    touches it, one file at a time: while it is given, the next file is not begun before the last one is decoded.
    """

    async def assess(
        self,
        inputs: Sequence[Input],
        context: Context,
        *,
        before_decode: Callable[[int], Awaitable[None]] | None = None,
        refused: Mapping[int, Problem] = ...,
    ) -> Assessment: ...

    @property
    def has_shadows(self) -> bool: ...

    async def assess_shadows(self, inputs: Sequence[Input], context: Context) -> list[ShadowAnswer]: ...

    def models(self) -> list[dict[str, Any]]: ...

    async def aclose(self) -> None: ...


class Work:
    """What this process has in its hands.

    Parameters
    ----------
    database, store, settings, metrics
        As everywhere in the service.
    """

    def __init__(self, database: Database, store: Store, settings: Settings, metrics: Metrics) -> None:
        self._database = database
        self._store = store
        self._settings = settings
        self._metrics = metrics
        self._leases = Leases(database, Owner(settings.data_dir / "owners"), settings.lease_seconds)
        self._engine: Engine | None = None
        self._shadow = ShadowWork(database, store, metrics, busy=lambda: bool(self._running))
        self._running: dict[str, asyncio.Task[None]] = {}
        self._reserved = 0
        self._behind = False
        self._looked_for_dead = 0.0
        self._alone = False
        self._draining = False
        self._wake = asyncio.Event()
        self._watched: WeakValueDictionary[str, asyncio.Event] = WeakValueDictionary()
        self._loops: list[asyncio.Task[None]] = []

    def start(self, engine: Engine) -> None:
        """Begin to take visits on, those first that dead processes left behind."""
        self._engine = engine
        self._shadow.start(engine)
        self._loops = [
            asyncio.create_task(each()) for each in (self._take_visits, self._keep_leases, self._watch_others)
        ]

    # ------------------------------------------------------------------ a visit accepted by this very process
    def reserve(self) -> bool:
        """Keep a hand free for a visit about to be committed; ``use_reservation`` has to follow.

        ``False``: none is free. The visit then waits in the database for whoever has one first.
        """
        if not self._hands_free():
            self._behind = True
            return False
        self._reserved += 1
        return True

    def lease(self, row: VisitRow, now: datetime) -> None:
        """Write this process's lease into a row that is about to be inserted."""
        self._leases.write_first(row, now)

    def use_reservation(self, row: VisitRow | None) -> None:
        """Start on the committed visit; ``None``: it came to nothing."""
        self._reserved -= 1
        if row is not None:
            self._begin(Lease(row, row.attempts))
        self._look_again()

    async def wait(self, visit_id: str, seconds: float, left: Callable[[], Awaitable[bool]]) -> None:
        """Wait until a visit is finished, here or elsewhere; not past ``seconds``, a drain, or the client's leaving."""
        finished = self._watched.setdefault(visit_id, asyncio.Event())
        end = time.monotonic() + seconds
        while (remaining := end - time.monotonic()) > 0 and not self._draining and not await left():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(remaining, POLL_S)):
                    await finished.wait()
            if finished.is_set():
                return

    async def _watch_others(self) -> None:
        """Look for those of the visits waited for that another process may finish: all of them in one question."""
        while True:
            await asyncio.sleep(POLL_S)
            elsewhere = [each for each in list(self._watched) if each not in self._running]
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

    # ------------------------------------------------------------------ taking over what lies around
    async def _take_visits(self) -> None:
        while True:
            self._wake.clear()
            try:
                taken = await self._take_some()
            except Exception as error:  # the database is away for a moment: what is leased stays leased
                log.error("work_not_taken", **where_it_failed(error))
                taken = False
            if not taken:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), POLL_S)

    async def _take_some(self) -> bool:
        if time.monotonic() - self._looked_for_dead >= POLL_S:
            await self._leases.end_those_of_the_dead()
            self._looked_for_dead = time.monotonic()
        if not (free := self._hands_free()):
            return False
        self._behind = False
        n_waiting = await self._leases.waiting(self._running, free)
        hands = min(n_waiting, self._hands_free())
        if not hands:
            return False
        self._reserved += hands
        try:
            leases = await self._leases.take(self._running, hands)
        finally:
            self._reserved -= hands
        # from here on the loop holds the leases itself: nothing is awaited before they are begun, or made to wait alone
        self._behind |= n_waiting >= free
        if not leases:
            return False
        if leases[0].deaths == 0:
            for lease in leases:
                self._begin(lease)
            return True
        (lease,) = leases
        self._alone = True
        try:
            while self._running or self._reserved:  # both end by setting the event
                self._wake.clear()
                await self._wake.wait()
            self._begin(lease)
            await asyncio.wait(self._running.values())
        finally:
            self._alone = False
        return True

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_seconds / 3)
            try:
                await self._leases.extend(self._running)
            except Exception as error:
                log.error("leases_not_extended", **where_it_failed(error))

    # ------------------------------------------------------------------ one visit
    def _hands_free(self) -> int:
        if self._engine is None or self._draining or self._alone:
            return 0
        return max(0, self._settings.concurrent_visits - len(self._running) - self._reserved)

    def _look_again(self) -> None:
        """Tell the loop that a hand is free, where it waits for one; several visits are taken at a time."""
        if self._alone or (self._behind and HANDS_AT_ONCE * self._hands_free() >= self._settings.concurrent_visits):
            self._wake.set()

    def _begin(self, lease: Lease) -> None:
        task = asyncio.create_task(self._work_on(lease))
        self._running[lease.row.id] = task
        task.add_done_callback(lambda _: self._end(lease.row.id))

    def _end(self, visit_id: str) -> None:
        del self._running[visit_id]
        self._look_again()

    async def _work_on(self, lease: Lease) -> None:
        row = lease.row
        started = time.monotonic()
        if lease.deaths > len(row.inputs) + SPARE_DEATHS:
            await self._finish(lease, "failed", _no_assessment(row, "process"))
            return
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
        assert self._engine is not None  # noqa: S101  start() comes first
        row = lease.row
        refused = {each.index: _CRASHED for each in row.inputs if each.refused}
        inputs = [StoredInput.of(each, self._store) for each in row.inputs]
        return await self._engine.assess(
            inputs,
            Context.model_validate_json(row.context),
            before_decode=partial(self._leases.note_decoding, lease) if lease.deaths else None,
            refused=refused,
        )

    async def _finish(self, lease: Lease, status: str, assessment: Assessment) -> None:
        """Write the outcome, unless the visit has been taken over meanwhile."""
        now = await persist(lambda: self._leases.finish(lease, status, assessment))
        if now is None:
            log.warning("visit_taken_over", visit=lease.row.id, attempt=lease.attempt)
            return
        log.info("visit_finished", visit=lease.row.id, status=status, attempt=lease.attempt)
        self._metrics.visits.labels(status, assessment.priority).inc()
        self._metrics.stages.labels("total").observe(max(0.0, (now - lease.row.received_at).total_seconds()))
        if (finished := self._watched.get(lease.row.id)) is not None:
            finished.set()
        if status == "complete" and lease.deaths == 0:  # a file that may kill the process is not opened once more
            self._shadow.offer(lease.row)

    # ------------------------------------------------------------------ the end
    def stop_taking(self) -> None:
        """Take nothing more on; those who wait for a visit are told to come back for it."""
        self._draining = True

    async def drain(self) -> None:
        """Finish what can be finished in time, and give the rest back untouched, as if never begun."""
        self.stop_taking()
        await self._shadow.stop()
        for loop in self._loops[:1]:
            await cancelled(loop)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=self._settings.drain_seconds)
        for task in [*self._running.values(), *self._loops]:
            await cancelled(task)
        await self._leases.give_all_back()


_CRASHED = Problem("unreadable", "reject", "2 ×", "1 ×")


async def persist(write: Callable[[], Awaitable[T]]) -> T:
    """Write what must not be lost, however long the database is away; the lease is kept meanwhile."""
    while True:
        try:
            return await write()
        except Exception as error:
            log.error("result_not_written", **where_it_failed(error))
            await asyncio.sleep(RETRY_S)


def _no_assessment(row: VisitRow, found: str) -> Assessment:
    """The outcome of a visit that could not be assessed at all: nothing is normal, everything is to be repeated."""
    problem = Problem("inference_failed", "reject", found)
    return Assessment(
        organs={organ: AssessedOrgan(status="not_assessed", reasons=[problem]) for organ in ORGANS},
        inputs=[AssessedInput(index=each.index, accepted=False, problems=[problem]) for each in row.inputs],
        models=[],
        priority="unassessed",
        priority_reasons=[problem],
    )


async def cancelled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
