"""What admins see and do about drift: devices week by week, alarms, silence with a reason, a new reference."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated

from pydantic import BaseModel, ConfigDict, StringConstraints
from sqlalchemy import ColumnElement, and_, func, select
from sqlalchemy.orm import Session

from data_specs.schema import Moment
from service.drift.checking import BEGINNING, FULL, begin_anew
from service.drift.compare import LEAST_REFERENCE, limit_of_p, smallest_noticed
from service.drift.samples import Kind, Sample, kind_of
from service.drift.weeks import Week, as_week
from service.errors import FieldFault, InvalidRequest, NotFound
from service.keys import Key, SiteName
from service.parts import Parts
from service.storage.audit import note
from service.storage.database import database_now
from service.storage.tables import AlarmRow, ReferenceRow, WeekRow

MAX_REASON, MAX_LISTED, MAX_WEEKS = 500, 500, 52
LONGEST_SILENCE = timedelta(days=366)
Reason = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_REASON, pattern=r"^[^\x00]*$")
]


class Silence(BaseModel):
    """Why an alarm needs nobody's attention, and until when; without names and numbers of persons."""

    model_config = ConfigDict(extra="forbid")

    reason: Reason
    until: Moment


class NewReference(BaseModel):
    """A device whose films are right as they are now: later ones are compared with those from now on."""

    model_config = ConfigDict(extra="forbid")

    site: SiteName
    device: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
    reason: Reason


class Alarm(BaseModel):
    """A number or a share of a device that is no longer as in its reference.

    Parameters
    ----------
    about
        What comes in, what the networks see in it, what they say of it, or whether doctors agree.
    before, now
        Medians of a number (its means where these are the same), shares of what is counted, when it was raised.
    films_before, films_now
        Of how many films these were.
    p
        How often a difference at least so large is found where nothing has changed.
    """

    id: str
    site: str
    device: str
    about: Kind
    name: str
    raised_at: datetime
    before: float
    now: float
    films_before: int
    films_now: int
    p: float
    ended_at: datetime | None
    silenced_until: datetime | None
    silenced_by: str | None
    reason: str | None


class DeviceWeek(Week):
    """``numbers``: quantiles (5, 25, 50, 75, 95 %) by name. ``counts``: how many of how many."""

    week: date
    films: int


class DeviceSummary(BaseModel):
    """A device and how large its reference is.

    Parameters
    ----------
    seen_by
        Names and versions of the bundles that see its films.
    since, until
        When the reference began (``None``: with the first film), and when the last of its films was received.
    reference_films, full
        How many films the reference has, and how many it will have at most. Below ``least`` nothing is compared.
    films_last_week
        How many films came in the last week that had any, which may not be over yet.
    """

    site: str
    device: str
    seen_by: str
    since: datetime | None
    until: datetime | None
    reference_films: int
    full: int = FULL
    least: int = LEAST_REFERENCE
    films_last_week: int


class DeviceView(DeviceSummary):
    """A device, its reference and its last weeks.

    Parameters
    ----------
    reference
        What its films are compared with.
    begun_by, reason
        Key of who said that the reference begins, and why; ``None`` where nobody had to.
    smallest_shift
        The shift of a number, in standard deviations, that would be noticed four times in five with a week of films
        like the last one; ``None`` where nothing is compared.
    """

    reference: Week
    begun_by: str | None
    reason: str | None
    smallest_shift: float | None
    weeks: list[DeviceWeek]


async def list_alarms(parts: Parts, *, site: str | None = None, is_open: bool | None = None) -> list[Alarm]:
    """Alarms: those first that nobody has silenced, then the latest."""

    def read(session: Session) -> list[Alarm]:
        now = database_now(session)
        query = select(AlarmRow)
        if site is not None:
            query = query.where(AlarmRow.site == site)
        if is_open is not None:
            query = query.where(AlarmRow.ended_at.is_(None) if is_open else AlarmRow.ended_at.is_not(None))
        order = (AlarmRow.ended_at.is_not(None), _is_silenced(now), AlarmRow.raised_at.desc(), AlarmRow.id)
        return [alarm_of(row) for row in session.scalars(query.order_by(*order).limit(MAX_LISTED))]

    return await parts.database.read(read)


async def silence(parts: Parts, key: Key, alarm_id: str, asked: Silence) -> Alarm:
    """Silence an alarm: it is told nobody again until then, also if it ends and comes back.

    Raises
    ------
    NotFound
        There is no such open alarm.
    InvalidRequest
        ``until`` has passed, or is more than a year away.
    """

    def write(session: Session) -> Alarm:
        now = database_now(session)
        row = session.get(AlarmRow, alarm_id)
        if row is None or row.ended_at is not None:
            raise NotFound
        if not now < asked.until <= now + LONGEST_SILENCE:
            limits = f"> {now:%Y-%m-%dT%H:%M:%SZ}, ≤ {now + LONGEST_SILENCE:%Y-%m-%dT%H:%M:%SZ}"
            raise InvalidRequest(FieldFault("body.until", "field_invalid", limits))
        row.silenced_until, row.silenced_by, row.reason = asked.until, key.id, asked.reason
        note(session, "alarm_silenced", alarm=alarm_id, until=asked.until.isoformat())
        return alarm_of(row)

    return await parts.database.write(write)


async def new_reference(parts: Parts, key: Key, asked: NewReference) -> None:
    """Compare a device with its films from now on.

    Raises
    ------
    NotFound
        No such device has sent films to this site.
    """

    def write(session: Session) -> None:
        if not begin_anew(session, asked.site, asked.device, key.id, asked.reason):
            raise NotFound
        note(session, "reference_begun", site=asked.site, device=asked.device)

    await parts.database.write(write)


async def list_devices(parts: Parts, *, site: str | None = None) -> list[DeviceSummary]:
    """Devices by site and name."""
    latest = select(WeekRow.films).where(WeekRow.site == ReferenceRow.site, WeekRow.device == ReferenceRow.device)
    last_week = latest.order_by(WeekRow.week.desc()).limit(1).scalar_subquery()
    columns = (ReferenceRow.seen_by, ReferenceRow.since, ReferenceRow.until, ReferenceRow.films, last_week)
    query = select(ReferenceRow.site, ReferenceRow.device, *columns).order_by(ReferenceRow.site, ReferenceRow.device)
    if site is not None:
        query = query.where(ReferenceRow.site == site)
    rows = await parts.database.read(lambda session: session.execute(query.limit(MAX_LISTED)).all())
    return [
        DeviceSummary(
            site=site_,
            device=device,
            seen_by=seen_by,
            since=_begun(since),
            until=until,
            reference_films=n,
            films_last_week=last or 0,
        )
        for site_, device, seen_by, since, until, n, last in rows
    ]


async def device_view(parts: Parts, site: str, device: str) -> DeviceView:
    """A device with its weeks, oldest first.

    Raises
    ------
    NotFound
        No such device has sent films to this site.
    """

    def read(session: Session) -> DeviceView:
        row = session.get(ReferenceRow, (site, device))
        if row is None:
            raise NotFound
        enough = select(func.count()).select_from(ReferenceRow).where(ReferenceRow.films >= LEAST_REFERENCE)
        return _view(session, row, session.execute(enough).scalar_one(), parts.settings.drift_hours)

    return await parts.database.read(read)


def count_open(session: Session) -> int:
    """How many alarms are open that nobody has silenced."""
    open_ = select(func.count()).select_from(AlarmRow).where(AlarmRow.ended_at.is_(None))
    return session.execute(open_.where(~_is_silenced(database_now(session)))).scalar_one()


def alarm_of(row: AlarmRow) -> Alarm:
    return Alarm(
        id=row.id,
        site=row.site,
        device=row.device,
        about=kind_of(row.name),
        name=row.name,
        raised_at=row.raised_at,
        before=row.before,
        now=row.now,
        films_before=row.n_before,
        films_now=row.n_now,
        p=row.p,
        ended_at=row.ended_at,
        silenced_until=row.silenced_until,
        silenced_by=row.silenced_by,
        reason=row.reason,
    )


def _view(session: Session, row: ReferenceRow, n_devices: int, every_hours: float) -> DeviceView:
    latest = select(WeekRow).where(WeekRow.site == row.site, WeekRow.device == row.device)
    weeks = session.scalars(latest.order_by(WeekRow.week.desc()).limit(MAX_WEEKS)).all()[::-1]
    sample = Sample.model_validate_json(row.sample)
    n_names = len(sample.numbers) + len(sample.counts)
    limit = limit_of_p(n_devices, n_names, every_hours)
    most = max((week.films for week in weeks[-2:]), default=0)
    is_compared = row.films >= LEAST_REFERENCE and most > 0
    return DeviceView(
        site=row.site,
        device=row.device,
        seen_by=row.seen_by,
        since=_begun(row.since),
        until=row.until,
        reference=as_week(sample),
        begun_by=row.begun_by,
        reason=row.reason,
        reference_films=row.films,
        films_last_week=weeks[-1].films if weeks else 0,
        smallest_shift=round(smallest_noticed(row.films, most, limit), 2) if is_compared else None,
        weeks=[
            DeviceWeek(week=week.week, films=week.films, **Week.model_validate_json(week.found).model_dump())
            for week in weeks
        ],
    )


def _begun(since: datetime) -> datetime | None:
    return None if since == BEGINNING else since


def _is_silenced(now: datetime) -> ColumnElement[bool]:
    return and_(AlarmRow.silenced_until.is_not(None), AlarmRow.silenced_until > now)
