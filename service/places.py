"""Places that many clients share: how many one of them may hold, and who is next.

A holder may take more only while at least as much is free as it would then hold. So one holder alone gets half of all,
the next one half of the rest, and so on: whoever comes new finds something free, however much the others ask for.

References
----------
Choudhury A. K., Hahne E. L., Dynamic queue length thresholds for shared-memory packet switches, IEEE/ACM Transactions
on Networking 1998;6(2):130-140 (with a factor of 1).
"""

from __future__ import annotations

import asyncio
from collections import deque


class Shares:
    """How much of a total each holder has. Only holders that have something are kept.

    Parameters
    ----------
    total
        What all holders together may have, in whatever unit.
    most
        What one holder may have in any case; by default there is only the share.
    """

    def __init__(self, total: int, most: int | None = None) -> None:
        self._held: dict[str, int] = {}
        self._most = total if most is None else most
        self.free = total

    def held(self, holder: str) -> int:
        return self._held.get(holder, 0)

    def fits(self, holder: str, n: int = 1) -> bool:
        """Whether the holder may take ``n`` more. What it takes first may be all that is free."""
        held = self.held(holder)
        return n <= self.free and held + n <= self._most and (not held or held + n <= self.free)

    def take(self, holder: str, n: int = 1) -> None:
        self._held[holder] = self.held(holder) + n
        self.free -= n

    def give(self, holder: str, n: int = 1) -> None:
        left = self._held.pop(holder, 0) - n
        self.free += n
        if left:
            self._held[holder] = left


class Places:
    """Places for one task each. Those who wait are served in turn, one of each holder, so that many of one holder do
    not stand before the one of another.
    """

    def __init__(self, total: int) -> None:
        self._shares = Shares(total)
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By holder; the holder that waits for its turn longest is first."""

    async def take(self, holder: str, seconds: float) -> None:
        """Wait for a place; the caller gives it back with :meth:`give`.

        Raises
        ------
        TimeoutError
            There was none for this holder within ``seconds``.
        """
        if holder not in self._waiting and self._shares.fits(holder):
            self._shares.take(holder)
            return
        async with asyncio.timeout(seconds):
            await self._wait(holder)

    def give(self, holder: str) -> None:
        self._shares.give(holder)
        self._hand_out()

    async def _wait(self, holder: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(holder, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.cancelled():
                self._leave(holder, turn)
            else:  # the place came at the same moment
                self.give(holder)
            raise

    def _leave(self, holder: str, turn: asyncio.Future[None]) -> None:
        queue = self._waiting.get(holder)
        if queue is not None and turn in queue:
            queue.remove(turn)
            if not queue:
                del self._waiting[holder]

    def _hand_out(self) -> None:
        while (holder := next(filter(self._shares.fits, self._waiting), None)) is not None:
            queue = self._waiting.pop(holder)
            turn = queue.popleft()
            if queue:
                self._waiting[holder] = queue  # at the end: the others are before its next one
            if not turn.done():
                self._shares.take(holder)
                turn.set_result(None)
