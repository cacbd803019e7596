"""What became known of visits: outcomes, and what specialists signed, as codes without their words."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import and_, exists, or_, select
from sqlalchemy.orm import Session

from data_specs.visit.contract import VISIBLE, Organ
from data_specs.visit.opinion import Opinion
from data_specs.visit.teaching import SpecialistSaid, Truth
from data_specs.vocabulary import term_of
from service.storage.tables import OpinionRow, OutcomeRow, VisitRow

ORGAN_OF_FILE: Mapping[str, Organ] = {".dcm": "lung", ".hea": "cardiac"}
"""What can be seen in a file of a package, by the end of its name."""
KNOWN_OUTCOMES = {"confirmed": True, "refuted": False}
IS_KNOWN = or_(
    exists().where(OutcomeRow.visit_id == VisitRow.id, OutcomeRow.outcome.in_(KNOWN_OUTCOMES)),
    exists().where(and_(OpinionRow.visit_id == VisitRow.id, OpinionRow.role == "specialist")),
)
"""Whether a visit has an outcome or a specialist's opinion."""


def truths_of(session: Session, rows: Sequence[VisitRow]) -> dict[str, Truth]:
    """What became known of visits, by their id. The latest outcome of a finding counts, and the latest opinion of each
    specialist."""
    ids = [row.id for row in rows]
    outcomes: dict[str, dict[str, bool]] = {}
    recorded = select(OutcomeRow).where(OutcomeRow.visit_id.in_(ids), OutcomeRow.finding.in_(VISIBLE))
    for each in session.scalars(recorded.order_by(OutcomeRow.recorded_at, OutcomeRow.id)):
        of_visit = outcomes.setdefault(each.visit_id, {})
        of_visit.pop(each.finding, None)  # a person who was lost to follow-up later has no outcome
        if each.outcome in KNOWN_OUTCOMES:
            of_visit[each.finding] = KNOWN_OUTCOMES[each.outcome]
    signed: dict[str, dict[tuple[str, str], Opinion]] = {}
    by_specialists = select(OpinionRow.visit_id, OpinionRow.opinion).where(
        OpinionRow.visit_id.in_(ids), OpinionRow.role == "specialist"
    )
    for visit_id, document in session.execute(by_specialists.order_by(OpinionRow.number)):
        opinion = Opinion.model_validate_json(document)
        signed.setdefault(visit_id, {})[opinion.author.facility, opinion.author.id] = opinion
    return {
        row.id: Truth(
            outcomes=outcomes.get(row.id, {}),
            specialists=tuple(_said(opinion, row) for opinion in signed.get(row.id, {}).values()),
        )
        for row in rows
    }


def seen_in(truth: Truth, files: Collection[str]) -> Truth | None:
    """What of it can be seen in the files that leave, by their names; ``None``: nothing.

    Who learns from a film that was withheld would be asked about what they cannot see.
    """
    organs = {organ for ending, organ in ORGAN_OF_FILE.items() if any(name.endswith(ending) for name in files)}

    def shown(says: Mapping[str, bool]) -> dict[str, bool]:
        return {name: there for name, there in says.items() if term_of(name).organ in organs}

    outcomes = shown(truth.outcomes)
    specialists = [each.model_copy(update={"says": shown(each.says)}) for each in truth.specialists]
    said = tuple(each for each in specialists if each.says)
    return Truth(outcomes=outcomes, specialists=said) if outcomes or said else None


def _said(opinion: Opinion, row: VisitRow) -> SpecialistSaid:
    found = row.read_assessment()
    machine = {
        each.name: bool(each.positive)
        for organ in (found.organs.values() if found else ())
        for each in organ.findings
        if each.positive is not None and not each.alternative
    }
    return SpecialistSaid(says=_by_name(opinion.answers(machine)), advice=opinion.advice, blind=opinion.blind)


def _by_name(answers: dict[str, bool]) -> dict[str, bool]:
    """In the order of the vocabulary, so that the same opinion is the same bytes."""
    return {name: answers[name] for name in VISIBLE if name in answers}
