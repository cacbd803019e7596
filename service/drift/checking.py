"""The check of a site: each device's last seven days against its reference, the weeks for the page, and alarms.

The reference are the first films of the device after the site accepted the bundle (``python -m training accept``), or
after it came into service: what the acceptance test vouches for. It grows to :data:`FULL` films, always older than the
days that are compared, and not while an alarm is open. It begins anew with another version of a bundle, with a new
acceptance, and where somebody says so.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from inference.bundles.registry import read_registry
from service.drift.compare import ENDS_AT, LEAST_NOW, LEAST_REFERENCE, Comparison, compared, limit_of_p
from service.drift.notices import notify
from service.drift.reading import all_films, devices_of, first_films, last_films
from service.drift.samples import Sample, SeenFilm, sample_of
from service.drift.weeks import Week, monday_of, start_of, week_of
from service.parts import Parts
from service.storage.audit import SERVICE, note
from service.storage.database import database_now, insert_rows
from service.storage.tables import AlarmRow, ReferenceRow, WeekRow

WINDOW = timedelta(days=7)
LOOKS_BACK = timedelta(days=28)
"""A device that has sent nothing for so long is not looked at."""
FULL = 500
"""Films of a full reference."""
NEW_DEVICE = "new_device"
"""Name of an alarm: a device begins to send to a site where others have been compared before."""
BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
EMPTY = Sample(films=0, numbers={}, counts={})


@dataclass(frozen=True)
class Reference:
    """As a :class:`service.storage.tables.ReferenceRow`."""

    seen_by: str
    since: datetime
    until: datetime | None
    sample: Sample


@dataclass(frozen=True)
class Device:
    """What was read of a device for its check.

    Parameters
    ----------
    first
        Films that the reference would consist of; ``None``: it stays as it is.
    """

    name: str
    reference: Reference
    first: tuple[list[SeenFilm], datetime | None] | None
    last: list[SeenFilm]
    weeks: Mapping[date, list[SeenFilm]]


@dataclass(frozen=True)
class Checked:
    """What was found of a device."""

    name: str
    reference: Reference
    weeks: Mapping[date, tuple[int, Week]]
    comparisons: Sequence[Comparison]
    films: int


async def check_site(parts: Parts, site: str) -> None:
    """Look at all devices of a site, and write what was found in one transaction."""
    accepted = await asyncio.to_thread(acceptances, parts.settings.bundles, site)
    devices = await parts.database.read(lambda session: _read(session, site, accepted))
    found = await asyncio.to_thread(lambda: [_check(device) for device in devices])
    every_hours = parts.settings.drift_hours
    await parts.database.write(lambda session: _write(session, site, found, every_hours))


def acceptances(bundles: Path, site: str) -> dict[str, datetime]:
    """When a site accepted each version of a bundle last, by ``name version``."""
    entries = (entry for entry in read_registry(bundles).entries if entry.action == "accept" and entry.site == site)
    return {f"{entry.name} {entry.to_version}": entry.at for entry in entries}


def _read(session: Session, site: str, accepted: Mapping[str, datetime]) -> list[Device]:
    now = database_now(session)
    open_ = set(session.scalars(select(AlarmRow.device).where(AlarmRow.site == site, AlarmRow.ended_at.is_(None))))
    known = {row.device: row for row in session.scalars(select(ReferenceRow).where(ReferenceRow.site == site))}
    found = []
    for name, seen_by in devices_of(session, site, now - LOOKS_BACK).items():
        reference = _reference(known.get(name), seen_by, _since(seen_by, accepted))
        first = None
        is_used = reference.sample.films >= LEAST_REFERENCE
        if reference.sample.films < FULL and not (is_used and name in open_):
            first = first_films(session, site, name, seen_by, reference.since, now - WINDOW, FULL)
        until = first[1] if first else reference.until
        after = max(now - WINDOW, until or BEGINNING, reference.since)
        mondays = {monday_of(now - timedelta(days=7 * back)) for back in (0, 1)}
        weeks = {
            monday: all_films(session, site, name, start_of(monday), start_of(monday + WINDOW)) for monday in mondays
        }
        found.append(Device(name, reference, first, last_films(session, site, name, seen_by, after), weeks))
    return found


def _since(seen_by: str, accepted: Mapping[str, datetime]) -> datetime:
    """When the site accepted the later of the bundles that see its films."""
    return max((accepted[name] for name in seen_by.split(", ") if name in accepted), default=BEGINNING)


def _reference(row: ReferenceRow | None, seen_by: str, since: datetime) -> Reference:
    """The reference as it stands, or a new one."""
    if row is None or row.seen_by != seen_by or row.since < since:
        begun_anew = row.since if row is not None else BEGINNING
        return Reference(seen_by, max(since, begun_anew), None, EMPTY)
    return Reference(seen_by, row.since, row.until, Sample.model_validate_json(row.sample))


def _check(device: Device) -> Checked:
    reference = device.reference
    if device.first is not None:
        films, until = device.first
        reference = Reference(reference.seen_by, reference.since, until, sample_of(films))
    now = sample_of(device.last)
    return Checked(
        name=device.name,
        reference=reference,
        weeks={monday: (len(films), week_of(films)) for monday, films in device.weeks.items() if films},
        comparisons=compared(reference.sample, now),
        films=now.films,
    )


def _write(session: Session, site: str, found: Sequence[Checked], every_hours: float) -> None:
    now = database_now(session)
    enough = select(ReferenceRow.site, ReferenceRow.device).where(ReferenceRow.films >= LEAST_REFERENCE)
    before = {(row.site, row.device) for row in session.execute(enough)}
    n_compared = len(before | {(site, each.name) for each in found if each.comparisons})
    raised: list[AlarmRow] = []
    for each in found:
        there = session.get(ReferenceRow, (site, each.name))
        if there is not None and there.since > each.reference.since:
            continue  # somebody has begun a new one since it was read
        if there is not None and (there.seen_by, there.since) != (each.reference.seen_by, each.reference.since):
            _end_alarms(session, site, each.name, now)  # they are about what nothing is compared with any more
            there.begun_by = there.reason = None
        _write_reference(session, site, each)
        _write_weeks(session, site, each)
        limit = limit_of_p(n_compared, len(each.comparisons), every_hours)
        raised += _write_alarms(session, site, each, limit, now)
        is_compared = any(known == site for known, _ in before)
        if is_compared and each.films >= LEAST_NOW and _is_new(session, site, each.name, now):
            raised += _raise(session, site, each.name, [Comparison(NEW_DEVICE, 0, 1, 0, each.films, 0)], now)
    loud = [row for row in raised if row.silenced_until is None]
    if loud:
        notify(session, site, loud, now)


def _write_reference(session: Session, site: str, found: Checked) -> None:
    reference = found.reference
    session.merge(
        ReferenceRow(
            site=site,
            device=found.name,
            seen_by=reference.seen_by,
            since=reference.since,
            until=reference.until,
            films=reference.sample.films,
            sample=reference.sample.model_dump_json(),
        )
    )


def _write_weeks(session: Session, site: str, found: Checked) -> None:
    for monday, (films, week) in found.weeks.items():
        session.merge(WeekRow(site=site, device=found.name, week=monday, films=films, found=week.model_dump_json()))


def _write_alarms(session: Session, site: str, found: Checked, limit: float, now: datetime) -> list[AlarmRow]:
    """End the alarms whose numbers are as before again, and raise what is one now."""
    by_name = {each.name: each for each in found.comparisons}
    for row in open_alarms(session, site, found.name):
        again = by_name.get(row.name)
        is_known = row.name == NEW_DEVICE and found.reference.sample.films >= LEAST_REFERENCE
        if is_known or (again is not None and again.p > ENDS_AT):
            row.ended_at = now
            note(session, "alarm_ended", actor=SERVICE, alarm=row.id)
    return _raise(session, site, found.name, [each for each in found.comparisons if each.p <= limit], now)


def _raise(session: Session, site: str, device: str, found: Sequence[Comparison], now: datetime) -> list[AlarmRow]:
    """New alarms; one that is open is not raised again, and one that was silenced is raised in silence."""
    session.flush()
    is_open = {row.name for row in open_alarms(session, site, device)}
    raised = []
    for each in found:
        if each.name in is_open:
            continue
        silence = session.scalars(
            select(AlarmRow)
            .where(AlarmRow.site == site, AlarmRow.device == device, AlarmRow.name == each.name)
            .where(AlarmRow.silenced_until > now)
            .order_by(AlarmRow.silenced_until.desc())
        ).first()
        row = AlarmRow(
            id=str(uuid.uuid4()),
            site=site,
            device=device,
            name=each.name,
            raised_at=now,
            before=each.before,
            now=each.now,
            n_before=each.n_before,
            n_now=each.n_now,
            p=each.p,
            ended_at=None,
            silenced_until=silence.silenced_until if silence else None,
            silenced_by=silence.silenced_by if silence else None,
            reason=silence.reason if silence else None,
        )
        insert_rows(session, row)
        note(session, "alarm_raised", actor=SERVICE, alarm=row.id, site=site, about=each.name)
        raised.append(row)
    return raised


def _is_new(session: Session, site: str, device: str, now: datetime) -> bool:
    """Whether a device has begun to send lately, two weeks after the first of its site, and nobody was told of it."""
    first = select(func.min(WeekRow.week)).where(WeekRow.site == site)
    first_of_site = session.execute(first).scalar_one()
    first_of_device = session.execute(first.where(WeekRow.device == device)).scalar_one()
    if first_of_device is None or first_of_device < max(first_of_site + 2 * WINDOW, monday_of(now - 2 * WINDOW)):
        return False
    told = select(AlarmRow.id).where(AlarmRow.site == site, AlarmRow.device == device, AlarmRow.name == NEW_DEVICE)
    return session.scalars(told).first() is None


def open_alarms(session: Session, site: str, device: str) -> list[AlarmRow]:
    """The alarms of a device that have not ended."""
    query = select(AlarmRow).where(AlarmRow.site == site, AlarmRow.device == device, AlarmRow.ended_at.is_(None))
    return list(session.scalars(query))


def begin_anew(session: Session, site: str, device: str, by: str, reason: str) -> bool:
    """Compare a device with what comes from now on, and end its alarms; whether there is such a device.

    Parameters
    ----------
    by
        Id of the key that says so.
    """
    now = database_now(session)
    row = session.get(ReferenceRow, (site, device))
    if row is None:
        return False
    row.since, row.until, row.films, row.sample = now, None, 0, EMPTY.model_dump_json()
    row.begun_by, row.reason = by, reason
    _end_alarms(session, site, device, now)
    return True


def _end_alarms(session: Session, site: str, device: str, now: datetime) -> None:
    for row in open_alarms(session, site, device):
        row.ended_at = now
        note(session, "alarm_ended", alarm=row.id)
