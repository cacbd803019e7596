"""The frontal axis of the QRS, from the net areas of two limb leads."""

from __future__ import annotations

import math

import numpy as np

from data_specs.ecg.filters import Signal
from data_specs.ecg.recording import LEADS
from inference.ecg.beats import RepresentativeBeat
from inference.ecg.delineate import Marks

UNIPOLAR = 2 / math.sqrt(3)
"""What aVF is multiplied with beside lead I: a unipolar lead is weaker than a bipolar one.

References
----------
Novosel D., Noll G., Lüscher T. F., Corrected formula for the calculation of the electrical heart axis, Croat Med J
1999;40:77-79: arctan(2 aVF / (sqrt(3) I)).
"""

MIN_NET_SHARE = 0.1
"""Least net area over the area of all deflections: below it the QRS points out of the frontal plane, and its direction
in the plane is noise."""


def qrs_axis(beat: RepresentativeBeat, marks: Marks) -> float | None:
    """Degrees from -180 to 180, clockwise from the left arm; ``None`` where the QRS or its direction is not clear.

    Net areas say less of single samples than amplitudes do (Surawicz B. et al., AHA/ACCF/HRS recommendations part III,
    Circulation 2009;119:e235, for what is normal: -30 to 90 degrees in adults).
    """
    if marks.qrs_ms is None or marks.qrs_onset is None or marks.qrs_offset is None or marks.qrs_onset_hidden:
        return None
    one, foot = (
        _over_onset(beat.samples[LEADS.index(name)], marks.qrs_onset, marks.qrs_offset) for name in ("I", "aVF")
    )
    across, down = float(one.sum()), UNIPOLAR * float(foot.sum())
    whole = math.hypot(float(abs(one).sum()), UNIPOLAR * float(abs(foot).sum()))
    if whole == 0 or math.hypot(across, down) < MIN_NET_SHARE * whole:
        return None
    return math.degrees(math.atan2(down, across))


def _over_onset(lead: Signal, onset: int, offset: int) -> Signal:
    """A lead's QRS over its level in the 16 ms before it."""
    return np.asarray(lead[onset : offset + 1] - lead[max(onset - 8, 0) : max(onset, 1)].mean())
