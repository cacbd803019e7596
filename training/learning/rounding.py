"""Round weights to values that fp16 represents exactly, so that fp16 differs from fp32 only by the rounding of sums.

A runtime merges each batch normalisation into the convolution before it, and in fp16 rounds the product; this causes
half of the difference. Here the product is rounded before calibration and evaluation, so that both precisions compute
with the same weights, and the figures are those of the rounded weights.
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
"""Names of a convolution and of the normalisation after it, in MONAI's EfficientNet."""


@torch.no_grad()
def hold_in_fp16(network: nn.Module) -> None:
    """Round the weights of ``network`` in place to fp16 values; a network without these pairs does not change.

    The scale of each normalisation is multiplied into its convolution. The normalisation keeps the mean and the
    deviation of the new output, so that fine-tuning, which normalises by batch, starts from the same function.
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
    assert mean is not None  # noqa: S101  for the type checker: statistics are tracked
    assert variance is not None  # noqa: S101
    scale = normalisation.weight / torch.sqrt(variance + normalisation.eps)
    convolution.weight.copy_((convolution.weight * scale[:, None, None, None]).half())
    mean.mul_(scale)
    variance.copy_((normalisation.weight**2 - normalisation.eps).clamp(min=0.0))
    normalisation.weight.copy_(torch.sqrt(variance + normalisation.eps))
