"""Films and recordings of which somebody later said what became of their findings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from data_specs.cohort import Source
from data_specs.visit.assessment import Assessment
from data_specs.visit.context import Context
from data_specs.visit.contract import Organ
from service.storage.tables import InputRow, OutcomeRow, VisitRow

ORGAN: dict[str, Organ] = {"cxr": "lung", "ecg": "cardiac"}
FIELD = {"cxr": "image", "ecg": "ecg"}
LABEL = {"confirmed": "1", "refuted": "0"}
ROWS_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be exported.

    Parameters
    ----------
    findings
        Whose outcomes become labels.
    sites
        These alone; empty: all.
    since
        Visits that were received from here on.
    dates
        Whether the day that a DICOM header states goes into the table.
    key
        Of the pseudonyms.
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
    """One film, or the recordings of one visit: posted once or again, it is one case.

    ``stated``: every visit that brought it states the person's number; else the file's own header is asked.

    Parameters
    ----------
    files
        What is read from the store.
    known_as
        The visit, and the person's number where the visit states one: what links it to other cases; never exported.
    outcomes
        Finding to the latest outcome and when it was recorded.
    """

    files: tuple[InputRow, ...]
    known_as: frozenset[tuple[str, ...]]
    stated: bool
    context: Context
    site: str
    outcomes: dict[str, tuple[datetime, str]]

    @property
    def content(self) -> tuple[str, ...]:
        return tuple(sorted(each.sha256 for each in self.files))

    def labels(self, findings: Iterable[str]) -> dict[str, str]:
        """``1`` or ``0``; empty where nothing is recorded, or the person was lost."""
        return {name: LABEL.get(self.outcomes[name][1], "") if name in self.outcomes else "" for name in findings}


def read_cases(session: Session, wanted: Wanted) -> list[Case]:
    """Cases with a confirmed or refuted finding, each once, whatever number of visits brought it."""
    outcomes = _latest_outcomes(session, wanted)
    visits = list(outcomes)
    cases: dict[tuple[str, ...], Case] = {}
    for start in range(0, len(visits), ROWS_AT_ONCE):
        query = select(VisitRow).where(VisitRow.id.in_(visits[start : start + ROWS_AT_ONCE]))
        for row in session.scalars(query.order_by(*_AS_RECEIVED)):
            for case in _cases_of(row, outcomes[row.id], wanted.modality):
                earlier = cases.get(case.content)
                cases[case.content] = case if earlier is None else _merged(earlier, case)
        session.expunge_all()  # assessments are large, and nothing of them is needed any more
    return [case for case in cases.values() if any(case.labels(wanted.findings).values())]


def _latest_outcomes(session: Session, wanted: Wanted) -> dict[str, dict[str, tuple[datetime, str]]]:
    """Visit, in the order in which they came, to finding to its latest outcome; ``lost`` takes an earlier one back."""
    columns = (OutcomeRow.visit_id, OutcomeRow.finding, OutcomeRow.outcome, OutcomeRow.recorded_at)
    query = select(*columns).join(VisitRow, VisitRow.id == OutcomeRow.visit_id)
    query = query.where(OutcomeRow.finding.in_(wanted.findings), VisitRow.status == "complete")
    if wanted.sites:
        query = query.where(VisitRow.site.in_(wanted.sites))
    if wanted.since is not None:
        query = query.where(VisitRow.received_at >= wanted.since)
    latest: dict[str, dict[str, tuple[datetime, str]]] = {}
    for visit, finding, outcome, at in session.execute(
        query.order_by(*_AS_RECEIVED, OutcomeRow.recorded_at, OutcomeRow.id)
    ):
        latest.setdefault(visit, {})[finding] = at, outcome
    return latest


_AS_RECEIVED = (VisitRow.received_at, VisitRow.id)


def _cases_of(row: VisitRow, outcomes: dict[str, tuple[datetime, str]], modality: Literal["cxr", "ecg"]) -> list[Case]:
    """The accepted inputs of one visit. A zip in which one of several recordings was refused is not accepted here."""
    assessed = Assessment.model_validate_json(row.assessment) if row.assessment else None
    accepted = {
        each.index
        for each in (assessed.inputs if assessed else ())
        if each.accepted and not any(problem.severity == "reject" for problem in each.problems)
    }
    files = [each for each in row.inputs if each.field == FIELD[modality] and each.index in accepted]
    context = Context.model_validate_json(row.context)
    known_as: set[tuple[str, ...]] = {("visit", row.id)}
    if row.person_id:
        known_as.add(("person", row.site, row.person_id))
    one = partial(Case, known_as=frozenset(known_as), stated=bool(row.person_id), context=context, site=row.site)
    units = [[each] for each in files] if modality == "cxr" else [files] if files else []
    return [one(tuple(unit), outcomes=outcomes) for unit in units]


def _merged(earlier: Case, later: Case) -> Case:
    """The same files, posted again: what the later visit says, and of each finding the latest outcome."""
    both = [*earlier.outcomes.items(), *later.outcomes.items()]
    outcomes = dict(sorted(both, key=lambda each: each[1][0]))
    known_as, stated = earlier.known_as | later.known_as, earlier.stated and later.stated
    return Case(later.files, known_as, stated, later.context, later.site, outcomes)
