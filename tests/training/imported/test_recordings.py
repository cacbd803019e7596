"""Networks for recordings: their leads, units and crops, their checkpoints' keys, and what their description lacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from data_specs.ecg.recording import LEADS
from models.imported_ecg import ARCHITECTURES, ImportedEcgNet, Net1d, XResNet1d101
from training.imported.command import import_weights
from training.imported.files import Checkpoint, ImportRefused, read_checkpoint
from training.imported.network import check_wrapped, golden_cases, reference_logits
from training.imported.recordings import ecg_network
from training.imported.spec import Spec

XRESNET: dict[str, Any] = {
    "modality": "ecg",
    "architecture": "xresnet1d101",
    "classes": ["AFIB", "NORM", "LBBB", "RBBB"],
    "findings": {"AFIB": "atrial_fibrillation"},
    "any_of": {"conduction_disturbance": ["LBBB", "RBBB"]},
    "input": {"fs_hz": 100, "n_samples": 1000, "normalisation": {"mean": -0.001, "std": 0.24}, "crops": [250, 125]},
}


WEIGHTS_OF_ECGFOUNDER = 30_752_646
"""With 150 classes; three times that in fp32 (with the moments of Adam) is the size of its published file, 370 MB."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def xresnet() -> nn.Module:
    """Random weights whose batch norms have seen recordings."""
    torch.manual_seed(11)
    network = XResNet1d101(4).train()
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(8, 12, 250))
    return network.eval()


def of_fastai(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every convolution of a block twice, as fastai keeps them."""
    return weights | {k.replace(".convs.", ".convpath.0."): v for k, v in weights.items() if ".convs." in k}


def saved(folder: Path, weights: dict[str, Tensor]) -> Checkpoint:
    torch.save({"model": weights, "opt": {"state": [{0: {"exp_avg": torch.zeros(3, 3)}}]}}, folder / "x.pth")
    return read_checkpoint(folder / "x.pth")


def test_the_benchmarks_checkpoint_becomes_a_network_that_sees_its_crops(tmp_path: Path, xresnet: nn.Module) -> None:
    network = ecg_network(saved(tmp_path, of_fastai(xresnet.state_dict())), Spec.model_validate(XRESNET), None)
    assert all(".convpath.0." in key or "num_batches_tracked" in key for key in network.unused)
    assert [(f.name, f.column) for f in network.findings] == [
        ("atrial_fibrillation", 0), ("normal_ecg", 1), ("conduction_disturbance", 4),
    ]  # fmt: skip
    assert network.left_out == ()
    assert network.input.form == (None, "none", "continue")
    x = torch.from_numpy(network.compared[-1:])
    with torch.inference_mode():
        logits, evidence = network.wrapped(x)
        seen = (x + 0.001) / 0.24
        crops = torch.cat([xresnet(seen[:, :, at : at + 250]) for at in range(0, 751, 125)])
    torch.testing.assert_close(logits[0, :4], crops.amax(dim=0))
    assert float(logits[0, 4]) == max(float(logits[0, 2]), float(logits[0, 3]))
    torch.testing.assert_close(evidence[0, :4], crops.T)
    assert evidence.shape == (1, 5, 7)
    check_wrapped(network, *golden_cases(network))
    assert network.n_real >= 1, "the sample recording is compared"


def test_the_head_sees_the_largest_values_before_the_means(xresnet: nn.Module) -> None:
    """``AdaptiveConcatPool1d`` of fastai: ``[mp(x), ap(x)]``."""
    x = torch.randn(2, 256, 16)
    pooled = xresnet[8][0](x)[:, :, 0]  # type: ignore[index]
    assert torch.equal(pooled[:, :256], x.amax(dim=2))
    torch.testing.assert_close(pooled[:, 256:], x.mean(dim=2))


def test_a_key_that_does_not_fit_is_named(tmp_path: Path, xresnet: nn.Module) -> None:
    weights = of_fastai(xresnet.state_dict())
    del weights["8.8.bias"]
    with pytest.raises(ImportRefused, match=r"1 missing: 8\.8\.bias"):
        ecg_network(saved(tmp_path, weights), Spec.model_validate(XRESNET), None)


def test_ecgfounder_is_found_by_its_keys_and_its_norms_are_left_aside() -> None:
    """The keys and shapes of its checkpoint, 31 million weights; with random ones it is not run here."""
    with torch.device("meta"):
        network = Net1d(150)
    keys = network.state_dict()
    assert sum(value.numel() for value in network.parameters()) == WEIGHTS_OF_ECGFOUNDER
    for key in (
        "first_conv.conv.weight", "stage_list.0.block_list.0.conv2.conv.weight", "dense.weight",
        "stage_list.6.block_list.3.se_fc2.bias",
    ):  # fmt: skip
        assert key in keys
    assert keys["stage_list.5.block_list.0.conv2.conv.weight"].shape == (1024, 16, 16)
    unused = ARCHITECTURES["net1d"].unused
    assert unused is not None
    for key in ("first_bn.weight", "module.first_bn.bias", "stage_list.0.block_list.1.bn3.running_var"):
        assert unused.search(key)
    assert not any(unused.search(key) for key in keys)


def test_net1d_halves_its_input_and_widens_with_zeros() -> None:
    """A block whose own path gives nothing hands on the larger of two neighbours, between channels of zeros."""
    block = Net1d(2).stage_list[1].block_list[0].eval()  # type: ignore[index]
    for name, weight in block.named_parameters():
        if name.startswith("conv3"):
            nn.init.zeros_(weight)
    x = torch.randn(1, 64, 11)
    with torch.inference_mode():
        y = block(x)
    assert y.shape == (1, 160, 6)
    pairs = torch.cat([x, torch.zeros(1, 64, 1)], dim=2).unflatten(2, (6, 2)).amax(dim=3)
    torch.testing.assert_close(y[:, 48:112], pairs)
    assert not y[:, :48].any()
    assert not y[:, 112:].any()


class Leads(nn.Module):
    """Gives the mean of its first two leads as its logits."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x[:, :2].mean(dim=2), x[:, :2]


def test_leads_and_units_are_those_that_the_network_was_trained_with() -> None:
    order = ("aVF", "V6", *(lead for lead in LEADS if lead not in {"aVF", "V6"}))
    network = ImportedEcgNet(Leads(), order=[LEADS.index(lead) for lead in order], scale=1000.0, mean=10.0, std=5.0)
    mv = torch.arange(12.0)[None, :, None].expand(1, 12, 100)
    logits, _ = network(mv)
    assert logits.tolist() == [[(5000.0 - 10) / 5, (11000.0 - 10) / 5]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": "resnet18"}, "for recordings there are residual2020"),
        ({"input": None}, "needs 'input' and 'classes'"),
        ({"classes": None}, "needs 'input' and 'classes'"),
        ({"input": {"fs_hz": 400, "n_samples": 4096, "leads": ["I", "II"]}}, "each of I, II"),
        ({"architecture": "residual2020"}, "takes 4096 samples, not 1000"),
        ({"input": {"fs_hz": 100, "n_samples": 200, "crops": [250, 125]}}, "crops of 250 samples out of 200"),
        ({"input": {"fs_hz": 100, "n_samples": 1000, "band_hz": [40, 0.5]}}, "is no band"),
        ({"any_of": {"hypertrophy": ["LVH"]}}, "any_of: 'hypertrophy'"),
        ({"any_of": {"atrial_fibrillation": ["LBBB"]}}, "any_of: 'atrial_fibrillation'"),
        ({"findings": {"LBBB": "pneumonia"}}, "'LBBB: pneumonia' must map"),
    ],
)
def test_what_is_wrong_with_a_description_is_said(
    tmp_path: Path, xresnet: nn.Module, change: dict[str, Any], says: str
) -> None:
    spec = Spec.model_validate({k: v for k, v in {**XRESNET, **change}.items() if v is not None})
    with pytest.raises(ImportRefused, match=says):
        ecg_network(saved(tmp_path, of_fastai(xresnet.state_dict())), spec, None)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"modality": "ecg", "channels": 1}, "not for 'modality: ecg'"),
        ({"input": {"fs_hz": 100, "n_samples": 1000}}, "not for 'modality: cxr'"),
        ({"classes": {2: "NORM"}}, "one less than 'outputs'"),
        ({"classes": {2: "NORM"}, "outputs": 2}, "one less than 'outputs'"),
        ({"classes": {"x": "NORM"}, "outputs": 2}, "by their number"),
        ({"classes": ["A", "B"], "outputs": 3}, "2 classes are named"),
    ],
)
def test_entries_that_do_not_belong_together_are_refused(content: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Spec.model_validate(content)


def test_classes_by_their_number_leave_the_others_without_a_name() -> None:
    spec = Spec.model_validate({"modality": "ecg", "outputs": 4, "classes": {"1": "NORM", "3": "AFIB"}})
    assert spec.classes == ("", "NORM", "", "AFIB")


def test_recordings_that_cannot_be_read_are_said(tmp_path: Path, xresnet: nn.Module) -> None:
    checkpoint = saved(tmp_path, of_fastai(xresnet.state_dict()))
    with pytest.raises(ImportRefused, match="no recording for the comparison"):
        ecg_network(checkpoint, Spec.model_validate(XRESNET), tmp_path)


def test_the_name_of_the_film_bundle_is_refused(tmp_path: Path) -> None:
    how: Any = {"bundles": tmp_path, "version": "1.0.0", "licence": "MIT"}
    with pytest.raises(ImportRefused, match="these weights are for 'cardiac'"):
        import_weights(tmp_path / "none", Spec.model_validate(XRESNET), name="lung", **how)


def test_a_network_that_gives_no_number_is_refused(tmp_path: Path, xresnet: nn.Module) -> None:
    spec = Spec.model_validate({**XRESNET, "input": {**XRESNET["input"], "normalisation": {"mean": 0, "std": 1e-30}}})
    network = ecg_network(saved(tmp_path, of_fastai(xresnet.state_dict())), spec, None)
    with pytest.raises(ImportRefused, match=r"not finite|golden case"):
        reference_logits(network, np.full((1, 12, 1000), 1e20, np.float32))
