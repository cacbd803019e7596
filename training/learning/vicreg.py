"""VICReg: a loss that makes the features of two versions of a case similar, without labels.

Its three terms keep the two versions similar, the standard deviation of each feature large, and the features
uncorrelated.

References
----------
Bardes, Ponce, LeCun, VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning, ICLR 2022.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import mse_loss

INVARIANCE, VARIANCE, COVARIANCE = 25.0, 25.0, 1.0
"""Weights of the three terms, Bardes et al. 2022, section 4.2 (lambda, mu, nu)."""
SPREAD, EPSILON = 1.0, 1e-4
"""Standard deviation that each feature should have, and a constant for a smooth root: section 4.1 (gamma, epsilon)."""


def vicreg(a: Tensor, b: Tensor) -> Tensor:
    """Loss of two versions ``(n, d) float32`` of the same cases, Bardes et al. 2022, equation 6."""
    spread = (_variance_term(a) + _variance_term(b)) / 2
    return INVARIANCE * mse_loss(a, b) + VARIANCE * spread + COVARIANCE * (_covariance_term(a) + _covariance_term(b))


def _variance_term(z: Tensor) -> Tensor:
    """Equation 1; :func:`vicreg` takes the mean of both versions, as the authors' program does."""
    return torch.relu(SPREAD - (z.var(dim=0) + EPSILON).sqrt()).mean()


def _covariance_term(z: Tensor) -> Tensor:
    """Equations 3 and 4."""
    centred = z - z.mean(dim=0)
    covariance = centred.T @ centred / (len(z) - 1)
    return (covariance.square().sum() - covariance.diagonal().square().sum()) / z.shape[1]
