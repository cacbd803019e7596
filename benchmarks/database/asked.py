"""What the service asks its database for, each by the service's own code: the list that is measured and explained."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from benchmarks.database.first import First
from data_specs.visit.context import Context
from service.api.node import MOST_NEWS
from service.api.operations import _measure_queues
from service.app import build
from service.delivery.queue import DELIVERIES, Deliveries
from service.exchange.queue import Exchanges, changed_at_centre
from service.followup.questions import list_questions
from service.followup.reads import read_visits
from service.keys import Key
from service.receive.commit import commit_visit, new_visit
from service.retention.apply import AT_ONCE, _due
from service.retention.deletion import delete_rows, free_visits, of_visits, still_named
from service.retention.table import KINDS, Rule
from service.settings import Settings
from service.state import Service
from service.storage.owner import Owner
from service.storage.tables import EXCHANGES, VISITS, DestinationRow, InputRow, KeyRow, VisitRow
from service.visits.earlier import comparison
from service.visits.filters import Filter
from service.visits.leases import Leases
from service.visits.listing import list_visits
from service.visits.worklist import worklist

SLOTS = 8
A_MONTH, A_YEAR = timedelta(days=30), 360
NOT_LEASED = {"owner": None, "lease_until": None, "attempts": 0}


class Undone(Exception):
    """Ends a transaction without its changes."""


@dataclass
class Scene:
    """The service over one database, without a server; what is asked for is chosen from what the database has.

    Parameters
    ----------
    keys
        A key of each role.
    visit
        A visit of a person who has others.
    """

    service: Service
    leases: Leases
    deliveries: Deliveries
    exchanges: Exchanges
    keys: Mapping[str, Key]
    visit: VisitRow
    destination: str

    @classmethod
    def of(cls, url: str, first: First, folder: Path) -> Scene:
        settings = Settings(database_url=url, data_dir=folder, max_queue=10**6)
        service: Service = build(settings, None, lambda: None).state.service
        database, lasts = service.database, settings.lease_seconds
        with database.transaction() as session:
            found = session.scalars(select(KeyRow)).all()
            keys = {each.role: Key(each.id, each.role, each.site, each.doctor_id) for each in found}  # type: ignore[arg-type]
            query = select(VisitRow).where(VisitRow.status == "complete", VisitRow.id.not_in(first.ids.values()))
            latest = session.scalars(query.order_by(VisitRow.received_at.desc()).limit(1)).first()
            visit = latest or session.get_one(VisitRow, first.ids["check-up"])
            destination = session.scalars(select(DestinationRow.id)).one()
        admin = Key("bootstrap", "admin", "admin")
        site = Key("site", "site", visit.site)
        doctor = Key("doctor", "doctor", visit.site, visit.referrer_id)
        owners = folder / "measured"
        return cls(
            service=service,
            leases=Leases(database, Owner(owners / "visits"), lasts),
            deliveries=Deliveries(database, Owner(owners / "deliveries"), lasts),
            exchanges=Exchanges(database, Owner(owners / "exchanges"), lasts),
            keys={**keys, "admin": admin, "site": site, "doctor": doctor},
            visit=visit,
            destination=destination,
        )

    def close(self) -> None:
        self.service.readers.close()
        self.service.database.close()


Ask = Callable[[Scene], Awaitable[Any]]


# ---------------------------------------------------------------- the queues
async def _claim(scene: Scene) -> None:
    await scene.leases.waiting((), SLOTS)
    await scene.leases.take((), SLOTS)


async def _claim_again(scene: Scene) -> None:
    mine = update(VISITS).where(VISITS.c.owner == scene.leases._owner.id)
    await scene.service.database.write(lambda session: session.execute(mine.values(NOT_LEASED)))


async def intake(scene: Scene) -> None:
    context = Context.model_validate_json(scene.visit.context)
    number = str(uuid.uuid4())
    row = new_visit(scene.visit.site, "key", context, (), 64 * "0", idempotency_key=number)
    await commit_visit(scene.service, row)


async def _next_deliveries(scene: Scene) -> None:
    await scene.deliveries.due()
    await scene.deliveries.take({scene.destination: SLOTS}, ())


async def _send_again(scene: Scene) -> None:
    mine = update(DELIVERIES).where(DELIVERIES.c.owner == scene.deliveries._owner.id)
    await scene.service.database.write(lambda session: session.execute(mine.values(NOT_LEASED)))


async def _stopped(scene: Scene) -> None:
    for each in (scene.leases, scene.deliveries):
        await each._write(each._leased_by("a process that has stopped").values(owner=None))


async def _next_exchange(scene: Scene) -> None:
    await scene.exchanges.take()


async def _exchange_again(scene: Scene) -> None:
    mine = update(EXCHANGES).where(EXCHANGES.c.owner == scene.exchanges._owner.id)
    await scene.service.database.write(lambda session: session.execute(mine.values(NOT_LEASED)))


async def _news(scene: Scene) -> None:
    await scene.service.database.read(lambda session: changed_at_centre(session, scene.visit.site, MOST_NEWS))


async def _metrics(scene: Scene) -> None:
    await _measure_queues(scene.service)


# ---------------------------------------------------------------- what persons look at
def _worklist(role: str, **wanted: Any) -> Ask:
    return lambda scene: worklist(scene.service, scene.keys[role], Filter(**wanted))


async def _search_name(scene: Scene) -> None:
    name = Context.model_validate_json(scene.visit.context).person.name or ""
    await worklist(scene.service, scene.keys["site"], Filter(search=name))


async def _search_identifier(scene: Scene) -> None:
    await worklist(scene.service, scene.keys["admin"], Filter(search=scene.visit.person_id or ""))


def _visits_of_the_person(role: str) -> Ask:
    return lambda scene: list_visits(scene.service, scene.keys[role], Filter(person=scene.visit.person_id))


async def _history(scene: Scene) -> None:
    await comparison(scene.service, scene.keys["admin"], scene.visit.id)


async def _statistics(scene: Scene) -> None:
    since = datetime.now(UTC) - A_MONTH
    await read_visits(scene.service, scene.keys["site"], Filter(since=since))


def _questions(state: Any) -> Ask:
    return lambda scene: list_questions(scene.service, scene.keys["specialist"], state=state)


# ---------------------------------------------------------------- what is deleted
def _due_to(rule: Rule) -> Ask:
    async def look(scene: Scene) -> None:
        some = _due(rule, datetime.now(UTC)).limit(AT_ONCE)
        await scene.service.database.read(lambda session: session.execute(some).all())

    return look


async def _delete(scene: Scene) -> None:
    """The deletion of the oldest visits, which is then taken back."""
    database = scene.service.database
    rule = Rule(what="visits", after_days=0)
    try:
        with database.transaction(write=True) as session:
            oldest = session.scalars(_due(rule, datetime.now(UTC)).limit(AT_ONCE)).all()
            delete_rows(session, "benchmark", of_visits(free_visits(session, oldest)))
            raise Undone
    except Undone:
        pass


async def _named(scene: Scene) -> None:
    query = select(InputRow.sha256).where(InputRow.visit_id == scene.visit.id)
    with scene.service.database.transaction() as session:
        digests = session.scalars(query).all()
    still_named(scene.service.database, [*digests, *(f"{n:064x}" for n in range(AT_ONCE))])


@dataclass(frozen=True)
class Asked:
    """One thing that is asked for.

    Parameters
    ----------
    undo
        Has the database as it was before; not measured.
    """

    ask: Ask
    undo: Ask | None = None


ASKED: Mapping[str, Asked] = {
    "claim of the next visits": Asked(_claim, _claim_again),
    "intake of a visit": Asked(intake),
    "leases of a stopped process": Asked(_stopped),
    "next deliveries": Asked(_next_deliveries, _send_again),
    "next exchange of a node": Asked(_next_exchange, _exchange_again),
    "news for a node": Asked(_news),
    "what waits, for the metrics": Asked(_metrics),
    "worklist, admin": Asked(_worklist("admin")),
    "worklist, site": Asked(_worklist("site")),
    "worklist, doctor": Asked(_worklist("doctor")),
    "worklist, specialist": Asked(_worklist("specialist")),
    "worklist, urgent and unsigned": Asked(_worklist("admin", priority="urgent", signed=False)),
    "search by name": Asked(_search_name),
    "search by identifier": Asked(_search_identifier),
    "visits of a person, site": Asked(_visits_of_the_person("site")),
    "visits of a person, admin": Asked(_visits_of_the_person("admin")),
    "history of a person": Asked(_history),
    "statistics of a month, site": Asked(_statistics),
    "open questions": Asked(_questions("open")),
    "closed questions": Asked(_questions("closed")),
    **{f"due for deletion: {kind}": Asked(_due_to(Rule(what=kind, after_days=A_YEAR))) for kind in KINDS},
    "deletion of 50 visits": Asked(_delete),
    "files that a row names": Asked(_named),
}
"""By what it is called in the table of results."""
