"""A queue in which everybody gets a turn: calls are taken from each visit in rotation, not in the order of arrival."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

T = TypeVar("T")


class Turns(Generic[T]):
    """Items by owner. A visit of a hundred slow files delays another visit by one file, not by a hundred."""

    def __init__(self) -> None:
        self._by_owner: OrderedDict[Hashable, deque[T]] = OrderedDict()
        self._changed = threading.Condition()
        self._closed = False

    def put(self, owner: Hashable, item: T) -> bool:
        """Queue an item; ``False`` where the queue is closed."""
        with self._changed:
            if not self._closed:
                self._by_owner.setdefault(owner, deque()).append(item)
                self._changed.notify()
            return not self._closed

    def take(self) -> T | None:
        """Wait for the next item; ``None`` once the queue is closed."""
        with self._changed:
            while not self._by_owner and not self._closed:
                self._changed.wait()
            if self._closed:
                return None
            owner, items = self._by_owner.popitem(last=False)
            item = items.popleft()
            if items:
                self._by_owner[owner] = items  # behind all others
            return item

    def close(self) -> list[T]:
        """Take nothing more; the items that are left."""
        with self._changed:
            self._closed = True
            left = [item for items in self._by_owner.values() for item in items]
            self._by_owner.clear()
            self._changed.notify_all()
            return left
