"""Curves with their intervals, as the SVG of a page draws them: figures of a plan over its thresholds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from data_specs.planning.consequences import Row

WIDTH, HEIGHT = 320.0, 120.0


@dataclass(frozen=True, slots=True)
class Curve:
    """One figure over the thresholds from 0 to 1, in a field of :data:`WIDTH` and :data:`HEIGHT`.

    Parameters
    ----------
    line, band
        Points of the line and of the outline of its interval, as SVG writes them.
    decides
        Where the deciding threshold lies; ``None`` where it is not known.
    bottom, top
        What the lower and the upper edge of the field stand for.
    """

    line: str
    band: str
    decides: float | None
    bottom: float
    top: float


def curve(rows: Sequence[Row], figure: str, decides: float | None, *, by_factors: bool = False) -> Curve | None:
    """The curve of one figure; ``None`` where fewer than two thresholds have it.

    Parameters
    ----------
    by_factors
        Equal distances are equal factors: for a cost per case, which has no upper limit.
    """
    shown = [(row.threshold, row.figures[figure]) for row in rows if not math.isnan(row.figures[figure].value)]
    if len(shown) < 2:
        return None
    least = min(each.low for _, each in shown)
    # The interval of a cost per case has no end where hardly a case is found: the field ends with the line.
    top = max(each.value if by_factors else each.high for _, each in shown)
    by_factors = by_factors and least > 0
    bottom = least if by_factors else 0.0
    if top <= bottom:
        return None

    def height(value: float) -> float:
        value = min(max(value, bottom), top)
        share = math.log(value / bottom) / math.log(top / bottom) if by_factors else (value - bottom) / (top - bottom)
        return HEIGHT * (1 - share)

    def points(end: str) -> list[str]:
        return [f"{WIDTH * min(max(x, 0.0), 1.0):.1f},{height(getattr(each, end)):.1f}" for x, each in shown]

    band = " ".join([*points("low"), *reversed(points("high"))])
    return Curve(" ".join(points("value")), band, None if decides is None else WIDTH * decides, bottom, top)
