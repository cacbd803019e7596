"""The quality gate for films, judged from the pixels by the ``cxr_gate`` bundle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_specs.cxr.image import strips
from data_specs.problems import Problem


def saturated_share(pixels: NDArray[np.uint8]) -> float:
    """Share of the pixels that are pure black or pure white."""
    parts = (pixels[rows] for rows in strips(pixels))
    return sum(np.count_nonzero(part == 0) + np.count_nonzero(part == 255) for part in parts) / pixels.size


@dataclass(frozen=True, slots=True)
class Judged:
    """What the gate says of one film as it lies: how like an upright frontal film it is, 0 to 1, and its problems."""

    likeness: float
    problems: list[Problem]

    @property
    def is_chest(self) -> bool:
        return all(problem.code != "not_a_chest_image" for problem in self.problems)


def judge(
    limit: Mapping[str, float],
    saturated: float,
    logits: NDArray[np.floating],
    distance: float,
    lungs: NDArray[np.floating],
) -> Judged:
    """Judge one film as it lies.

    Parameters
    ----------
    limit
        The bundle's thresholds.
    saturated
        :func:`saturated_share` of the film as read.
    logits
        ``(4,)``: an upright frontal chest film; inverted; lungs cut off; the heart on the right of the person.
        ``(3,)`` of a bundle before 1.1, which does not look for the heart.
    distance
        From the chest films that the gate was trained on, in units of their spread.
    lungs
        ``(side, side)``: logits of the lung fields.

    Returns
    -------
    ``not_a_chest_image`` and ``inverted`` refuse; ``lungs_cut_off``, ``saturated`` and ``heart_on_the_right`` are
    reserves.
    """
    chest, inverted, cut_off, *on_the_right = 1 / (1 + np.exp(-np.asarray(logits, dtype=np.float64)))
    if inverted >= limit["inverted"] and chest >= limit["chest"]:
        problem = Problem("inverted", "reject", found=f"{inverted:.0%}", expected=f"< {limit['inverted']:.0%}")
        return Judged(float(chest), [problem])
    fields = lungs > 0
    # Where hardly any lung is found (white lungs, or no chest at all), the picture has to look more like a chest.
    needed = limit["chest"] if fields.mean() >= limit["lung_area"] else limit["chest_without_lungs"]
    if not (chest >= needed and distance <= limit["distance"]):  # so that what is no number is refused
        found = f"{chest:.0%}, Δ {distance:.1f}"
        expected = f"≥ {needed:.0%}, Δ ≤ {limit['distance']:.0f}"
        return Judged(float(chest), [Problem("not_a_chest_image", "reject", found=found, expected=expected)])
    problems = []
    if cut_off >= limit["cut_off"]:
        problems.append(Problem("lungs_cut_off", "warn", found=f"{cut_off:.0%}", expected=f"< {limit['cut_off']:.0%}"))
    if saturated > limit["saturated"]:
        problems.append(Problem("saturated", "warn", found=f"{saturated:.0%}", expected=f"≤ {limit['saturated']:.0%}"))
    for share in on_the_right:
        if share >= limit["heart_on_the_right"]:
            expected = f"< {limit['heart_on_the_right']:.0%}"
            problems.append(Problem("heart_on_the_right", "warn", found=f"{share:.0%}", expected=expected))
    return Judged(float(chest), problems)


def set_upright(limit: Mapping[str, float], as_it_lies: Judged, turned: Sequence[Judged]) -> tuple[int, list[Problem]]:
    """Quarter turns, counterclockwise, that set a film upright, and its problems then.

    A film is turned only where it is no frontal film as it lies, and surely one when it is turned. A bundle before 1.1
    has no limit for that: its films are never turned.

    Parameters
    ----------
    turned
        The same film turned by one, two and three quarters.
    """
    enough = limit.get("chest_turned", math.inf)
    upright = [
        (each.likeness, turns) for turns, each in enumerate(turned, 1) if each.is_chest and each.likeness >= enough
    ]
    if as_it_lies.is_chest or not upright:
        return 0, as_it_lies.problems
    _, turns = max(upright)
    return turns, [Problem("turned", "warn", found=f"{90 * turns}°"), *turned[turns - 1].problems]
