"""A film cut to its lung fields and equalised: what a network takes that is to hold in the next hospital.

What surrounds the lungs (letters, borders, arms, tubes) and how a film is exposed differ by hospital and by ward, and
in a collection often by disease. A network that sees neither cannot learn them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

READ_AT = 1.5
"""A film is read this many times larger than the network takes it, so that little is lost when it is cut."""
LEAST_AREA = 0.08
"""With smaller lung fields (white lungs, or none found) the whole film is taken."""
INNER = (1.0, 99.0)
"""Percentiles of the lung fields' rows and columns: single pixels beside them do not count."""
MARGIN, BELOW = 0.06, 0.09
"""Kept around the fields, as a share of their width or height: ribs and hila; below, the diaphragm and its angles."""


class Window(NamedTuple):
    """Part of a film, in shares of its height and width."""

    top: float
    bottom: float
    left: float
    right: float


WHOLE = Window(0.0, 1.0, 0.0, 1.0)


def window_of(fields: NDArray[np.bool_]) -> Window:
    """The window around the lung fields of a film, ``(side, side) bool``."""
    rows, columns = np.nonzero(fields)
    if len(rows) < LEAST_AREA * fields.size:
        return WHOLE
    top, bottom = (np.percentile(rows, INNER) + 0.5) / len(fields)  # middles of pixels
    left, right = (np.percentile(columns, INNER) + 0.5) / len(fields)
    height, width = bottom - top, right - left
    return Window(
        max(top - MARGIN * height, 0.0),
        min(bottom + BELOW * height, 1.0),
        max(left - MARGIN * width, 0.0),
        min(right + MARGIN * width, 1.0),
    )


def cut_to(film: NDArray[np.uint8], window: Window, size_px: int) -> NDArray[np.uint8]:
    """The window of a square film, resized and equalised.

    Parameters
    ----------
    film
        ``(side, side) uint8``, higher is brighter.

    Returns
    -------
    ``(size_px, size_px) uint8``
    """
    side = len(film)
    box = (window.left * side, window.top * side, window.right * side, window.bottom * side)
    picture = Image.fromarray(film).resize((size_px, size_px), Image.Resampling.BILINEAR, box=box)
    return equalised(np.asarray(picture))


def equalised(film: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A film whose grey values are equally frequent (Gonzalez and Woods, Digital Image Processing, section 3.3)."""
    below = np.bincount(film.ravel(), minlength=256).cumsum()
    table: NDArray[np.uint8] = (255 * below // below[-1]).astype(np.uint8)
    return table[film]


def placed(values: NDArray[np.floating], window: Window, side: int) -> NDArray[np.float64]:
    """A map ``(rows, columns)`` of the window as one of the whole film, ``(side, side)``; zero outside the window."""
    top, bottom = round(window.top * side), round(window.bottom * side)
    left, right = round(window.left * side), round(window.right * side)
    inside = Image.fromarray(np.asarray(values, dtype=np.float32))
    whole = np.zeros((side, side))
    size = right - left, bottom - top
    whole[top:bottom, left:right] = np.asarray(inside.resize(size, Image.Resampling.BILINEAR))
    return whole
