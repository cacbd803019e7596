"""A twelve-lead recording on millimetre paper: the places of strokes, labels and shading.

The layout is the printed page that cardiologists read: three rows of four columns, 2.5 s each, and lead II over ten
seconds below them. Time runs on from column to column, so that one abscissa is one moment for the whole page. On a
shorter recording the last columns would be empty: it is drawn in six rows of two columns, half of it each.
In ``12x1`` each lead has a row of its own over the ten seconds.
Everything is in millimetres from the upper left corner; :mod:`inference.render.pictures` turns it into SVG and PNG.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.recording import LEADS, Recording
from data_specs.visit.assessment import EvidenceMap

Speed = Literal[25, 50]
Gain = Literal[5, 10, 20]
Layout = Literal["3x4", "12x1"]
SPEEDS: dict[str, Speed] = {"25": 25, "50": 50}
GAINS: dict[str, Gain] = {"5": 5, "10": 10, "20": 20}
"""As they are asked for."""
MM_PER_S, MM_PER_MV = 25.0, 10.0
"""The usual paper speed and gain.

References
----------
Kligfield P. et al., Recommendations for the standardization and interpretation of the electrocardiogram, part I,
Circulation 2007;115:1306-1324: 25 mm/s, 10 mm/mV, and the 3 x 4 format with a rhythm strip.
"""
SHAPE_MM = 15.0
"""Height of the median lead where the leads have gains of their own: millimetres then say nothing of millivolts."""

ROWS = (("I", "aVR", "V1", "V4"), ("II", "aVL", "V2", "V5"), ("III", "aVF", "V3", "V6"))
SHORT_ROWS = (("I", "V1"), ("II", "V2"), ("III", "V3"), ("aVR", "V4"), ("aVL", "V5"), ("aVF", "V6"))
SINGLE_ROWS = tuple((lead,) for lead in LEADS)
RHYTHM_LEAD = "II"
PAGE_S, LAST_COLUMN_S = 10.0, 2.0
"""Seconds of a page; least of them that the last of four columns has."""

PULSE_S = 0.2
PRINT_PX_PER_MM = 10
"""Of a page that is printed as a picture: 254 to the inch."""
LEFT_MM, RIGHT_MM, FOOT_MM = 15.0, 5.0, 10.0
LABEL_MM = 5.0
MIN_UP_MM, MIN_DOWN_MM, MAX_SIDE_MM = 10.0, 5.0, 50.0
"""A row is at least 1.5 mV high and grows with its signal up to 5 mV on either side. Beyond that the stroke is
interrupted: a flat top would look like a measured value."""

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Form:
    """How a recording is laid out: paper speed in mm/s, gain in mm/mV, and the order of the leads."""

    speed: Speed = 25
    gain: Gain = 10
    layout: Layout = "3x4"


USUAL = Form()
BEAT = Form(speed=50)
"""Intervals are read at twice the usual speed."""


@dataclass(frozen=True, slots=True)
class Label:
    x_mm: float
    y_mm: float
    text: str
    bold: bool = False


@dataclass(frozen=True, slots=True)
class Paper:
    """One page.

    Parameters
    ----------
    width_mm, height_mm
        Multiples of 5 mm, so that the grid ends with a heavy line.
    strokes
        Each ``(n, 2) float64``, mm: unbroken pieces of the trace.
    marks
        Each ``(n, 2) float64``, mm: calibration pulses and the ticks between two leads of a row.
    labels
        Names of leads and the line that states the scale.
    boundaries
        Each ``(2, 2) float64``, mm: where a wave begins or ends.
    shading
        ``(n, 2) float64``: abscissa in mm and strength from 0 to 1; ``None`` where there is no evidence.
    """

    width_mm: float
    height_mm: float
    strokes: tuple[Points, ...]
    marks: tuple[Points, ...]
    labels: tuple[Label, ...]
    shading: Points | None
    boundaries: tuple[Points, ...] = ()


@dataclass(frozen=True, slots=True)
class _Segment:
    """A lead's part of a row: abscissa and height over the baseline in mm, both ``(n,)``."""

    lead: str
    start_mm: float
    x_mm: NDArray[np.float64]
    up_mm: NDArray[np.float64]


def lay_out(
    recording: Recording, evidence: EvidenceMap | None = None, *, voltage: bool = True, form: Form = USUAL
) -> Paper:
    """Place ten seconds of ``recording``, or all of a shorter one, from where the evidence begins, else from its start.

    Parameters
    ----------
    recording
        ``samples`` in mV; the median of each lead is drawn on the baseline, so that an electrode offset does not
        move it out of its row. Nothing is filtered.
    evidence
        A ``trace`` map to shade the page with.
    voltage
        Without it the leads have gains of their own: no calibration pulse is drawn, and no gain is stated.
    form
        Speed, gain and order of the leads.
    """
    start_s = _page_start(recording, evidence)
    short = recording.duration_s < 3 / 4 * PAGE_S + LAST_COLUMN_S
    mm = float(form.gain) if voltage else _shape_mm(recording) * form.gain / MM_PER_MV
    scale = (float(form.speed), mm)
    order: tuple[tuple[str, ...], ...]
    if form.layout == "12x1":
        order, column_s = SINGLE_ROWS, PAGE_S
    else:
        order, column_s = (SHORT_ROWS, recording.duration_s / 2) if short else (ROWS, PAGE_S / 4)
    rows = [
        [_segment(recording, lead, start_s, column_s * column, column_s, scale) for column, lead in enumerate(leads)]
        for leads in order
    ]
    if form.layout != "12x1":
        rows.append([_segment(recording, RHYTHM_LEAD, start_s, 0.0, PAGE_S, scale)])

    end_s = min(start_s + PAGE_S, recording.duration_s)
    span = f"{start_s:.1f} - {end_s:.1f} s / {recording.duration_s:.1f} s"
    said = f"{_scale_in_words(form, voltage)}   {span}   {recording.fs_hz:g} Hz"
    return _page(rows, form, PAGE_S, said, voltage=voltage, shading=_shading(evidence, start_s, end_s, form.speed))


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where a wave begins or ends, in seconds from the first sample of a beat; ``name`` is shown beside it."""

    at_s: float
    name: str = ""


def lay_out_beat(
    samples: NDArray[np.floating], fs_hz: float, boundaries: Sequence[Boundary], *, voltage: bool, form: Form = BEAT
) -> Paper:
    """One beat of each lead, in three rows of four, with the boundaries that hold for all of them.

    Parameters
    ----------
    samples
        ``(12, n)``, mV.
    """
    four_times = Recording(np.tile(samples, 4).astype(np.float32), fs_hz, "beat")  # once for each column
    beat_s = samples.shape[1] / fs_hz
    mm = float(form.gain) if voltage else _shape_mm(four_times) * form.gain / MM_PER_MV
    rows = [
        [
            _segment(four_times, lead, 0.0, beat_s * column, beat_s, (float(form.speed), mm))
            for column, lead in enumerate(leads)
        ]
        for leads in ROWS
    ]
    return _page(rows, form, 4 * beat_s, _scale_in_words(form, voltage), voltage=voltage, boundaries=boundaries)


def _scale_in_words(form: Form, voltage: bool) -> str:
    return f"{form.speed} mm/s   {form.gain if voltage else '?'} mm/mV"


def _page(
    rows: list[list[_Segment]],
    form: Form,
    page_s: float,
    said: str,
    *,
    voltage: bool,
    shading: Points | None = None,
    boundaries: Sequence[Boundary] = (),
) -> Paper:
    """Rows of leads one below the other, each as high as its signal, and what is said below them."""
    strokes: list[Points] = []
    marks: list[Points] = []
    labels: list[Label] = []
    lines: list[Points] = []
    top = 0.0
    for row in rows:
        up, down = _row_extent(row)
        baseline = top + LABEL_MM + up
        marks += [_pulse(baseline, form)] if voltage else []
        for segment in row:
            labels.append(Label(segment.start_mm + 1.0, top + LABEL_MM - 0.8, segment.lead, bold=True))
            if segment.start_mm > LEFT_MM:
                marks.append(np.array([(segment.start_mm, baseline - 2.5), (segment.start_mm, baseline + 2.5)]))
            for boundary in boundaries:
                x = segment.start_mm + form.speed * boundary.at_s
                lines.append(np.array([(x, top + LABEL_MM), (x, baseline + down)]))
                labels.append(Label(x + 0.4, top + LABEL_MM + 2.6, boundary.name))
            within = (segment.up_mm >= -down) & (segment.up_mm <= up)
            y = np.where(within, baseline - segment.up_mm, np.nan)
            strokes.extend(_unbroken(np.column_stack([segment.x_mm, y])))
        top = baseline + down
    height = top + FOOT_MM
    labels.append(Label(LEFT_MM, height - 3.2, said))
    return Paper(
        width_mm=LEFT_MM + form.speed * page_s + RIGHT_MM,
        height_mm=height,
        strokes=tuple(strokes),
        marks=tuple(marks),
        labels=tuple(label for label in labels if label.text),
        shading=shading,
        boundaries=tuple(lines),
    )


def _page_start(recording: Recording, evidence: EvidenceMap | None) -> float:
    wanted = evidence.span[0] if evidence is not None and evidence.span is not None else 0.0
    return max(0.0, min(wanted, recording.duration_s - PAGE_S))


def _shape_mm(recording: Recording) -> float:
    """Millimetres for one unit of the samples, one for all leads."""
    present = recording.samples[np.isfinite(recording.samples).any(axis=1)]
    ranges = np.nanmax(present, axis=1) - np.nanmin(present, axis=1) if present.size else np.zeros(1)
    typical = float(np.median(ranges))
    return SHAPE_MM / typical if typical > 0 else MM_PER_MV


def _segment(
    recording: Recording, lead: str, start_s: float, offset_s: float, duration_s: float, scale: tuple[float, float]
) -> _Segment:
    mm_per_s, mm_per_mv = scale
    samples = recording.samples[LEADS.index(lead)].astype(np.float64)
    known = samples[np.isfinite(samples)]
    level = float(np.median(known)) if known.size else 0.0
    first = round((start_s + offset_s) * recording.fs_hz)
    last = min(samples.size, round((start_s + offset_s + duration_s) * recording.fs_hz) + 1)
    index = np.arange(first, max(first, last))
    start_mm = LEFT_MM + mm_per_s * offset_s
    x_mm = start_mm + mm_per_s * (index - first) / recording.fs_hz
    up_mm = mm_per_mv * (samples[index] - level)
    return _Segment(lead, start_mm, x_mm, np.where(np.isfinite(up_mm), up_mm, np.nan))


def _row_extent(row: list[_Segment]) -> tuple[float, float]:
    """Space over and under a row's baseline, in steps of 5 mm, so that every baseline is on a heavy line."""
    heights = np.concatenate([segment.up_mm for segment in row])
    heights = heights[np.isfinite(heights)]
    highest, lowest = (float(heights.max()), float(heights.min())) if heights.size else (0.0, 0.0)
    up = min(MAX_SIDE_MM, max(MIN_UP_MM, 5.0 * np.ceil(highest / 5.0)))
    down = min(MAX_SIDE_MM, max(MIN_DOWN_MM, 5.0 * np.ceil(-lowest / 5.0)))
    return float(up), float(down)


def _pulse(baseline_mm: float, form: Form) -> Points:
    """1 mV for 0.2 s."""
    right, top = LEFT_MM - 4.0, baseline_mm - form.gain
    left = right - PULSE_S * form.speed
    return np.array(
        [
            (left - 1, baseline_mm),
            (left, baseline_mm),
            (left, top),
            (right, top),
            (right, baseline_mm),
            (right + 2, baseline_mm),
        ]
    )


def _unbroken(points: Points) -> list[Points]:
    """Split a stroke where samples are missing or too high for the row, so that a gap is visible."""
    known = np.isfinite(points[:, 1])
    edges = np.flatnonzero(np.diff(known.astype(np.int8))) + 1
    return [piece for piece in np.split(points, edges) if len(piece) > 1 and np.isfinite(piece[0, 1])]


def _shading(evidence: EvidenceMap | None, start_s: float, end_s: float, speed: float) -> Points | None:
    """The map along this page's time: a value applies at the middle of its step, with straight lines in between."""
    if evidence is None or evidence.kind != "trace" or evidence.span is None or not evidence.values:
        return None
    strength = np.clip(np.asarray(evidence.values[0], dtype=np.float64) / 255.0, 0.0, 1.0)
    first_s, last_s = evidence.span
    begin_s, stop_s = max(first_s, start_s), min(last_s, end_s)
    if strength.size == 0 or stop_s <= begin_s:
        return None
    middle_s = first_s + (np.arange(strength.size) + 0.5) * (last_s - first_s) / strength.size
    inner_s = middle_s[(middle_s > begin_s) & (middle_s < stop_s)]
    shown_s = np.concatenate([[begin_s], inner_s, [stop_s]])
    return np.column_stack([LEFT_MM + speed * (shown_s - start_s), np.interp(shown_s, middle_s, strength)])
