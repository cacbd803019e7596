"""How far an input is from those that a network learnt from."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Likeness(nn.Module):
    """Distance of vectors from those that it was fitted on, ``(n, n_values)`` to ``(n, 1) float32``.

    Mahalanobis distance within the principal components plus the residual outside them, both per degree of freedom: 2
    is the distance of an average vector of those.

    References
    ----------
    Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples, NeurIPS 2018, section 2.1, with
    one Gaussian for all classes; the residual is that of Wang et al., ViM, CVPR 2022, section 4.
    """

    def __init__(self, n_values: int, n_components: int = 48) -> None:
        super().__init__()
        self.register_buffer("template", torch.zeros(n_values))
        self.register_buffer("components", torch.zeros(n_components, n_values))
        self.register_buffer("scale", torch.ones(n_components))
        self.register_buffer("residual_scale", torch.tensor(1.0))

    def forward(self, vectors: Tensor) -> Tensor:
        offset = vectors - self.template
        along = offset @ self.components.T
        residual = offset - along @ self.components
        within = (along / self.scale).square().mean(dim=1)
        outside = (residual / self.residual_scale).square().mean(dim=1)
        return (within + outside)[:, None]

    @torch.no_grad()
    def fit(self, vectors: Tensor) -> None:
        """Take mean, components and scales from ``(n, n_values)``, more than components."""
        self.template.copy_(vectors.mean(dim=0))
        offset = vectors - self.template
        _, values, directions = torch.linalg.svd(offset, full_matrices=False)
        k = len(self.scale)
        self.components.copy_(directions[:k])
        self.scale.copy_(values[:k] / len(vectors) ** 0.5)
        residual = offset - offset @ self.components.T @ self.components
        self.residual_scale.copy_(residual.square().mean().sqrt())


class WithDistance(nn.Module):
    """A network as it is exported: logits, evidence, and the distance of the pooled features ``(n, 1) float32``.

    Parameters
    ----------
    network
        Has ``features`` and ``head``; its weights keep their names, after ``network.``.
    """

    def __init__(self, network: nn.Module, n_features: int) -> None:
        super().__init__()
        self.network = network
        self.likeness = Likeness(n_features)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = self.network.features(inputs)  # type: ignore[operator]
        logits, evidence = self.network.head(features)  # type: ignore[operator]
        return logits, evidence, self.likeness(pooled(features))


def pooled(features: Tensor) -> Tensor:
    """``(n, channels)``: the mean over space or time of features ``(n, channels, ...)``."""
    return features.flatten(2).mean(dim=2)
