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

    Parameters
    ----------
    kinds
        All kinds. Whoever takes items takes those of the first kind, perhaps among others.
    """

    def __init__(self, kinds: Sequence[Kind]) -> None:
        self._queues: dict[Kind, OrderedDict[Hashable, deque[T]]] = {kind: OrderedDict() for kind in kinds}
        self._for_all = kinds[0]
        self._changed = threading.Condition()
        self._closed = False

    def put(self, kind: Kind, owner: Hashable, item: T) -> bool:
        """Queue an item; ``False`` where the queue is closed."""
        with self._changed:
            if not self._closed:
                self._queues[kind].setdefault(owner, deque()).append(item)
                if kind == self._for_all:
                    self._changed.notify()
                else:
                    self._changed.notify_all()  # the one that wakes may not take this kind
            return not self._closed

    def take(self, kinds: Sequence[Kind]) -> tuple[Kind, T] | None:
        """Wait for the next item of one of these kinds, the first of them first; ``None`` once the queue is closed."""
        with self._changed:
            while not self._closed:
                for kind in kinds:
                    if queue := self._queues[kind]:
                        owner, items = queue.popitem(last=False)
                        item = items.popleft()
                        if items:
                            queue[owner] = items  # behind all others
                        return kind, item
                self._changed.wait()
            return None

    def close(self) -> list[T]:
        """Take nothing more; the items that are left."""
        with self._changed:
            self._closed = True
            left = [item for queue in self._queues.values() for items in queue.values() for item in items]
            for queue in self._queues.values():
                queue.clear()
            self._changed.notify_all()
            return left
