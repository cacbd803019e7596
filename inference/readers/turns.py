"""A queue in which everybody gets a turn: calls are taken from each visit in rotation, not in the order of arrival."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable, Sequence
from typing import Generic, TypeVar

Kind = TypeVar("Kind", bound=Hashable)
T = TypeVar("T")


class Turns(Generic[Kind, T]):
    """Items by kind and owner. A visit of a hundred slow files delays another visit by one file, not by a hundred.

    The thread that became idle last gets the next item: what its reader needs is still in the caches of the core.
    """

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._queues: dict[Kind, OrderedDict[Hashable, deque[T]]] = {kind: OrderedDict() for kind in kinds}
        self._lock = threading.Lock()
        self._idle: list[tuple[Sequence[Kind], threading.Condition]] = []
        self._closed = False

    def put(self, kind: Kind, owner: Hashable, item: T) -> bool:
        """Queue an item; ``False`` where the queue is closed."""
        with self._lock:
            if self._closed:
                return False
            self._queues[kind].setdefault(owner, deque()).append(item)
            for at in reversed(range(len(self._idle))):
                kinds, woken = self._idle[at]
                if kind in kinds:
                    del self._idle[at]
                    woken.notify()
                    break
            return True

    def take(self, kinds: Sequence[Kind]) -> tuple[Kind, T] | None:
        """Wait for the next item of one of these kinds, the first of them first; ``None`` once the queue is closed."""
        woken = threading.Condition(self._lock)
        with self._lock:
            while not self._closed:
                for kind in kinds:
                    if queue := self._queues[kind]:
                        return kind, _next(queue)
                self._idle.append((kinds, woken))
                woken.wait()
            return None

    def close(self) -> list[T]:
        """Take nothing more; the items that are left."""
        with self._lock:
            self._closed = True
            left = [item for queue in self._queues.values() for items in queue.values() for item in items]
            for queue in self._queues.values():
                queue.clear()
            for _, woken in self._idle:
                woken.notify()
            return left


def _next(queue: OrderedDict[Hashable, deque[T]]) -> T:
    owner, items = queue.popitem(last=False)
    item = items.popleft()
    if items:
        queue[owner] = items  # behind all others
    return item
