"""The intervals that are measured in a recording, apart from how: the serving process does not load scipy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Intervals:
    """The measured intervals; ``None`` where a measurement is not reliable.

    Parameters
    ----------
    heart_rate_per_min
        Mean ventricular rate: 60 over the mean RR interval of all beats.
    pr_ms, qrs_ms, qt_ms
        Global intervals of the representative beat: earliest onset to earliest onset or latest offset over the leads.
    qtc_ms
        QT corrected by :data:`inference.ecg.measure.QTC_FORMULA`; not given where the rhythm is irregular (AHA/ACCF/HRS
        2009, part IV).
    axis_degrees
        Frontal axis of the QRS (:mod:`inference.ecg.axis`), -180 to 180.
    r_peaks_s
        Times of the beats from the start of the measured stretch, s.
    rhythm_regular
        ``None`` where there are too few beats to say.
    rr_spread
        (90th - 10th percentile) / median of the RR intervals between dominant beats.
    dominant_share
        Share of the beats that have the dominant shape.
    unmeasured
        Names, in the vocabulary, of the findings that could not be measured.
    """

    heart_rate_per_min: float | None
    pr_ms: float | None
    qrs_ms: float | None
    qt_ms: float | None
    qtc_ms: float | None
    axis_degrees: float | None
    r_peaks_s: tuple[float, ...]
    rhythm_regular: bool | None
    rr_spread: float | None
    dominant_share: float
    unmeasured: tuple[str, ...]
