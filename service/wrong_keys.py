"""Wrong keys and refused sign-ins, counted by network: how many are answered at once, and what an attack leaves to see.

Nothing right is refused for what came from the same address, which clinics behind one NAT share with whoever else is
there.
"""

from __future__ import annotations

import math
import time

import structlog

from service.metrics import Metrics
from service.protocols.peers import prefix_of

WRONG_AT_ONCE = 100
WRONG_EVERY_S = 3.0
"""Wrong keys of one address: so many at once, then one in this time."""
ADDRESSES_REMEMBERED = 10_000
TELL_EVERY_S = 60.0
"""A lasting attack has one line of log in this time, however many networks it comes from."""

log = structlog.get_logger()


class WrongKeys:
    """How many wrong keys came from where, lately.

    Of each network one number is kept: when all its wrong keys will be forgiven. Networks are forgotten where too many
    others came later.
    """

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._forgiven_at: dict[str, float] = {}
        self._told_at = -math.inf
        self._untold = 0
        self._uncounted = 0

    def count(self, network: str) -> int | None:
        """Count a wrong key; in seconds, how long to wait before the next, if there are too many."""
        self._uncounted += 1
        now = time.monotonic()
        forgiven_at = max(self._forgiven_at.pop(network, now), now) + WRONG_EVERY_S
        wait_s = forgiven_at - now - WRONG_AT_ONCE * WRONG_EVERY_S
        self._forgiven_at[network] = forgiven_at if wait_s <= 0 else forgiven_at - WRONG_EVERY_S
        if len(self._forgiven_at) > ADDRESSES_REMEMBERED:
            del self._forgiven_at[next(iter(self._forgiven_at))]
        self._metrics.wrong_keys.labels("refused" if wait_s <= 0 else "limited").inc()
        if wait_s <= 0:
            return None
        self._tell(network, now)
        return math.ceil(wait_s)

    def take_count(self) -> int:
        """How many wrong keys there were since this was last asked."""
        taken, self._uncounted = self._uncounted, 0
        return taken

    def _tell(self, network: str, now: float) -> None:
        self._untold += 1
        if now - self._told_at >= TELL_EVERY_S:
            log.warning("too_many_wrong_keys", network=prefix_of(network), limited=self._untold)
            self._told_at, self._untold = now, 0
