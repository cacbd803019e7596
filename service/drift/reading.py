"""The films of a device, read from the database: of each person one, with whether doctors agreed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import datetime

from sqlalchemy import Row, Select, func, select
from sqlalchemy.orm import Session

from data_specs.visit.opinion import Opinion
from service.drift.samples import SeenFilm
from service.storage.tables import FILMS, VISITS, OpinionRow, VisitRow

MOST_FILMS = 2000
"""Films of a device that one reading takes: more would hardly show more."""
AT_ONCE = 200


def devices_of(session: Session, site: str, since: datetime) -> dict[str, str]:
    """Devices whose films a site has received, with the bundles that saw the last one; none where no bundle did."""
    latest = select(FILMS.c.device, func.max(FILMS.c.received_at).label("at"))
    latest = latest.where(FILMS.c.site == site, FILMS.c.received_at >= since, FILMS.c.seen_by != "")
    found = latest.group_by(FILMS.c.device).subquery()
    rows = select(FILMS.c.device, FILMS.c.seen_by).join(
        found, (FILMS.c.device == found.c.device) & (FILMS.c.received_at == found.c.at)
    )
    return {row.device: row.seen_by for row in session.execute(rows.where(FILMS.c.site == site))}


def first_films(
    session: Session, site: str, device: str, seen_by: str, since: datetime, before: datetime, most: int
) -> tuple[list[SeenFilm], datetime | None]:
    """The first films of a device since a time, of each person one; and when the last of them was received."""
    query = _films(site, device, seen_by).where(FILMS.c.received_at >= since, FILMS.c.received_at < before)
    rows = session.execute(query.order_by(FILMS.c.received_at, FILMS.c.visit_id, FILMS.c.index).limit(MOST_FILMS)).all()
    kept = _one_of_each_person(rows)[:most]
    return _seen(session, kept), kept[-1].received_at if kept else None


def last_films(session: Session, site: str, device: str, seen_by: str, after: datetime) -> list[SeenFilm]:
    """The last films of a device that were received after a time, of each person one."""
    query = _films(site, device, seen_by).where(FILMS.c.received_at > after)
    latest = query.order_by(FILMS.c.received_at.desc(), FILMS.c.visit_id, FILMS.c.index).limit(MOST_FILMS)
    return _seen(session, _one_of_each_person(session.execute(latest).all()))


def all_films(session: Session, site: str, device: str, since: datetime, before: datetime) -> list[SeenFilm]:
    """Films of a device from one time to another, whichever bundles saw them."""
    query = _films(site, device).where(FILMS.c.received_at >= since, FILMS.c.received_at < before)
    return _seen(session, session.execute(query.order_by(FILMS.c.received_at.desc()).limit(MOST_FILMS)).all())


def _films(site: str, device: str, seen_by: str | None = None) -> Select[tuple[object, ...]]:
    query = select(FILMS, VISITS.c.person_id).join(VISITS, VISITS.c.id == FILMS.c.visit_id)
    query = query.where(FILMS.c.site == site, FILMS.c.device == device)
    return query if seen_by is None else query.where(FILMS.c.seen_by == seen_by)


def _one_of_each_person(rows: Iterable[Row[tuple[object, ...]]]) -> list[Row[tuple[object, ...]]]:
    """The first row of each person, or of each visit whose person is not known: films of one person are alike."""
    first: dict[str, Row[tuple[object, ...]]] = {}
    for row in rows:
        first.setdefault(row.person_id or row.visit_id, row)
    return list(first.values())


def _seen(session: Session, rows: Sequence[Row[tuple[object, ...]]]) -> list[SeenFilm]:
    disagreed = _disagreed(session, [row.visit_id for row in rows])
    return [
        SeenFilm(
            refused=row.refused,
            codes=tuple(json.loads(row.codes)),
            traits=json.loads(row.traits),
            disagreed=disagreed.get(row.visit_id),
        )
        for row in rows
    ]


def _disagreed(session: Session, visits: Sequence[str]) -> dict[str, bool]:
    """For each signed visit with a verdict of the machine on its films: does the last opinion say anything else?"""
    found: dict[str, bool] = {}
    for start in range(0, len(visits), AT_ONCE):
        some = visits[start : start + AT_ONCE]
        signed = select(OpinionRow.visit_id, OpinionRow.opinion, VisitRow.assessment)
        signed = signed.join(VisitRow, VisitRow.id == OpinionRow.visit_id).where(OpinionRow.visit_id.in_(some))
        for row in session.execute(signed.order_by(OpinionRow.number)):
            machine = _machine(row.assessment)
            if machine:
                opinion = Opinion.model_validate_json(row.opinion)
                said = (dict.fromkeys(machine, False) if opinion.blind else machine) | opinion.says(machine)
                found[row.visit_id] = any(said[name] != verdict for name, verdict in machine.items())
    return found


def _machine(assessment: str | None) -> dict[str, bool]:
    """What the machine says of each finding of the lung that it has a verdict on."""
    organs = json.loads(assessment)["organs"] if assessment else {}
    findings = organs.get("lung", {}).get("findings", [])
    return {
        each["name"]: each["positive"]
        for each in findings
        if each.get("positive") is not None and not each.get("alternative")
    }
