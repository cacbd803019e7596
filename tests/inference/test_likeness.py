"""Distances become a reserve or a refusal, from both sides of each threshold."""

from __future__ import annotations

import numpy as np
import pytest

from inference.likeness import unlikeness

LIMITS = {"unlike": 5.0, "far": 20.0}


@pytest.mark.parametrize(
    ("distances", "code", "severity", "expected"),
    [
        ([[5.0]], None, None, None),
        ([[5.0001]], "unlike_training", "warn", "≤ 5.0"),
        ([[20.0]], "unlike_training", "warn", "≤ 5.0"),
        ([[20.0001]], "far_from_training", "reject", "≤ 20.0"),
        ([[np.nan]], "far_from_training", "reject", "≤ 20.0"),
        ([[np.inf]], "far_from_training", "reject", "≤ 20.0"),
        ([[2.0], [6.0]], None, None, None),
        ([[2.0], [9.0]], "unlike_training", "warn", "≤ 5.0"),
    ],
)
def test_the_mean_over_the_windows_decides(
    distances: list[list[float]], code: str | None, severity: str | None, expected: str | None
) -> None:
    found = unlikeness(LIMITS, np.array(distances, dtype=np.float32))
    assert (found and found.code, found and found.severity, found and found.expected) == (code, severity, expected)


@pytest.mark.parametrize("limits", [{}, {"distance": 3.0}])
def test_a_bundle_that_knows_no_limits_says_nothing(limits: dict[str, float]) -> None:
    assert unlikeness(limits, np.array([[1e9]])) is None
    assert unlikeness(LIMITS, None) is None
