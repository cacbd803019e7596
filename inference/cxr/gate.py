"""The quality gate for films, judged from the pixels by the ``cxr_gate`` bundle."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from data_specs.problems import Problem

STRIP_PIXELS = 1 << 20


def saturated_share(pixels: NDArray[np.uint8]) -> float:
    """Share of the pixels that are pure black or pure white."""
    rows = max(1, STRIP_PIXELS // max(1, pixels.shape[1]))  # comparing the whole of a large film takes its memory again
    strips = (pixels[top : top + rows] for top in range(0, len(pixels), rows))
    return sum(np.count_nonzero(strip == 0) + np.count_nonzero(strip == 255) for strip in strips) / pixels.size


def judge(
    limit: Mapping[str, float],
    saturated: float,
    logits: NDArray[np.floating],
    distance: float,
    lungs: NDArray[np.floating],
) -> list[Problem]:
    """Problems of one film.

    Parameters
    ----------
    limit
        The bundle's thresholds.
    saturated
        :func:`saturated_share` of the film as read.
    logits
        ``(3,)``: a frontal chest film; inverted; lungs cut off.
    distance
        From the chest films that the gate was trained on, in units of their spread.
    lungs
        ``(side, side)``: logits of the lung fields.

    Returns
    -------
    ``not_a_chest_image`` and ``inverted`` refuse; ``lungs_cut_off`` and ``saturated`` are reserves.
    """
    chest, inverted, cut_off = 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64)))
    if inverted >= limit["inverted"] and chest >= limit["chest"]:
        return [Problem("inverted", "reject", found=f"{inverted:.0%}", expected=f"< {limit['inverted']:.0%}")]
    fields = lungs > 0
    # Where hardly any lung is found (white lungs, or no chest at all), the picture has to look more like a chest.
    needed = limit["chest"] if fields.mean() >= limit["lung_area"] else limit["chest_without_lungs"]
    if chest < needed or distance > limit["distance"]:
        found = f"{chest:.0%}, Δ {distance:.1f}"
        expected = f"≥ {needed:.0%}, Δ ≤ {limit['distance']:.0f}"
        return [Problem("not_a_chest_image", "reject", found=found, expected=expected)]
    problems = []
    if cut_off >= limit["cut_off"]:
        problems.append(Problem("lungs_cut_off", "warn", found=f"{cut_off:.0%}", expected=f"< {limit['cut_off']:.0%}"))
    if saturated > limit["saturated"]:
        problems.append(Problem("saturated", "warn", found=f"{saturated:.0%}", expected=f"≤ {limit['saturated']:.0%}"))
    return problems
