"""The frontal axis of the QRS, against vectors of known direction."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from data_specs.ecg.recording import LEADS, Recording
from inference.ecg.axis import qrs_axis
from inference.ecg.delineate import examine
from inference.ecg.measure import measure
from tests.inference.ecg.synthesis import ecg


def turned_to(degrees: float) -> Recording:
    """A recording whose limb leads are the projections of one frontal vector (Einthoven's triangle)."""
    made = ecg()
    shape = made.samples[LEADS.index("II")]
    one, two = (shape * math.cos(math.radians(degrees - of)) for of in (0, 60))
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return replace(made, samples=np.vstack([limb, made.samples[6:]]).astype(np.float32))


@pytest.mark.parametrize("degrees", [-150, -90, -60, -30, 0, 15, 60, 90, 120, 180])
def test_the_axis_of_a_known_vector_is_found(degrees: float) -> None:
    found = measure(turned_to(degrees)).axis_degrees
    assert found is not None
    assert abs((found - degrees + 180) % 360 - 180) < 2


def test_without_a_direction_in_the_frontal_plane_there_is_no_axis() -> None:
    examined = examine(ecg())
    assert examined.beat
    assert examined.marks
    onset, offset = examined.marks.qrs_onset, examined.marks.qrs_offset
    assert onset
    assert offset
    there_and_back = np.zeros_like(examined.beat.samples)
    there_and_back[:, onset : onset + 10] = 1.0
    there_and_back[:, onset + 10 : onset + 20] = -1.0
    assert qrs_axis(replace(examined.beat, samples=there_and_back), examined.marks) is None
    hidden = replace(examined.marks, qrs_onset_hidden=True)
    assert qrs_axis(examined.beat, hidden) is None
