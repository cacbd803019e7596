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
the film undecided. Chosen for made films; what they do to real ones is not measured yet."""
LEAST_PX = 5
"""A shape whose longer side is shorter cannot be read as a letter."""
HIGHEST_SHARE = 0.12
"""Height of the largest letters, as a share of the shorter side of the film."""
LONGEST_LETTER, LONGEST_WORD = 6.0, 40.0
"""Length over height of what may be one letter, and of a word whose letters touch; a longer shape is a line."""
EVEN, EVEN_SHARE = 12.0, 0.2
"""Standard deviation of the grey values within a letter, at most, and what is added for its edges, as a share of its
contrast: text is written in one value, and its edges are smoothed."""
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
    height, width = (length // step for length in pixels.shape)
    groups = _groups(clear)
    if any(n > 1 and _in_the_middle(box, height, width) for box, n in groups):
        return Writing((), "lungs")
    found = [box for box, _ in groups if not _in_the_middle(box, height, width)]
    boxes = tuple(_larger(box, step, pixels.shape) for box in found)
    rest = [box for box in faint if not any(_are_near(box, other) for other in found)]
    return Writing(boxes, "faint" if any(n >= IN_A_ROW for _, n in _groups(rest)) else None)


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
    shapes = []
    for level, below in ((CLEAR, 256), (FAINT, CLEAR)):  # clear letters on their own: at the lower level they may touch
        labelled, n_found = ndimage.label(contrast >= level, structure=np.ones((3, 3)))
        for number, (rows, columns) in enumerate(ndimage.find_objects(labelled, n_found), start=1):
            if not _may_be_letters(rows.stop - rows.start, columns.stop - columns.start, side):
                continue
            mask = labelled[rows, columns] == number
            strength = float(np.percentile(contrast[rows, columns][mask], 75))
            core = film[rows, columns][mask & (contrast[rows, columns] >= strength / 2)]
            if strength < below and float(core.std()) <= EVEN + EVEN_SHARE * strength:
                shapes.append((Box(rows.start, columns.start, rows.stop, columns.stop), strength))
                if len(shapes) > MOST:
                    return None
    return shapes


def _may_be_letters(height: int, width: int, side: int) -> bool:
    shorter, longer = sorted((height, width))
    if longer < LEAST_PX or shorter > HIGHEST_SHARE * side:
        return False
    return longer <= (LONGEST_WORD if shorter >= LEAST_PX else LONGEST_LETTER) * shorter


def _groups(boxes: list[Box]) -> list[tuple[Box, int]]:
    """Boxes that lie near each other, put together, and how many letters they may be."""
    groups = [(box, max(1, round(_length(box) / _letter(box)))) for box in boxes]
    merged = True
    while merged:
        merged = False
        kept: list[tuple[Box, int]] = []
        for box, n in groups:
            for i, (other, m) in enumerate(kept):
                if _are_near(box, other):
                    kept[i] = (Box(*map(min, box[:2], other[:2]), *map(max, box[2:], other[2:])), n + m)
                    merged = True
                    break
            else:
                kept.append((box, n))
        groups = kept
    return groups


def _are_near(one: Box, other: Box) -> bool:
    """Whether two boxes lie nearer to each other than letters of one word do."""
    near = AROUND * min(_letter(one), _letter(other))
    return (
        one.top - near < other.bottom
        and other.top - near < one.bottom
        and one.left - near < other.right
        and other.left - near < one.right
    )


def _length(box: Box) -> int:
    return max(box.bottom - box.top, box.right - box.left)


def _letter(box: Box) -> float:
    """About the height of a letter in the box: of a thin one, such as an I, more than its width."""
    shorter = min(box.bottom - box.top, box.right - box.left)
    return min(2.0 * shorter, _length(box))


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
