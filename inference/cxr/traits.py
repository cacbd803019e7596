"""Numbers of a film that say what comes in and what the networks see: what drift is looked for in.

None of them decides anything about the film. They are few, so that they can be kept of every film; they name nobody.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike, NDArray

SIDE_PX = 1024
"""Fine detail and blocks are looked for in a square of this side from the middle of a film: it takes milliseconds."""
BLOCK_PX = 8
"""Side of the blocks that JPEG compresses (ITU-T T.81, section A.1.1)."""
TINY = 1e-6
"""Added before a logarithm, in grey levels: a film may be of one grey."""


def of_pixels(pixels: NDArray[np.uint8], recorded_px: tuple[int, int] | None = None) -> dict[str, float]:
    """What comes in, from a film as it was read, ``(rows, columns) uint8``.

    ``short_side_px``; ``dark``, ``grey`` and ``bright``, the 5th, 50th and 95th percentile of the grey levels;
    ``contrast``, their standard deviation; ``detail``, how much neighbouring pixels differ, and ``blocks``, how much
    more they do so at the borders of JPEG's blocks than elsewhere, both as natural logarithms of a ratio.

    Parameters
    ----------
    recorded_px
        Rows and columns that were recorded, where the film was read at a lower resolution.
    """
    seen = pixels[:: max(1, pixels.shape[0] // SIDE_PX), :: max(1, pixels.shape[1] // SIDE_PX)]
    dark, grey, bright = np.percentile(seen, (5, 50, 95))
    contrast = float(seen.std())
    middle = _middle(pixels).astype(np.float32)
    across, down = np.abs(np.diff(middle, axis=1)), np.abs(np.diff(middle, axis=0))
    steps = np.concatenate([across.mean(axis=0), down.mean(axis=1)])
    borders = np.concatenate([_is_border(across.shape[1]), _is_border(down.shape[0])])
    at_borders, inside = float(steps[borders].mean()), float(steps[~borders].mean())
    return {
        "short_side_px": float(min(recorded_px or pixels.shape)),
        "dark": float(dark),
        "grey": float(grey),
        "bright": float(bright),
        "contrast": contrast,
        "detail": float(np.log((inside + TINY) / (contrast + TINY))),
        "blocks": float(np.log((at_borders + TINY) / (inside + TINY))),
    }


def finite(numbers: Mapping[str, ArrayLike]) -> dict[str, float]:
    """Means of the numbers by name; what is no number is left out."""
    means = {name: float(np.asarray(each, dtype=np.float64).mean()) for name, each in numbers.items()}
    return {name: mean for name, mean in means.items() if np.isfinite(mean)}


def _middle(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A square of at most :data:`SIDE_PX` from the middle, whose first pixel begins a block."""
    rows, columns = (slice(*_span(side)) for side in pixels.shape)
    return pixels[rows, columns]


def _span(side: int) -> tuple[int, int]:
    taken = min(side, SIDE_PX)
    start = (side - taken) // 2 // BLOCK_PX * BLOCK_PX
    return start, start + taken


def _is_border(n: int) -> NDArray[np.bool_]:
    """Whether the step from a pixel to the next leads from one block into the next."""
    return np.asarray(np.arange(n) % BLOCK_PX == BLOCK_PX - 1)
