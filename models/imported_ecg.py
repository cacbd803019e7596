"""Networks for recordings that were trained elsewhere, with the inputs and outputs of the shipped one.

Each network is written here from its published description, under the names that its checkpoints use. The graph takes
twelve leads in the order of :data:`data_specs.ecg.recording.LEADS`, and holds what the network was trained with beyond
that: the order of its leads, its unit and its standardisation.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import max_pool1d, pad, silu


class Residual2020(nn.Module):
    """The network of Ribeiro et al.: ``(n, 12, 4096)`` to logits and ``(n, n_classes, 16)``, whose mean is the logit.

    References
    ----------
    Ribeiro et al., Automatic diagnosis of the 12-lead ECG using a deep neural network, Nat Commun 2020;11:1760,
    figure 3: a convolution of 64 filters and four residual blocks of 128, 196, 256 and 320, filters of 16 samples, each
    block over a fourth of the samples. Batch norms have the epsilon of Keras.
    """

    FILTERS, KERNEL, STEPS = (64, 128, 196, 256, 320), 16, 16

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.convolution = _Same(12, self.FILTERS[0], self.KERNEL)
        self.norm = _keras_norm(self.FILTERS[0])
        pairs = zip(self.FILTERS, self.FILTERS[1:], strict=False)
        self.blocks = nn.ModuleList(_Block2020(before, after, self.KERNEL) for before, after in pairs)
        self.dense = nn.Linear(self.STEPS * self.FILTERS[-1], n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.norm(self.convolution(x)))
        y = x
        for block in self.blocks:
            x, y = block(x, y)
        # Keras flattens sample by sample, so the weights of the last layer are a filter for each of the samples.
        weights = self.dense.weight.unflatten(1, (self.STEPS, self.FILTERS[-1]))
        over_time = torch.einsum("nct,ktc->nkt", x, weights) * self.STEPS + self.dense.bias[:, None]
        return over_time.mean(dim=2), over_time


class _Block2020(nn.Module):
    def __init__(self, before: int, after: int, kernel: int) -> None:
        super().__init__()
        self.skip = nn.Conv1d(before, after, 1, bias=False)
        self.first, self.first_norm = _Same(before, after, kernel), _keras_norm(after)
        self.second, self.second_norm = _Same(after, after, kernel, stride=4), _keras_norm(after)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.first_norm(self.first(x)))
        total = self.second(x) + self.skip(max_pool1d(y, 4))
        return torch.relu(self.second_norm(total)), total


def _keras_norm(channels: int) -> nn.BatchNorm1d:
    return nn.BatchNorm1d(channels, eps=1e-3)


class _Same(nn.Conv1d):
    """A convolution whose output has ceil(n / stride) samples; an odd zero stands behind (TensorFlow's ``SAME``)."""

    def __init__(
        self, before: int, after: int, kernel: int, *, stride: int = 1, groups: int = 1, bias: bool = False
    ) -> None:
        super().__init__(before, after, kernel, stride=stride, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        (kernel,), (stride,), n = self.kernel_size, self.stride, x.shape[-1]
        zeros = max(0, (-(-n // stride) - 1) * stride + kernel - n)
        return super().forward(pad(x, (zeros // 2, zeros - zeros // 2)))


class XResNet1d101(nn.Sequential):
    """``xresnet1d101`` of the PTB-XL benchmark: ``(n, 12, samples)`` to logits, for crops of 250 samples at 100 Hz.

    References
    ----------
    Strodthoff et al., Deep Learning for ECG Analysis: Benchmarks and Insights from PTB-XL, IEEE J Biomed Health Inform
    2021;25:1519; He et al., Bag of Tricks for Image Classification, CVPR 2019 (the stem and the shortcuts). Bottlenecks
    of 64 channels in all four stages, filters of 5 samples, a head of 128 units over the largest and the mean value.
    """

    BLOCKS, WIDTH, EXPANSION = (3, 4, 23, 3), 64, 4

    def __init__(self, n_classes: int) -> None:
        channels = self.WIDTH * self.EXPANSION
        stages = []
        before = self.WIDTH
        for number, blocks in enumerate(self.BLOCKS):
            stage = [
                _Bottleneck(before if i == 0 else channels, self.WIDTH, channels, 2 if i == 0 and number else 1)
                for i in range(blocks)
            ]
            stages.append(nn.Sequential(*stage))
            before = channels
        head = [_LargestAndMean(), nn.Flatten(), *_normed(2 * channels, 128), nn.ReLU(), *_normed(128, n_classes)]
        super().__init__(
            *(_convolved(*each) for each in ((12, 32, 5, 2), (32, 32, 5, 1), (32, self.WIDTH, 5, 1))),
            nn.MaxPool1d(3, stride=2, padding=1),
            *stages,
            nn.Sequential(*head),
        )


class _Bottleneck(nn.Module):
    def __init__(self, before: int, width: int, after: int, stride: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            _convolved(before, width, 1, 1),
            _convolved(width, width, 5, stride),
            _convolved(width, after, 1, 1, activated=False),
        )
        shrink: list[nn.Module] = [nn.AvgPool1d(2, ceil_mode=True)] if stride > 1 else []
        widen: list[nn.Module] = [_convolved(before, after, 1, 1, activated=False)] if before != after else []
        self.idpath = nn.Sequential(*shrink, *widen)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.convs(x) + self.idpath(x))


def _convolved(before: int, after: int, kernel: int, stride: int, *, activated: bool = True) -> nn.Sequential:
    layers = [
        nn.Conv1d(before, after, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm1d(after),
    ]
    return nn.Sequential(*layers, *([nn.ReLU()] if activated else []))


def _normed(before: int, after: int) -> tuple[nn.Module, ...]:
    """As fastai builds a head: norm, dropout, linear; the dropout keeps the numbers of its checkpoints."""
    return nn.BatchNorm1d(before), nn.Dropout(0.0), nn.Linear(before, after)


class _LargestAndMean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x.amax(dim=2, keepdim=True), x.mean(dim=2, keepdim=True)], dim=1)


class Net1d(nn.Module):
    """The network of ECGFounder: ``(n, 12, samples)`` to logits and ``(n, n_classes, steps)``, whose mean is the logit.

    A RegNet over time: seven stages of bottlenecks with grouped filters of 16 samples and channel attention, widened
    with zeros. Its batch norms are in the checkpoint, and it was trained without them.

    References
    ----------
    Li et al., An Electrocardiogram Foundation Model Built on over 10 Million Recordings with External Evaluation across
    Multiple Domains, arXiv 2410.04133; Radosavovic et al., Designing Network Design Spaces, CVPR 2020.
    """

    WIDTHS, BLOCKS, KERNEL, GROUP = (64, 160, 160, 400, 400, 1024, 1024), (2, 2, 2, 3, 3, 4, 4), 16, 16

    def __init__(self, n_classes: int) -> None:
        super().__init__()
        self.first_conv = _Named(_Same(12, 64, self.KERNEL, stride=2, bias=True))
        stages, before = [], 64
        for number, (width, blocks) in enumerate(zip(self.WIDTHS, self.BLOCKS, strict=True)):
            first = _Regular(before, width, self.KERNEL, self.GROUP, stride=2, activated=number > 0)
            others = (_Regular(width, width, self.KERNEL, self.GROUP) for _ in range(blocks - 1))
            stages.append(_Stage([first, *others]))
            before = width
        self.stage_list = nn.ModuleList(stages)
        self.dense = nn.Linear(before, n_classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = silu(self.first_conv(x))
        for stage in self.stage_list:
            x = stage(x)
        over_time = torch.einsum("nct,kc->nkt", x, self.dense.weight) + self.dense.bias[:, None]
        return over_time.mean(dim=2), over_time


class _Named(nn.Module):
    """A convolution under the name ``conv``, as in the checkpoints."""

    def __init__(self, conv: nn.Conv1d) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.conv(x))


class _Stage(nn.Module):
    def __init__(self, blocks: Sequence[nn.Module]) -> None:
        super().__init__()
        self.block_list = nn.ModuleList(blocks)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block_list:
            x = block(x)
        return x


class _Regular(nn.Module):
    def __init__(
        self, before: int, width: int, kernel: int, group: int, *, stride: int = 1, activated: bool = True
    ) -> None:
        super().__init__()
        self.stride, self.wider, self.activated = stride, width - before, activated
        self.conv1 = _Named(_Same(before, width, 1, bias=True))
        self.conv2 = _Named(_Same(width, width, kernel, stride=stride, groups=width // group, bias=True))
        self.conv3 = _Named(_Same(width, width, 1, bias=True))
        self.se_fc1, self.se_fc2 = nn.Linear(width, width // 2), nn.Linear(width // 2, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(silu(x) if self.activated else x)
        y = self.conv3(silu(self.conv2(silu(y))))
        y = y * torch.sigmoid(self.se_fc2(silu(self.se_fc1(y.mean(dim=2)))))[:, :, None]
        if self.stride > 1:
            x = max_pool1d(pad(x, (0, self.stride - 1)), self.stride)
        half = self.wider // 2
        return y + pad(x, (0, 0, half, self.wider - half))


@dataclass(frozen=True)
class Architecture:
    """How a network for recordings is built, and under which names its checkpoints keep it.

    Parameters
    ----------
    build
        From the number of classes.
    n_samples
        The only length of its input, or ``None`` where it takes any.
    over_time
        Whether it gives its logits over time beside its logits.
    unused
        Keys of its checkpoints that have no part in its output.
    keras
        From the layers of a Keras file, by kind and in the order in which they were made, to the names here.
    """

    build: Callable[[int], nn.Module]
    n_samples: int | None = None
    over_time: bool = True
    unused: re.Pattern[str] | None = None
    keras: Callable[[Mapping[str, Sequence[Mapping[str, Tensor]]]], dict[str, Tensor]] | None = None


def _residual2020_from_keras(layers: Mapping[str, Sequence[Mapping[str, Tensor]]]) -> dict[str, Tensor]:
    """Convolutions in the order in which they are made: the first one, then skip, first and second of each block."""
    names = ["convolution"] + [f"blocks.{i}.{part}" for i in range(4) for part in ("skip", "first", "second")]
    norms = ["norm"] + [f"blocks.{i}.{part}_norm" for i in range(4) for part in ("first", "second")]
    kept = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    found: dict[str, Tensor] = {}
    for name, layer in zip(names, layers.get("conv1d", ()), strict=True):
        found[f"{name}.weight"] = layer["kernel"].permute(2, 1, 0)
    for name, layer in zip(norms, layers.get("batch_normalization", ()), strict=True):
        found |= {f"{name}.{kept.get(key, key)}": value for key, value in layer.items()}
    (last,) = (layer for kind in layers.values() for layer in kind if "kernel" in layer and layer["kernel"].dim() == 2)
    found |= {"dense.weight": last["kernel"].T, "dense.bias": last["bias"]}
    return {name: value.contiguous() for name, value in found.items()}


ARCHITECTURES = {
    "residual2020": Architecture(Residual2020, n_samples=4096, keras=_residual2020_from_keras),
    # fastai keeps every convolution of a block twice, under `convs` and under `convpath.0`.
    "xresnet1d101": Architecture(XResNet1d101, over_time=False, unused=re.compile(r"\.convpath\.0\.")),
    "net1d": Architecture(Net1d, unused=re.compile(r"(^|\.)(first_bn|bn[123])\.")),
}
"""Networks for recordings that can be imported, by the name that a spec gives."""


class ImportedEcgNet(nn.Module):
    """A network for recordings that takes millivolts or deviations as :class:`models.networks.CardiacNet` does.

    Parameters
    ----------
    network
        Gives logits, and logits over time where ``over_time``.
    order
        For each of its leads, where it stands among the twelve.
    scale, mean, std
        What it takes is ``(scale · x - mean) / std``.
    crops
        ``(samples, step)`` of crops that it sees one by one; the largest logit is that of the recording.
    any_of
        For each column after those of the classes, the classes whose largest logit it is.

    Notes
    -----
    Input ``(n, 12, n_samples) float32``. Output ``logits (n, n_columns) float32`` and ``evidence (n, n_columns, steps)
    float32``: logits over time, or those of the crops.
    """

    outputs = ("logits", "evidence")

    def __init__(
        self,
        network: nn.Module,
        *,
        order: Sequence[int] = tuple(range(12)),
        scale: float = 1.0,
        mean: float = 0.0,
        std: float = 1.0,
        crops: tuple[int, int] | None = None,
        any_of: Sequence[Sequence[int]] = (),
        over_time: bool = True,
    ) -> None:
        super().__init__()
        self.network, self.crops, self.over_time = network, crops, over_time
        self.order, self.any_of = list(order), [list(columns) for columns in any_of]
        self.scale, self.mean, self.std = scale, mean, std

    def prepared(self, recordings: Tensor) -> Tensor:
        """What the network sees: its leads in its order and unit, standardised."""
        return (recordings[:, self.order] * self.scale - self.mean) / self.std

    def forward(self, recordings: Tensor) -> tuple[Tensor, Tensor]:
        x = self.prepared(recordings)
        if self.crops is None:
            logits, evidence = self.network(x) if self.over_time else _alone(self.network(x))
        else:
            size, step = self.crops
            parts = torch.stack([x[:, :, at : at + size] for at in range(0, x.shape[2] - size + 1, step)], dim=1)
            out = self.network(parts.flatten(0, 1))
            evidence = (out[0] if self.over_time else out).unflatten(0, (-1, parts.shape[1])).transpose(1, 2)
            logits = evidence.amax(dim=2)
        return self.with_any(logits), self.with_any(evidence)

    def with_any(self, columns: Tensor) -> Tensor:
        """Columns of the classes, and after them the largest of each group of ``any_of``."""
        return torch.cat([columns, *(columns[:, group].amax(dim=1, keepdim=True) for group in self.any_of)], dim=1)


def _alone(logits: Tensor) -> tuple[Tensor, Tensor]:
    return logits, logits[:, :, None]
