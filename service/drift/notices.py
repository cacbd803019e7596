"""Messages about alarms for destinations of the kind ``alarm``: written with the alarms, sent like reports.

One message tells of all alarms that one check has raised at one device. It is signed as the webhooks of reports are
(:mod:`service.delivery.senders.webhook`), and names no visit and no person.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

import structlog
from sqlalchemy import Select, Table, Update, or_, select
from sqlalchemy.orm import Session

from service.background import NOT_LEASED, LeasedRows, Worker, lease_ended, persist
from service.delivery.message import ALARM, NotDelivered
from service.delivery.worker import delay_s
from service.drift.samples import kind_of
from service.logs import where_it_failed
from service.storage.audit import SERVICE, note
from service.storage.database import database_now, insert_rows, rowcount
from service.storage.owner import Owner
from service.storage.tables import AlarmRow, DestinationRow, NoticeRow

if TYPE_CHECKING:
    import httpx

    from service.parts import Parts

NOTICES = cast("Table", NoticeRow.__table__)
SLOTS = 4
"""Messages that one process sends at a time."""
TYPE = "drift.alarm"
ENDED = "destination_ended"

log = structlog.get_logger()


def notify(session: Session, site: str, alarms: Sequence[AlarmRow], now: datetime) -> None:
    """Write a message for each device and each destination, in the transaction that raises the alarms."""
    wanted = select(DestinationRow.id).where(DestinationRow.kind == ALARM, DestinationRow.ended_at.is_(None))
    to = list(session.scalars(wanted.where(or_(DestinationRow.site.is_(None), DestinationRow.site == site))))
    for device in dict.fromkeys(alarm.device for alarm in alarms):
        of_device = [alarm for alarm in alarms if alarm.device == device]
        for destination_id in to:
            notice_id = str(uuid.uuid4())
            insert_rows(
                session,
                NoticeRow(
                    id=notice_id,
                    destination_id=destination_id,
                    body=json.dumps(event(notice_id, of_device)),
                    state="waiting",
                    due_at=now,
                    attempts=0,
                ),
            )


def event(notice_id: str, alarms: Sequence[AlarmRow]) -> dict[str, object]:
    """What a message says of alarms of one device that were raised together."""
    first = alarms[0]
    return {
        "id": notice_id,
        "type": TYPE,
        "site": first.site,
        "device": first.device,
        "raised_at": first.raised_at.isoformat(),
        "alarms": [
            {
                "id": alarm.id,
                "about": kind_of(alarm.name),
                "name": alarm.name,
                "before": alarm.before,
                "now": alarm.now,
                "films_before": alarm.n_before,
                "films_now": alarm.n_now,
                "p": alarm.p,
            }
            for alarm in alarms
        ],
        "href": "/drift",
    }


@dataclass(frozen=True, slots=True)
class Notice:
    """A message that this process sends."""

    id: str
    attempt: int
    body: bytes
    address: str
    secret: str


class Notices(LeasedRows[str]):
    """The messages that this process has leased, by id."""

    table = NOTICES
    key = NOTICES.c.id
    unfinished = NOTICES.c.state == "waiting"

    async def take(self, running: Collection[str], at_most: int) -> list[Notice]:
        """Lease what is due, the longest due first."""

        def is_due(session: Session) -> bool:
            return session.execute(self._due(database_now(session), running).limit(1)).first() is not None

        if at_most <= 0 or not await self._database.read(is_due):
            return []
        return await self._database.write(lambda session: self._take(session, running, at_most))

    def _take(self, session: Session, running: Collection[str], at_most: int) -> list[Notice]:
        now = database_now(session)
        query = self._due(now, running).order_by(NoticeRow.due_at).limit(at_most)
        taken = []
        for row in session.scalars(query.with_for_update(skip_locked=True)).all():
            destination = session.get_one(DestinationRow, row.destination_id)
            if destination.ended_at is not None:
                row.state, row.last_problem = "dead", ENDED
                continue
            row.owner, row.lease_until, row.attempts = self._owner.id, now + self._length, row.attempts + 1
            taken.append(
                Notice(
                    id=row.id,
                    attempt=row.attempts,
                    body=row.body.encode(),
                    address=destination.address,
                    secret=destination.secret or "",
                )
            )
        return taken

    def _due(self, now: datetime, running: Collection[str]) -> Select[NoticeRow]:
        free = (self.unfinished, lease_ended(NOTICES, now), NOTICES.c.due_at <= now)
        return select(NoticeRow).where(*free, NoticeRow.id.not_in(list(running)))

    async def delivered(self, notice: Notice) -> bool:
        """Write that it arrived; ``False`` where another process has taken it meanwhile."""

        def arrive(session: Session) -> bool:
            end = {"state": "delivered", "delivered_at": database_now(session), "last_problem": None, **NOT_LEASED}
            if rowcount(session.execute(self._mine(notice).values(end))) != 1:
                return False
            note(session, "alarm_told", actor=SERVICE, notice=notice.id)
            return True

        return await self._database.write(arrive)

    async def put_back(self, notice: Notice, problem: str, later_s: float | None) -> bool:
        """Have it tried again after so long; ``None``: it is given up."""

        def put_back(session: Session) -> bool:
            back: dict[str, object] = {"last_problem": problem[:200], **NOT_LEASED}
            if later_s is None:
                back["state"] = "dead"
            else:
                back["due_at"] = database_now(session) + timedelta(seconds=later_s)
            return rowcount(session.execute(self._mine(notice).values(back))) == 1

        return await self._database.write(put_back)

    def _mine(self, notice: Notice) -> Update:
        return self._leased_by(self._owner.id).where(NOTICES.c.id == notice.id, NOTICES.c.attempts == notice.attempt)


class NoticeWorker(Worker[str]):
    """The messages that this process sends; each is tried as a delivery is, on its own."""

    def __init__(self, parts: Parts) -> None:
        settings = parts.settings
        owner = Owner(settings.data_dir / "owners" / "notices")
        self._notices = Notices(parts.database, owner, settings.lease_seconds)
        super().__init__(self._notices, settings)
        self._metrics = parts.metrics
        self._client: httpx.AsyncClient | None = None

    def start(self) -> None:
        """Begin to send, first what stopped processes have left."""
        self._start_loops()

    async def drain(self) -> None:
        await super().drain()
        if self._client is not None:
            await self._client.aclose()

    async def _take_some(self) -> bool:
        taken = await self._notices.take(self._running, SLOTS - len(self._running))
        for notice in taken:
            self._start_task(notice.id, self._send(notice))
        return bool(taken)

    async def _send(self, notice: Notice) -> None:
        problem, permanent, asked_s = "", False, None
        try:
            await self._post(notice)
        except NotDelivered as reason:
            problem, permanent, asked_s = reason.code, reason.permanent, reason.retry_after_s
        except Exception as error:  # a fault of this service: the destination is not to blame
            log.error("notice_fault", notice=notice.id, **where_it_failed(error))
            problem = "fault"
        if not problem:
            outcome, written = "delivered", await persist(lambda: self._notices.delivered(notice))
        else:
            is_last = permanent or notice.attempt >= self._settings.delivery_attempts
            later_s = None if is_last else max(delay_s(self._settings, notice.attempt), asked_s or 0.0)
            outcome = "dead" if is_last else "put_back"
            written = await persist(lambda: self._notices.put_back(notice, problem, later_s))
        if not written:
            self._metrics.leases_lost.labels("notice").inc()
            return
        self._metrics.deliveries.labels(ALARM, outcome).inc()
        log.info(f"notice_{outcome}", notice=notice.id, attempt=notice.attempt, problem=problem or None)

    async def _post(self, notice: Notice) -> None:
        from service.delivery.senders import alarm  # noqa: PLC0415  it imports httpx
        from service.delivery.senders.http import new_client  # noqa: PLC0415  as above

        if self._client is None:
            self._client = new_client(SLOTS)  # only admins name destinations of alarms: they may be inside
        timeout_s = self._settings.delivery_timeout_seconds
        await alarm.send(self._client, notice.address, notice.secret, notice.id, notice.body, timeout_s=timeout_s)
