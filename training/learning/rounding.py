"""Weights that fp16 holds exactly, so that a session in fp16 differs from fp32 by the rounding of its sums alone.

A runtime folds each batch normalisation into the convolution before it and rounds the product: half of what fp16 moves
comes from there. Rounding the product here, before calibration and evaluation, makes it part of the network that both
precisions compute, and of the figures.
"""

from __future__ import annotations

import torch
from torch import nn

PAIRS = (
    ("_conv_stem", "_bn0"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
    ("_conv_head", "_bn1"),
)
"""Convolution and the normalisation behind it, by their names in MONAI's EfficientNet."""


@torch.no_grad()
def hold_in_fp16(network: nn.Module) -> None:
    """Round the weights of ``network`` in place to what fp16 holds; one without such pairs stays as it is.

    The scale of each normalisation moves into its convolution. What is left is the mean and the deviation of what the
    convolution now gives, so that fine-tuning, which normalises by batch, starts from the same function.
    """
    found = False
    for part in network.modules():
        for names in PAIRS:
            convolution, normalisation = (getattr(part, name, None) for name in names)
            if isinstance(convolution, nn.Conv2d) and isinstance(normalisation, nn.BatchNorm2d):
                _absorb(convolution, normalisation)
                found = True
    if found and isinstance(last := getattr(network, "classifier", None), nn.Conv2d):
        last.weight.copy_(last.weight.half())


def _absorb(convolution: nn.Conv2d, normalisation: nn.BatchNorm2d) -> None:
    mean, variance = normalisation.running_mean, normalisation.running_var
    assert mean is not None  # noqa: S101  it keeps statistics
    assert variance is not None  # noqa: S101
    scale = normalisation.weight / torch.sqrt(variance + normalisation.eps)
    convolution.weight.copy_((convolution.weight * scale[:, None, None, None]).half())
    mean.mul_(scale)
    variance.copy_((normalisation.weight**2 - normalisation.eps).clamp(min=0.0))
    normalisation.weight.copy_(torch.sqrt(variance + normalisation.eps))
