"""The figures of a network before training and after each epoch, and the weights of the epoch that is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import Any

import numpy as np
from torch import Tensor, nn

from training.figures.prospects import standard_error

Figures = Callable[[nn.Module], Mapping[str, float]]


class Kept:
    """Keeps the latest epoch that validation cannot tell from its best, by the mean AUROC of the offered columns.

    The best of ten epochs by the AUROC of 24 cases is the luckiest one. So an epoch is left for an earlier one only
    where it is worse by more than one standard error of the mean AUROC, which is small where validation is large. What
    is kept may be the network as it was before training, if it was a bundle: a fine-tuning that harms it leaves it so.

    Parameters
    ----------
    figures
        Gives the AUROC of each column of a network on validation.
    counts
        Positives and negatives behind each.
    may_keep_start
        Whether the network before training may be kept; one begun at random may not, however lucky.
    patience
        Training stops after so many epochs without a new best; 0: it never does.

    References
    ----------
    The one standard error rule: Breiman et al., Classification and Regression Trees, 1984, section 3.4.3.
    """

    def __init__(
        self,
        figures: Figures,
        counts: Mapping[str, tuple[int, int]],
        *,
        may_keep_start: bool = True,
        patience: int = 0,
    ) -> None:
        self._figures, self._counts, self._patience = figures, counts, patience
        self._first = 0 if may_keep_start else 1
        self.seen: list[dict[str, float]] = []
        self.kept = 0
        self.weights: dict[str, Tensor] = {}

    def see(self, network: nn.Module) -> dict[str, float]:
        """Measure the network, the first time as it is before training, and keep its weights if it is good enough."""
        self.seen.append({name: float(value) for name, value in self._figures(network).items()})
        epoch = len(self.seen) - 1
        if epoch >= self._first and self.value(epoch) >= self.value(self.best) - self.error(self.best):
            self.kept = epoch
            self.weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
        return self.seen[-1]

    @property
    def best(self) -> int:
        """The epoch with the highest mean; of equal ones the first."""
        return max(range(min(self._first, len(self.seen) - 1), len(self.seen)), key=self.value)

    def value(self, epoch: int) -> float:
        """Mean of the figures after ``epoch`` epochs; 0 where there are none."""
        return float(np.mean(list(self.seen[epoch].values()))) if self.seen[epoch] else 0.0

    def error(self, epoch: int) -> float:
        """Standard error of that mean, as if the columns were independent."""
        seen = self.seen[epoch]
        errors = [standard_error(max(value, 0.5), *self._counts[name]) for name, value in seen.items()]
        return sqrt(sum(error**2 for error in errors)) / len(errors) if errors else 0.0

    @property
    def stops(self) -> bool:
        """Whether no epoch was a new best for as long as is waited."""
        return bool(self.seen) and 0 < self._patience <= len(self.seen) - 1 - self.best

    def sentence(self, epochs: int) -> str:
        """Which epoch was kept and why, for the card."""
        if not self.seen:  # only the first of several processes measures
            return ""
        trained = len(self.seen) - 1
        stopped = f", stopped after {trained}" if trained < epochs else ""
        if not self.seen[self.kept]:
            return f"{self.kept} of {epochs}{stopped}; nothing could be measured on validation"
        return (
            f"{self.kept} of {epochs}{stopped}; mean AUROC on validation {self.value(self.kept):.3f}, before training "
            f"{self.value(0):.3f}, best {self.value(self.best):.3f} after {self.best} "
            f"(standard error {self.error(self.best):.3f})"
        )

    def state_dict(self) -> dict[str, Any]:
        return {"seen": self.seen, "kept": self.kept, "weights": self.weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.seen, self.kept, self.weights = list(state["seen"]), int(state["kept"]), dict(state["weights"])
