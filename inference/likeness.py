"""What is said of an input that is unlike those that its network learnt from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike

from data_specs.problems import Problem

UNLIKE, FAR = "unlike", "far"
"""Names of the distances, in a bundle's thresholds, beyond which an input is answered with a reserve, or not at all."""


def unlikeness(thresholds: Mapping[str, float], distances: ArrayLike | None) -> Problem | None:
    """The problem of an input by its distance, the mean over its windows ``(n_windows, 1)``; most have none.

    A bundle without such an output, or without these thresholds, says nothing.
    """
    if distances is None or UNLIKE not in thresholds:
        return None
    distance = float(np.asarray(distances, dtype=np.float64).mean())
    if distance <= thresholds[UNLIKE]:
        return None
    is_far = not distance <= thresholds[FAR]
    limit = thresholds[FAR if is_far else UNLIKE]
    return Problem(
        "far_from_training" if is_far else "unlike_training",
        "reject" if is_far else "warn",
        found=f"{distance:.1f}",
        expected=f"≤ {limit:.1f}",
    )
