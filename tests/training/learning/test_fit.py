"""The loop: learns, leaves unknown labels out, and an interrupted run ends with the weights it would have had."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from models.networks import RecordingNet
from tests.training.learning.children import ends
from tests.training.learning.ddp_curve import curve
from training.learning import augment
from training.learning.batches import Cases, Recipe
from training.learning.checkpoints import CheckpointMismatch
from training.learning.fit import fit, masked_loss, n_cases, predict


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def cases() -> Cases:
    """Recordings whose first lead carries a 5 Hz wave or none: something that can be learnt in a minute."""
    generator = torch.Generator().manual_seed(1)
    y = (torch.arange(48) % 2).float()
    x = 0.5 * torch.randn(48, 12, 200, generator=generator)
    x[:, 0] += y[:, None] * torch.sin(torch.arange(200) * 2 * torch.pi * 5 / 100)
    labels = torch.stack([y, torch.full((48,), torch.nan)], dim=1)
    labels[:4, 1] = 1.0
    return Cases(x, labels, np.ones(48))


def network() -> RecordingNet:
    torch.manual_seed(3)
    return RecordingNet(2, widths=(8, 16), blocks=1, kernels=(5, 7))


def untouched(batch: Tensor, _: torch.Generator) -> Tensor:
    return batch


RECIPE = Recipe(epochs=6, batch_size=16, learning_rate=1e-2, average_decay=0.5, precision="fp32")


def test_it_learns(tmp_path: Path) -> None:
    trained = fit(network(), cases(), untouched, RECIPE, tmp_path)
    logits = predict(trained, cases().x)[:, 0]
    assert logits[1::2].min() > logits[::2].max()


def test_unknown_labels_have_no_gradient() -> None:
    logits = torch.zeros(3, 2, requires_grad=True)
    y = torch.tensor([[1.0, torch.nan], [0.0, torch.nan], [1.0, 1.0]])
    masked_loss(logits, y).backward()
    assert logits.grad is not None
    assert (logits.grad[:2, 1] == 0).all()
    assert (logits.grad[:, 0] != 0).all()


def test_each_case_weighs_the_same_however_many_labels_are_known() -> None:
    logits, y = torch.randn(8, 3), torch.randint(0, 2, (8, 3)).float()
    y[:5, 1:] = torch.nan
    y[7] = torch.nan
    of_one = [nn.functional.binary_cross_entropy_with_logits(logits[i, :1], y[i, :1]) for i in range(5)]
    of_three = [nn.functional.binary_cross_entropy_with_logits(logits[i], y[i]) for i in (5, 6)]
    expected = sum([*of_one, *of_three]) / 7
    torch.testing.assert_close(masked_loss(logits, y), expected)
    halves = [masked_loss(logits[part], y[part], n_cases(y)) for part in (slice(0, 4), slice(4, 8))]
    torch.testing.assert_close(sum(halves), expected)
    assert float(masked_loss(logits, torch.full_like(y, torch.nan))) == 0


def assert_equal_bits(one: nn.Module, other: nn.Module) -> None:
    for name, value in one.state_dict().items():
        torch.testing.assert_close(other.state_dict()[name], value, atol=0, rtol=0, msg=name)


MIXED = replace(RECIPE, mixup=0.3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[nn.Module, Path]:
    """A run that nothing interrupted, and its folder."""
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("whole")
    return fit(network(), cases(), augment.recordings, MIXED, run, device="cpu"), run


def dies(run: str) -> None:
    """Train; be killed in the middle of the fourth epoch, or while the third checkpoint is written, as ``run`` ends."""
    where = Path(run).name
    torch.set_num_threads(1)
    calls: list[str] = []
    fsync = os.fsync

    def kill_at(what: str, call: int) -> None:
        calls.append(what)
        if where == what and calls.count(what) == call:
            os.kill(os.getpid(), signal.SIGKILL)

    def killing_augment(batch: Tensor, generator: torch.Generator) -> Tensor:
        kill_at("epoch", 3 * 6 + 3)
        return augment.recordings(batch, generator)

    def killing_fsync(descriptor: int) -> None:
        kill_at("write", 5)
        fsync(descriptor)

    os.fsync = killing_fsync
    fit(network(), cases(), killing_augment, MIXED, Path(run), device="cpu")


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of two runs that were killed, ``epoch`` and ``write``."""
    if sys.platform == "win32":
        pytest.skip("there is no SIGKILL on Windows")
    folder = tmp_path_factory.mktemp("killed")
    codes, _, said = ends(dies, "apart", str(folder / "epoch"), str(folder / "write"))
    assert codes == [-signal.SIGKILL] * 2, said[-2000:]
    return folder


@pytest.mark.parametrize(("where", "done"), [("epoch", 3), ("write", 2)])
def test_a_killed_run_ends_as_it_would_have(killed: Path, whole: tuple[nn.Module, Path], where: str, done: int) -> None:
    run = killed / where
    assert (run / "checkpoint.part").exists() == (where == "write")
    assert torch.load(run / "checkpoint.pt", weights_only=True)["epoch"] == done - 1
    resumed = fit(network(), cases(), augment.recordings, MIXED, run, device="cpu")
    assert_equal_bits(whole[0], resumed)
    # One curve, though the third epoch was logged twice where its checkpoint was lost.
    assert len(curve(run)) == RECIPE.epochs
    assert curve(run) == curve(whole[1])


def test_an_exception_leaves_a_run_that_goes_on(tmp_path: Path, whole: tuple[nn.Module, Path]) -> None:
    class Stopped(Exception):
        pass

    def stops_before_the_checkpoint(_: nn.Module) -> dict[str, float]:
        raise Stopped

    with pytest.raises(Stopped):
        fit(network(), cases(), augment.recordings, MIXED, tmp_path, device="cpu", watch=stops_before_the_checkpoint)
    assert not (tmp_path / "checkpoint.pt").exists()
    assert_equal_bits(whole[0], fit(network(), cases(), augment.recordings, MIXED, tmp_path, device="cpu"))


def test_equal_runs_have_equal_bits_and_another_seed_has_not(tmp_path: Path, whole: tuple[nn.Module, Path]) -> None:
    again = fit(network(), cases(), augment.recordings, MIXED, tmp_path / "again", device="cpu")
    assert_equal_bits(whole[0], again)
    other = fit(network(), cases(), augment.recordings, replace(MIXED, seed=7), tmp_path / "other", device="cpu")
    assert not torch.equal(other.classifier.weight, again.classifier.weight)


def test_the_network_given_stays_as_it_was(tmp_path: Path) -> None:
    given = network()
    fit(given, cases(), untouched, replace(RECIPE, epochs=1), tmp_path, device="cpu")
    assert_equal_bits(network(), given)


def changed_labels() -> Cases:
    other = cases()
    other.y[0, 0] = 1 - other.y[0, 0]
    return other


def other_start() -> nn.Module:
    other = network()
    nn.init.zeros_(other.classifier.weight)
    return other


@pytest.mark.parametrize(
    ("network", "cases", "recipe", "said"),
    [
        (network, cases, replace(MIXED, seed=7), "seed is 7 here and 20260101 there"),
        (network, cases, replace(MIXED, batch_size=8), "batch_size is 8 here and 16 there"),
        (network, cases, replace(MIXED, epochs=9), "epochs is 9 here and 6 there"),
        (network, cases, replace(MIXED, frozen=("members.0",)), "frozen is"),
        (lambda: RecordingNet(2, widths=(8, 24), blocks=1, kernels=(5, 7)), cases, MIXED, "shape of members"),
        (other_start, cases, MIXED, "weights at the start"),
        (network, changed_labels, MIXED, "sum of labels is 29 here and 28 there"),
        (network, lambda: replace(cases(), weight=np.linspace(1, 2, 48)), MIXED, "draws is"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused(
    whole: tuple[nn.Module, Path], network: object, cases: object, recipe: Recipe, said: str
) -> None:
    before = (whole[1] / "checkpoint.pt").read_bytes()
    with pytest.raises(CheckpointMismatch, match=said) as refused:
        fit(network(), cases(), augment.recordings, recipe, whole[1], device="cpu")
    assert "Give another --out, or delete it." in str(refused.value)
    assert (whole[1] / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize(("size", "said"), [(12, "such as 8 or 16"), (4, "such as 8"), (0, "such as 8")])
def test_a_batch_that_is_not_whole_chunks_is_refused(tmp_path: Path, size: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit(network(), cases(), untouched, replace(RECIPE, batch_size=size), tmp_path, device="cpu")


def test_frozen_parts_stay_as_they_are(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=2, frozen=("members.0", "members.1.stages.0"))
    before = network().state_dict()
    after = fit(network(), cases(), augment.recordings, recipe, tmp_path, device="cpu").state_dict()
    for name in before:
        frozen = name.startswith(("members.0.", "members.1.stages.0."))
        assert torch.equal(before[name], after[name]) == frozen, name
    with pytest.raises(ValueError, match="no submodule 'backbone'; it has members"):
        fit(network(), cases(), untouched, replace(RECIPE, frozen=("backbone",)), tmp_path / "other", device="cpu")


def test_curves_are_logged_once_per_epoch(tmp_path: Path) -> None:
    seen = []

    def watch(average: nn.Module) -> dict[str, float]:
        assert not average.training
        logits = predict(average, cases().x)[:, 0]
        seen.append(float(logits[1::2].mean() - logits[::2].mean()))
        average.train()
        return {"gap": seen[-1]}

    trained = fit(network(), cases(), untouched, RECIPE, tmp_path, device="cpu", watch=watch)
    assert not trained.training
    assert curve(tmp_path, "watch/gap") == pytest.approx(seen)
    loss = curve(tmp_path)
    assert len(loss) == len(seen) == RECIPE.epochs
    assert loss[-1] < loss[0]
    assert len(curve(tmp_path, "learning rate")) == RECIPE.epochs
    assert min(curve(tmp_path, "cases per second")) > 0
    # What watches changes nothing.
    assert_equal_bits(trained, fit(network(), cases(), untouched, RECIPE, tmp_path / "unwatched", device="cpu"))


def test_bf16_learns_too(tmp_path: Path) -> None:
    trained = fit(network(), cases(), untouched, replace(RECIPE, precision="bf16"), tmp_path, device="cpu")
    logits = predict(trained, cases().x)[:, 0]
    assert logits[1::2].mean() > logits[::2].mean() + 1


def test_a_loss_that_is_not_finite_stops_before_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="epoch 1"):
        fit(network(), cases(), lambda batch, _: batch * torch.inf, RECIPE, tmp_path, device="cpu")
    assert not (tmp_path / "checkpoint.pt").exists()
