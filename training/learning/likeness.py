"""How far inputs are from those that a network learnt from, in its own features; and from where on that is said."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from inference.likeness import FAR, UNLIKE
from models.likeness import WithDistance, pooled
from training.cohorts.cohort import Cohort

SHARE_UNLIKE = 0.01
"""Share of a cohort's validation cases beyond the distance from which a reserve is said."""
FAR_FACTOR = 4.0
"""Distance from which nothing is assessed, in distances from which a reserve is said."""
BATCH = 64


def with_distance(network: nn.Module, cohorts: Sequence[Cohort]) -> tuple[WithDistance, dict[str, float]]:
    """The network with the distance from the train parts among its outputs, and the thresholds of that distance.

    These come from the validation parts: the most tolerant of the cohorts decides, because each of them is known.
    """
    learnt = [features_of(network, cohort.x[cohort.rows("train")]) for cohort in cohorts]
    measured = WithDistance(network, learnt[0].shape[1])
    measured.likeness.fit(torch.cat(learnt))
    measured.eval()
    seen = [distances(measured, cohort.x[cohort.rows("validation")]) for cohort in cohorts]
    unlike = max(float(np.quantile(each, 1 - SHARE_UNLIKE)) for each in seen)
    return measured, {UNLIKE: unlike, FAR: FAR_FACTOR * unlike}


def distances(measured: WithDistance, x: NDArray[np.generic]) -> NDArray[np.float64]:
    """``(n,)`` of inputs ``(n, ...)``."""
    with torch.inference_mode():
        vectors = features_of(measured.network, x)
        return np.asarray(measured.likeness(vectors)[:, 0].numpy(), dtype=np.float64)


def features_of(network: nn.Module, x: NDArray[np.generic]) -> Tensor:
    """Pooled features ``(n, channels)`` of inputs ``(n, ...)``."""
    network.eval()
    with torch.inference_mode():
        return torch.cat([pooled(network.features(part)) for part in torch.from_numpy(x).split(BATCH)])  # type: ignore[operator]
