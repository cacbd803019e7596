"""Finds text that was burned into a film, by the look of its letters, and blacks it out. No letter is read.

A letter of a console or a printer is a small shape that stands out from its surroundings at once, within two pixels,
and has its like beside it. Anatomy has no such shapes: edges of ribs and vessels run out slowly, and what is sharp
does not come in rows. Metal on the skin and lead markers are sharp too, and are blacked out with the rest where they
lie beside the lungs.

A row of such shapes in the middle of the film, where the lungs are, is not blacked out: that would hide what the film
is looked at for. Such a film is undecided, and so is one with more shapes than a text has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

WORK_PX = 1200
"""A film is looked at with its shorter side less than twice as long; the brightest and the darkest pixel of each square
stand for it, so that no stroke is lost."""
STROKE_SHARE = 0.01
"""Half of the widest stroke that is searched for, as a share of the shorter side: letters of a tenth of the film."""
LEVELS = (20, 40, 80, 160)
"""Grey values by which a letter differs from its surroundings: shapes are cut out at each of these, and one counts at
the level that is about half of its own contrast."""
WITHIN = (1.15, 2.5)
"""Mean contrast of a shape over the level at which it was cut out."""
RUNS_OUT = 0.16
"""What is left of a letter's contrast two pixels beside it, as a share, at most. Of burned-in letters 95 of 100 have
less, of the shapes of a film one in ten."""
CLEAR = 80
"""Contrast of a single shape that is blacked out without a like beside it."""
LEAST_PX = 5
"""A shape whose longer side is shorter cannot be read as a letter."""
HIGHEST_SHARE = 0.12
"""Height of the largest letters, as a share of the shorter side of the film."""
LONGEST = 8.0
"""Length over height of a letter, or of a word whose letters touch, at most; a longer shape is a line."""
INK = (0.18, 0.75)
"""Share of its box that a letter fills: less is a line across it, more one stroke, such as an I."""
LETTER_WIDTH = 1.3
"""Length over height of a word whose letters touch, for each letter that is counted."""
IN_A_ROW = 3
"""Shapes beside each other that may be a text."""
ALIKE, AS_DARK = 2.5, 1.7
"""Height and contrast of two letters of a text, the larger over the smaller, at most."""
MOST = 1000
"""More shapes are a pattern, in which no text can be told apart."""
MIDDLE = (0.16, 0.80, 0.14, 0.86)
"""Where the lungs of a frontal film lie: first and last row, first and last column, as shares."""
AROUND = 0.8
"""Letters of one text lie nearer to each other, as a share of their height."""
BLACKED_AROUND = 1.6
"""So much is blacked out around a text, as a share of the height of its letters: some letters of a text look like none,
most often the first or the last. Of 100 texts 94 were covered whole, with 0.8 only 85."""


SQUARE = np.ones((3, 3), np.bool_)


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
        Why the film cannot leave, as one word: ``lungs`` (a row of text-like shapes where the lungs are), ``pattern``;
        ``None``: it can.
    """

    boxes: tuple[Box, ...]
    undecided: str | None = None


Text = tuple[Box, int, float]
"""Where it is, how many letters it may have, and its contrast."""


class Shapes(NamedTuple):
    """Shapes that look like letters.

    Parameters
    ----------
    boxes
        ``(n, 4)``, each as :class:`Box`.
    contrasts, letters
        Of each, its mean contrast, and how many letters it may be.
    """

    boxes: NDArray[np.int64]
    contrasts: NDArray[np.float64]
    letters: NDArray[np.float64]


def find_writing(pixels: NDArray[np.uint8]) -> Writing:
    """Text-like shapes of a film, ``(rows, columns) uint8``, bright and dark ones."""
    step = max(1, min(pixels.shape) // WORK_PX)
    height, width = (length // step for length in pixels.shape)
    both = [_shapes(_smaller(pixels, step, bright=bright), bright=bright) for bright in (True, False)]
    if any(len(shapes.boxes) > MOST for shapes in both):
        return Writing((), "pattern")
    bright, dark = map(_texts, both)
    found = []
    for texts, others in ((bright, dark), (dark, bright)):
        for box, n_letters, contrast in texts:
            is_row, is_in_the_middle = n_letters >= IN_A_ROW, _in_the_middle(box, height, width)
            if is_row and is_in_the_middle and not _is_gaps(box, others):
                return Writing((), "lungs")
            if not is_in_the_middle and (is_row or contrast >= CLEAR):
                found.append(box)
    return Writing(tuple(_larger(box, step, pixels.shape) for box in found))


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


def _shapes(film: NDArray[np.uint8], *, bright: bool) -> Shapes:
    """What looks like letters."""
    from scipy import ndimage  # noqa: PLC0415  what serves names this module's job and does not run it

    side = min(film.shape)
    stroke = max(5, 2 * round(STROKE_SHARE * side) + 1)
    surroundings = ndimage.grey_opening(film, stroke) if bright else ndimage.grey_closing(film, stroke)
    contrast = np.abs(film.astype(np.int16) - surroundings)
    found = [Shapes(np.empty((0, 4), np.int64), np.empty(0), np.empty(0))]
    taken = np.zeros(film.shape, np.bool_)
    for level in LEVELS:
        labelled, n_found = ndimage.label(contrast >= level, structure=SQUARE)
        if not n_found:
            break
        boxes = np.array([[r.start, c.start, r.stop, c.stop] for r, c in ndimage.find_objects(labelled, n_found)])
        ink = np.bincount(labelled.ravel(), minlength=n_found + 1)[1:] / np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        may_be = _may_be_letters(boxes, ink, side)
        may_be[np.unique(labelled[taken]) - 1] = False  # a lower level has it
        within = _means(contrast, labelled, n_found)
        may_be &= (within >= WITHIN[0] * level) & (within < WITHIN[1] * level)
        for i in map(int, np.flatnonzero(may_be)):
            may_be[i] = _left_beside(contrast, labelled, boxes[i], i + 1) <= RUNS_OUT * within[i]
        taken |= np.concatenate(([False], may_be))[labelled]
        found.append(Shapes(boxes[may_be], within[may_be], _letters(boxes, ink)[may_be]))
    return Shapes(*map(np.concatenate, zip(*found, strict=True)))


def _means(values: NDArray[np.int16], labelled: NDArray[np.signedinteger], n_labels: int) -> NDArray[np.float64]:
    """Mean of the values under each label from 1, 0 where there are none."""
    flat = labelled.ravel()
    sums = np.bincount(flat, values.ravel(), minlength=n_labels + 1)
    return np.asarray(sums / np.maximum(1, np.bincount(flat, minlength=n_labels + 1)))[1:]


def _left_beside(
    contrast: NDArray[np.int16], labelled: NDArray[np.signedinteger], box: NDArray[np.int64], number: int
) -> float:
    """Mean contrast two pixels beside a shape, where no other shape is near; 0 where there is none such."""
    from scipy import ndimage  # noqa: PLC0415

    top, left = np.maximum(box[:2] - 3, 0)
    part = (slice(top, box[2] + 3), slice(left, box[3] + 3))
    around = labelled[part]
    beside = ndimage.binary_dilation(around == number, SQUARE, iterations=2) & ~ndimage.binary_dilation(
        around > 0, SQUARE
    )
    return float(contrast[part][beside].mean()) if beside.any() else 0.0


def _may_be_letters(boxes: NDArray[np.int64], ink: NDArray[np.float64], side: int) -> NDArray[np.bool_]:
    shorter, longer = _sides(boxes)
    is_of_size = (longer >= LEAST_PX) & (shorter <= HIGHEST_SHARE * side) & (longer <= LONGEST * shorter)
    return np.asarray(is_of_size & (ink >= INK[0]))


def _letters(boxes: NDArray[np.int64], ink: NDArray[np.float64]) -> NDArray[np.float64]:
    """How many letters each shape may be: more than one where they touch."""
    shorter, longer = _sides(boxes)
    return np.where(
        (shorter < LEAST_PX) | (ink > INK[1]), 1.0, np.maximum(1.0, np.rint(longer / (LETTER_WIDTH * shorter)))
    )


def _texts(shapes: Shapes) -> list[Text]:
    """Shapes that lie beside each other put together."""
    from scipy.sparse.csgraph import connected_components  # noqa: PLC0415

    if not len(shapes.boxes):
        return []
    n_texts, text = connected_components(_are_beside(shapes), directed=False)
    found = []
    for number in range(n_texts):
        of_text = text == number
        part = shapes.boxes[of_text]
        box = Box(*map(int, part[:, :2].min(axis=0)), *map(int, part[:, 2:].max(axis=0)))
        found.append((box, int(shapes.letters[of_text].sum()), float(shapes.contrasts[of_text].max())))
    return found


def _is_gaps(box: Box, others: list[Text]) -> bool:
    """Whether shapes are the gaps in and between the letters of one of the texts of the other kind, bright or dark.

    Only a row over the lungs has to be letters. Beside them gaps are as good a sign of a text as its letters: of 400
    texts 18 were not found without them, 7 with them.
    """
    return any(
        box != other
        and box.top >= other.top
        and box.left >= other.left
        and box.bottom <= other.bottom
        and box.right <= other.right
        for other, _, _ in others
    )


def _are_beside(shapes: Shapes) -> NDArray[np.bool_]:
    """``(n, n)``: whether two shapes may be neighbours in a line of text, upright or turned."""
    height, contrast = _heights(shapes.boxes), shapes.contrasts
    low, high = np.minimum.outer(height, height), np.maximum.outer(height, height)
    as_dark = np.maximum.outer(contrast, contrast) <= AS_DARK * np.minimum.outer(contrast, contrast)
    near, aligned = [], []
    for first, last in ((0, 2), (1, 3)):
        start, stop = shapes.boxes[:, first], shapes.boxes[:, last]
        gap = np.maximum.outer(start, start) - np.minimum.outer(stop, stop)
        near.append(gap < AROUND * low)
        aligned.append(gap <= -0.4 * low)
    return np.asarray(near[0] & near[1] & (aligned[0] | aligned[1]) & (high <= ALIKE * low) & as_dark)


def _sides(boxes: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    height, width = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    return np.minimum(height, width), np.maximum(height, width)


def _heights(boxes: NDArray[np.int64]) -> NDArray[np.float64]:
    """About the height of a letter in each box: of a thin one, such as an I, more than its width."""
    shorter, longer = _sides(boxes)
    return np.asarray(np.minimum(2.0 * shorter, longer))


def _in_the_middle(box: Box, height: int, width: int) -> bool:
    top, bottom, left, right = MIDDLE
    row, column = (box.top + box.bottom) / 2 / height, (box.left + box.right) / 2 / width
    return top < row < bottom and left < column < right


def _larger(box: Box, step: int, shape: tuple[int, ...]) -> Box:
    """The box in pixels of the film, with what lies closely around it."""
    height = float(_heights(np.array([box]))[0])
    around = round(BLACKED_AROUND * height) + 1
    return Box(
        max(0, (box.top - around) * step),
        max(0, (box.left - around) * step),
        min(shape[0], (box.bottom + around) * step),
        min(shape[1], (box.right + around) * step),
    )
