"""What is known of a case, how hard it is before anybody has read it, and what a reading says."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from data_specs.visit.teaching import LEARNT, PROBABILITY, Case, NewReading, SpecialistSaid, teaches


def said(**says):
    return SpecialistSaid(says=says)


def test_a_site_teaches_by_its_name():
    assert teaches("teaching: films")
    assert not any(map(teaches, ("films", "Teaching: films", " teaching: films", "teachingfilms", "")))


def test_outcomes_count_before_specialists_and_of_these_the_majority():
    case = Case(
        outcomes={"effusion": False},
        specialists=(
            said(effusion=True, mass=True, nodule=True),
            said(effusion=True, mass=True, nodule=False),
            said(mass=False),
        ),
    )
    known = case.known
    assert {name: each.there for name, each in known.items()} == {"abnormal": True, "effusion": False, "mass": True}
    assert (known["effusion"].by, known["effusion"].specialists) == ("outcome", (2, 2))
    assert (known["mass"].by, known["mass"].specialists) == ("specialists", (2, 3))
    assert "nodule" not in known, "one against one says nothing"
    assert case.has_finding


def test_a_finding_brings_the_one_that_it_implies_unless_its_outcome_says_otherwise():
    assert Case(outcomes={"effusion": True}).known["abnormal"].there
    assert not Case(outcomes={"effusion": True, "abnormal": False}).known["abnormal"].there
    assert "abnormal" not in Case(outcomes={"effusion": False}).known


def test_a_good_sign_says_that_the_findings_of_its_organ_are_not_there():
    case = Case(outcomes={"normal_ecg": True})
    assert {name for name, each in case.known.items() if not each.there} == {
        "st_t_change",
        "conduction_disturbance",
        "myocardial_infarction",
        "hypertrophy",
        "atrial_fibrillation",
    }
    assert not case.has_finding
    assert "normal_ecg" not in LEARNT
    assert Case(outcomes={"normal_ecg": False}).known == {}


@pytest.mark.parametrize(
    ("case", "difficulty"),
    [
        (Case(outcomes={"mass": True}), None),
        (Case(outcomes={"mass": True}, machine={"mass": 0.9}), 0.1),
        (Case(outcomes={"mass": False}, machine={"mass": 0.9}), 0.9),
        (Case(outcomes={"mass": True}, specialists=(said(mass=False), said(mass=True))), 0.5),
        (Case(outcomes={"mass": True}, specialists=(said(mass=False),), machine={"mass": 0.8}), 0.6),
    ],
)
def test_a_case_is_hard_where_machine_and_specialists_were_wrong(case, difficulty):
    assert case.known["mass"].difficulty == (None if difficulty is None else pytest.approx(difficulty))


def test_a_reading_names_what_is_seen_and_nothing_else():
    reading = NewReading.model_validate(
        {"judgements": [{"finding": "effusion", "verdict": "add"}], "confidence": {"effusion": 5, "mass": 1}}
    )
    assert reading.seen == {"effusion", "abnormal"}
    assert NewReading().seen == frozenset()
    for wrong in (
        {"judgements": [{"finding": "effusion", "verdict": "agree"}]},
        {"confidence": {"effusion": 0}},
        {"confidence": {"effusion": 2.5}},
        {"confidence": {"no finding": 2}},
        {"referral": "a question"},
    ):
        with pytest.raises(ValidationError):
            NewReading.model_validate(wrong)


def test_steps_of_confidence_are_fifths():
    assert PROBABILITY == {1: 0.1, 2: 0.3, 3: 0.5, 4: 0.7, 5: 0.9}
