"""What is checked of a server during an outage and after it."""

from __future__ import annotations

from sqlalchemy import func, select

from data_specs.problems import message
from service.storage.tables import VisitRow

NO_WAIT = {"Prefer": "respond-async"}


def refused(answer, code):
    """Check a refusal because of an outage: its status, when to try again, and the sentence."""
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.json()["code"], answer.json()["detail"]) == (code, message(code, "en"))


def stored(served, table=VisitRow):
    with served.app.state.service.database.transaction() as session:
        return session.execute(select(func.count()).select_from(table)).scalar_one()


def finished(client, ids):
    return all(client.get(f"/v1/visits/{each}").json()["status"] == "complete" for each in ids)


def stored_files(folder):
    return sum(path.is_file() for path in folder.rglob("*"))
