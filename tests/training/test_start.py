"""Where weights start from: the same features as where they came from, every key accounted for, plain refusals."""

from __future__ import annotations

import hashlib
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from data_specs.bundle import CxrInput, EcgInput, FindingSpec, TrainingData
from data_specs.ecg import LEADS
from models.networks import FilmNet, RecordingNet, standardise
from training.export import Draft, write_bundle
from training.start import CannotStart, backbone_of, from_bundle, initialise, parts_of

FULL = (64, 128, 256, 512)


def stirred(network: nn.Module, seed: int) -> nn.Module:
    """Every weight and statistic at random, so that nothing can agree by still being as it was made."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in network.state_dict().items():
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=generator))
        elif value.is_floating_point():
            value.copy_(0.05 * torch.randn(value.shape, generator=generator))
    return network.eval()


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items()}


def assert_same(network: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    for name, value in network.state_dict().items():
        torch.testing.assert_close(value, weights[name], atol=0, rtol=0, msg=name)


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return stirred(torchvision.models.resnet18(weights=None), 1)


@pytest.mark.parametrize(("wrapped", "prefix"), [(False, ""), (True, "module.")])
def test_a_torchvision_resnet_gives_the_features_that_it_gave(
    resnet: nn.Module, tmp_path: Path, wrapped: bool, prefix: str
) -> None:
    state = {prefix + k: v for k, v in resnet.state_dict().items()}
    path = tmp_path / "resnet18.pth"
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, path)
    network = stirred(FilmNet(3, widths=FULL), 2)
    head = network.classifier.weight.detach().clone()
    says = initialise(network, str(path))
    assert hashlib.sha256(path.read_bytes()).hexdigest() in says
    film = 255 * torch.rand(2, 1, 96, 96, generator=torch.Generator().manual_seed(0))
    theirs: list[torch.Tensor] = []
    hook = resnet.layer4.register_forward_hook(lambda *a: theirs.append(a[2]))
    ours: list[torch.Tensor] = []
    network.backbone.layer4.register_forward_hook(lambda *a: ours.append(a[2]))
    with torch.inference_mode():
        resnet(standardise(film).expand(-1, 3, -1, -1))
        network(film)
    hook.remove()
    assert theirs[0].std() > 1e-3
    torch.testing.assert_close(ours[0], theirs[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(network.classifier.weight, head)


def test_other_widths_are_refused_and_nothing_is_changed(resnet: nn.Module, tmp_path: Path) -> None:
    torch.save(resnet.state_dict(), tmp_path / "resnet18.pth")
    network = FilmNet(3)
    before = weights_of(network)
    with pytest.raises(CannotStart, match=r"conv1.weight: \(64, 1, 7, 7\) in the file, \(32, 1, 7, 7\)"):
        initialise(network, str(tmp_path / "resnet18.pth"))
    with pytest.raises(CannotStart, match=r"pretrain"):
        initialise(RecordingNet(3), str(tmp_path / "resnet18.pth"))
    with pytest.raises(CannotStart, match=r"widths=\(64, 128, 256, 512\)"):
        initialise(network, "imagenet")
    assert_same(network, before)


def test_none_changes_nothing() -> None:
    network = FilmNet(2)
    before = weights_of(network)
    assert "random" in initialise(network, "none")
    assert_same(network, before)


def test_without_a_network_imagenet_says_what_to_fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)

    def unreachable(*_: Any, **__: Any) -> None:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    with pytest.raises(CannotStart, match=r"resnet18-f37072fd\.pth could not be fetched.*--init PATH"):
        initialise(FilmNet(1, widths=FULL), "imagenet")


def test_a_file_in_the_place_of_imagenet_weights_is_not_taken_for_them(
    resnet: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub/checkpoints").mkdir(parents=True)
    torch.save(resnet.state_dict(), tmp_path / "hub/checkpoints/resnet18-f37072fd.pth")
    network = FilmNet(1, widths=FULL)
    before = weights_of(network)
    with pytest.raises(CannotStart, match="not the file it is named after"):
        initialise(network, "imagenet")
    assert_same(network, before)


def small(n: int = 2) -> RecordingNet:
    return RecordingNet(n, widths=(8, 16), blocks=1, kernel=5)


def ours(network: nn.Module) -> dict[str, Any]:
    made_by = {"objective": "VICReg", "n_items": 48, "cohorts": "one", "epochs": 2}
    return {"backbone": parts_of(network).state_dict(), "made_by": made_by}


def test_a_file_of_ours_fills_everything_but_the_classifier(tmp_path: Path) -> None:
    source, network = stirred(small(1), 4), stirred(small(5), 5)
    head = network.classifier.weight.detach().clone()
    torch.save(ours(source), tmp_path / "pretrained.pt")
    says = initialise(network, str(tmp_path / "pretrained.pt"))
    assert "48 training cases of one" in says
    assert backbone_of(network) == ("stem", "stages")
    assert_same(parts_of(network), weights_of(parts_of(source)))
    assert torch.equal(network.classifier.weight, head)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (lambda w: w.pop("stem.0.weight"), "1 missing: stem.0.weight"),
        (lambda w: w.update({"stages.9.weight": torch.zeros(2, 2)}), "1 unexpected: stages.9.weight"),
        (lambda w: w.update({"stem.1.bias": torch.zeros(9)}), r"stem.1.bias: \(9,\) in the file, \(8,\)"),
        (lambda w: w["stem.1.bias"].fill_(torch.nan), "not finite: stem.1.bias"),
    ],
)
def test_a_file_of_ours_that_does_not_fit_is_named_key_by_key(tmp_path: Path, fault: Any, named: str) -> None:
    content = ours(small())
    fault(content["backbone"])
    torch.save(content, tmp_path / "odd.pt")
    network = small()
    before = weights_of(network)
    with pytest.raises(CannotStart, match=named):
        initialise(network, str(tmp_path / "odd.pt"))
    assert_same(network, before)


@pytest.mark.parametrize("kind", ["absent", "empty", "noise", "objects", "no weights", "cut"])
def test_what_is_no_file_of_weights_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd.pt"
    if kind == "empty":
        path.touch()
    elif kind == "noise":
        path.write_bytes(np.random.default_rng(0).bytes(4000))
    elif kind == "objects":
        torch.save({"backbone": small()}, path)
    elif kind == "no weights":
        torch.save({"made_by": {"epochs": 3}}, path)
    elif kind == "cut":
        torch.save(ours(small()), path)
        path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(CannotStart, match=r"odd\.pt"):
        initialise(small(), str(path))


DATA = TrainingData(name="A hospital", citation="none", licence="none", n_persons=3, n_items=4)
CHILDREN, ADULTS = (1.0, 6.0), (18.0, 86.0)


def bundle(network: nn.Module, modality: str, findings: tuple[FindingSpec, ...], folder: Path) -> Path:
    rng = np.random.default_rng(0)
    cxr = modality == "cxr"
    x = rng.integers(0, 256, (3, 1, 64, 64), dtype=np.uint8) if cxr else rng.normal(size=(3, 12, 200))
    draft = Draft(
        name="lung" if cxr else "cardiac",
        version="1.1.0",
        organ="lung" if cxr else "cardiac",
        purpose="made by a test",
        input=CxrInput(size_px=64) if cxr else EcgInput(fs_hz=100, n_samples=200, leads=LEADS, max_windows=6),
        outputs=("logits", "evidence"),
        findings=findings,
        training_data=(DATA,),
        limits=(),
        thresholds={},
    )
    x = x if cxr else x.astype(np.float32)
    return write_bundle(network, draft, x, x, folder)


@pytest.fixture(scope="module")
def film_parent() -> nn.Module:
    return stirred(FilmNet(4, widths=(8, 8, 16, 16)), 7)


@pytest.fixture(scope="module")
def lung(film_parent: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    findings = (
        FindingSpec(name="pneumonia", column=0, age_years=CHILDREN),
        FindingSpec(name="pneumonia", column=2, age_years=ADULTS),
        FindingSpec(name="abnormal", column=1, age_years=ADULTS),
    )
    return bundle(film_parent, "cxr", findings, tmp_path_factory.mktemp("bundles"))


class Prefixed(nn.Module):
    """As the first cardiac bundles were exported: the network inside another, and fewer columns than it has."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        logits, evidence = self.network(x)
        return logits[:, :1], evidence[:, :1]


def test_a_bundle_hands_on_its_backbone_and_the_rows_of_its_questions(film_parent: nn.Module, lung: Path) -> None:
    network = stirred(FilmNet(5, widths=(8, 8, 16, 16)), 8)
    before = weights_of(network)
    inherited = from_bundle(
        network,
        ["effusion", "pneumonia", "abnormal", "pneumonia", ""],
        lung,
        ages=[ADULTS, (15.0, 60.0), None, (2.0, 20.0), None],
        takes=CxrInput(size_px=64),
    )
    assert_same(parts_of(network), weights_of(parts_of(film_parent)))
    # An adult's pneumonia from the adult's; 2 to 20 shares four years with the children and two with the adults.
    for row, column in ((1, 2), (2, 1), (3, 0)):
        assert torch.equal(network.classifier.weight[row], film_parent.classifier.weight[column])
        assert network.classifier.bias[row] == film_parent.classifier.bias[column]
    for row in (0, 4):
        assert torch.equal(network.classifier.weight[row], before["classifier.weight"][row])
        assert network.classifier.bias[row] == before["classifier.bias"][row]
    (ancestor,) = inherited.ancestors
    assert (ancestor.name, ancestor.version) == ("lung", "1.1.0")
    assert ancestor.weights_sha256 == hashlib.sha256((lung / "models/model.onnx").read_bytes()).hexdigest()
    assert inherited.training_data == (DATA,)
    assert ancestor.weights_sha256 in inherited.says
    assert "begun at random: effusion." in inherited.says


def test_no_row_is_taken_from_other_ages(film_parent: nn.Module, lung: Path) -> None:
    network = stirred(FilmNet(1, widths=(8, 8, 16, 16)), 8)
    before = weights_of(network)
    from_bundle(network, ["pneumonia"], lung, ages=[(6.0, 18.0)])
    assert torch.equal(network.classifier.weight, before["classifier.weight"])
    assert torch.equal(network.backbone.conv1.weight, film_parent.backbone.conv1.weight)


def test_the_same_answers_as_the_bundle_gives(film_parent: nn.Module, lung: Path) -> None:
    network = stirred(FilmNet(3, widths=(8, 8, 16, 16)), 9)
    from_bundle(network, ["pneumonia", "abnormal", "pneumonia"], lung, ages=[CHILDREN, ADULTS, ADULTS])
    with np.load(lung / "golden.npz") as golden, torch.inference_mode():
        logits = network(torch.from_numpy(golden["input"]))[0].numpy()
        np.testing.assert_allclose(logits, golden["logits"][:, :3], atol=1e-4)


def test_a_network_exported_inside_another_is_found(tmp_path: Path) -> None:
    parent = stirred(small(3), 3)
    folder = bundle(Prefixed(parent), "ecg", (FindingSpec(name="normal_ecg", column=0),), tmp_path)
    network = small(1)
    from_bundle(network, ["normal_ecg"], folder)
    assert_same(parts_of(network), weights_of(parts_of(parent)))
    assert torch.equal(network.classifier.weight[0], parent.classifier.weight[0])


def test_a_bundle_of_another_network_or_input_is_refused(lung: Path) -> None:
    with pytest.raises(CannotStart, match="takes cxr, RecordingNet takes ecg"):
        from_bundle(small(1), ["pneumonia"], lung)
    with pytest.raises(CannotStart, match="size_px 64 there, 224 here"):
        from_bundle(FilmNet(1, widths=(8, 8, 16, 16)), ["pneumonia"], lung, takes=CxrInput(size_px=224))
    with pytest.raises(CannotStart, match=r"holds another network than FilmNet.*\(4, 16, 1, 1\)"):
        from_bundle(FilmNet(1), ["pneumonia"], lung)
    network = FilmNet(1, widths=(4, 8, 16, 16))
    before = weights_of(network)
    with pytest.raises(CannotStart, match=r"backbone\.conv1\.weight"):
        from_bundle(network, ["pneumonia"], lung)
    assert_same(network, before)


def test_a_damaged_bundle_is_refused(lung: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(lung, tmp_path / lung.name))
    model = folder / "models/model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(CannotStart, match="not the file that the manifest names"):
        from_bundle(FilmNet(1, widths=(8, 8, 16, 16)), ["pneumonia"], folder)
