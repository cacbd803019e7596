"""Closed outlines of a heatmap, by marching squares on the smoothly enlarged map, which is what the overlay shows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from data_specs.visit.assessment import EvidenceMap

SIDE = 96
"""Samples a side of the enlarged map: finer than the cells of a heatmap, coarse enough to keep the object small."""

MAX_POINTS = 2000
"""Points of one outline. An FL element of explicit VR holds at most 16,383 numbers (PS3.5 section 7.1.2)."""

OVER, UNDER = "#ffd24a", "#000000"
LEVEL = 0.5
"""Outlines are drawn where the map has this share of its range. The overlay has two thirds of its opacity there."""

Floats = NDArray[np.float64]
Edge = tuple[int, int, bool]
"""Row and column of a sample, and whether the edge goes down from it (else to the right)."""


def outlines(values: Sequence[Sequence[int]], level: float = LEVEL) -> list[Floats]:
    """The closed lines on which a map has the value ``level``, the longest first.

    Parameters
    ----------
    values
        ``(rows, columns)``, 0 to 255, over the whole of a film.
    level
        Share of 255.

    Returns
    -------
    Each ``(points, 2) float64``, x and y as shares of the film's width and height, the first point again as the last
    """
    coarse = Image.fromarray(np.asarray(values, dtype=np.float32) / 255.0)
    smooth = np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)
    above = np.pad(smooth - level, 1, constant_values=-level)  # zero outside the film, so that every outline closes
    lines = [_shares(above, loop) for loop in _loops(_joins(above))]
    return sorted(lines, key=len, reverse=True)


def outline_svg(evidence: EvidenceMap) -> str:
    """The outlines of a heatmap as a drawing that is stretched over the film, a light line on a dark one."""
    path = "".join(
        "M" + "L".join(f"{x} {y}" for x, y in np.rint(1000 * line[:-1]).astype(int).tolist()) + "Z"
        for line in outlines(evidence.values)
    )
    lines = "".join(
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="{width}" vector-effect="non-scaling-stroke"/>'
        for colour, width in ((UNDER, 4), (OVER, 2))
    )
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1000 1000" width="1000" height="1000" '
        f'preserveAspectRatio="none">{lines}</svg>'
    )


def _joins(above: Floats) -> dict[Edge, list[Edge]]:
    """For each edge that an outline crosses, the two edges that the outline crosses next, one on each side."""
    inside = above > 0
    corners = inside[:-1, :-1].astype(np.int64) + inside[:-1, 1:] + inside[1:, :-1] + inside[1:, 1:]
    joined: dict[Edge, list[Edge]] = {}
    for row, column in np.argwhere((corners > 0) & (corners < 4)).tolist():
        (a, b), (c, d) = inside[row : row + 2, column : column + 2].tolist()
        top, left, bottom, right = (
            (row, column, False), (row, column, True), (row + 1, column, False), (row, column + 1, True),
        )  # fmt: skip
        if a == d and b == c:  # a saddle: the mean decides which two corners are connected
            middle = above[row : row + 2, column : column + 2].mean() > 0
            pairs = [(top, right), (bottom, left)] if middle == a else [(top, left), (bottom, right)]
        else:
            sides = ((top, a != b), (right, b != d), (bottom, c != d), (left, a != c))
            one, other = (edge for edge, crossed in sides if crossed)
            pairs = [(one, other)]
        for one, other in pairs:
            joined.setdefault(one, []).append(other)
            joined.setdefault(other, []).append(one)
    return joined


def _loops(joined: dict[Edge, list[Edge]]) -> Iterator[list[Edge]]:
    """Follow each outline from edge to edge until it returns to its first edge."""
    left = dict.fromkeys(joined)
    while left:
        edge: Edge | None = next(iter(left))
        loop = []
        while edge is not None:
            del left[edge]
            loop.append(edge)
            edge = next((each for each in joined[edge] if each in left), None)
        yield loop


def _shares(above: Floats, loop: list[Edge]) -> Floats:
    """Points of an outline, by linear interpolation on each edge that it crosses."""
    step = -(-len(loop) // MAX_POINTS)
    points = []
    for row, column, down in [*loop[::step], loop[0]]:
        here, there = above[row, column], above[row + down, column + (not down)]
        part = float(here / (here - there))
        points.append((column + (0.0 if down else part), row + (part if down else 0.0)))
    # Sample 1 of the padded map is the centre of the film's first of SIDE parts.
    return np.clip((np.array(points) - 0.5) / SIDE, 0.0, 1.0)
