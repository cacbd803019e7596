"""Measured findings of a twelve-lead ECG: heart rate, PR interval, QRS duration, corrected QT interval.

An interval that cannot be measured reliably is ``None``, and its name is listed: a wrong number is worse than none.
"""

from __future__ import annotations

import numpy as np

from data_specs.ecg.filters import percentiles
from data_specs.ecg.recording import Recording
from inference.ecg.axis import qrs_axis
from inference.ecg.beats import FS_HZ, Beats
from inference.ecg.delineate import Examined, Marks, examine
from inference.ecg.intervals import Intervals

QTC_FORMULA = "Fridericia"
"""QTc = QT / (RR / 1 s)^(1/3).

References
----------
Rautaharju et al., AHA/ACCF/HRS recommendations part IV, Circulation 2009;119:e241: not Bazett, and the formula has to
be named. Vandenberk et al., J Am Heart Assoc 2016;5:e003264 (6,609 persons): Fridericia and Framingham correct best for
rate and predict mortality best, Bazett worst. ICH E14 (2005) and its Q&A: Fridericia rather than Bazett.
"""

MIN_BEATS = 3
"""Least number of dominant beats for a representative beat."""

MIN_BEATS_RATE = 2
"""Least number of beats for a rate: all that a slow heart (under 36/min) gives in 5 s."""

MIN_DOMINANT_SHARE = 0.4
"""Least share of dominant beats: with fewer, no single shape represents the recording."""

IRREGULAR_RR_SPREAD = 0.25
"""(90th - 10th percentile) / median of the RR intervals between dominant beats above which the rhythm is irregular.

In PTB-XL folds 1 to 8: 97.5 % of the records labelled normal lie below 0.22, 90 % of atrial fibrillation above 0.22.
"""

MIN_P_CONSISTENCY, MIN_P_CONSISTENCY_IRREGULAR = 0.7, 0.85
"""Correlation of the single P waves with their median. PTB-XL folds 1 to 8: 97.5 % of normal records have more than
0.84, 90 % of atrial fibrillation less than 0.60."""

MIN_P_MV, MIN_T_MV = 0.008, 0.02
"""Root mean square over leads at the peak: about 20 and 50 microvolts in the lead that shows the wave best."""

T_BEFORE_QRS_MS = 150.0
"""Where no PR is measured, least time from the end of T to the next QRS: a wave that ends later may be the next P.

A flat T, a PR over 200 ms and a rate of 110 gave QT 426 for 300. Of 1,819 PTB-XL recordings 11 lose their QT by this.
"""

HEART_RATE_PER_MIN = (20.0, 300.0)
PR_MS = (80.0, 420.0)
QT_MS = (200.0, 750.0)
QTC_MS = (280.0, 700.0)
"""Limits; a measurement outside them is taken for a failure of the method, not for a finding."""


def measure(recording: Recording, examined: Examined | None = None) -> Intervals:
    """Measure a recording of at least 5 s; a longer one than a minute is measured over its first minute.

    Parameters
    ----------
    examined
        The result of :func:`inference.ecg.delineate.examine` for this recording, where it is already there.
    """
    examined = examined or examine(recording)
    beats, beat, marks = examined.beats, examined.beat, examined.marks
    spread = _rr_spread(beats)
    regular = None if spread is None else spread <= IRREGULAR_RR_SPREAD
    rate = _within(60.0 / float(beats.rr_s.mean()), HEART_RATE_PER_MIN) if len(beats.at) >= MIN_BEATS_RATE else None
    pr = qrs = qt = qtc = axis = None
    if rate and beat and marks and beats.dominant.sum() >= MIN_BEATS and beats.dominant.mean() >= MIN_DOMINANT_SHARE:
        qrs = None if marks.qrs_onset_hidden else marks.qrs_ms
        if qrs is not None:
            pr = _pr_ms(marks, regular)
            qt = _qt_ms(marks, beat.rr_s if pr is None else None)
            axis = qrs_axis(beat, marks)
        if qt is not None and regular:
            qtc = _within(qt / float(np.cbrt(beat.rr_s)), QTC_MS)
            qt = qt if qtc is not None else None
    found = {"heart_rate": rate, "pr_interval": pr, "qrs_duration": qrs, "qtc_interval": qtc}
    if qrs is not None:  # else what is not known of the QRS is said once
        found["qrs_axis"] = axis
    return Intervals(
        heart_rate_per_min=rate,
        pr_ms=pr,
        qrs_ms=qrs,
        qt_ms=qt,
        qtc_ms=qtc,
        axis_degrees=axis,
        r_peaks_s=tuple((beats.at / FS_HZ).tolist()),
        rhythm_regular=regular,
        rr_spread=spread,
        dominant_share=float(beats.dominant.mean()) if len(beats.at) else 0.0,
        unmeasured=tuple(name for name, value in found.items() if value is None),
    )


def _rr_spread(beats: Beats) -> float | None:
    rr = beats.rr_s
    between_dominant = rr[beats.dominant[1:] & beats.dominant[:-1]]
    if len(between_dominant) < MIN_BEATS:
        return None
    low, middle, high = percentiles(between_dominant, [10, 50, 90])
    return float((high - low) / middle)


def _pr_ms(marks: Marks, regular: bool | None) -> float | None:
    """PR where P waves have a fixed distance from the QRS; the limit is stricter where the rhythm is irregular."""
    consistent = marks.p_consistency >= (MIN_P_CONSISTENCY if regular else MIN_P_CONSISTENCY_IRREGULAR)
    if not consistent or marks.p_amplitude_mv < MIN_P_MV:
        return None
    return _within(_ms(marks.p_onset, marks.qrs_onset), PR_MS)


def _qt_ms(marks: Marks, next_beat_s: float | None) -> float | None:
    """QT where there is a T wave; ``next_beat_s`` where the P wave of the next beat has not been told from it."""
    qt = _within(_ms(marks.qrs_onset, marks.t_offset), QT_MS) if marks.t_amplitude_mv >= MIN_T_MV else None
    if qt is not None and next_beat_s is not None and next_beat_s * 1000.0 - qt < T_BEFORE_QRS_MS:
        return None
    return qt


def _ms(start: int | None, end: int | None) -> float | None:
    return None if start is None or end is None else (end - start) * 1000.0 / FS_HZ


def _within(value: float | None, limits: tuple[float, float]) -> float | None:
    return value if value is not None and limits[0] <= value <= limits[1] else None
