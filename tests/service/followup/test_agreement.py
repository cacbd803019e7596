"""Agreement between readers: what counts in it, and what a reader's words imply."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from data_specs.visit.assessment import AssessedOrgan, Assessment, FoundFinding
from service.storage.tables import VisitRow
from tests.service.serving import visit_files


def judged(name, positive, use=None):
    return FoundFinding(name=name, probability=0.9 if positive else 0.1, positive=positive, use=use)


FOUND = Assessment(
    organs={
        "lung": AssessedOrgan(
            status="assessed",
            findings=[judged("abnormal", False), judged("effusion", False), judged("edema", None, "information")],
        ),
        "kidney": AssessedOrgan(
            status="assessed",
            findings=[
                FoundFinding(name="egfr", value=52.0, unit="mL/min/{1.73_m2}"),
                judged("kfre_2y", True),
                judged("kfre_5y", True),
                judged("incident_ckd", True),
            ],
        ),
    },
    inputs=[],
    models=[],
    priority="routine",
    priority_reasons=[],
)


@pytest.fixture
def read_blind(served):
    """A visit that a specialist of ``hospital`` reads blind, with ``judgements``; gives all agreement on it."""

    def read(hospital, judgements):
        site = served.key("site", f"clinic-{hospital}")
        doctor = served.key("doctor", f"clinic-{hospital}", doctor_id="D", label="BS. Thử Nghiệm")
        specialist = served.key("specialist", hospital, doctor_id="S", label="BS. Thử Nghiệm Hai")
        with served.client(site) as at_site, served.client(doctor) as d, served.client(specialist) as s:
            visit = at_site.post("/v1/visits", files=visit_files(referrer={"id": "D"})).json()["id"]
            changed = update(VisitRow).where(VisitRow.id == visit).values(assessment=FOUND.model_dump_json())
            with served.app.state.service.database.transaction(write=True) as session:
                session.execute(changed)
            d.post(f"/v1/visits/{visit}/opinions", json={"version": 1})
            d.post(f"/v1/visits/{visit}/referrals", json={"to_site": hospital, "blind": True})
            signed = s.post(f"/v1/visits/{visit}/opinions", json={"version": 2, "judgements": judgements})
            assert signed.json()["blind"] is True
            return {(a["finding"], a["first"], a["second"]): a for a in s.get("/v1/statistics").json()["agreement"]}

    return read


def test_what_no_reader_can_see_counts_in_no_agreement(read_blind):
    found = read_blind("hospital-1", [])
    assert {finding for finding, *_ in found} == {"abnormal", "effusion"}
    assert {each["share"] for each in found.values()} == {1.0}


def test_a_blind_reader_who_ticks_a_finding_reads_an_abnormal_film(read_blind):
    found = read_blind("hospital-2", [{"finding": "effusion", "verdict": "add"}])
    for finding in ("abnormal", "effusion"):
        for first in ("machine", "referrer"):
            assert found[finding, first, "specialist"]["second_only"] == 1


def test_the_machine_has_no_part_in_what_it_gives_no_verdict_on(read_blind):
    found = read_blind("hospital-3", [{"finding": "edema", "verdict": "add"}, {"finding": "mass", "verdict": "add"}])
    assert ("edema", "machine", "specialist") not in found
    assert ("mass", "machine", "specialist") not in found
    assert found["mass", "referrer", "specialist"]["second_only"] == 1


def test_a_risk_that_a_client_judges_counts_in_no_agreement(read_blind):
    found = read_blind("hospital-4", [{"finding": "incident_ckd", "verdict": "disagree"}])
    assert "incident_ckd" not in {finding for finding, *_ in found}
