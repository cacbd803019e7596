"""A bundle is there whole or not at all, says nothing of where it was made, and gives its weights back bit for bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from scipy.special import expit
from torch import Tensor, nn

from data_specs.bundle import (
    Ancestor,
    BundleManifest,
    Calibration,
    CxrInput,
    EcgInput,
    FindingSpec,
    TrainingData,
    Withheld,
)
from data_specs.ecg.recording import LEADS
from inference.bundles.loading import load_bundle
from models.networks import FilmNet, RecordingNet
from tests.conftest import ROOT
from tests.training.learning.ddp_curve import SmallNet
from training.bundle.export import Draft, ParityError, export_onnx, worst_difference, write_bundle
from training.bundle.restore import CannotRestore, restore
from training.figures.evaluate import operating_points
from training.figures.offer import Offered

SHIPPED = ROOT / "models" / "bundles"

RECIPE: dict[str, str | int | float] = {"start": "Weights began at random.", "epochs": 14, "learning_rate": 1e-3}


def film_net(n_findings: int = 2, kind: type[FilmNet] = SmallNet) -> FilmNet:
    torch.manual_seed(1)
    return trained(kind(n_findings))


def recording_net() -> RecordingNet:
    torch.manual_seed(1)
    return trained(RecordingNet(2, widths=(16, 24), blocks=1))


def trained(network: nn.Module) -> nn.Module:
    """Weights and batch statistics as no initialisation gives them."""
    generator = torch.Generator().manual_seed(5)
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            noise = torch.rand(value.shape, generator=generator)
            value.copy_(0.5 + noise if name.endswith("running_var") else value + 0.05 * (noise - 0.5))
        else:
            value.fill_(173)
    return network.eval()


def outcomes(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.6, 150)
    return (rng.random(150) < expit(logits)).astype(float), expit(logits)


def film_draft(version: str = "1.1.0") -> Draft:
    y, p = outcomes(0)
    finding = FindingSpec(
        name="abnormal",
        column=1,
        age_years=(18, 86),
        calibration=Calibration(slope=1.0, intercept=0.0, prevalence=0.4),
        operating_points=operating_points(y, p, "validation"),
    )
    return Draft(
        name="lung",
        version=version,
        organ="lung",
        purpose="Made-up weights.",
        input=CxrInput(size_px=64),
        outputs=("logits", "evidence"),
        findings=(finding,),
        training_data=(TrainingData(name="Made-up", citation="None", licence="none", n_persons=1, n_items=1),),
        limits=("Made up.",),
        thresholds={},
        withheld=(Withheld(name="edema", cohort="Made-up", reason="AUROC 0.552 on 187 validation cases"),),
        from_bundle=(Ancestor(name="lung", version="1.0.0", sha256="a" * 64, weights_sha256="b" * 64),),
        recipe=RECIPE,
    )


def recording_draft() -> Draft:
    spec = EcgInput(fs_hz=100, n_samples=160, leads=LEADS, max_windows=6)
    findings = (FindingSpec(name="normal_ecg", column=0),)
    return replace(film_draft(), name="cardiac", organ="cardiac", input=spec, findings=findings)


def films(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 1, 64, 64), dtype=np.uint8)


def recordings(n: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 12, 160)).astype(np.float32)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two bundles of made-up weights: films and recordings."""
    folder = tmp_path_factory.mktemp("written") / "bundles"
    finding = next(spec for spec in film_draft().findings if spec.column == 1)
    plots = [Offered(finding, {"validation": outcomes(0), "test": outcomes(1)}, "")]
    write_bundle(film_net(), film_draft(), films(3, 0), films(5, 1), folder, plots=plots)
    write_bundle(recording_net(), recording_draft(), recordings(3, 0), recordings(5, 1), folder)
    return folder


def test_nothing_but_the_bundles_is_left(bundles: Path) -> None:
    assert sorted(p.name for p in bundles.iterdir()) == ["cardiac-1.1.0", "lung-1.1.0"]


@pytest.mark.parametrize("name", ["lung-1.1.0", "cardiac-1.1.0"])
def test_the_weights_come_back_bit_for_bit(bundles: Path, name: str) -> None:
    is_film = name.startswith("lung")
    expected = film_net() if is_film else recording_net()
    torch.manual_seed(99)
    fresh = SmallNet(2) if is_film else RecordingNet(2, widths=(16, 24), blocks=1)
    restore(fresh, bundles / name / "models/model.onnx")
    fresh.eval()
    for key, value in fresh.state_dict().items():
        if key.endswith("num_batches_tracked"):
            assert value == 0, "what no graph holds stays as it is"
        else:
            assert torch.equal(value, expected.state_dict()[key]), key
    x = torch.from_numpy(films(4, 7) if is_film else recordings(4, 7))
    with torch.inference_mode():
        assert torch.equal(fresh(x)[0], expected(x)[0])


def test_serving_takes_the_bundle_and_its_figures_are_those_of_torch(bundles: Path) -> None:
    bundle = load_bundle(bundles / "lung-1.1.0")
    x = films(4, 8)
    with torch.inference_mode():
        expected = film_net()(torch.from_numpy(x))[0].numpy()
    np.testing.assert_allclose(bundle.session.run(x)[0], expected, atol=1e-4)
    load_bundle(bundles / "cardiac-1.1.0")


def test_manifest_card_and_metadata_say_how_it_came_about(bundles: Path) -> None:
    folder, draft = bundles / "lung-1.1.0", film_draft()
    manifest = BundleManifest.model_validate_json((folder / "screening.json").read_bytes())
    assert (manifest.withheld, manifest.from_bundle) == (draft.withheld, draft.from_bundle)
    assert manifest.recipe == RECIPE
    assert [type(value) for value in manifest.recipe.values()] == [str, int, float]
    text = (folder / "docs/README.md").read_text()
    for said in (
        "## Not offered, and why\n\n- edema (Made-up): AUROC 0.552 on 187 validation cases.",
        "| learning rate | 0.001 |",
        "| epochs | 14 |",
        "lung 1.0.0: screening.json sha256 `aaaa",
        "](abnormal-1.png)",
        "assumes a prevalence of 40 %",
    ):
        assert said in text, said
    assert (folder / "docs/abnormal-1.png").stat().st_size > 1000
    assert "trained further from lung 1.0.0" in (folder / "configs/metadata.json").read_text()


@pytest.mark.parametrize("name", ["lung-1.1.0", "cardiac-1.1.0"])
def test_no_file_says_where_it_was_made(bundles: Path, name: str) -> None:
    for path in (p for p in (bundles / name).rglob("*") if p.is_file()):
        content = path.read_bytes()
        for trace in (str(ROOT), str(bundles.parent), "site-packages", "networks.py", ".partial-", "/home/"):
            assert trace.encode() not in content, (path.name, trace)
    graph = onnx.load(bundles / name / "models/model.onnx").graph
    assert not any(node.metadata_props or node.doc_string for node in graph.node)


def test_a_version_is_never_replaced(bundles: Path) -> None:
    before = (bundles / "lung-1.1.0/screening.json").read_bytes()
    with pytest.raises(FileExistsError, match="never replaced"):
        write_bundle(film_net(), film_draft(), films(3, 0), films(5, 1), bundles)
    assert (bundles / "lung-1.1.0/screening.json").read_bytes() == before


class Drifting(nn.Module):
    """Computes something else each time, which no graph can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 2)
        self.calls = 0

    def forward(self, films: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        logits = self.linear(films.float().mean(dim=(1, 2)) / 255) + self.calls
        return logits, logits[:, :, None, None]


def test_failed_parity_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ParityError, match="torch and ONNX differ"):
        write_bundle(Drifting(), film_draft(), films(3, 0), films(5, 1), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_failure_after_the_weights_leaves_nothing_behind(tmp_path: Path) -> None:
    wrong = [Offered(film_draft().findings[0], {"validation": (np.zeros(5), np.zeros(4))}, "")]
    with pytest.raises((ValueError, IndexError)):
        write_bundle(film_net(), film_draft(), films(3, 0), films(5, 1), tmp_path, plots=wrong)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["lung-1.0.0", "cardiac-1.0.0"])
def test_a_shipped_bundle_with_folded_batch_norms_is_refused(name: str) -> None:
    network = film_net(16, FilmNet) if name.startswith("lung") else recording_net()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(CannotRestore, match="Its batch norms were merged into the convolutions") as refused:
        restore(network, SHIPPED / name / "models/model.onnx")
    assert "missing" in str(refused.value)
    assert "more" in str(refused.value)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_another_network_is_named_with_what_differs(bundles: Path) -> None:
    model = bundles / "lung-1.1.0/models/model.onnx"
    with pytest.raises(CannotRestore, match=r"classifier.weight: \(2, 1280, 1, 1\) torch.float32, expected \(3,"):
        restore(SmallNet(3), model)
    other = SmallNet(2)
    other.further = nn.Linear(2, 2)
    with pytest.raises(CannotRestore, match=r"missing further\.bias, further\.weight") as refused:
        restore(other, model)
    assert "folded" not in str(refused.value)
    with pytest.raises(CannotRestore, match="unknown backbone"):
        restore(nn.Linear(3, 3), model)


class Named(nn.Module):
    """A weight that is called like the operation that comes after it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([3.0]))
        self.add = nn.Parameter(torch.tensor([0.5, 2.0]))

    def forward(self, recordings: Tensor) -> Tensor:
        return recordings.mean(dim=(1, 2))[:, None] * self.mean + self.add


def test_a_weight_may_be_called_like_an_operation(tmp_path: Path) -> None:
    network = Named()
    x = recordings(4, 1)
    export_onnx(network, x, ("logits",), tmp_path / "model.onnx")
    assert worst_difference(network, tmp_path / "model.onnx", x) < 1e-6
    fresh = Named()
    fresh.mean.zero_()
    restore(fresh, tmp_path / "model.onnx")
    assert fresh.mean == 3


def test_no_bytes_whatsoever_crash_it(bundles: Path, tmp_path: Path) -> None:
    good = (bundles / "cardiac-1.1.0/models/model.onnx").read_bytes()
    rng = np.random.default_rng(0)
    network = recording_net()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    broken = tmp_path / "model.onnx"
    cases = [b"", b"no graph", good[: len(good) // 2], good[:-7], rng.bytes(4000)]
    for _ in range(40):
        flipped = bytearray(good)
        for at in rng.integers(0, 4000, 3):
            flipped[at] ^= 1 << int(rng.integers(8))
        cases.append(bytes(flipped))
    for content in cases:
        broken.write_bytes(content)
        try:
            restore(network, broken)
        except CannotRestore:
            assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
        else:
            network.load_state_dict(before)
    with pytest.raises(CannotRestore, match="cannot be read"):
        restore(network, tmp_path / "none.onnx")
