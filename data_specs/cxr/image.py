"""Chest X-ray: the image, the one function that reads every accepted format, and the one that conforms it.

Training and serving call the same two functions: :func:`read_image` (bytes to a display-ready film) and
:func:`conform` (film to the network's array).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import date
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_specs.person import BinarySex
from data_specs.problems import Problem

MIN_SHORT_SIDE_PX = 224
"""Under this the shipped networks would see pixels that the film does not have (wire contract, ``too_small``)."""

MAX_PIXELS = 100_000_000
"""A claim of more pixels than this is refused before anything is decoded (a 10,000 × 10,000 film passes)."""


@dataclass(frozen=True, slots=True)
class ChestImage:
    """One film, ready to look at.

    Parameters
    ----------
    pixels
        ``(rows, columns) uint8``, higher is brighter (MONOCHROME2), after Modality LUT, VOI LUT or window, and padding.
    format
        ``dicom``, ``png``, ``jpeg`` or ``tiff``.
    view
        ``PA`` or ``AP`` where the file says so, else ``None``.
    age_years, sex, person_id, recorded_on
        As the file says them, ``None`` where it does not.
    pixel_spacing_mm
        ``(row, column)`` spacing from PixelSpacing or ImagerPixelSpacing, ``None`` where absent.
    problems
        Reserves met on the way (severity ``warn``).
    """

    pixels: NDArray[np.uint8]
    format: str
    view: Literal["PA", "AP"] | None = None
    age_years: float | None = None
    sex: BinarySex | None = None
    person_id: str | None = None
    recorded_on: date | None = None
    pixel_spacing_mm: tuple[float, float] | None = None
    problems: tuple[Problem, ...] = field(default=())


def conform(pixels: NDArray[np.uint8], size_px: int) -> NDArray[np.uint8]:
    """Film as the lung network takes it: squeezed to a square, as the paediatric training set was published.

    Parameters
    ----------
    pixels
        ``(rows, columns) uint8``, higher is brighter.
    size_px
        Side of the result.

    Returns
    -------
    ``(1, size_px, size_px) uint8``, by Pillow's bilinear filter, whose support grows with the factor when it shrinks
    """
    if pixels.shape == (size_px, size_px):
        return pixels[None]
    return np.asarray(Image.fromarray(pixels).resize((size_px, size_px), Image.Resampling.BILINEAR))[None]
