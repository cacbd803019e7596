"""DICOM files that arrive at a server, and the visits that are made of them."""

from __future__ import annotations

from sqlalchemy import func, select

from data_specs.visit.context import Context
from service.receive.dicom.arrivals import receive
from service.storage.drafts import Draft
from service.storage.tables import ArrivalRow, VisitRow
from tests.service.receive.dicom.made import SITE
from tests.service.serving import until

QUIET_S = 0.4
"""How long no object of a study may have come before it becomes a visit."""


def arrive(served, *contents, site=SITE, source="PEER"):
    """Receive files one after the other, as a thread of an association does; a refusal or ``None`` for each."""
    service = served.app.state.service
    outcomes = []
    for content in contents:
        draft = Draft(service.store.drafts)
        draft.write(content)
        outcomes.append(receive(service, site, source, draft))
        draft.remove()
    assert list(service.store.drafts.iterdir()) == []
    return outcomes


def rows(served, table, **where):
    with served.app.state.service.database.transaction() as session:
        return list(session.scalars(select(table).filter_by(**where)))


def count(served, table, *conditions):
    """How many rows there are: a question that may be asked again and again."""
    with served.app.state.service.database.transaction() as session:
        return session.scalar(select(func.count()).select_from(table).where(*conditions))


def nothing_waits(served):
    """Whether every object that has arrived is in a visit."""
    return count(served, ArrivalRow, ArrivalRow.visit_id.is_(None)) == 0


def visits_of(served, study, n=1):
    until(lambda: count(served, VisitRow, VisitRow.study_uid == study) >= n, 30)
    return sorted(rows(served, VisitRow, study_uid=study), key=lambda visit: visit.received_at)


def context_in(visit):
    return Context.model_validate_json(visit.context)
