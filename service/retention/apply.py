"""Apply the table of what is deleted when."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, Table, func, select, true, tuple_

from service.retention.deletion import TABLES, delete_rows, free_visits, of_visits
from service.retention.table import Kind, Rule
from service.storage.database import Database, database_now
from service.storage.tables import IS_CASE

AT_ONCE = 50
"""Visits, or rows of another kind, that are deleted in one transaction, so that no other write waits long."""


class Old(NamedTuple):
    """Which rows of a table grow old, and from when on."""

    table: Table
    since: ColumnElement[datetime]
    which: ColumnElement[bool] = true()


_VISITS, _ORDERS, _SHADOWS = TABLES["visits"], TABLES["orders"], TABLES["shadow_answers"]
_DELIVERIES, _SESSIONS, _DELETIONS = TABLES["deliveries"], TABLES["sessions"], TABLES["deletions"]
OLD: Mapping[Kind, Old] = {
    "visits": Old(_VISITS, _VISITS.c.received_at, _VISITS.c.status != "accepted"),
    "orders": Old(_ORDERS, _ORDERS.c.received_at),
    "shadow_answers": Old(_SHADOWS, _SHADOWS.c.answered_at),
    "deliveries": Old(
        _DELIVERIES, func.coalesce(_DELIVERIES.c.delivered_at, _DELIVERIES.c.due_at), _DELIVERIES.c.state != "waiting"
    ),
    "sessions": Old(_SESSIONS, _SESSIONS.c.expires_at),
    "deletions": Old(_DELETIONS, _DELETIONS.c.at, _DELETIONS.c.finished_at.is_not(None)),
}


def count_due(database: Database, rule: Rule) -> int:
    """How many visits, or rows of another kind, a rule would delete now."""
    with database.transaction() as session:
        due = _due(rule, database_now(session))
        return session.execute(select(func.count()).select_from(due.subquery())).scalar_one()


def apply_rule(database: Database, name: str, rule: Rule) -> Counter[str]:
    """Delete what a rule says, a few at a time; how many rows of which table."""
    counts: Counter[str] = Counter()
    skipped: set[str] = set()
    while True:
        with database.transaction(write=True) as session:
            due = _due(rule, database_now(session)).limit(AT_ONCE)
            if rule.what == "visits":
                found: set[Any] = set(session.scalars(due.where(_VISITS.c.id.not_in(skipped))))
                free = free_visits(session, found)
                skipped |= found - set(free)
                which = of_visits(free)
            else:
                table = OLD[rule.what].table
                found = {tuple(row) for row in session.execute(due)}
                which = [(table, tuple_(*table.primary_key).in_(found))]
            if not found:
                return counts
            counts += delete_rows(session, name, which)


def _due(rule: Rule, now: datetime) -> Select[Any]:
    """The primary keys of the rows that a rule deletes, the oldest first."""
    table, since, which = OLD[rule.what]
    due = select(*table.primary_key).where(which, since < now - timedelta(days=rule.after_days))
    if rule.what == "visits" and rule.sites is None:
        due = due.where(~IS_CASE)  # what a law says of visits is not meant for cases to learn from
    if rule.sites is not None:
        due = due.where(table.c.site.in_(rule.sites))
    return due.order_by(since)
