"""Sends deliveries: takes what is due, sends it, and writes the outcome.

No destination holds up another: each has its own slots. Where several deliveries to a destination have failed and none
was taken since, or where the destination asks for time, it gets nothing for a while, and then one delivery first.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from service.background import Worker, persist
from service.delivery.message import SENDINGS_AT_ONCE, NotDelivered
from service.delivery.queue import Deliveries, Identity, LeasedDelivery
from service.delivery.senders.dispatch import Senders
from service.logs import where_it_failed
from service.settings import Settings
from service.storage.owner import Owner

if TYPE_CHECKING:
    from service.parts import Parts

SLOTS = 4
"""Deliveries to one destination at a time."""
AWAY_AFTER = 3
"""When so many different deliveries have failed one after the other, the destination is the cause."""

log = structlog.get_logger()


def delay_s(settings: Settings, failures: int) -> float:
    """Seconds until the next attempt: exponential with full jitter, so that what failed together is spread out."""
    doubled = settings.delivery_retry_seconds * 2.0 ** min(failures - 1, 30)
    return random.uniform(0, min(settings.delivery_retry_max_seconds, doubled))  # noqa: S311  no secret


@dataclass(slots=True)
class Backoff:
    """How one destination has answered this process.

    Parameters
    ----------
    failed
        Deliveries that failed since the destination last answered one.
    pauses
        How often it was paused since then.
    until
        When it may be tried again, by the process's own clock.
    """

    failed: set[Identity] = field(default_factory=set)
    pauses: int = 0
    until: float = 0.0

    @property
    def is_paused(self) -> bool:
        return time.monotonic() < self.until

    def answered(self) -> None:
        self.failed.clear()
        self.pauses, self.until = 0, 0.0


class DeliveryWorker(Worker[Identity]):
    """The deliveries that this process sends."""

    def __init__(self, parts: Parts) -> None:
        settings = parts.settings
        owner = Owner(settings.data_dir / "owners" / "deliveries")
        self._deliveries = Deliveries(parts.database, owner, settings.lease_seconds)
        super().__init__(self._deliveries, settings)
        self._metrics = parts.metrics
        self._senders = Senders(parts)
        self._backoffs: dict[str, Backoff] = {}

    def start(self) -> None:
        """Begin to deliver, first what stopped processes have left."""
        self._start_loops()

    def try_now(self, destination_id: str) -> None:
        """Try a destination again at once: somebody says that it is repaired."""
        self._backoff(destination_id).until = 0.0
        self._wake.set()

    async def drain(self) -> None:
        await super().drain()
        await self._senders.aclose()

    async def _take_some(self) -> bool:
        free = SENDINGS_AT_ONCE - len(self._running)
        if free <= 0:
            return False
        due = await self._deliveries.due()
        random.shuffle(due)  # where slots are few, it is not always the same destinations that get them
        slots = {}
        for destination_id in due:
            if n := min(self._slots_free(destination_id), free):
                slots[destination_id] = n
                free -= n
        if not slots:
            return False
        taken = await self._deliveries.take(slots, self._running)
        for delivery in taken:
            self._start_task(delivery.identity, self._deliver(delivery))
        return bool(taken)

    def _slots_free(self, destination_id: str) -> int:
        backoff = self._backoff(destination_id)
        if backoff.is_paused:
            return 0
        n_running = sum(to == destination_id for _, _, to in self._running)
        return max(0, (1 if backoff.pauses else SLOTS) - n_running)

    def _backoff(self, destination_id: str) -> Backoff:
        return self._backoffs.setdefault(destination_id, Backoff())

    # ------------------------------------------------------------------ one delivery
    async def _deliver(self, taken: LeasedDelivery) -> None:
        if taken.attempt > self._settings.delivery_attempts:  # processes stopped while they sent it
            await self._give_up(taken, NotDelivered("process", may_have_arrived=True))
            return
        try:
            answer = await self._senders.send(taken.delivery)
        except NotDelivered as reason:
            await self._not_delivered(taken, reason)
        except Exception as error:  # a fault of this service: the destination is not to blame
            log.error("delivery_fault", **self._named(taken), **where_it_failed(error))
            await self._try_again(taken, NotDelivered("fault", may_have_arrived=True), self._delay(taken.attempt))
        else:
            self._backoff(taken.delivery.destination_id).answered()
            written = await persist(lambda: self._deliveries.delivered(taken, answer))
            self._note("delivered", taken, written)

    async def _not_delivered(self, taken: LeasedDelivery, reason: NotDelivered) -> None:
        destination_id = taken.delivery.destination_id
        backoff = self._backoff(destination_id)
        if reason.permanent:
            backoff.answered()
            await self._give_up(taken, reason)
            return
        asked_s = reason.retry_after_s
        backoff.failed.add(taken.identity)
        is_away = asked_s is not None or backoff.pauses > 0 or len(backoff.failed) >= AWAY_AFTER
        if backoff.is_paused or not is_away:
            delay_s = max(self._delay(taken.attempt), asked_s or 0.0)
            await self._try_again(taken, reason, delay_s)
            return
        backoff.pauses += 1
        delay_s = max(self._delay(backoff.pauses), asked_s or 0.0)
        backoff.until = time.monotonic() + delay_s
        log.warning("destination_away", destination=destination_id, problem=reason.code)
        await self._try_again(taken, reason, delay_s)
        most = self._settings.delivery_attempts
        await persist(lambda: self._deliveries.back_off(destination_id, reason.code, delay_s, most))

    async def _try_again(self, taken: LeasedDelivery, reason: NotDelivered, delay_s: float) -> None:
        if taken.attempt >= self._settings.delivery_attempts:
            await self._give_up(taken, reason)
            return
        written = await persist(lambda: self._deliveries.put_back(taken, reason, delay_s))
        self._note("put_back", taken, written, reason.code)

    async def _give_up(self, taken: LeasedDelivery, reason: NotDelivered) -> None:
        written = await persist(lambda: self._deliveries.give_up(taken, reason))
        self._note("dead", taken, written, reason.code)

    def _delay(self, failures: int) -> float:
        return delay_s(self._settings, failures)

    def _note(self, outcome: str, taken: LeasedDelivery, written: bool, problem: str | None = None) -> None:
        if not written:
            log.warning("delivery_taken_over", **self._named(taken))
            self._metrics.leases_lost.labels("delivery").inc()
            return
        self._metrics.deliveries.labels(taken.delivery.kind, outcome).inc()
        log.info(f"delivery_{outcome}", **self._named(taken), problem=problem)

    @staticmethod
    def _named(taken: LeasedDelivery) -> dict[str, object]:
        visit_id, version, destination_id = taken.identity
        return {"visit": visit_id, "version": version, "destination": destination_id, "attempt": taken.attempt}
