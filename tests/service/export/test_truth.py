"""What is known of a visit leaves as far as it can be seen in the files that leave."""

from __future__ import annotations

import pytest

from data_specs.visit.teaching import SpecialistSaid, Truth
from service.export.truth import seen_in

BOTH = Truth(
    outcomes={"pneumonia": True, "atrial_fibrillation": False},
    specialists=(
        SpecialistSaid(says={"effusion": True}),
        SpecialistSaid(says={"atrial_fibrillation": True, "pneumonia": True}),
    ),
)
OF_FILM = Truth(
    outcomes={"pneumonia": True},
    specialists=(SpecialistSaid(says={"effusion": True}), SpecialistSaid(says={"pneumonia": True})),
)
OF_RECORDING = Truth(
    outcomes={"atrial_fibrillation": False}, specialists=(SpecialistSaid(says={"atrial_fibrillation": True}),)
)


@pytest.mark.parametrize(
    ("files", "left"),
    [
        (["a-00.dcm", "a-e00.hea", "a-e00.dat"], BOTH),
        (["a-00.dcm"], OF_FILM),
        (["a-e00.hea", "a-e00.dat"], OF_RECORDING),
        ([], None),
    ],
)
def test_nobody_is_asked_about_what_was_withheld(files, left):
    assert seen_in(BOTH, files) == left


def test_a_truth_of_another_organ_alone_does_not_leave():
    assert seen_in(Truth(outcomes={"atrial_fibrillation": True}), ["a-00.dcm"]) is None
