"""What every shipped bundle promises: layout, hashes, golden cases, a card, nothing offered beyond evidence."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data_specs.bundle import BundleManifest
from data_specs.vocabulary import terms
from inference.bundles.loading import NAMES, BundleError, load_bundle, load_bundles
from inference.runtime.choice import largest_difference
from inference.runtime.session import ONE_THREAD
from tests.conftest import ROOT

BUNDLES = ROOT / "models" / "bundles"
FOLDERS = sorted(p.parent for p in BUNDLES.glob("*/screening.json"))
MAX_BYTES = 15_000_000


@pytest.fixture(params=FOLDERS, ids=lambda p: p.name)
def folder(request: pytest.FixtureRequest) -> Path:
    return request.param


def manifest_of(folder: Path) -> BundleManifest:
    return BundleManifest.model_validate_json((folder / "screening.json").read_bytes())


def test_every_needed_bundle_ships() -> None:
    assert set(load_bundles(BUNDLES, ONE_THREAD)) == set(NAMES)


def test_monai_layout_and_size(folder: Path) -> None:
    for name in ("configs/metadata.json", "models/model.onnx", "docs/README.md", "LICENSE", "golden.npz"):
        assert (folder / name).is_file(), name
    assert sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) <= MAX_BYTES
    metadata = json.loads((folder / "configs/metadata.json").read_text())
    assert metadata["version"] == manifest_of(folder).version
    assert folder.name == f"{manifest_of(folder).name}-{manifest_of(folder).version}"


def test_the_graph_says_nothing_of_where_it_was_made(folder: Path) -> None:
    graph = (folder / "models/model.onnx").read_bytes()
    assert b"stack_trace" not in graph
    assert b"site-packages" not in graph


def test_golden_cases_are_met(folder: Path) -> None:
    bundle = load_bundle(folder)
    first = bundle.manifest.outputs[0]
    with np.load(folder / bundle.manifest.golden.path, allow_pickle=False) as golden:
        found, expected = bundle.session.run(golden["input"])[0], golden[first]
    assert largest_difference(found, expected) <= bundle.manifest.golden.tolerance <= 1e-4


def test_a_case_does_not_see_its_batch(folder: Path) -> None:
    bundle = load_bundle(folder)
    with np.load(folder / "golden.npz") as golden:
        cases = golden["input"]
    together = bundle.session.run(np.concatenate([cases, cases[::-1]]))[0]
    alone = np.concatenate([bundle.session.run(case[None])[0] for case in cases])
    np.testing.assert_allclose(together[: len(cases)], alone, atol=1e-5, rtol=1e-5)


def test_findings_are_terms_and_probabilities_have_figures(folder: Path) -> None:
    manifest = manifest_of(folder)
    for finding in manifest.findings:
        assert finding.name in terms() or manifest.organ is None
        if finding.kind == "probability":
            assert finding.evaluation, f"{finding.name} is offered without an evaluation"
            assert {p.name for p in finding.operating_points} == {"screening", "balanced", "rule_in"}
            auroc = [e.estimate for e in finding.evaluation if e.metric == "auroc" and e.subgroup == "all"]
            assert auroc
            assert all(e.low <= e.value <= e.high for e in auroc)
            assert auroc[0].low > 0.5, f"{finding.name} is offered although it may be no better than chance"


def test_the_card_says_limits_citation_and_licence(folder: Path) -> None:
    card = (folder / "docs/README.md").read_text()
    manifest = manifest_of(folder)
    for said in (*manifest.limits, *(d.citation for d in manifest.training_data), manifest.weights.sha256):
        assert said in card
    assert all(d.licence and d.n_items > 0 for d in manifest.training_data)


@pytest.mark.parametrize("damage", ["weights", "golden", "manifest", "card", "vocabulary", "missing", "twice"])
def test_a_damaged_bundle_is_refused(tmp_path: Path, damage: str) -> None:
    for source in FOLDERS:
        shutil.copytree(source, tmp_path / source.name)
    older, kidney = sorted(p for p in tmp_path.iterdir() if p.name.startswith("kidney"))
    if damage == "weights":
        weights = kidney / "models/model.onnx"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    elif damage == "golden":
        (kidney / "golden.npz").write_bytes(b"PK")
    elif damage == "manifest":
        (kidney / "screening.json").write_text("{}")
    elif damage == "card":
        (kidney / "docs/README.md").unlink()
    elif damage == "vocabulary":  # a finding without a name would break every answer that shows it
        text = (kidney / "screening.json").read_text()
        (kidney / "screening.json").write_text(text.replace('"name": "kdigo_g"', '"name": "nameless"'))
        assert text != (kidney / "screening.json").read_text()
    elif damage == "missing":
        shutil.rmtree(kidney)
        shutil.rmtree(older)
    else:
        shutil.copytree(kidney, tmp_path / "kidney-9.9.9")
    with pytest.raises(BundleError, match="kidney"):
        load_bundles(tmp_path, ONE_THREAD)


def test_golden_cases_that_are_missed_refuse_the_bundle(tmp_path: Path) -> None:
    source = next(p for p in FOLDERS if p.name.startswith("kidney"))
    folder = tmp_path / source.name
    shutil.copytree(source, folder)
    with np.load(folder / "golden.npz") as golden:
        arrays = dict(golden)
    arrays["values"][0, 0] += 0.01
    np.savez_compressed(folder / "golden.npz", **arrays)
    import hashlib

    manifest = json.loads((folder / "screening.json").read_text())
    manifest["golden"]["sha256"] = hashlib.sha256((folder / "golden.npz").read_bytes()).hexdigest()
    (folder / "screening.json").write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match="golden cases differ"):
        load_bundle(folder)
