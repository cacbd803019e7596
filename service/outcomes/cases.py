"""Read the cases to export: films and recordings of visits with recorded outcomes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from data_specs.cohort import Source
from data_specs.visit.context import Context
from data_specs.visit.contract import Organ
from service.storage.tables import IS_CASE, InputRow, OutcomeRow, VisitRow

ORGAN: dict[str, Organ] = {"cxr": "lung", "ecg": "cardiac"}
FIELD = {"cxr": "image", "ecg": "ecg"}
LABEL = {"confirmed": "1", "refuted": "0"}
VISITS_PER_QUERY = 200


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What to export.

    Parameters
    ----------
    findings
        Findings whose outcomes become labels.
    key
        Secret key of the pseudonyms.
    sites
        Only these sites; empty: all.
    since
        Only visits that were received at this moment or later.
    dates
        Whether the StudyDate of DICOM headers is exported.
    """

    modality: Literal["cxr", "ecg"]
    findings: tuple[str, ...]
    source: Source
    name: str
    key: bytes
    sites: tuple[str, ...] = ()
    since: datetime | None = None
    dates: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One film, or the recordings of one visit. The same files in several visits are one case.

    Parameters
    ----------
    files
        Rows of the files in the store.
    identities
        The visits, and the person's number if a visit states one. They link cases of one person, and are not exported.
    person_stated
        Whether every visit with these files states the person's number. If not, the number in the files is used too.
    outcomes
        Time and value of the latest outcome, by finding.
    """

    files: tuple[InputRow, ...]
    identities: frozenset[tuple[str, ...]]
    person_stated: bool
    context: Context
    site: str
    outcomes: dict[str, tuple[datetime, str]]

    @property
    def content(self) -> tuple[str, ...]:
        """Hashes of the files, by which the same case is recognised."""
        return tuple(sorted(file.sha256 for file in self.files))

    def labels(self, findings: Iterable[str]) -> dict[str, str]:
        """``1`` or ``0`` by finding; empty if no outcome is recorded, or the person was lost to follow-up."""
        return {name: LABEL.get(self.outcomes[name][1], "") if name in self.outcomes else "" for name in findings}


def read_cases(session: Session, request: ExportRequest) -> list[Case]:
    """Cases with a confirmed or refuted finding. A case that was posted in several visits is returned once."""
    outcomes = _latest_outcomes(session, request)
    visits = list(outcomes)
    cases: dict[tuple[str, ...], Case] = {}
    for start in range(0, len(visits), VISITS_PER_QUERY):
        query = select(VisitRow).where(VisitRow.id.in_(visits[start : start + VISITS_PER_QUERY]))
        for row in session.scalars(query.order_by(*_AS_RECEIVED)):
            for case in _cases_of(row, outcomes[row.id], request.modality):
                earlier = cases.get(case.content)
                cases[case.content] = case if earlier is None else _merged(earlier, case)
        session.expunge_all()  # assessments are large, and are not needed any more
    return [case for case in cases.values() if any(case.labels(request.findings).values())]


def _latest_outcomes(session: Session, request: ExportRequest) -> dict[str, dict[str, tuple[datetime, str]]]:
    """The latest outcome by visit, in the order of receipt, and by finding. ``lost`` replaces an earlier outcome."""
    columns = (OutcomeRow.visit_id, OutcomeRow.finding, OutcomeRow.outcome, OutcomeRow.recorded_at)
    query = select(*columns).join(VisitRow, VisitRow.id == OutcomeRow.visit_id)
    query = query.where(OutcomeRow.finding.in_(request.findings), VisitRow.status == "complete", ~IS_CASE)
    if request.sites:
        query = query.where(VisitRow.site.in_(request.sites))
    if request.since is not None:
        query = query.where(VisitRow.received_at >= request.since)
    latest: dict[str, dict[str, tuple[datetime, str]]] = {}
    for visit, finding, outcome, at in session.execute(
        query.order_by(*_AS_RECEIVED, OutcomeRow.recorded_at, OutcomeRow.id)
    ):
        latest.setdefault(visit, {})[finding] = at, outcome
    return latest


_AS_RECEIVED = (VisitRow.received_at, VisitRow.id)


def _cases_of(row: VisitRow, outcomes: dict[str, tuple[datetime, str]], modality: Literal["cxr", "ecg"]) -> list[Case]:
    """Cases from the accepted inputs of one visit. A zip is left out if one of its recordings was refused."""
    assessed = row.read_assessment()
    accepted = {
        found.index
        for found in (assessed.inputs if assessed else ())
        if found.accepted and not any(problem.severity == "reject" for problem in found.problems)
    }
    files = [posted for posted in row.inputs if posted.field == FIELD[modality] and posted.index in accepted]
    context = row.read_context()
    identities: set[tuple[str, ...]] = {("visit", row.id)}
    if row.person_id:
        identities.add(("person", row.site, row.person_id))
    make = partial(
        Case, identities=frozenset(identities), person_stated=bool(row.person_id), context=context, site=row.site
    )
    groups = [[file] for file in files] if modality == "cxr" else [files] if files else []
    return [make(tuple(group), outcomes=outcomes) for group in groups]


def _merged(earlier: Case, later: Case) -> Case:
    """One case of two with the same files: the later visit's context, and the latest outcome of each finding."""
    both = [*earlier.outcomes.items(), *later.outcomes.items()]
    outcomes = dict(sorted(both, key=lambda item: item[1][0]))
    identities = earlier.identities | later.identities
    person_stated = earlier.person_stated and later.person_stated
    return Case(later.files, identities, person_stated, later.context, later.site, outcomes)
