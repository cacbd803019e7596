"""Networks that were trained elsewhere, with the inputs and outputs of the shipped ones.

The graph takes our films, ``(n, 1, side, side) uint8``, and holds the normalisation and the channels that the network
was trained with. Where the network ends in feature map, global average pooling and one linear layer, the class
activation map (Zhou et al., CVPR 2016, equation 2) comes from the same pass, as in :mod:`models.networks`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import conv2d

ToMap = Callable[[nn.Module, Tensor], Tensor]


@dataclass(frozen=True)
class Normalisation:
    """``(pixel - mean) / std`` for pixels of 0 to 255, one pair per channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


class FeatureMap(nn.Module):
    """A torchvision classifier up to its last feature map ``(n, channels, rows, columns)``."""

    def __init__(self, network: nn.Module, channels: int, to_map: ToMap | None) -> None:
        super().__init__()
        self.network = copy.deepcopy(network)
        self.channels = channels
        self.to_map = to_map
        for name in ("avgpool", "classifier", "fc", "head"):
            if hasattr(self.network, name):
                setattr(self.network, name, nn.Identity())

    def forward(self, x: Tensor) -> Tensor:
        if self.to_map is not None:
            return self.to_map(self.network, x)
        # Without pooling and head, the network gives its feature map flattened, row by row.
        flat = self.network(x)
        side = math.isqrt(flat.shape[1] // self.channels)
        return flat.unflatten(1, (self.channels, side, side))


class ImportedNet(nn.Module):
    """A torchvision classifier that takes films as :class:`models.networks.FilmNet` does.

    Parameters
    ----------
    network
        Classifier whose last layer gives logits, without sigmoid or softmax.
    normalisation
        What it was trained with; its length is the number of input channels, to which a film is repeated.
    exclusive
        The classes exclude each other (softmax). The logit of class k is then log(p_k / (1 - p_k)), so that a sigmoid
        of it is the softmax.

    Notes
    -----
    Input ``(n, 1, side, side) uint8``. Output ``logits (n, n_classes) float32`` and, where :attr:`gives_evidence`,
    ``evidence (n, n_classes, rows, columns) float32``, whose mean over rows and columns is the logit (for three
    exclusive classes and more: each class against the mean of the others).
    """

    def __init__(self, network: nn.Module, normalisation: Normalisation, *, exclusive: bool = False) -> None:
        super().__init__()
        self.exclusive = exclusive
        self.register_buffer("mean", torch.tensor(normalisation.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(normalisation.std).view(1, -1, 1, 1))
        parts = split(network)
        self.gives_evidence = parts is not None
        if parts is None:
            self.network = network
        else:
            self.features, self.head = parts

    @property
    def outputs(self) -> tuple[str, ...]:
        return ("logits", "evidence") if self.gives_evidence else ("logits",)

    def forward(self, films: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.normalise(films)
        if not self.gives_evidence:
            return self.one_against_rest(self.network(x))
        features = self.features(x)
        logits = self.one_against_rest(self.head(features.mean(dim=(2, 3))))
        evidence = conv2d(features, self.head.weight[:, :, None, None], self.head.bias)
        if self.exclusive:
            n = evidence.shape[1]
            evidence = (n * evidence - evidence.sum(dim=1, keepdim=True)) / (n - 1)
        return logits, evidence

    def normalise(self, films: Tensor) -> Tensor:
        """Films as the network was trained to see them, ``(n, channels, side, side) float32``."""
        return (films.float().expand(-1, self.mean.shape[1], -1, -1) - self.mean) / self.std

    def one_against_rest(self, z: Tensor) -> Tensor:
        """Logits of each class against all others together; ``z`` itself where the classes are not exclusive."""
        if not self.exclusive:
            return z
        n = z.shape[1]
        own = torch.eye(n, dtype=torch.bool)
        others = z[:, None, :].expand(-1, n, n).masked_fill(own, -torch.inf)
        return z - others.logsumexp(dim=2)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}
"""What may stand between the linear layers of a head, by the name that a spec gives."""


def build(
    architecture: str, n_classes: int, channels: int, *, hidden: Sequence[int] | None = None, activation: str = "relu"
) -> nn.Module:
    """An untrained torchvision classifier; its first convolution takes ``channels`` where that is not 3.

    Parameters
    ----------
    hidden
        Widths between the features and the classes where the head is not torchvision's; none of them: one linear layer.
    activation
        After each of them.

    Raises
    ------
    ValueError
        torchvision has no classifier of this name, or its inference needs more than its weights.
    """
    known = [name for name in torchvision.models.list_models(module=torchvision.models) if name not in UNSUPPORTED]
    if architecture not in known:
        reason = UNSUPPORTED.get(architecture, "torchvision has no classifier of this name; it has " + ", ".join(known))
        raise ValueError(f"architecture '{architecture}': {reason}")
    network = torchvision.models.get_model(architecture, weights=None, num_classes=n_classes).eval()
    name, first = next((name, part) for name, part in network.named_modules() if isinstance(part, nn.Conv2d))
    if first.in_channels != channels:
        parent, _, attribute = name.rpartition(".")
        stem = nn.Conv2d(
            channels,
            first.out_channels,
            first.kernel_size,  # type: ignore[arg-type]
            first.stride,  # type: ignore[arg-type]
            first.padding,  # type: ignore[arg-type]
            bias=first.bias is not None,
        )
        setattr(network.get_submodule(parent), attribute, stem)
    if hidden is not None:
        _replace_head(network, n_classes, hidden, activation)
    return network.eval()


def _replace_head(network: nn.Module, n_classes: int, hidden: Sequence[int], activation: str) -> None:
    name = next((name for name in ("classifier", "fc", "heads", "head") if hasattr(network, name)), None)
    first = next((m for m in getattr(network, name or "", nn.Identity()).modules() if isinstance(m, nn.Linear)), None)
    if name is None or first is None:
        raise ValueError("head: this architecture ends in no linear layer")
    widths = [first.in_features, *hidden, n_classes]
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    setattr(network, name, nn.Sequential(*layers[:-1]))


UNSUPPORTED = {
    "googlenet": "whether it re-normalises its input (transform_input) is not in the checkpoint",
    "inception_v3": "whether it re-normalises its input (transform_input) is not in the checkpoint",
}
"""Classifiers of torchvision that cannot be imported, and why."""


def split(network: nn.Module) -> tuple[FeatureMap, nn.Linear] | None:
    """Feature map and linear head of ``network``; ``None`` where more than pooling and dropout is between them."""
    head = next((getattr(network, name) for name in ("classifier", "fc", "head") if hasattr(network, name)), None)
    parts = head if isinstance(head, nn.Sequential) else [head]
    layers = [part for part in parts if not isinstance(part, nn.Dropout)]
    if len(layers) != 1 or not isinstance(layers[0], nn.Linear):
        return None
    to_map = WAYS_TO_MAP.get(type(network))
    if to_map is None and not hasattr(network, "avgpool"):
        return None
    return FeatureMap(network, layers[0].in_features, to_map), layers[0]


def _densenet(network: nn.Module, x: Tensor) -> Tensor:
    return torch.relu(network.features(x))  # type: ignore[operator]


def _features(network: nn.Module, x: Tensor) -> Tensor:
    return network.features(x)  # type: ignore[operator, no-any-return]


def _mnasnet(network: nn.Module, x: Tensor) -> Tensor:
    return network.layers(x)  # type: ignore[operator, no-any-return]


def _shufflenet(network: nn.Module, x: Tensor) -> Tensor:
    for part in ("conv1", "maxpool", "stage2", "stage3", "stage4", "conv5"):
        x = getattr(network, part)(x)
    return x


WAYS_TO_MAP: dict[type[nn.Module], ToMap] = {
    torchvision.models.DenseNet: _densenet,
    torchvision.models.MobileNetV2: _features,
    torchvision.models.MNASNet: _mnasnet,
    torchvision.models.ShuffleNetV2: _shufflenet,
}
"""How to compute the last feature map of the classes that pool inside ``forward``."""
