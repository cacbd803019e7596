"""Checks that what was accepted while a server was harmed has been kept, done once, done rightly, and sent once."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy

from benchmarks.chaos.record import Figures
from benchmarks.chaos.servers import Server
from benchmarks.chaos.sink import Sink
from benchmarks.chaos.visits import Accepted, Load, Outcome
from benchmarks.report import Line

PAGE = 200


def rows(database_url: str, query: str) -> list[Any]:
    """The rows of a query, on a connection of its own."""
    engine = sqlalchemy.create_engine(database_url, poolclass=sqlalchemy.pool.NullPool)
    with engine.connect() as connection:
        return list(connection.execute(sqlalchemy.text(query)).all())


def sqlite_of(server: Server) -> str:
    return f"sqlite:///{server.data / 'sangloc.db'}"


def drafts_left(server: Server) -> int:
    """How many files are left of bodies that were being received."""
    return sum(path.is_file() for path in (server.data / "files" / "drafts").rglob("*"))


def wait_until_done(database_url: str, limit_s: float) -> None:
    """Wait until no visit and no delivery is left to do, or the time is over."""
    visits = "SELECT count(*) FROM visits WHERE status = 'accepted'"
    left = f"SELECT ({visits}), (SELECT count(*) FROM deliveries WHERE state = 'waiting')"  # noqa: S608
    end = time.monotonic() + limit_s
    while time.monotonic() < end and rows(database_url, left)[0] != (0, 0):
        time.sleep(0.2)


def audit(
    figures: Figures, server: Server, database_url: str, load: Load, expected: Mapping[str, Outcome], *, limit_s: float
) -> None:
    """Count what was accepted, and of it what was lost, done twice, not done, or done wrongly."""
    wait_until_done(database_url, limit_s)
    found = rows(database_url, "SELECT id, idempotency_key, status FROM visits WHERE idempotency_key IS NOT NULL")
    statuses = {id_: status for id_, _, status in found}
    count_kept(figures, found, load.accepted)
    outcomes = _all_outcomes(server, load.key)
    for each in load.accepted.values():
        outcome = outcomes.get(each.id)
        if outcome is not None and statuses.get(each.id) == "complete" and not outcome.agrees(expected[each.kind]):
            figures.counts["wrong results"] += 1
            figures.note(f"{each.kind}: {json.dumps(outcome.facts)[:400]}")


def count_kept(figures: Figures, found: Sequence[tuple[str, str, str]], accepted: Mapping[str, Accepted]) -> None:
    """Compare what was accepted with the visits of the database.

    Parameters
    ----------
    found
        Id, key and status of each visit.
    accepted
        By key.
    """
    ids: dict[str, set[str]] = {}
    for id_, key, _ in found:
        ids.setdefault(key, set()).add(id_)
    known = {id_ for id_, _, _ in found}
    counts = figures.counts
    counts["accepted"] += len(accepted)
    counts["lost"] += sum(each.id not in known for each in accepted.values())
    counts["double"] += sum(len(of_key) > 1 for of_key in ids.values())
    counts["double"] += sum(len(ids.get(key, set()) - {each.id}) > 0 for key, each in accepted.items())
    counts["unfinished"] += sum(status == "accepted" for _, _, status in found)
    counts["failed"] += sum(status == "failed" for _, _, status in found)


def _all_outcomes(server: Server, key: str) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    cursor = ""
    with server.client(key) as client:
        while True:
            page = client.ask("GET", f"/v1/visits?limit={PAGE}" + (f"&cursor={cursor}" if cursor else "")).json
            found |= {visit["id"]: Outcome.of(visit) for visit in page["items"]}
            cursor = page["next"]
            if not cursor:
                return found


def lines_of_audit(figures: Figures) -> list[Line]:
    """What was kept and done of what was accepted, as rows of the table."""
    none = figures.none
    return [
        none("answers against the contract", "wrong answers", figures.listed("wrong answer: ")),
        none("accepted visits lost", "lost"),
        none("visits done twice", "double"),
        none("visits not finished", "unfinished"),
        none("visits failed", "failed"),
        none("visits refused wrongly", "refused wrongly"),
        none(
            "visits never accepted",
            "never accepted",
            f"{figures.counts['answers lost']} answers lost and asked for again",
        ),
        none("results unlike those without harm", "wrong results"),
    ]


def audit_deliveries(figures: Figures, database_url: str, sink: Sink) -> None:
    """Count deliveries: each version of each report arrives under one key, the versions of a visit in their order."""
    counts = figures.counts
    issued = rows(database_url, "SELECT visit_id, version FROM reports")
    versions = {
        (id_, number)
        for id_, version, status in rows(database_url, "SELECT id, version, status FROM visits")
        if status != "accepted"
        for number in range(1, version + 1)
    }
    keys: dict[tuple[str, int], Counter[str]] = {}
    for each in list(sink.received):
        keys.setdefault((each.visit, each.version), Counter())[each.key] += 1
    last: Counter[str] = Counter()
    for visit, version in keys:  # in the order in which each arrived first
        counts["out of order"] += version < last[visit]
        last[visit] = max(last[visit], version)
    counts["reports"] += len(versions)
    counts["not delivered"] += len(versions - keys.keys())
    counts["delivered though not issued"] += len(keys.keys() - versions)
    counts["delivered twice"] += sum(len(each) > 1 for each in keys.values())
    counts["attempts repeated"] += sum(each.total() - 1 for each in keys.values())
    counts["double"] += len(issued) - len(set(issued))


def lines_of_deliveries(figures: Figures) -> list[Line]:
    """What was delivered of what was issued, as rows of the table."""
    counts, none = figures.counts, figures.none
    return [
        none("reports not delivered", "not delivered", f"of {counts['reports']}"),
        none("reports delivered that were not issued", "delivered though not issued"),
        none(
            "reports delivered under two keys",
            "delivered twice",
            f"{counts['attempts repeated']} sent again under their key",
        ),
        none("reports delivered out of order", "out of order"),
    ]
