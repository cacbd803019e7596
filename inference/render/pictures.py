"""Pictures for people: the film, the heatmap over it, the trace on millimetre paper, as PNG or SVG.

No shared state, so that worker threads may call it. Evidence is drawn as the model gave it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from data_specs.cxr.image import Window
from data_specs.ecg.recording import Recording
from data_specs.reading import require_memory
from data_specs.visit.assessment import EvidenceMap
from inference.render.outlines import OVER, UNDER, outlines
from inference.render.paper import FOOT_MM, PRINT_PX_PER_MM, USUAL, Form, Paper, Points, lay_out

INFERNO = (
    "000004", "160b39", "420a68", "6a176e", "932667", "bc3754", "dd513a", "f3771a", "fca50a", "f6d645", "fcffa4",
)  # fmt: skip
"""Eleven equal steps of a perceptually uniform colour scale: equal differences of evidence look equal.

References
----------
'inferno' by S. van der Walt and N. Smith, published with matplotlib under CC0.
"""

FAINTEST, HEAVIEST = 0.12, 0.72
"""The overlay's opacity rises from 0 at ``FAINTEST`` of the map's range to ``HEAVIEST``, so that the film stays visible
under the strongest evidence."""

PAPER, FINE, HEAVY, INK, SHADE = "#fffaf7", "#f6d9d2", "#e7a79b", "#16181d", "#2456c9"
SHADE_OPACITY = 0.34
UNIT_MM = 0.025
"""SVG coordinates are whole multiples of it: 1 ms or 2.5 µV, much less than the width of a line."""

PX_PER_MM, OVERSAMPLING = 5, 2
PREVIEW_QUALITY, PRINT_QUALITY = 75, 88
DRAWN_BYTES = 8
"""Of a pixel: four of the drawing itself, and what is made of it."""


def film_png(content: bytes, max_px: int | None = None, window: Window = "as_sent") -> bytes:
    """A film as a picture.

    Parameters
    ----------
    content
        Any image file that :func:`data_specs.cxr.files.read_image` accepts.
    max_px
        Longest side of the result; ``None`` keeps the film's own resolution.
    window
        Which of its grey values are shown.

    Raises
    ------
    Refused
        As ``read_image`` does.
    """
    return _png(_film(content, max_px, window))


def film_jpeg(content: bytes, max_px: int | None, window: Window = "as_sent") -> bytes:
    """The same as JPEG, a tenth of the size: to be looked at first over a thin link, and not to be read from."""
    return _jpeg(_film(content, max_px, window), PREVIEW_QUALITY)


def heatmap_png(shape: tuple[int, int], evidence: EvidenceMap, max_px: int | None = 512) -> bytes:
    """The overlay alone, with a transparent background, to be put over a whole film.

    Parameters
    ----------
    shape
        ``(rows, columns)`` of the film, or any other: the map covers the whole film in any shape, so that a square
        overlay stretched over the film shows the same.
    evidence
        A ``heatmap``.
    max_px
        Longest side of the result.
    """
    rows, columns = shape
    shrink = min(1.0, max_px / max(rows, columns)) if max_px else 1.0
    size = max(1, round(columns * shrink)), max(1, round(rows * shrink))
    return _png(Image.fromarray(_overlay(evidence, size)))


def evidence_png(content: bytes, evidence: EvidenceMap, max_px: int | None = 1024) -> bytes:
    """The film with its heatmap blended over it.

    Raises
    ------
    Refused
        As ``read_image`` does.
    """
    film = _film(content, max_px).convert("RGBA")
    return _png(Image.alpha_composite(film, Image.fromarray(_overlay(evidence, film.size))).convert("RGB"))


def trace_svg(
    recording: Recording, evidence: EvidenceMap | None = None, *, voltage: bool = True, form: Form = USUAL
) -> str:
    """Twelve leads on millimetre paper: :func:`inference.render.paper.lay_out`."""
    return paper_svg(lay_out(recording, evidence, voltage=voltage, form=form))


def paper_svg(paper: Paper) -> str:
    """A page as SVG; the user unit is one millimetre and the drawing claims its true size.

    Presentation attributes only: the page's content security policy admits no inline style.
    """
    width, height = f"{paper.width_mm:g}", f"{paper.height_mm:g}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}mm" height="{height}mm" '
        'font-family="system-ui,sans-serif">',
        f'<rect width="{width}" height="{height}" fill="{PAPER}"/>',
        f'<path d="{_grid(paper, 1)}" stroke="{FINE}" stroke-width=".12"/>',
        f'<path d="{_grid(paper, 5)}" stroke="{HEAVY}" stroke-width=".2"/>',
        _svg_shading(paper),
        f'<g fill="none" stroke="{INK}" stroke-linejoin="round" stroke-linecap="round" transform="scale({UNIT_MM})">',
        f'<path stroke-width="{0.25 / UNIT_MM:g}" d="{"".join(map(_path, paper.marks))}"/>',
        f'<path stroke-width="{0.3 / UNIT_MM:g}" d="{"".join(map(_path, paper.strokes))}"/>',
        f'<path stroke="{SHADE}" stroke-width="{0.2 / UNIT_MM:g}" d="{"".join(map(_path, paper.boundaries))}"/>',
        "</g>",
    ]
    parts.extend(
        f'<text x="{label.x_mm:g}" y="{label.y_mm:g}" font-size="3.6" font-weight="{600 if label.bold else 400}" '
        f'fill="{INK}" xml:space="preserve">{label.text}</text>'
        for label in paper.labels
    )
    parts.append("</svg>")
    return "".join(parts)


def outlined(
    content: bytes, evidence: Sequence[EvidenceMap], max_px: int | None = 1024, kind: Literal["png", "jpeg"] = "png"
) -> bytes:
    """The film with the outlines of heatmaps, each with its number, from 1.

    Raises
    ------
    Refused
        As ``read_image`` does.
    """
    film = _film(content, max_px)
    film = film.convert("RGB") if evidence else film
    draw = ImageDraw.Draw(film)
    width = max(2, max(film.size) // 320)
    font = ImageFont.load_default(9.0 * width)
    for number, each in enumerate(evidence, 1):
        for n, line in enumerate(outlines(each.values)):
            points = [(x, y) for x, y in line * film.size]
            draw.line(points, UNDER, 2 * width, joint="curve")
            draw.line(points, OVER, width, joint="curve")
            if n == 0:
                x, y = min(points, key=lambda point: point[1])
                draw.text((x, y + width), str(number), OVER, font, anchor="mt", stroke_width=width, stroke_fill=UNDER)
    return _png(film) if kind == "png" else _jpeg(film, PRINT_QUALITY)


def trace_print(recording: Recording, *, voltage: bool = True) -> bytes:
    """The page for print, :data:`PRINT_PX_PER_MM` to the millimetre; in few colours, so that it stays small."""
    return _png(_drawn(lay_out(recording, voltage=voltage), PRINT_PX_PER_MM))


def trace_png(recording: Recording, evidence: EvidenceMap | None = None, *, voltage: bool = True) -> bytes:
    """The same page as :func:`trace_svg`, as pixels."""
    image = _drawn(lay_out(recording, evidence, voltage=voltage), PX_PER_MM * OVERSAMPLING)
    return _png(image.reduce(OVERSAMPLING))


def _drawn(paper: Paper, scale: int) -> Image.Image:
    """A page, ``scale`` pixels to the millimetre.

    Raises
    ------
    Refused
        ``too_costly``: it is larger than a picture may be.
    """
    require_memory(round(DRAWN_BYTES * paper.width_mm * paper.height_mm * scale**2))
    image = Image.new("RGB", (round(paper.width_mm * scale), round(paper.height_mm * scale)), PAPER)
    draw = ImageDraw.Draw(image)
    for step, colour, width in ((1, FINE, 1), (5, HEAVY, 2)):
        for x in range(0, round(paper.width_mm) + 1, step):
            draw.line([(x * scale, 0), (x * scale, image.height)], colour, width)
        for y in range(0, round(paper.height_mm) + 1, step):
            draw.line([(0, y * scale), (image.width, y * scale)], colour, width)
    if paper.shading is not None:
        _shade(image, paper.shading, scale)
    draw = ImageDraw.Draw(image)
    for points in (*paper.marks, *paper.strokes):
        draw.line([(x, y) for x, y in points * scale], INK, 3, joint="curve")
    font = ImageFont.load_default(3.6 * scale)
    for label in paper.labels:
        draw.text((label.x_mm * scale, label.y_mm * scale), label.text, INK, font, anchor="ls")
    return image


def _film(content: bytes, max_px: int | None, window: Window = "as_sent") -> Image.Image:
    """A film no longer than ``max_px``, decoded at no higher resolution than that needs."""
    from data_specs.cxr.files import read_image  # noqa: PLC0415  the decoders are slow to load

    film = Image.fromarray(read_image(content, window, least_px=max_px).pixels)
    if max_px is None or max(film.size) <= max_px:
        return film
    shrink = max_px / max(film.size)
    size = max(1, round(film.width * shrink)), max(1, round(film.height * shrink))
    return film.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)


def _overlay(evidence: EvidenceMap, size: tuple[int, int]) -> NDArray[np.uint8]:
    """``(rows, columns, 4) uint8`` RGBA, the map smoothly enlarged to ``size`` (columns, rows)."""
    coarse = Image.fromarray(np.asarray(evidence.values, dtype=np.float32) / 255.0)
    smooth = np.clip(np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)), 0.0, 1.0)
    level = np.round(smooth * 255).astype(np.uint8)
    overlay: NDArray[np.uint8] = _colour_scale()[level]
    return overlay


def _colour_scale() -> NDArray[np.uint8]:
    """``(256, 4) uint8`` RGBA by level of evidence, without the darkest third of the scale, which a film would hide."""
    level = np.linspace(0.0, 1.0, 256)
    stops = np.array([[int(colour[i : i + 2], 16) for i in (0, 2, 4)] for colour in INFERNO], dtype=np.float64)
    at = np.linspace(0.0, 1.0, len(INFERNO))
    colour = np.stack([np.interp(0.3 + 0.65 * level, at, stops[:, channel]) for channel in range(3)], axis=1)
    opacity = 255 * HEAVIEST * np.clip((level - FAINTEST) / (0.7 - FAINTEST), 0.0, 1.0)
    return np.column_stack([colour, opacity]).round().astype(np.uint8)


def _grid(paper: Paper, step_mm: int) -> str:
    vertical = "".join(f"M{x} 0V{paper.height_mm:g}" for x in range(0, round(paper.width_mm) + 1, step_mm))
    return vertical + "".join(f"M0 {y}H{paper.width_mm:g}" for y in range(0, round(paper.height_mm) + 1, step_mm))


def _path(points: Points) -> str:
    """SVG path of one stroke in whole :data:`UNIT_MM`, absolute start and relative steps."""
    at = np.round(points / UNIT_MM).astype(np.int64)
    steps = np.diff(at, axis=0)
    return f"M{at[0, 0]} {at[0, 1]}l" + " ".join(f"{x} {y}" for x, y in steps.tolist())


def _svg_shading(paper: Paper) -> str:
    if paper.shading is None:
        return ""
    left, right = paper.shading[0, 0], paper.shading[-1, 0]
    stops = "".join(
        f'<stop offset="{(x - left) / (right - left):.4f}" stop-color="{SHADE}" '
        f'stop-opacity="{SHADE_OPACITY * strength:.3f}"/>'
        for x, strength in paper.shading
    )
    return (
        f'<linearGradient id="evidence">{stops}</linearGradient><rect x="{left:.2f}" width="{right - left:.2f}" '
        f'height="{paper.height_mm - FOOT_MM:g}" fill="url(#evidence)"/>'
    )


def _shade(image: Image.Image, shading: Points, scale: int) -> None:
    """Blend the colour of evidence into the paper, column by column."""
    left, right = round(shading[0, 0] * scale), round(shading[-1, 0] * scale)
    strength = np.interp(np.arange(left, right) / scale, shading[:, 0], shading[:, 1])
    height = image.height - round(FOOT_MM * scale)
    mask = np.broadcast_to((255 * SHADE_OPACITY * strength).astype(np.uint8), (height, right - left))
    image.paste(Image.new("RGB", (right - left, height), SHADE), (left, 0), Image.fromarray(np.ascontiguousarray(mask)))


def _jpeg(image: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality, optimize=True)
    return out.getvalue()


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=4)
    return out.getvalue()
