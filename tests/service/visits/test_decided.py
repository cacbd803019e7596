"""What follows from what the engine found: the course of eGFR, the calibration of KFRE, steps and priority."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from data_specs.visit.assessment import AssessedOrgan, Assessment, FoundFinding
from service.parts import Parts
from service.report.issue import make_report
from service.storage.migrate import migrate
from service.storage.tables import VisitRow
from service.visits.decided import decided, with_kfre_of
from tests.service.serving import settings_for

NOW = datetime(2026, 11, 29, 8, tzinfo=UTC)


@pytest.fixture
def parts(tmp_path):
    settings = settings_for(tmp_path)
    parts = Parts.open(settings)
    migrate(settings, parts.database)
    yield parts
    parts.database.close()


def kidneys(egfr, **risks):
    findings = [FoundFinding(name="egfr", value=egfr, unit="mL/min/{1.73_m2}")]
    findings += [FoundFinding(name=name, probability=p, calibrated=True) for name, p in risks.items()]
    return AssessedOrgan(status="assessed", risk=0.5, category="low", findings=findings)


def found(egfr):
    return Assessment(organs={"kidney": kidneys(egfr)}, inputs=[], models=[])


def visit(number, days_ago=0, egfr=None, person="P-1", site="s", **context):
    on = NOW - timedelta(days=days_ago)
    context = {"person": {"id": person, "age_years": 60, "sex": "female"}, "visited_on": str(on.date()), **context}
    return VisitRow(
        id=str(number), site=site, key_id="k", context=json.dumps(context), body_hash="", received_at=on, version=1,
        person_id=person, status="accepted" if egfr is None else "complete", priority="unassessed", attempts=0,
        faults=0, completed_at=on, assessment=None if egfr is None else found(egfr).model_dump_json(), inputs=[],
    )  # fmt: skip


async def per_year(parts, *earlier, now=42.0, row=None):
    await parts.database.write(lambda session: session.add_all(earlier))
    assessment = await decided(parts, row or visit(99), found(now))
    return {f.name: f.value for f in assessment.organs["kidney"].findings}.get("egfr_per_year"), assessment


async def test_a_fall_of_egfr_has_its_step_in_the_visit_that_shows_it(parts):
    fall, assessment = await per_year(parts, visit(1, 730, 58.0), visit(2, 365, 50.0))
    assert fall == -8.0
    assert "egfr_falls" in [step.rule for step in assessment.next_steps]
    assert ("finding_flagged", "egfr_per_year -8") in [(r.code, r.found) for r in assessment.priority_reasons]
    assert "−8 mL/min/1.73 m² per year" in assessment.priority_reasons[-1].message("en")


async def test_a_slower_fall_has_none(parts):
    fall, assessment = await per_year(parts, visit(1, 365, 46.0))
    assert fall == -4.0
    assert "egfr_falls" not in [step.rule for step in assessment.next_steps]


@pytest.mark.parametrize(
    "earlier",
    [
        [],
        [visit(1, 30, 60.0)],
        [visit(1, 365, 60.0, person="P-2")],
        [visit(1, 365, 60.0, site="elsewhere")],
    ],
    ids=["no visit", "too short a time", "another person", "another site"],
)
async def test_nothing_is_said_of_a_course_that_is_not_known(parts, earlier):
    assert (await per_year(parts, *earlier))[0] is None


async def test_a_visit_without_a_person_has_no_course(parts):
    assert (await per_year(parts, visit(1, 365, 60.0), row=visit(99, person=None)))[0] is None


def test_one_calibration_of_kfre_is_the_programmes():
    both = {"kfre_2y": 0.01, "kfre_5y": 0.04, "kfre_2y_north_america": 0.02, "kfre_5y_north_america": 0.07}
    for calibration, chosen in (("non_north_america", "kfre_5y"), ("north_america", "kfre_5y_north_america")):
        organ = with_kfre_of(calibration, kidneys(30.0, **both))
        assert organ.risk == both[chosen]
        shown = [f.name for f in organ.findings if f.name.startswith("kfre") and not f.alternative]
        assert shown == [name for name in both if name.endswith("_north_america") is (calibration == "north_america")]
    assert with_kfre_of("north_america", kidneys(80.0)).risk == 0.5, "the risk of another equation stays"


async def test_the_report_has_the_steps_that_were_decided(parts):
    row = visit(99, labs=[{"name": "glucose", "value": 2.4, "unit": "mmol/L"}])
    assessment = await decided(parts, row, found(42.0))
    assert assessment.priority == "urgent"
    assert next((r.code, r.found) for r in assessment.priority_reasons) == ("finding_urgent", "glucose_mmol_per_l 2.4")
    row.assessment, row.status = assessment.model_dump_json(), "complete"
    report = make_report(row, [], parts.next_steps)
    assert list(report.next_steps) == assessment.next_steps
    assert report.next_steps[0].rule == "glucose_very_low"


def test_a_visit_of_before_has_the_steps_of_todays_table(parts):
    row = visit(1, 0, 12.0)
    assert next(step.rule for step in make_report(row, [], parts.next_steps).next_steps) == "kidney_failure"
