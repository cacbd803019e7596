"""Who carries deliveries: takes what is due, sends it, writes what came of it.

No destination holds up another. Each has a few hands of its own; where several of its deliveries have failed and none
since was taken, or where it asks for time itself, it is left alone for a while with all that waits for it, and then
tried with one.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from service.background import POLL_S, cancelled, persist
from service.delivery.message import SENDINGS_AT_ONCE, NotDelivered
from service.delivery.queue import Deliveries, Identity, LeasedDelivery
from service.delivery.senders.dispatch import Senders
from service.logs import where_it_failed
from service.storage.owner import Owner

if TYPE_CHECKING:
    from service.parts import Parts

HANDS = 4
"""Deliveries to one destination at a time."""
AWAY_AFTER = 3
"""So many different deliveries failed one after the other: it is the destination, not what it is sent."""

log = structlog.get_logger()


@dataclass(slots=True)
class Backoff:
    """To one destination, as this process has found it.

    Parameters
    ----------
    failed
        Deliveries that failed since one was answered.
    pauses
        How often it was left alone since then.
    until
        When it may be tried again, by the process's own clock.
    """

    running: int = 0
    failed: set[Identity] = field(default_factory=set)
    pauses: int = 0
    until: float = 0.0

    @property
    def hands(self) -> int:
        if time.monotonic() < self.until:
            return 0
        return max(0, (1 if self.pauses else HANDS) - self.running)

    def answered(self) -> None:
        self.failed.clear()
        self.pauses, self.until = 0, 0.0


class DeliveryWorker:
    """What this process delivers."""

    def __init__(self, parts: Parts) -> None:
        settings = parts.settings
        self._settings = settings
        self._metrics = parts.metrics
        # a folder of its own: whoever looks for the dead of one kind of work would bury those of the other
        owner = Owner(settings.data_dir / "owners" / "deliveries")
        self._deliveries = Deliveries(parts.database, owner, settings.lease_seconds)
        self._senders = Senders(parts)
        self._backoffs: dict[str, Backoff] = {}
        self._running: dict[Identity, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._draining = False
        self._loops: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to deliver, first what dead processes left behind."""
        self._loops = [asyncio.create_task(each()) for each in (self._take_deliveries, self._keep_leases)]

    def try_now(self, destination_id: str) -> None:
        """Somebody has mended a destination: do not wait out the time that it was to be left alone."""
        self._backoff(destination_id).until = 0.0
        self._wake.set()

    def stop_taking(self) -> None:
        self._draining = True

    async def drain(self) -> None:
        """Finish what is being sent, as far as the time allows; give the rest back."""
        self.stop_taking()
        for loop in self._loops[:1]:
            await cancelled(loop)
        if self._running:
            await asyncio.wait(self._running.values(), timeout=self._settings.drain_seconds)
        for task in [*self._running.values(), *self._loops]:
            await cancelled(task)
        await self._deliveries.give_all_back()
        await self._senders.aclose()

    # ------------------------------------------------------------------ taking
    async def _take_deliveries(self) -> None:
        looked_for_dead = 0.0
        while not self._draining:
            self._wake.clear()
            try:
                if time.monotonic() - looked_for_dead >= POLL_S:
                    await self._deliveries.end_those_of_the_dead()
                    looked_for_dead = time.monotonic()
                taken = await self._take_some()
            except Exception as error:  # the database is away for a moment
                log.error("deliveries_not_taken", **where_it_failed(error))
                taken = False
            if not taken:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), POLL_S)

    async def _take_some(self) -> bool:
        free = SENDINGS_AT_ONCE - len(self._running)
        if free <= 0:
            return False
        due = await self._deliveries.due()
        random.shuffle(due)  # where hands are short, it is not always the same destinations that get them
        hands = {}
        for destination_id in due:
            if n := min(self._backoff(destination_id).hands, free):
                hands[destination_id] = n
                free -= n
        if not hands:
            return False
        taken = await self._deliveries.take(hands, self._running)
        for each in taken:
            self._begin(each)
        return bool(taken)

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(self._settings.lease_seconds / 3)
            if not self._running:
                continue
            try:
                await self._deliveries.extend(self._running)
            except Exception as error:
                log.error("leases_not_extended", **where_it_failed(error))

    def _backoff(self, destination_id: str) -> Backoff:
        return self._backoffs.setdefault(destination_id, Backoff())

    # ------------------------------------------------------------------ one delivery
    def _begin(self, taken: LeasedDelivery) -> None:
        backoff = self._backoff(taken.delivery.destination_id)
        backoff.running += 1
        task = asyncio.create_task(self._carry(taken, backoff))
        self._running[taken.identity] = task
        task.add_done_callback(lambda _: self._end(taken, backoff))

    def _end(self, taken: LeasedDelivery, backoff: Backoff) -> None:
        del self._running[taken.identity]
        backoff.running -= 1
        self._wake.set()

    async def _carry(self, taken: LeasedDelivery, backoff: Backoff) -> None:
        if taken.attempt > self._settings.delivery_attempts:  # processes died over it
            await self._give_up(taken, "process")
            return
        try:
            await self._senders.send(taken.delivery)
        except NotDelivered as said:
            await self._not_delivered(taken, backoff, said)
        except Exception as error:  # ours: the destination has nothing to do with it
            log.error("delivery_fault", **self._named(taken), **where_it_failed(error))
            await self._try_again(taken, "fault", self._delay(taken.attempt))
        else:
            backoff.answered()
            written = await persist(lambda: self._deliveries.delivered(taken))
            self._note("delivered", taken, written)

    async def _not_delivered(self, taken: LeasedDelivery, backoff: Backoff, said: NotDelivered) -> None:
        if said.permanent:
            backoff.answered()
            await self._give_up(taken, said.code)
            return
        delay_s = max(self._delay(taken.attempt), said.retry_after_s or 0.0)
        backoff.failed.add(taken.identity)
        is_paused = time.monotonic() < backoff.until
        if not is_paused and (said.retry_after_s is not None or backoff.pauses or len(backoff.failed) >= AWAY_AFTER):
            backoff.pauses += 1
            delay_s = max(self._delay(backoff.pauses), said.retry_after_s or 0.0)
            backoff.until = time.monotonic() + delay_s
            log.warning("destination_away", destination=taken.delivery.destination_id, problem=said.code)
            await self._try_again(taken, said.code, delay_s)
            most = self._settings.delivery_attempts
            await persist(lambda: self._deliveries.back_off(taken.delivery.destination_id, said.code, delay_s, most))
            return
        await self._try_again(taken, said.code, delay_s)

    async def _try_again(self, taken: LeasedDelivery, problem: str, delay_s: float) -> None:
        if taken.attempt >= self._settings.delivery_attempts:
            await self._give_up(taken, problem)
            return
        written = await persist(lambda: self._deliveries.put_back(taken, problem, delay_s))
        self._note("put_back", taken, written, problem)

    async def _give_up(self, taken: LeasedDelivery, problem: str) -> None:
        written = await persist(lambda: self._deliveries.bury(taken, problem))
        self._note("dead", taken, written, problem)

    def _delay(self, failures: int) -> float:
        """Seconds until the next attempt: exponential, with full jitter, so that what failed together is spread."""
        settings = self._settings
        doubled = settings.delivery_retry_seconds * 2.0 ** min(failures - 1, 30)
        return random.uniform(0, min(settings.delivery_retry_max_seconds, doubled))  # noqa: S311  no secret

    def _note(self, outcome: str, taken: LeasedDelivery, written: bool, problem: str | None = None) -> None:
        if not written:
            log.warning("delivery_taken_over", **self._named(taken))
            return
        self._metrics.deliveries.labels(taken.delivery.kind, outcome).inc()
        log.info(f"delivery_{outcome}", **self._named(taken), problem=problem)

    @staticmethod
    def _named(taken: LeasedDelivery) -> dict[str, object]:
        visit_id, version, destination_id = taken.identity
        return {"visit": visit_id, "version": version, "destination": destination_id, "attempt": taken.attempt}
