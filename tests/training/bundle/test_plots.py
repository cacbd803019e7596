"""The plot of a finding: what is drawn is what was measured, and the card links what is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.special import expit

from data_specs.bundle import BundleManifest, FindingSpec
from tests.conftest import ROOT
from training.bundle.card import card
from training.bundle.plots import plot_name, write_plot
from training.figures.evaluate import operating_points

BUNDLES = ROOT / "models" / "bundles"


def outcomes(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 1.6, n)
    return (rng.random(n) < expit(logits)).astype(float), expit(logits)


def finding() -> FindingSpec:
    return FindingSpec(name="abnormal", column=3, operating_points=operating_points(*outcomes(150, 0), "c"))


def test_it_is_a_small_picture_that_shows_its_parts(tmp_path: Path) -> None:
    path = write_plot(tmp_path, finding(), {"validation": outcomes(150, 0), "test": outcomes(120, 1)})
    assert path == tmp_path / "abnormal-3.png"
    assert path.stat().st_size < 100_000
    with Image.open(path) as picture:
        assert picture.size == (760, 390)
        pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (pixels == colour).all(axis=1).sum() > 200
    one = write_plot(tmp_path, finding(), {"validation": outcomes(150, 0)})
    assert one is not None
    with Image.open(one) as picture:
        alone = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    assert not (alone == (0xD5, 0x5E, 0x00)).all(axis=1).any()


def test_the_same_cases_make_the_same_bytes(tmp_path: Path) -> None:
    paths = [tmp_path / "a", tmp_path / "b"]
    for docs in paths:
        docs.mkdir()
        write_plot(docs, finding(), {"validation": outcomes(150, 0)})
    assert (paths[0] / "abnormal-3.png").read_bytes() == (paths[1] / "abnormal-3.png").read_bytes()


def test_repeats_unknown_labels_and_too_few_cases(tmp_path: Path) -> None:
    y, p = outcomes(120, 2)
    y[:20] = np.nan
    assert write_plot(tmp_path, finding(), {"left out": (y, np.stack([p, p**1.1], axis=1))}) is not None
    assert write_plot(tmp_path, finding(), {"few": outcomes(12, 3)}) is None


def test_the_card_links_a_plot_only_where_it_lies(tmp_path: Path) -> None:
    manifest = BundleManifest.model_validate_json((BUNDLES / "lung-1.0.0" / "screening.json").read_bytes())
    names = [plot_name(f) for f in manifest.findings]
    assert len(set(names)) == len(names), "two findings of one name have two plots"
    (tmp_path / names[0]).write_bytes(b"")
    text = card(manifest, parity_difference=1e-5, docs=tmp_path)
    assert f"]({names[0]})" in text
    assert not any(f"]({name})" in text for name in names[1:])
    assert names[0] not in card(manifest, parity_difference=1e-5)


@pytest.mark.parametrize("difference", [None, 2e-5])
def test_the_card_says_where_parity_was_shown(difference: float | None) -> None:
    manifest = BundleManifest.model_validate_json((BUNDLES / "lung-1.0.0" / "screening.json").read_bytes())
    text = card(manifest, parity_difference=difference)
    assert ("2.0e-05" in text) == (difference is not None)
