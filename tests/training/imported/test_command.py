"""Checkpoints from elsewhere: recognised, accounted for key by key, refused with a reason, served as uncalibrated."""

from __future__ import annotations

import contextlib
import json
import pickle
import random
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torchvision
from torch import Tensor, nn

from data_specs.bundle import BundleManifest, TrainingData
from data_specs.next_steps.decision import decide
from data_specs.next_steps.rules import Facts
from data_specs.next_steps.table import read_table
from data_specs.visit.context import Context
from inference.bundles.deciding import MAX_TOLERANCE
from inference.bundles.loading import load_bundle
from inference.cxr.pipeline import FilmPipeline
from inference.engine import organ
from inference.findings import answer
from inference.readers.files import OpenFile
from inference.runtime.batcher import Batcher
from models.__main__ import main as models
from models.imported import ImportedNet, Normalisation, build
from tests.conftest import ROOT
from tests.readers import shared_readers
from training.bundle.case_table import read_csv
from training.bundle.export import ParityError
from training.bundle.recalibrate import recalibrate
from training.figures.evaluate import bootstrap, evaluate
from training.imported.command import import_weights, main
from training.imported.files import ImportRefused, read_checkpoint
from training.imported.films import describe, films
from training.imported.findings import findings_of
from training.imported.network import check_exported
from training.imported.sources import fill
from training.imported.spec import Spec, read_spec


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def settled(network: nn.Module, channels: int, *, spread: float = 1.0) -> nn.Module:
    """Random weights whose batch norms have seen films, so that logits depend on the input and stay small."""
    torch.manual_seed(7)
    network.train()
    with torch.no_grad():
        for _ in range(12):
            network(spread * torch.randn(4, channels, 64, 64))
    return network.eval()


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return settled(torchvision.models.resnet18(num_classes=3), 3)


@pytest.fixture(scope="module")
def densenet() -> nn.Module:
    return settled(torchvision.models.densenet121(num_classes=14), 3)


def saved(path: Path, content: object, **how: Any) -> Path:
    torch.save(content, path, **how)
    return path


RESNET = {
    "architecture": "resnet18",
    "classes": ["Edema", "Lung Opacity", "Pleural_Thickening"],
    "input_size": 64,
    "normalisation": "imagenet",
}


def same(network: nn.Module, other: nn.Module, channels: int = 3) -> bool:
    torch.manual_seed(1)
    x = torch.randn(2, channels, 64, 64)
    with torch.inference_mode():
        return torch.equal(network(x), other(x))


def old_keys(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """As torch 0.3 wrote a CheXNet: DataParallel, densenet121 inside, norm.1 for norm1, Sequential(Linear, Sigmoid)."""
    renamed = {}
    for key, value in weights.items():
        if key.endswith("num_batches_tracked"):
            continue
        old = re.sub(r"(denselayer\d+\.(?:norm|conv))([12])\.", r"\1.\2.", key)
        renamed["module.densenet121." + old.replace("classifier.", "classifier.0.")] = value
    return renamed


NESTINGS = {
    "bare": lambda w: w,
    "state_dict": lambda w: {"epoch": 3, "state_dict": w, "best_loss": 0.1},
    "model": lambda w: {"model": w, "optimizer": {"state": {0: {"exp_avg": torch.zeros(3, 3)}}, "param_groups": []}},
    "net": lambda w: {"net": w},
    "deep": lambda w: {"checkpoint": {"model_state_dict": w}},
    "averaged alone": lambda w: {"state_dict_ema": w, "step": 1},
    "averaged beside": lambda w: {"state_dict": w, "state_dict_ema": {k: v + 1 for k, v in w.items()}},
    "DataParallel": lambda w: {f"module.{k}": v for k, v in w.items()},
    "Lightning": lambda w: {"state_dict": {f"model.backbone.{k}": v for k, v in w.items()}},
    "compiled, averaged": lambda w: {
        "n_averaged": torch.tensor(4),
        **{f"module._orig_mod.{k}": v for k, v in w.items()},
    },
    "head behind a dropout": lambda w: {k.replace("fc.", "fc.1."): v for k, v in w.items()},
    "head elsewhere": lambda w: {
        (k.replace("fc.", "classifier.") if k.startswith("fc.") else f"encoder.{k}"): v for k, v in w.items()
    },
    "half precision": lambda w: {k: v.half().float() for k, v in w.items()},
}


@pytest.mark.parametrize("nesting", NESTINGS)
def test_weights_are_found_wherever_they_stand(tmp_path: Path, resnet: nn.Module, nesting: str) -> None:
    path = saved(tmp_path / "c.pt", NESTINGS[nesting](resnet.state_dict()))
    network = build("resnet18", 3, 3)
    fill(network, read_checkpoint(path).weights)
    if nesting == "half precision":
        resnet_half = build("resnet18", 3, 3)
        resnet_half.load_state_dict({k: v.half().float() for k, v in resnet.state_dict().items()})
        assert same(network, resnet_half)
    else:
        assert same(network, resnet)


def test_averaged_weights_are_taken_when_named_and_others_are_told(tmp_path: Path, resnet: nn.Module) -> None:
    weights = resnet.state_dict()
    path = saved(tmp_path / "c.pt", {"state_dict": weights, "ema": {"module": {k: v * 0 for k, v in weights.items()}}})
    assert read_checkpoint(path).others == ("ema.module",)
    assert not read_checkpoint(path, "ema.module").weights["fc.weight"].any()
    with pytest.raises(ImportRefused, match="'state_dict'"):
        read_checkpoint(path, "swa")
    two = saved(tmp_path / "two.pt", {"teacher": weights, "student": weights})
    with pytest.raises(ImportRefused, match=r"'teacher' \(122 tensors\).*weights_key"):
        read_checkpoint(two)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_chexnet_checkpoint_of_old_is_read(tmp_path: Path, densenet: nn.Module, zipped: bool) -> None:
    content = {"epoch": 1, "state_dict": old_keys(densenet.state_dict()), "best_loss": 0.2}
    path = saved(tmp_path / "m.pth.tar", content, _use_new_zipfile_serialization=zipped)
    checkpoint = read_checkpoint(path)
    with pytest.raises(ImportRefused, match=r"classes.*CheXpert"):
        describe(checkpoint, Spec())
    described = describe(checkpoint, Spec(source="chexnet"))
    assert (described.source, described.architecture, described.size_px) == ("chexnet", "densenet121", 224)
    assert described.classes[-2:] == ("Pleural_Thickening", "Hernia")
    network = build(described.architecture, 14, 3)
    fill(network, checkpoint.weights)
    assert same(network, densenet)
    findings, left_out = findings_of(described.classes, described.thresholds, Spec())
    assert len(findings) == 14
    assert left_out == ()
    wrapped = ImportedNet(network, described.normalisation).eval()
    x = torch.randint(0, 256, (2, 1, 64, 64), dtype=torch.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    rgb = (x.float().repeat(1, 3, 1, 1) / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.inference_mode():
        logits, evidence = wrapped(x)
        torch.testing.assert_close(logits, densenet(rgb), atol=1e-4, rtol=0)
    torch.testing.assert_close(evidence.mean(dim=(2, 3)), logits, atol=1e-4, rtol=0)
    assert evidence.amax(dim=(2, 3)).sub(evidence.amin(dim=(2, 3))).min() > 1e-3


def test_a_cohort_that_never_held_a_class_leaves_it_out_of_torchxrayvision(densenet: nn.Module) -> None:
    weights = {**build("densenet121", 18, 1).state_dict(), "op_threshs": torch.full((18,), torch.nan)}
    weights["op_threshs"][8] = 0.13
    checkpoint = type("C", (), {"weights": weights, "path": Path("x.pt")})
    described = describe(checkpoint, Spec())
    assert described.source == "torchxrayvision"
    findings, left_out = findings_of(described.classes, described.thresholds, Spec())
    assert [f.name for f in findings] == ["pneumonia"]
    assert len(left_out) == 17


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory, resnet: nn.Module) -> Path:
    """A ResNet-18 through the command line, with real and made films compared."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("import")
    source = saved(folder / "resnet.pt", {"model": {f"module.{k}": v for k, v in resnet.state_dict().items()}})
    (folder / "spec.yaml").write_text(json.dumps({**RESNET, "trained_on": "a made-up cohort"}))
    command = [str(source), "--spec", str(folder / "spec.yaml"), "--out", str(folder / "bundles"), "--name", "lung"]
    assert main([*command, "--version", "9.1.0", "--licence", "CC BY 4.0"]) == 0
    return folder / "bundles" / "lung-9.1.0"


def test_the_bundle_computes_what_the_checkpoint_does_on_real_films(
    imported: Path, resnet: nn.Module, shared_data: Path
) -> None:
    bundle = load_bundle(imported)
    x = films(64, shared_data / "cxr/dicom/chest")[0]
    logits, evidence = bundle.session.run(x)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.inference_mode():
        rgb = torch.from_numpy(x).float().repeat(1, 3, 1, 1) / 255
        expected = resnet((rgb - mean[:, None, None]) / std[:, None, None]).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    np.testing.assert_allclose(evidence.mean(axis=(2, 3)), logits, atol=1e-4)
    assert np.ptp(logits, axis=0).min() > 1e-2, "the films are told apart, so that agreeing means something"


def test_the_bundle_says_where_it_came_from_and_claims_nothing(imported: Path) -> None:
    manifest = BundleManifest.model_validate_json((imported / "screening.json").read_bytes())
    assert [(f.name, f.column) for f in manifest.findings] == [("edema", 0), ("pleural_thickening", 2)]
    assert manifest.imported is not None
    assert manifest.imported.left_out == ("Lung Opacity",)
    for finding in manifest.findings:
        assert finding.calibration is None
        assert finding.evaluation == finding.operating_points == ()
    card = (imported / "docs/README.md").read_text()
    said = (manifest.imported.sha256, "resnet18", "CC BY 4.0", "UNCALIBRATED", "a made-up cohort", "Lung Opacity")
    for words in (*said, "Not evaluated", *manifest.limits):
        assert words in card
    assert "| 95 % |" not in card
    assert "CC BY 4.0" in (imported / "LICENSE").read_text()
    assert "imported" in (imported / "configs/metadata.json").read_text()


def test_a_candidate_is_promoted_only_after_its_recalibration(
    imported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for drawn in (bootstrap, evaluate):
        monkeypatch.setitem(drawn.__kwdefaults__, "draws", 50)
    monkeypatch.setattr("training.bundle.recalibrate_finding.REPEATS", 1)
    shutil.copytree(imported, tmp_path / "lung-9.1.0")
    promote = ["--bundles", str(tmp_path), "promote", "lung", "--who", "a", "--why", "b"]
    assert models([*promote, "9.1.0"]) == 1
    capsys.readouterr()
    (tmp_path / "registry.jsonl").unlink()
    rng = np.random.default_rng(4)
    logit = rng.normal(0, 3, 60)
    cases = {"person": np.arange(60), "edema": (rng.random(60) < 1 / (1 + np.exp(-logit))).astype(int), "logit": logit}
    pd.DataFrame({**cases, "age_years": 50}).to_csv(tmp_path / "cases.csv", index=False)
    local = TrainingData(name="Local", citation="none", licence="none", n_persons=0, n_items=0)
    recalibrate(tmp_path / "lung-9.1.0", read_csv(tmp_path / "cases.csv", local), out=tmp_path, version="9.2.0")
    assert models([*promote, "9.2.0"]) == 0, capsys.readouterr().err


async def test_serving_says_that_its_numbers_are_uncalibrated(imported: Path) -> None:
    gate = load_bundle(next((ROOT / "models/bundles").glob("cxr_gate-*")))
    lung = load_bundle(imported)
    batchers = [Batcher(b.session, name=n, finite=True) for n, b in (("cxr_gate", gate), ("lung", lung))]
    try:
        pipeline = FilmPipeline(gate, batchers[0], lung, batchers[1], shared_readers())
        film = (ROOT / "samples/film-abnormal.jpg").read_bytes()
        result = await pipeline.assess(
            0, lambda: OpenFile.of(film), Context.model_validate({"person": {"age_years": 50}}), None
        )
    finally:
        for batcher in batchers:
            batcher.close()
    assert result.accepted
    assessed = organ("lung", [result], True)
    assert [f.calibrated for f in assessed.findings] == [False, False]
    assert [f.positive for f in assessed.findings] == [None, None]
    assert (assessed.risk, assessed.category) == (None, None)
    (reason,) = [p for p in assessed.reasons if p.code == "uncalibrated"]
    assert reason.found == "edema, pleural_thickening"
    assert "not calibrated" in reason.message("en").lower()
    why = decide(read_table(), Facts(organs={"lung": assessed})).reasons
    assert [p.code for p in why] == ["uncalibrated"], "never 'nothing found'"


def test_shipped_findings_are_said_to_be_calibrated() -> None:
    manifest = load_bundle(next((ROOT / "models/bundles").glob("lung-*"))).manifest
    found = answer(manifest.findings[:1], np.zeros(20)).findings
    assert [f.calibrated for f in found] == [True]


def test_classes_that_exclude_each_other_become_log_odds(resnet: nn.Module) -> None:
    network = ImportedNet(resnet, Normalisation((127.0,) * 3, (60.0,) * 3), exclusive=True).eval()
    x = torch.randint(0, 256, (3, 1, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        softmax = resnet(network.normalise(x)).softmax(dim=1)
        torch.testing.assert_close(network(x)[0].sigmoid(), softmax)


@pytest.mark.parametrize("architecture", ["shufflenet_v2_x0_5", "mobilenet_v2", "regnet_x_400mf", "swin_t"])
def test_the_map_is_the_logit_spread_over_the_film(architecture: str) -> None:
    original = settled(build(architecture, 2, 1), 1)
    network = ImportedNet(original, Normalisation((127.0,), (60.0,))).eval()
    x = torch.randint(0, 256, (2, 1, 96, 64), dtype=torch.uint8)[:, :, :64]
    with torch.inference_mode():
        logits, evidence = network(x)
        torch.testing.assert_close(logits, original(network.normalise(x)), atol=1e-4, rtol=0)
        torch.testing.assert_close(evidence.mean(dim=(2, 3)), logits, atol=1e-4, rtol=0)


def test_an_architecture_without_maps_is_imported_and_says_so(tmp_path: Path) -> None:
    network = settled(torchvision.models.squeezenet1_1(num_classes=1), 3)
    spec = Spec.model_validate({**RESNET, "architecture": "squeezenet1_1", "classes": ["Pneumonia"]})
    source = saved(tmp_path / "s.pt", network.state_dict())
    how: Any = {"bundles": tmp_path / "b", "name": "lung", "version": "9.2.0", "licence": "MIT"}
    bundle = load_bundle(import_weights(source, spec, **how))
    assert bundle.manifest.outputs == ("logits",)
    assert "no class activation map" in bundle.card
    with pytest.raises(FileExistsError, match="never replaced"):
        import_weights(source, spec, **how)


@pytest.mark.parametrize(("factor", "card_says"), [(250.0, True), (1e4, False)])
def test_logits_out_of_all_proportion_are_said_or_refused(tmp_path: Path, factor: float, card_says: bool) -> None:
    """A bundle is only made with golden cases that a promotion accepts: fp32 keeps 1e-4 of them."""
    torch.manual_seed(3)
    network = torchvision.models.squeezenet1_1(num_classes=1).eval()
    network.classifier[1].weight.data *= factor
    spec = Spec.model_validate({**RESNET, "architecture": "squeezenet1_1", "classes": ["Pneumonia"]})
    source = saved(tmp_path / "s.pt", network.state_dict())
    how: Any = {"bundles": tmp_path, "name": "lung", "version": "9.3.0", "licence": "MIT"}
    if not card_says:
        with pytest.raises(ImportRefused, match="Check the weights, the normalisation"):
            import_weights(source, spec, **how)
        return
    bundle = load_bundle(import_weights(source, spec, **how))
    assert "check the weights and the normalisation" in bundle.card
    assert bundle.manifest.golden.tolerance <= MAX_TOLERANCE


@pytest.mark.parametrize("name", ["cardiac", "kidney", "cxr_gate"])
def test_the_name_of_another_organ_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImportRefused, match=f"--name {name}: that is the bundle of another organ"):
        import_weights(tmp_path / "none.pt", Spec(), bundles=tmp_path, name=name, version="1.0.0", licence="MIT")


def test_a_head_of_three_widths_is_described_in_the_spec(tmp_path: Path) -> None:
    """As a public MobileNetV3: 576 to 256 to 2, with a dropout between that has no weights but a number."""
    network = torchvision.models.mobilenet_v3_small(num_classes=2)
    network.classifier = nn.Sequential(nn.Linear(576, 256), nn.Hardswish(), nn.Dropout(0.3), nn.Linear(256, 2))
    settled(network, 3)
    checkpoint = read_checkpoint(saved(tmp_path / "m.pt", {"model": network.state_dict()}))
    with pytest.raises(ImportRefused, match=r"classifier\.0\.weight: \(256, 576\) in the file"):
        fill(build("mobilenet_v3_small", 2, 3), checkpoint.weights)
    own = build("mobilenet_v3_small", 2, 3, hidden=(256,), activation="hardswish")
    fill(own, checkpoint.weights)
    assert same(own, network)
    other = build("mobilenet_v3_small", 2, 3, hidden=(256,), activation="relu")
    fill(other, checkpoint.weights)
    assert not same(other, network), "the activation of the head counts"
    with pytest.raises(ValueError, match="ends in no linear layer"):
        build("squeezenet1_1", 2, 3, hidden=(256,))


def test_a_graph_that_answers_otherwise_is_refused(imported: Path, resnet: nn.Module) -> None:
    other = build("resnet18", 3, 3)
    other.load_state_dict(resnet.state_dict())
    network = ImportedNet(other, Normalisation((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))).eval()
    check_exported(network, network.outputs, imported / "models/model.onnx", films(64, None)[0])
    with torch.no_grad():
        network.head.bias[1] += 0.01
    with pytest.raises(ParityError):
        check_exported(network, network.outputs, imported / "models/model.onnx", films(64, None)[0])


def test_every_key_that_does_not_fit_is_named(resnet: nn.Module) -> None:
    weights = dict(resnet.state_dict())
    del weights["layer2.0.bn1.bias"]
    weights["layer1.0.conv1.weight"] = torch.zeros(64, 64, 5, 5)
    weights["layer3.0.conv1.weight"] = weights["layer3.0.conv1.weight"] * torch.nan
    weights["attention.weight"] = torch.zeros(2, 2)
    weights["layer4.1.conv2.weight"] = weights["layer4.1.conv2.weight"].to(torch.complex64)
    with pytest.raises(ImportRefused) as refusal:
        fill(build("resnet18", 3, 3), weights)
    said = str(refusal.value)
    assert "1 missing: layer2.0.bn1.bias" in said
    assert "1 unexpected: attention.weight" in said
    assert "layer1.0.conv1.weight: (64, 64, 5, 5) in the file, (64, 64, 3, 3) in the network" in said
    assert "without values): layer4.1.conv2.weight" in said
    assert "not finite: layer3.0.conv1.weight" in said


def test_keys_are_left_aside_only_when_named(resnet: nn.Module) -> None:
    weights = {**resnet.state_dict(), "criterion.pos_weight": torch.ones(3)}
    with pytest.raises(ImportRefused, match="unexpected: criterion"):
        fill(build("resnet18", 3, 3), weights)
    assert "criterion.pos_weight" in fill(build("resnet18", 3, 3), weights, ("criterion.pos_weight",))


def test_a_head_of_two_layers_is_not_taken_for_one(resnet: nn.Module) -> None:
    weights = {k: v for k, v in resnet.state_dict().items() if not k.startswith("fc.")}
    weights |= {f"fc.{i}.{k}": torch.zeros(3, 512) for i in (0, 3) for k in ("weight", "bias")}
    with pytest.raises(ImportRefused, match=r"fc\.0\.weight.*fc\.3\.weight"):
        fill(build("resnet18", 3, 3), weights)


class Bomb:
    def __init__(self, fuse: Path) -> None:
        self.fuse = fuse

    def __reduce__(self) -> Any:
        return Path.touch, (self.fuse,)


def test_nothing_in_a_file_is_executed(tmp_path: Path, resnet: nn.Module) -> None:
    fuse = tmp_path / "went-off"
    for zipped in (True, False):
        path = saved(tmp_path / "b.pt", {"state_dict": Bomb(fuse)}, _use_new_zipfile_serialization=zipped)
        with pytest.raises(ImportRefused, match="could run any program"):
            read_checkpoint(path)
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(Bomb(fuse)))
    with pytest.raises(ImportRefused):
        read_checkpoint(tmp_path / "p.pkl")
    assert not fuse.exists()


def test_a_pickle_that_needs_more_than_tensors_is_refused_by_name(tmp_path: Path, resnet: nn.Module) -> None:
    whole = saved(tmp_path / "whole.pt", torchvision.models.squeezenet1_1(num_classes=1))
    with pytest.raises(ImportRefused, match=r"'torchvision\.models\.squeezenet\.SqueezeNet'.*state_dict"):
        read_checkpoint(whole)
    with pytest.raises(ImportRefused, match=r"'pathlib\.PosixPath'"):
        read_checkpoint(saved(tmp_path / "path.pt", {"state_dict": resnet.state_dict(), "from": tmp_path}))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    with pytest.raises(ImportRefused, match="TorchScript"):
        read_checkpoint(tmp_path / "script.pt")


def test_any_bytes_whatsoever_are_refused_or_read(tmp_path: Path) -> None:
    path = tmp_path / "c.pt"
    whole = saved(path, {"a.weight": torch.ones(3, 3), "b.weight": torch.ones(3, 3)}).read_bytes()
    old = saved(path, {"a.weight": torch.ones(3, 3)}, _use_new_zipfile_serialization=False).read_bytes()
    rng = random.Random(5)
    cases = [b"", b"\x80", b"<html>not found</html>", b"PK\x03\x04", b"version https://git-lfs", bytes(4096)]
    for good in (whole, old):
        cases += [good[: rng.randrange(len(good))] for _ in range(25)]
        for _ in range(60):
            flipped = bytearray(good)
            flipped[rng.randrange(len(good))] ^= 1 << rng.randrange(8)
            cases.append(bytes(flipped))
    for content in cases:
        path.write_bytes(content)
        with contextlib.suppress(ImportRefused):
            assert read_checkpoint(path).weights


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"architecture": None}, "architecture cannot be found in the weights"),
        ({"classes": None, "normalisation": None}, "classes, normalisation cannot be found"),
        ({"architecture": "resnet17"}, "no classifier of this name"),
        ({"architecture": "inception_v3"}, "transform_input"),
        ({"channels": 1}, "1 channels, the first convolution takes 3"),
        ({"classes": ["Edema", "Mass"]}, r"fc\.weight: \(3, 512\) in the file, \(2, 512\)"),
        ({"classes": ["A", "B", "C"]}, "none of the classes"),
        ({"classes": ["Normal", "Pneumonia", "COVID"]}, "activation: softmax"),
        ({"classes": ["Edema", "pulmonary edema", "Mass"]}, "two classes are 'edema'"),
        ({"findings": {"Edema": "oedema"}}, "'Edema: oedema' must map"),
        ({"normalisation": {"mean": [0.5, 0.5], "std": 0.2}}, "2 means"),
        ({"normalisation": {"mean": 127, "std": 60}}, "pixels of 0 to 1"),
        ({"age_years": [40, 20]}, "not a range of ages"),
        ({"op_threshs": [0.5]}, "1 op_threshs for 3 classes"),
        ({"op_threshs": [0.5, None, 1.5]}, "1.5 is not a probability"),
    ],
)
def test_what_is_wrong_with_a_description_is_said(
    tmp_path: Path, resnet: nn.Module, change: dict[str, Any], says: str
) -> None:
    source = saved(tmp_path / "c.pt", resnet.state_dict())
    spec = Spec.model_validate({k: v for k, v in {**RESNET, **change}.items() if v is not None})
    with pytest.raises(ImportRefused, match=says):
        import_weights(source, spec, bundles=tmp_path / "b", name="lung", version="1.0.0", licence="MIT")
    assert not (tmp_path / "b").exists()


def test_the_yaml_is_read_or_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("architecture: resnet18\nsize: 224\nnormalization: {mean: [0.5], std: [0.25]}\n")
    assert read_spec(path).input_size == 224
    for text, says in (("a: [", "YAML"), ("just words", "entries"), ("sise: 3", "sise"), ("size: big", "integer")):
        path.write_text(text)
        with pytest.raises(ImportRefused, match=says):
            read_spec(path)
    command = [str(tmp_path / "none.pt"), "--name", "lung", "--version", "1.0.0", "--licence", "MIT"]
    assert main([*command, "--out", str(tmp_path)]) == 2
    assert "there is no such file" in capsys.readouterr().err
