"""What a doctor's judgements say of each finding."""

from __future__ import annotations

import pytest

from data_specs.visit.contract import visible_findings
from data_specs.visit.opinion import NewOpinion
from data_specs.vocabulary import terms


def said(machine: dict[str, bool], **verdicts: str) -> dict[str, bool]:
    judgements = tuple({"finding": name, "verdict": verdict} for name, verdict in verdicts.items())
    return NewOpinion.model_validate({"judgements": judgements}).says(machine)


def test_every_finding_of_a_film_implies_an_abnormal_film_and_no_other_finding_does() -> None:
    implying = {term.name for term in terms().values() if term.implies}
    assert implying == set(visible_findings("lung")) - {"abnormal"}
    assert {terms()[name].implies for name in implying} == {"abnormal"}


@pytest.mark.parametrize(
    ("machine", "verdicts", "expected"),
    [
        ({}, {"effusion": "add"}, {"effusion": True, "abnormal": True}),
        ({"effusion": True}, {"effusion": "agree"}, {"effusion": True, "abnormal": True}),
        ({"effusion": False}, {"effusion": "disagree"}, {"effusion": True, "abnormal": True}),
        ({"effusion": True}, {"effusion": "disagree"}, {"effusion": False}),
        ({"abnormal": False}, {"abnormal": "agree", "mass": "add"}, {"abnormal": True, "mass": True}),
        ({"normal_ecg": False}, {"atrial_fibrillation": "add"}, {"atrial_fibrillation": True}),
    ],
)
def test_a_finding_that_is_there_brings_what_it_implies(machine, verdicts, expected) -> None:
    assert said(machine, **verdicts) == expected
