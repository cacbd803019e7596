"""A chest film as it is read from a file (:class:`ChestImage`), and as the network takes it (:func:`conform`).

Training and serving both read films by :func:`data_specs.cxr.files.read_image` and conform them here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_specs.person import BinarySex
from data_specs.problems import Problem

MIN_SHORT_SIDE_PX = 224
"""A smaller film would have to be enlarged for the shipped networks (wire contract, ``too_small``)."""

MAX_PIXELS = 100_000_000
"""A file whose header states more pixels is refused before it is decoded; 10,000 × 10,000 are accepted."""


@dataclass(frozen=True, slots=True)
class ChestImage:
    """One film, ready to be looked at.

    Parameters
    ----------
    pixels
        ``(rows, columns) uint8``, higher is brighter (MONOCHROME2), after Modality LUT, VOI LUT or window, and padding.
        Of a film that was read at a lower resolution, fewer than were recorded.
    format
        ``dicom``, ``png``, ``jpeg`` or ``tiff``.
    view
        ``PA`` or ``AP`` where the file states it, else ``None``.
    recorded_px
        Rows and columns that were recorded, upright as ``pixels`` are.
    pixel_mm
        Height and width of a recorded pixel, mm, where the file states them. On the detector, unless the file says that
        they are corrected for the distance of the body (PS3.3 section 10.7.1.3).
    age_years, sex, person_id, recorded_on
        As the file states them, ``None`` where it does not.
    problems
        What was noticed while it was read (severity ``warn``).
    """

    pixels: NDArray[np.uint8]
    format: str
    recorded_px: tuple[int, int]
    view: Literal["PA", "AP"] | None = None
    pixel_mm: tuple[float, float] | None = None
    age_years: float | None = None
    sex: BinarySex | None = None
    person_id: str | None = None
    recorded_on: date | None = None
    problems: tuple[Problem, ...] = field(default=())

    @property
    def outline(self) -> Outline:
        """Where the recorded film lies in ``pixels``.

        The first pixel of a lower resolution of JPEG 2000 lies on the first one that was recorded, not on the middle of
        those that it stands for (ITU-T T.800, annex F: the low-pass values are those of the even places).
        """
        rows, columns = self.recorded_px
        step = round(rows / len(self.pixels))
        first = (1 - 1 / step) / 2
        return Outline(first, first, columns / step + first, rows / step + first)


class Outline(NamedTuple):
    """Sides of a film in the coordinates of an array of its pixels, px: the first pixel reaches from 0 to 1."""

    left: float
    top: float
    right: float
    bottom: float

    @classmethod
    def of(cls, pixels: NDArray[np.uint8]) -> Outline:
        """That of a film that fills ``pixels``."""
        rows, columns = pixels.shape
        return cls(0, 0, columns, rows)


Window = Literal["as_sent", "whole", "lungs", "bones"]
SHOWN_PERCENTILES: dict[Window, tuple[float, float]] = {
    "whole": (0.0, 100.0),
    "lungs": (3.0, 65.0),
    "bones": (35.0, 99.8),
}
"""What a film's grey levels are spread over, as percentiles of its values from dark to bright. ``whole``: every value
that was recorded. ``lungs``: the darker part. ``bones``: the brighter part, with the mediastinum. Chosen by eye."""


def conform(pixels: NDArray[np.uint8], size_px: int, outline: Outline | None = None) -> NDArray[np.uint8]:
    """Film as the lung network takes it: resized to a square, as the films of the paediatric training set are.

    Parameters
    ----------
    pixels
        ``(rows, columns) uint8``, higher is brighter.
    size_px
        Side of the result.
    outline
        Where the film lies in ``pixels``, beyond its last row and column by less than one; ``None``: all of ``pixels``.

    Returns
    -------
    ``(1, size_px, size_px) uint8``, by Pillow's bilinear filter, which averages over the pixels when it makes a film
    smaller
    """
    rows, columns = pixels.shape
    whole = Outline.of(pixels)
    outline = outline or whole
    if pixels.shape == (size_px, size_px) and outline == whole:
        return pixels[None]
    if outline.right > columns or outline.bottom > rows:
        pixels = np.pad(pixels, ((0, 1), (0, 1)), mode="edge")
    square = (size_px, size_px)
    return np.asarray(Image.fromarray(pixels).resize(square, Image.Resampling.BILINEAR, box=outline))[None]


def averaged(pixels: NDArray[np.uint8], outline: Outline, least_px: int) -> tuple[NDArray[np.uint8], Outline]:
    """Means of squares of pixels, as large as leave the shorter side ``least_px`` long, and where the film lies then.

    Parameters
    ----------
    pixels
        ``(rows, columns) uint8``.
    """
    times = min(pixels.shape) // least_px
    if times < 2:
        return pixels, outline
    return np.asarray(Image.fromarray(pixels).reduce(times)), Outline(*(side / times for side in outline))


def strips(values: NDArray[Any]) -> Iterator[slice]:
    """Rows of a film, about 260,000 pixels at a time: a whole large film in a wider type would fill the memory."""
    step = max(1, 2**18 // values.shape[1])
    return (slice(top, top + step) for top in range(0, len(values), step))
