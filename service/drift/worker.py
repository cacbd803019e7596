"""Looks at the films of each site once a day, by one process at a time."""

from __future__ import annotations

import time
from collections.abc import Collection
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import structlog
from sqlalchemy import Table, func, select, update
from sqlalchemy.orm import Session

from service.background import NOT_LEASED, RETRY_S, LeasedRows, Worker, lease_ended, persist
from service.drift.checking import check_site
from service.logs import where_it_failed
from service.sites import of_callers, with_key
from service.storage.database import age_s, database_now, insert_rows
from service.storage.owner import Owner
from service.storage.tables import CheckRow

if TYPE_CHECKING:
    from service.parts import Parts

CHECKS = cast("Table", CheckRow.__table__)
LOOK_S = 60.0
"""How often a process looks for sites that are due, or new; sooner where checks are more frequent."""
AGAIN_S = 600.0
"""After so long a check is tried again that a fault of this service ended."""

log = structlog.get_logger()


class Checks(LeasedRows[str]):
    """The sites that this process looks at."""

    table = CHECKS
    key = CHECKS.c.site
    unfinished = CHECKS.c.site.is_not(None)

    async def note_new(self, callers: Collection[str]) -> None:
        """Have sites looked at that are new: those with a key, and those of ``callers``."""

        def missing(session: Session) -> set[str]:
            return (with_key(session) | set(callers)) - set(session.scalars(select(CHECKS.c.site)))

        if await self._database.read(missing):
            await self._database.write(
                lambda session: insert_rows(
                    session, *(CheckRow(site=site, due_at=database_now(session)) for site in sorted(missing(session)))
                )
            )

    async def take(self, running: Collection[str]) -> str | None:
        """Lease the site that is due longest."""

        def take(session: Session) -> str | None:
            now = database_now(session)
            free = select(CHECKS.c.site).where(
                CHECKS.c.due_at <= now, lease_ended(CHECKS, now), CHECKS.c.site.not_in(list(running))
            )
            due = free.order_by(CHECKS.c.due_at).limit(1).with_for_update(skip_locked=True)
            site: str | None = session.scalars(due).first()
            if site is not None:
                lease = {"owner": self._owner.id, "lease_until": now + self._length}
                session.execute(update(CHECKS).where(CHECKS.c.site == site).values(lease))
            return site

        return await self._database.write(take)

    async def done(self, site: str, again_s: float, *, is_checked: bool) -> None:
        """Have the site looked at again after ``again_s``."""

        def done(session: Session) -> None:
            now = database_now(session)
            values = {"due_at": now + timedelta(seconds=again_s), **NOT_LEASED}
            values |= {"checked_at": now} if is_checked else {}
            session.execute(self._leased_by(self._owner.id).where(CHECKS.c.site == site).values(values))

        await self._database.write(done)


def oldest_check_s(session: Session) -> float:
    """Seconds since the last check of the site that has waited longest."""
    return age_s(session.execute(select(func.min(CHECKS.c.checked_at))).scalar_one(), database_now(session))


class DriftWorker(Worker[str]):
    """The sites that this process looks at, one after the other."""

    def __init__(self, parts: Parts) -> None:
        settings = parts.settings
        owner = Owner(settings.data_dir / "owners" / "drift")
        self._checks = Checks(parts.database, owner, settings.lease_seconds)
        super().__init__(self._checks, settings)
        self._parts = parts
        self._every_s = 3600 * settings.drift_hours
        self._callers = of_callers(settings)
        self._look_at = 0.0
        """By the process's own clock."""

    def start(self) -> None:
        """Begin to look."""
        self._start_loops()

    async def _take_some(self) -> bool:
        if self._running or time.monotonic() < self._look_at:
            return False
        await self._checks.note_new(self._callers)
        site = await self._checks.take(self._running)
        if site is None:
            self._look_at = time.monotonic() + min(LOOK_S, self._every_s)
            return False
        self._start_task(site, self._check(site))
        return True

    async def _check(self, site: str) -> None:
        again_s, is_checked = self._every_s, True
        try:
            await check_site(self._parts, site)
        except Exception as error:  # the database may be away for a moment
            log.error("drift_not_checked", site=site, **where_it_failed(error))
            again_s, is_checked = min(AGAIN_S, max(self._every_s, RETRY_S)), False
        await persist(lambda: self._checks.done(site, again_s, is_checked=is_checked))
