"""A chest film that is drawn: nobody's, and yet a frontal film to the quality gate.

What a decoder and a store have to do depends on contents: on edges, on flat areas and most of all on noise. The drawing
has what a film has of them, so that its files cost about what real ones do.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_Field = NDArray[np.float64]


def chest(size_px: int, levels: int = 256, noise: float = 0.7) -> NDArray[np.uint16]:
    """A film, ``(size_px, size_px) uint16``, higher is brighter; the same for every call.

    Parameters
    ----------
    levels
        Its values are 0 to ``levels - 1``.
    noise
        Standard deviation, levels.
    """
    grain = np.random.default_rng(2026).normal(0, noise, (size_px, size_px))
    return np.rint(np.clip(_drawing(size_px) * (levels / 256) + grain, 0, levels - 1)).astype(np.uint16)


def _drawing(size_px: int) -> _Field:
    """Grey levels of 256 of trunk, lungs, ribs, spine, heart, clavicles and hila; lengths are shares of the side."""
    y, x = np.mgrid[0:size_px, 0:size_px] / size_px
    x = x - 0.5

    def ellipse(at_x: float, at_y: float, half_width: float, half_height: float, soft: float = 0.013) -> _Field:
        inside = 1 - np.hypot((x - at_x) / half_width, (y - at_y) / half_height)
        return np.asarray(1 / (1 + np.exp(-inside * min(half_width, half_height) / soft)))

    trunk = np.maximum.reduce(
        [ellipse(0, 0.75, 0.50, 0.80), ellipse(-0.40, 0.16, 0.26, 0.14), ellipse(0.40, 0.16, 0.26, 0.14),
         ellipse(0, 0, 0.10, 0.20)]
    )  # fmt: skip
    diaphragm = 0.80 - 0.06 * np.cos((np.abs(x) - 0.2) * 8) + 0.02 * np.sign(x)
    above = 1 / (1 + np.exp((y - diaphragm) / 0.012))
    lungs = np.maximum(ellipse(-0.215, 0.50, 0.130, 0.42), ellipse(0.215, 0.50, 0.130, 0.42)) * above
    film = 20 + 145 * trunk - 99 * lungs
    for side in (-1, 1):
        along = (side * x - 0.03) / 0.42
        ends = np.clip(along * 10, 0, 1) * np.clip((1 - along) * 10, 0, 1) * trunk
        for top in 0.10 + 0.08 * np.arange(9):
            film += 13 * np.exp(-(((y - (top + 0.12 * along**2 + 0.05 * along)) / 0.013) ** 2)) * ends
    film += 38 * np.exp(-((x / 0.05) ** 2)) * trunk
    heart = np.maximum(ellipse(0.06, 0.62, 0.15, 0.17), ellipse(-0.02, 0.60, 0.09, 0.15)) * above
    film += 0.85 * heart * np.clip(175 - film, 0, None)
    film += 20 * np.exp(-((x / 0.085) ** 2)) * ellipse(0, 0.4, 0.12, 0.30, soft=0.02)
    for side in (-1, 1):
        ends = np.clip((side * x - 0.03) * 15, 0, 1) * np.clip((0.38 - side * x) * 15, 0, 1)
        film += 22 * np.exp(-(((y - (0.16 - 0.12 * np.abs(x))) / 0.014) ** 2)) * ends
        film += 25 * np.exp(-(((x - side * 0.10) / 0.05) ** 2) - ((y - 0.47) / 0.08) ** 2)
    return np.asarray(film)
