"""Weights that fp16 holds: the function stays, and folding gives numbers that fp16 has."""

from __future__ import annotations

import copy

import torch
from torch import nn

from models.networks import FilmNet, RecordingNet
from training.learning.rounding import PAIRS, hold_in_fp16


def some_films() -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randint(0, 256, (8, 1, 64, 64), dtype=torch.uint8, generator=generator)


def trained_a_little() -> FilmNet:
    """Scales that are not those of a new network, and the statistics of :func:`some_films`."""
    torch.manual_seed(3)
    network = FilmNet(2, dropout=0.0)
    network.train()
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 1.5).mul_(torch.where(torch.rand_like(part.weight) < 0.5, -1.0, 1.0))
                part.bias.uniform_(-0.5, 0.5)
                part.momentum = 1.0
        network(some_films())
    return network.eval()


def pairs(network: nn.Module) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    return [
        (getattr(part, first), getattr(part, second))
        for part in network.modules()
        for first, second in PAIRS
        if isinstance(getattr(part, first, None), nn.Conv2d) and isinstance(getattr(part, second, None), nn.BatchNorm2d)
    ]


@torch.no_grad()
def test_what_a_runtime_folds_is_what_fp16_holds_and_the_function_stays() -> None:
    network = trained_a_little()
    rounded = copy.deepcopy(network)
    hold_in_fp16(rounded)
    films = some_films()
    before, after = network(films)[0], rounded(films)[0]
    spread = float(before.abs().max())
    assert 0 < float((before - after).abs().max()) < 0.2 * spread
    found = pairs(rounded)
    assert len(found) == sum(isinstance(part, nn.BatchNorm2d) for part in rounded.modules())
    for convolution, normalisation in found:
        assert normalisation.running_var is not None
        scale = normalisation.weight / torch.sqrt(normalisation.running_var + normalisation.eps)
        folded = convolution.weight * scale[:, None, None, None]
        assert torch.equal(folded.half().float(), convolution.weight), "a runtime's rounding moves it once more"
        assert torch.allclose(scale, torch.ones_like(scale), atol=1e-6)
    assert torch.equal(rounded.classifier.weight, rounded.classifier.weight.half().float())


class Stem(nn.Module):
    """One convolution and its normalisation, whose scales are of both signs and one nearly nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(1, 8, 3, bias=False)
        self._bn0 = nn.BatchNorm2d(8, eps=1e-3, momentum=1.0)
        nn.init.normal_(self._conv_stem.weight)
        with torch.no_grad():
            self._bn0.weight.copy_(torch.tensor([1.4, -0.7, 0.2, -2.0, 0.01, 0.9, -0.1, 1.0]))
            self._bn0.bias.uniform_(-0.5, 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self._bn0(self._conv_stem(x)))


@torch.no_grad()
def test_fine_tuning_which_normalises_by_batch_starts_from_the_same_function() -> None:
    torch.manual_seed(5)
    stem, films = Stem(), torch.randn(16, 1, 32, 32)
    stem(films)  # the statistics of these films
    rounded = copy.deepcopy(stem)
    hold_in_fp16(rounded)
    for mode in (True, False):
        before, after = stem.train(mode)(films), rounded.train(mode)(films)
        assert float((before - after).abs().max()) < 0.02


@torch.no_grad()
def test_a_network_without_such_pairs_stays_as_it_is() -> None:
    network = RecordingNet(3)
    before = copy.deepcopy(network.state_dict())
    hold_in_fp16(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
