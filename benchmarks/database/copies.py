"""Many visits from the first ones, in SQL: new ids, persons, sites and files, received over a year.

Every column keeps its size, and rows lie in the order in which they were received, as they would have been written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Column, Date, Engine, Table, text

from benchmarks.database.first import ACCESSION, DOCTOR, NAME, PERSON, SHARES, SITE, First
from service.storage.tables import Base, UtcDateTime

SITES, HOSPITALS, DOCTORS, VISITS_OF_A_PERSON = 20, 10, 200, 3
AT_ONCE = 50_000
UNFINISHED = 200
"""The latest visits: so many wait for a process, for delivery, to be exchanged, or for a specialist's answer."""

_COPIES = f"""
CREATE TEMP TABLE copies ON COMMIT DROP AS
SELECT n, t.old, md5(n || t.old)::uuid::text AS new, numbers.received_at - t.received_at AS later,
       'site-' || lpad((n % {SITES})::text, 2, '0') AS site,
       'P' || lpad((n * 7919::bigint % :persons)::text, 8, '0') AS person,
       translate(left(md5((n * 7919::bigint % :persons)::text), 8), '0123456789', 'ghijklmnop') AS name,
       'A' || lpad(n::text, 9, '0') AS accession, 'D-' || lpad((n % {DOCTORS})::text, 3, '0') AS doctor
FROM (SELECT n, now() - interval '365 days' * (1 - n / CAST(:in_all AS float)) AS received_at
      FROM generate_series(CAST(:since AS int), CAST(:until AS int)) AS n) AS numbers
JOIN (SELECT unnest(CAST(:places AS int[])) AS place, unnest(CAST(:olds AS text[])) AS old) AS places
  ON places.place = n / {SITES} % 20
JOIN (SELECT id, id AS old, received_at FROM visits WHERE id = ANY(:olds)) AS t USING (old)
"""


def multiply(engine: Engine, first: First, have: int, visits: int) -> Iterator[int]:
    """Add visits until there are as many; gives how many were added each time.

    Parameters
    ----------
    have
        How many there are already, besides the first ones.
    """
    kinds = [kind for kind, n in SHARES.items() for _ in range(n)]
    given: dict[str, Any] = {
        "places": list(range(len(kinds))),
        "olds": [first.ids[kind] for kind in kinds],
        "persons": max(1, visits // VISITS_OF_A_PERSON),
        "in_all": visits,
    }
    for start in range(have + 1, visits + 1, AT_ONCE):
        until = min(visits, start + AT_ONCE - 1)
        with engine.begin() as connection:
            connection.execute(text("SET LOCAL synchronous_commit = off"))
            connection.execute(text("SET LOCAL work_mem = '256MB'"))
            connection.execute(text(_COPIES), {**given, "since": start, "until": until})
            connection.execute(text("ANALYZE copies"))
            for table in Base.metadata.sorted_tables:
                if (statement := _copying(table)) is not None:
                    connection.execute(text(statement), {"olds": sorted(first.ids.values())})
        yield until - start + 1
    with engine.begin() as connection:
        for statement in _LATEST:
            connection.execute(text(statement), {"n": min(UNFINISHED, visits // 10), "olds": given["olds"]})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM (ANALYZE)"))


def _copying(table: Table) -> str | None:
    """The statement that copies the rows of a table that belong to a visit, and the order that was sent ahead of it."""
    if table.name == "visits":
        of_visit = "t.id = c.old"
    elif "visit_id" in table.columns:
        of_visit = "t.visit_id = c.old"
    elif table.name in ("orders", "order_messages"):
        of_visit = "c.n % 10 = 0"
    else:
        return None
    rows = "" if table.name in ("orders", "order_messages") else f"WHERE {of_visit[2:].partition(' ')[0]} = ANY(:olds)"
    one = "LIMIT 1" if not rows else ""
    columns = ", ".join(f'"{column.name}"' for column in table.columns)
    values = ", ".join(_value(table, column) for column in table.columns)
    return (
        f"WITH t AS MATERIALIZED (SELECT * FROM {table.name} {rows} {one}) "
        f"INSERT INTO {table.name} ({columns}) SELECT {values} FROM copies c JOIN t ON {of_visit} ORDER BY c.n"
    )


def _value(table: Table, column: Column[Any]) -> str:
    name = column.name
    here = f't."{name}"'
    if (special := _VALUES.get((table.name, name)) or _VALUES.get(("", name))) is not None:
        return special(here)
    if isinstance(column.type, UtcDateTime):
        return f"{here} + c.later"
    return f"{here} + (c.later)::interval" if isinstance(column.type, Date) else here


def _new_id(here: str) -> str:
    return f"md5(c.n || {here})::uuid::text"


def _renamed(here: str) -> str:
    numbers = {PERSON: "c.person", ACCESSION: "c.accession"}
    folded = {old.lower(): f"lower({new})" for old, new in numbers.items()}
    for old, new in {**numbers, **folded, NAME: "c.name", DOCTOR: "c.doctor", SITE: "c.site"}.items():
        here = f"replace({here}, '{old}', {new})"
    return here


def _digest(here: str) -> str:
    return f"md5(c.n || {here}) || md5({here} || c.n)"


def _uid(here: str) -> str:
    return f"'2.25.' || lpad((('x' || left(md5(c.n || {here}), 15))::bit(60)::bigint)::text, 30, '1')"


_VALUES: dict[tuple[str, str], Callable[[str], str]] = {
    ("visits", "id"): lambda _: "c.new",
    ("", "visit_id"): lambda _: "c.new",
    ("", "site"): lambda _: "c.site",
    ("", "study_uid"): _uid,
    ("", "sop_uid"): _uid,
    ("", "sha256"): _digest,
    ("", "body_hash"): _digest,
    ("visits", "idempotency_key"): lambda _: "'visit+' || lpad(c.n::text, 9, '0')",
    ("order_messages", "control_id"): lambda _: "'order+' || c.n",
    ("referrals", "to_site"): lambda here: (
        f"CASE WHEN c.n % {HOSPITALS} = 0 THEN {here} ELSE 'hospital-' || c.n % {HOSPITALS} END"
    ),
    **{("", name): _new_id for name in ("uid", "referral_id")},
    **{(table, "id"): _new_id for table in ("referrals", "outcomes", "readings")},
    **{("", name): _renamed for name in ("person_id", "accession_number", "referrer_id", "folded")},
    **{("", name): _renamed for name in ("context", "dicom", "asked_by", "opinion", "report")},
}
"""How a column of a copy differs from the first visit's, by table (of any, where there is none) and name."""

_LAST = "SELECT id FROM visits WHERE id <> ALL(:olds) ORDER BY received_at DESC LIMIT :n"
_LATEST = (
    f"UPDATE visits SET status = 'accepted', priority = 'unassessed', completed_at = NULL, assessment = NULL "
    f"WHERE version = 1 AND id IN ({_LAST})",
    f"UPDATE deliveries SET state = 'waiting', delivered_at = NULL WHERE visit_id IN ({_LAST} OFFSET :n)",
    f"UPDATE exchanges SET changes = changes + 1 WHERE visit_id IN ({_LAST} OFFSET :n)",
    "UPDATE referrals SET answered_by = NULL, closed_at = NULL WHERE id IN "
    "(SELECT id FROM referrals WHERE visit_id <> ALL(:olds) ORDER BY asked_at DESC LIMIT :n)",
)
"""What is unfinished among the latest copies: visits, then deliveries and exchanges of finished ones, and questions."""
