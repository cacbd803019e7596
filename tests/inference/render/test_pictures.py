"""Films, heatmaps and traces as people look at them: in the right place, at the right scale, honest about gaps."""

from __future__ import annotations

import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from data_specs.cxr.image import Window
from data_specs.ecg.recording import LEADS, Recording
from data_specs.problems import Refused
from data_specs.visit.assessment import EvidenceMap
from inference.render import pictures as render
from inference.render.paper import LEFT_MM, MM_PER_S, ROWS, Boundary, Form, Gain, Speed, lay_out, lay_out_beat

SVG = "{http://www.w3.org/2000/svg}"


def recording(duration_s: float = 10.0, fs_hz: float = 500.0) -> Recording:
    return Recording(np.zeros((12, round(duration_s * fs_hz)), dtype=np.float32), fs_hz, "csv")


def heatmap(values: list[list[int]]) -> EvidenceMap:
    return EvidenceMap(kind="heatmap", input=0, values=values)


def shading(values: list[int], span: tuple[float, float] = (0.0, 10.0)) -> EvidenceMap:
    return EvidenceMap(kind="trace", input=0, span=span, values=[values])


def film(rows: int = 300, columns: int = 400) -> bytes:
    grey = np.random.default_rng(7).integers(40, 200, (rows, columns)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(grey).save(out, "PNG")
    return out.getvalue()


def image(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def test_one_millivolt_is_ten_millimetres_and_one_second_is_twentyfive() -> None:
    made = recording()
    made.samples[LEADS.index("I"), 500:510] = 1.0  # one second in
    stroke = lay_out(made).strokes[0]
    peak = stroke[stroke[:, 1].argmin()]
    assert peak[0] == pytest.approx(LEFT_MM + MM_PER_S)
    assert stroke[0, 1] - peak[1] == pytest.approx(10.0)


def test_calibration_pulse_proves_gain_and_speed() -> None:
    pulse = lay_out(recording()).marks[0]
    assert np.ptp(pulse[:, 1]) == pytest.approx(10.0)
    up = pulse[pulse[:, 1] == pulse[:, 1].min()]
    assert np.ptp(up[:, 0]) == pytest.approx(5.0)


def test_every_lead_has_its_two_and_a_half_seconds_and_lead_ii_ten() -> None:
    paper = lay_out(recording())
    assert [label.text for label in paper.labels if label.bold] == [
        *("I", "aVR", "V1", "V4"),
        *("II", "aVL", "V2", "V5"),
        *("III", "aVF", "V3", "V6"),
        "II",
    ]
    widths = [np.ptp(stroke[:, 0]) for stroke in paper.strokes]
    assert widths == pytest.approx([62.5] * 12 + [250.0], abs=0.06)  # the last sample stands one step short


def test_columns_run_on_in_time() -> None:
    """V4 stands in the last column, so a beat at nine seconds shows there and at the same place in the rhythm strip."""
    made = recording()
    for lead in ("V4", "II"):
        made.samples[LEADS.index(lead), 4500:4505] = 1.0
    strokes = lay_out(made).strokes
    x_v4 = strokes[3][strokes[3][:, 1].argmin(), 0]
    x_rhythm = strokes[12][strokes[12][:, 1].argmin(), 0]
    assert x_v4 == pytest.approx(LEFT_MM + 9 * MM_PER_S)
    assert x_rhythm == pytest.approx(x_v4)


def test_a_gap_stays_a_gap() -> None:
    made = recording()
    made.samples[0, 100:200] = np.nan
    made.samples[LEADS.index("V6")] = np.nan
    strokes = lay_out(made).strokes
    assert len(strokes) == 13  # one more for the gap in I, one fewer for V6
    assert all(np.isfinite(stroke).all() for stroke in strokes)
    assert strokes[0][-1, 0] < strokes[1][0, 0]


def test_nothing_leaves_its_row() -> None:
    made = recording()
    made.samples[:] = np.random.default_rng(1).normal(0, 40, made.samples.shape)
    paper = lay_out(made)
    ys = np.concatenate(paper.strokes)[:, 1]
    assert ys.min() >= 0
    assert ys.max() <= paper.height_mm
    assert paper.height_mm % 5 == 0


@pytest.mark.parametrize("duration_s", [5.0, 5.5, 7.3, 9.4])
def test_a_short_recording_shows_every_lead_for_half_of_its_time(duration_s: float) -> None:
    """In four columns of 2.5 s the last leads would have no place: six rows of two columns, one abscissa one moment."""
    made = recording(duration_s)
    late = round(0.9 * duration_s * 500)
    for lead in ("V4", "II"):
        made.samples[LEADS.index(lead), late : late + 3] = 1.0
    paper = lay_out(made)
    assert [label.text for label in paper.labels if label.bold] == [
        *("I", "V1", "II", "V2", "III", "V3", "aVR", "V4", "aVL", "V5", "aVF", "V6"),
        "II",
    ]
    widths = [np.ptp(stroke[:, 0]) for stroke in paper.strokes]
    assert widths == pytest.approx([12.5 * duration_s] * 12 + [25.0 * duration_s], abs=0.11)
    assert paper.width_mm == lay_out(recording()).width_mm  # the page's calipers count on it
    v4, rhythm = paper.strokes[7], paper.strokes[12]
    assert v4[v4[:, 1].argmin(), 0] == pytest.approx(rhythm[rhythm[:, 1].argmin(), 0], abs=0.11)


def test_without_a_common_gain_no_millivolts_are_claimed() -> None:
    made = recording()
    made.samples[:, 500:600] = 40.0  # in any unit: drawn as high as a QRS is
    paper = lay_out(made, voltage=False)
    assert len(paper.marks) == 9  # ticks between leads alone, no pulse
    assert all("10 mm/mV" not in label.text for label in paper.labels)
    assert any("? mm/mV" in label.text for label in paper.labels)
    assert np.ptp(paper.strokes[0][:, 1]) == pytest.approx(15.0)
    assert ">25 mm/s   ? mm/mV" in render.trace_svg(made, voltage=False)
    assert len(lay_out(made).marks) == 13


@pytest.mark.parametrize("duration_s", [5.0, 8.0, 9.99, 10.0, 60.0])
@pytest.mark.parametrize("fs_hz", [100.0, 257.0, 1000.0])
def test_any_accepted_length_and_rate_is_drawn(duration_s: float, fs_hz: float) -> None:
    made = recording(duration_s, fs_hz)
    made.samples[:] = np.sin(np.arange(made.samples.shape[1]) / fs_hz * 7)
    root = ElementTree.fromstring(render.trace_svg(made, shading([0, 255, 0])))
    assert root.get("width", "").endswith("mm")
    assert root.get("viewBox", "").split()[2] == root.get("width", "").removesuffix("mm")


def test_svg_needs_no_inline_style_and_no_script() -> None:
    svg = render.trace_svg(recording(), shading([0, 200, 10]))
    assert not re.search(r"\bstyle=|<style|<script|\bon\w+=", svg)


def test_shading_lies_where_the_evidence_is() -> None:
    paper = lay_out(recording(30.0), shading([0, 0, 255, 0, 0], (10.0, 20.0)))
    assert paper.shading is not None
    assert paper.shading[paper.shading[:, 1].argmax(), 0] == pytest.approx(LEFT_MM + 5 * MM_PER_S)
    assert any("10.0 - 20.0 s / 30.0 s" in label.text for label in paper.labels)


def test_shading_ends_with_the_recording() -> None:
    paper = lay_out(recording(8.0), shading([255] * 10))
    assert paper.shading is not None
    assert paper.shading[-1, 0] == pytest.approx(LEFT_MM + 8 * MM_PER_S)


def test_no_evidence_no_shading() -> None:
    assert lay_out(recording()).shading is None
    assert "linearGradient" not in render.trace_svg(recording())


def test_trace_png_is_the_same_page() -> None:
    evidence = shading([0, 255, 0, 0, 0, 0, 0, 0, 0, 0])
    plain, shaded = image(render.trace_png(recording())), image(render.trace_png(recording(), evidence))
    paper = lay_out(recording())
    assert plain.size == (paper.width_mm * render.PX_PER_MM, paper.height_mm * render.PX_PER_MM)
    changed = np.abs(np.asarray(plain, dtype=int) - np.asarray(shaded, dtype=int)).sum(axis=(0, 2))
    assert abs(changed.argmax() / render.PX_PER_MM - (LEFT_MM + 1.5 * MM_PER_S)) < 1
    assert changed[: round(LEFT_MM * render.PX_PER_MM) - 1].sum() == 0


def test_heatmap_is_transparent_without_evidence_and_never_hides_the_film() -> None:
    overlay = np.asarray(image(render.heatmap_png((64, 64), heatmap([[0, 0], [0, 255]]))))
    assert overlay.shape == (64, 64, 4)
    assert overlay[5, 5, 3] == 0
    assert 100 < overlay[60, 60, 3] <= 255 * render.HEAVIEST + 1


def test_heatmap_is_stretched_to_the_films_shape() -> None:
    values = [[0] * 8 for _ in range(8)]
    values[2][6] = 255
    overlay = np.asarray(image(render.heatmap_png((400, 200), heatmap(values), None)))[..., 3].astype(float)
    rows, columns = np.nonzero(overlay == overlay.max())
    assert overlay.shape == (400, 200)
    assert abs(rows.mean() / 400 - 2.5 / 8) < 0.02
    assert abs(columns.mean() / 200 - 6.5 / 8) < 0.02


def test_colour_scale_grows_lighter_with_evidence() -> None:
    """A scale in which more evidence looks like less would mislead; lightness is CIE L* of the opaque colour."""
    colour = render._colour_scale()[:, :3] / 255
    linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
    lightness = 116 * np.cbrt(linear @ (0.2126, 0.7152, 0.0722)) - 16
    assert (np.diff(lightness) > -0.35).all()  # steps of 1/255 round
    assert lightness[-1] - lightness[0] > 45


def test_film_is_shrunk_on_demand_only() -> None:
    content = film(600, 500)
    assert image(render.film_png(content)).size == (500, 600)
    assert image(render.film_png(content, 300)).size == (250, 300)
    assert image(render.film_png(content, 5000)).size == (500, 600)


def test_blended_film_changes_where_the_evidence_is_and_nowhere_else() -> None:
    content = film()
    plain = np.asarray(image(render.film_png(content)).convert("RGB"), dtype=int)
    values = [[0] * 10 for _ in range(10)]
    values[7][2] = 255
    blended = np.asarray(image(render.evidence_png(content, heatmap(values))), dtype=int)
    assert blended.shape == plain.shape
    assert np.abs(blended - plain)[200:240, 80:120].mean() > 30
    assert np.abs(blended - plain)[:100, 250:].max() == 0


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\x89PNG\r\n\x1a\n broken"])
def test_what_is_no_film_is_refused(content: bytes) -> None:
    with pytest.raises(Refused):
        render.film_png(content)


@pytest.mark.parametrize("speed", [25, 50])
@pytest.mark.parametrize("gain", [5, 10, 20])
def test_speed_and_gain_are_what_the_pulse_says(speed: Speed, gain: Gain) -> None:
    made = recording()
    made.samples[LEADS.index("I"), 500:510] = 1.0  # one second in
    paper = lay_out(made, form=Form(speed, gain))
    stroke, pulse = paper.strokes[0], paper.marks[0]
    peak = stroke[stroke[:, 1].argmin()]
    assert peak[0] == pytest.approx(LEFT_MM + speed)
    assert stroke[0, 1] - peak[1] == pytest.approx(gain)
    assert np.ptp(pulse[:, 1]) == pytest.approx(gain)
    assert np.ptp(pulse[pulse[:, 1] == pulse[:, 1].min()][:, 0]) == pytest.approx(0.2 * speed)
    assert pulse[:, 0].min() >= 0
    assert any(f"{speed} mm/s   {gain} mm/mV" in label.text for label in paper.labels)
    assert paper.width_mm % 5 == 0


def test_twelve_rows_show_ten_seconds_of_every_lead() -> None:
    paper = lay_out(recording(), form=Form(layout="12x1"))
    assert [label.text for label in paper.labels if label.bold] == list(LEADS)
    assert [np.ptp(stroke[:, 0]) for stroke in paper.strokes] == pytest.approx([250.0] * 12, abs=0.06)


def test_a_beat_has_its_boundaries_in_every_lead() -> None:
    beat = np.zeros((12, 650))
    beat[:, 250] = 1.0
    paper = lay_out_beat(beat, 500.0, [Boundary(0.4, "QRS"), Boundary(0.6)], voltage=True)
    assert [label.text for label in paper.labels if label.bold] == [lead for row in ROWS for lead in row]
    assert len(paper.boundaries) == 24
    onset, offset = paper.boundaries[:2]
    peak = paper.strokes[0][paper.strokes[0][:, 1].argmin()]
    assert peak[0] - onset[0, 0] == pytest.approx(0.1 * 50)
    assert offset[0, 0] - onset[0, 0] == pytest.approx(0.2 * 50)
    assert sum(label.text == "QRS" for label in paper.labels) == 12
    ElementTree.fromstring(render.paper_svg(paper))


@pytest.mark.parametrize("window", ["whole", "lungs", "bones"])
def test_windows_spread_part_of_the_grey_values(window: Window) -> None:
    ramp = np.tile(np.linspace(20, 220, 400), (300, 1)).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(ramp).save(out, "PNG")
    shown = np.asarray(image(render.film_png(out.getvalue(), window=window)), dtype=int)
    assert shown.min() == 0
    assert shown.max() == 255
    assert (np.diff(shown[0]) >= 0).all()
    saturated = {"whole": (0.02, 0.02), "lungs": (0.05, 0.37), "bones": (0.37, 0.02)}[window]
    assert (shown == 0).mean() <= saturated[0]
    assert (shown == 255).mean() <= saturated[1]


def test_a_preview_is_a_fraction_of_the_film() -> None:
    content = film(900, 900)
    assert image(render.film_jpeg(content, 300)).size == (300, 300)
    assert len(render.film_jpeg(content, 300)) < len(render.film_png(content, 300)) / 2
