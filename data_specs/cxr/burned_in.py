"""Finds text that was burned into a film, by the look of its strokes, and blacks it out. No letter is read.

A letter of a console or a printer is a small shape of one grey value with sharp edges on a calm background. Anatomy has
no such shapes: ribs and vessels are longer, and their values run into each other. Metal on the skin and lead markers
have them too, and are blacked out with the rest where they lie beside the lungs.

What is found in the middle of the film, where the lungs are, is not blacked out: that would hide what the film is
looked at for. Such a film is undecided, and so is one with faint shapes in a row, or with more shapes than a text has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WORK_PX = 1200
"""A film is looked at with its shorter side less than twice as long; the brightest and the darkest pixel of each square
stand for it, so that no stroke is lost."""
STROKE_SHARE = 0.016
"""Widest stroke that is searched for, as a share of the shorter side: letters of a tenth of the film's height."""
CLEAR, FAINT = 56, 26
"""Grey values by which a stroke differs from its surroundings: a clear one is blacked out, faint ones in a row leave
the film undecided. Set by the figures in ``docs/how-to/export-without-names.md``."""
HEIGHTS = (0.008, 0.12)
"""Heights of letters as a share of the shorter side."""
LEAST_PX = 4
"""A lower shape cannot be read as a letter."""
LONGEST = 6.0
"""Length over height of what may still be one letter, or letters that touch."""
EVEN = 26.0
"""Standard deviation of the grey values within a letter, at most: text is written in one value."""
IN_A_ROW = 3
"""Faint shapes near each other that may be a text."""
MOST = 300
"""More shapes are a pattern, in which no text can be told apart."""
MIDDLE = (0.16, 0.80, 0.14, 0.86)
"""Where the lungs of a frontal film lie: first and last row, first and last column, as shares."""
AROUND = 0.8
"""Blacked out around a letter, as a share of its height."""


class Box(NamedTuple):
    """Part of a film, px: the first row and column, and those behind the last."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True, slots=True)
class Writing:
    """What was found.

    Parameters
    ----------
    boxes
        Where text-like shapes lie that can be blacked out.
    undecided
        Why the film cannot leave, as one word: ``lungs`` (text-like shapes where the lungs are), ``faint``,
        ``pattern``; ``None``: it can.
    """

    boxes: tuple[Box, ...]
    undecided: str | None = None


def find_writing(pixels: NDArray[np.uint8]) -> Writing:
    """Text-like shapes of a film, ``(rows, columns) uint8``, bright and dark ones."""
    step = max(1, min(pixels.shape) // WORK_PX)
    clear: list[Box] = []
    faint: list[Box] = []
    for bright in (True, False):
        shapes = _shapes(_smaller(pixels, step, bright=bright), bright=bright)
        if shapes is None:
            return Writing((), "pattern")
        for box, contrast in shapes:
            (clear if contrast >= CLEAR else faint).append(box)
    side = min(pixels.shape) // step
    height, width = (length // step for length in pixels.shape)
    if any(_in_the_middle(box, height, width) for box in _rows(clear, least=2)):
        return Writing((), "lungs")
    clear = [box for box in clear if not _in_the_middle(box, height, width)]
    boxes = tuple(_larger(box, step, pixels.shape) for box in _rows(clear, least=1))
    rest = [box for box in faint if not any(_overlap(box, other, side) for other in clear)]
    if _rows(rest, least=IN_A_ROW):
        return Writing(boxes, "faint")
    return Writing(boxes)


def blacked_out(pixels: NDArray[np.uint8], boxes: tuple[Box, ...]) -> NDArray[np.uint8]:
    """The film without what lies in the boxes."""
    clean = pixels.copy()
    for top, left, bottom, right in boxes:
        clean[top:bottom, left:right] = 0
    return clean


def _smaller(pixels: NDArray[np.uint8], step: int, *, bright: bool) -> NDArray[np.uint8]:
    if step == 1:
        return pixels
    rows, columns = (length - length % step for length in pixels.shape)
    squares = pixels[:rows, :columns].reshape(rows // step, step, columns // step, step)
    return np.asarray(squares.max(axis=(1, 3)) if bright else squares.min(axis=(1, 3)))


def _shapes(film: NDArray[np.uint8], *, bright: bool) -> list[tuple[Box, float]] | None:
    """Shapes that look like letters, each with its contrast; ``None`` where there are too many."""
    from scipy import ndimage  # noqa: PLC0415  what serves names this module's job and does not run it

    side = min(film.shape)
    stroke = max(3, 2 * round(STROKE_SHARE * side) + 1)
    surroundings = ndimage.grey_opening(film, stroke) if bright else ndimage.grey_closing(film, stroke)
    contrast = film.astype(np.int16) - surroundings if bright else surroundings.astype(np.int16) - film
    labelled, n_found = ndimage.label(contrast >= FAINT, structure=np.ones((3, 3)))
    low, high = max(LEAST_PX, HEIGHTS[0] * side), HEIGHTS[1] * side
    shapes = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labelled, n_found), start=1):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        if not (low <= max(height, width) <= high * LONGEST and min(height, width) <= high):
            continue
        if max(height, width) > LONGEST * max(min(height, width), low):
            continue
        mask = labelled[rows, columns] == number
        strength = float(np.percentile(contrast[rows, columns][mask], 75))
        core = film[rows, columns][mask & (contrast[rows, columns] >= strength / 2)]
        if core.size and float(core.std()) <= EVEN:
            shapes.append((Box(rows.start, columns.start, rows.stop, columns.stop), strength))
            if len(shapes) > MOST:
                return None
    return shapes


def _rows(boxes: list[Box], *, least: int) -> list[Box]:
    """Boxes that lie near each other, put together; only of ``least`` shapes or more."""
    groups = [(box, 1) for box in boxes]
    merged = True
    while merged:
        merged = False
        kept: list[tuple[Box, int]] = []
        for box, n in groups:
            for i, (other, m) in enumerate(kept):
                if _overlap(box, other, 0):
                    both = Box(*map(min, box[:2], other[:2]), *map(max, box[2:], other[2:]))
                    kept[i] = (both, n + m)
                    merged = True
                    break
            else:
                kept.append((box, n))
        groups = kept
    return [box for box, n in groups if n >= least]


def _overlap(one: Box, other: Box, margin: int) -> bool:
    """Whether two boxes lie nearer to each other than letters of one word do."""
    near = margin + AROUND * min(_letter(one), _letter(other))
    return (
        one.top - near < other.bottom
        and other.top - near < one.bottom
        and one.left - near < other.right
        and other.left - near < one.right
    )


def _letter(box: Box) -> int:
    return min(box.bottom - box.top, box.right - box.left)


def _in_the_middle(box: Box, height: int, width: int) -> bool:
    top, bottom, left, right = MIDDLE
    row, column = (box.top + box.bottom) / 2 / height, (box.left + box.right) / 2 / width
    return top < row < bottom and left < column < right


def _larger(box: Box, step: int, shape: tuple[int, ...]) -> Box:
    """The box in pixels of the film, with what lies closely around it."""
    around = round(AROUND * _letter(box)) + 1
    return Box(
        max(0, (box.top - around) * step),
        max(0, (box.left - around) * step),
        min(shape[0], (box.bottom + around) * step),
        min(shape[1], (box.right + around) * step),
    )
