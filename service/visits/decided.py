"""What follows from what the engine found in a visit: the course of eGFR, the next steps, the priority."""

from __future__ import annotations

from sqlalchemy.orm import Session

from data_specs.next_steps.decision import decide, facts_of
from data_specs.visit.assessment import AssessedOrgan, Assessment, FoundFinding
from data_specs.visit.comparison import course
from data_specs.vocabulary import term_of
from service.parts import Parts
from service.storage.tables import VisitRow
from service.visits.earlier import assessed, earlier_of

PER_YEAR = "egfr_per_year"


async def decided(parts: Parts, row: VisitRow, found: Assessment) -> Assessment:
    """``found`` with the programme's KFRE, the change of eGFR since earlier visits, next steps and priority."""
    if (kidney := found.organs.get("kidney")) is not None:
        kidney = with_kfre_of(parts.settings.kfre_calibration, kidney)
        kidney = _with_course(kidney, await _egfr_per_year(parts, row, found))
        found = found.model_copy(update={"organs": {**found.organs, "kidney": kidney}})
    fields = {file.index: file.field for file in row.inputs}
    decision = decide(parts.next_steps, facts_of(found, row.read_context(), fields))
    return found.model_copy(
        update={
            "priority": decision.priority,
            "priority_reasons": list(decision.reasons),
            "next_steps": list(decision.next_steps),
        }
    )


def with_kfre_of(calibration: str, kidney: AssessedOrgan) -> AssessedOrgan:
    """The kidneys with the risks of kidney failure by one calibration; those by the other are alternatives to it."""
    suffix = "_north_america"
    american = calibration == "north_america"
    findings = [
        found.model_copy(update={"alternative": found.name.endswith(suffix) is not american})
        if found.name.startswith("kfre_")
        else found
        for found in kidney.findings
    ]
    chosen = next((f.probability for f in findings if f.name.startswith("kfre_5y") and not f.alternative), None)
    return kidney.model_copy(update={"findings": findings, "risk": kidney.risk if chosen is None else chosen})


def _with_course(kidney: AssessedOrgan, egfr_per_year: float | None) -> AssessedOrgan:
    if egfr_per_year is None:
        return kidney
    change = FoundFinding(name=PER_YEAR, value=round(egfr_per_year, 1), unit=term_of(PER_YEAR).unit)
    return kidney.model_copy(update={"findings": [*kidney.findings, change]})


async def _egfr_per_year(parts: Parts, row: VisitRow, found: Assessment) -> float | None:
    kidney = found.organs.get("kidney")
    if row.person_id is None or kidney is None or not any(each.name == "egfr" for each in kidney.findings):
        return None

    def read(session: Session) -> float | None:
        visits = [assessed(visit) for visit in session.scalars(earlier_of(row))]
        egfr = course("egfr", [*visits, assessed(row, found)])
        return egfr.per_year if egfr else None

    return await parts.database.read(read)
