"""Bundles that shipped before can be trained further: their weights in torch answer as their graph does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from data_specs.bundle import BundleManifest, CxrInput, EcgInput
from models.earlier_networks import EARLIER
from models.networks import FilmNet, RecordingNet
from tests.conftest import ROOT
from training.bundle.restore import restore
from training.learning.from_bundle import from_bundle, input_of, network_of
from training.organs import cardiac, lung

BUNDLES = ROOT / "models" / "bundles"
TODAY = {"lung": FilmNet, "cardiac": RecordingNet}


@pytest.mark.parametrize(
    "name",
    [
        "cardiac-1.0.0",
        "cardiac-1.0.1",
        "cardiac-1.0.2",
        "cardiac-1.1.0",
        "lung-1.0.0",
        "lung-1.1.0",
        "lung-1.2.0",
        "lung-1.3.1",
    ],
)
def test_every_shipped_bundle_can_be_trained_further(name: str) -> None:
    torch.set_num_threads(1)
    organ, folder = name.split("-", maxsplit=1)[0], BUNDLES / name
    manifest = BundleManifest.model_validate_json((folder / "screening.json").read_bytes())
    network = network_of(folder, (TODAY[organ], *EARLIER[organ]))
    columns = [f.name for f in manifest.findings]
    started = network(len(columns))
    inherited = from_bundle(started, columns, folder, ages=[f.age_years for f in manifest.findings])
    assert inherited.ancestors[-1].version == manifest.version
    assert "begun at random: none" in inherited.sentence
    with np.load(folder / "golden.npz") as golden:
        x, logits = golden["input"], golden["logits"]
    with torch.inference_mode():
        found = started.eval()(torch.from_numpy(x))[0].numpy()
    np.testing.assert_allclose(found, logits[:, [f.column for f in manifest.findings]], atol=2e-4)


def test_what_fits_no_network_is_said_by_todays(tmp_path: Path) -> None:
    assert network_of(BUNDLES / "kidney-1.1.0", (RecordingNet, *EARLIER["cardiac"])) is RecordingNet
    assert network_of(tmp_path, (FilmNet, *EARLIER["lung"])) is FilmNet
    assert network_of(BUNDLES / "cardiac-1.0.2", (FilmNet, *EARLIER["lung"])) is FilmNet


def test_what_was_trained_further_is_exported_and_restored_by_the_same_names(tmp_path: Path) -> None:
    from training.bundle.export import export_onnx

    torch.set_num_threads(1)
    network = EARLIER["cardiac"][0](2).eval()
    with torch.no_grad():
        for value in network.parameters():
            value.normal_(0, 0.05)
    x = np.random.default_rng(1).normal(size=(2, 12, 1000)).astype(np.float32)
    export_onnx(network, x, ("logits", "evidence"), tmp_path / "model.onnx")
    again = EARLIER["cardiac"][0](2).eval()
    restore(again, tmp_path / "model.onnx")
    for (name, value), other in zip(network.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


@pytest.mark.parametrize(
    ("bundle", "today", "taken"),
    [
        ("lung-1.2.0", lung.INPUT, CxrInput(size_px=224)),
        ("cardiac-1.0.2", lung.INPUT, lung.INPUT),
        ("not-there", lung.INPUT, lung.INPUT),
        (None, cardiac.INPUT, cardiac.INPUT),
    ],
)
def test_what_starts_from_a_bundle_takes_what_that_bundle_takes(
    bundle: str | None, today: CxrInput | EcgInput, taken: CxrInput | EcgInput
) -> None:
    assert input_of(BUNDLES / bundle if bundle else None, otherwise=today) == taken


def test_earlier_recordings_are_taken_as_today() -> None:
    assert input_of(BUNDLES / "cardiac-1.0.2", otherwise=cardiac.INPUT).form == cardiac.INPUT.form
