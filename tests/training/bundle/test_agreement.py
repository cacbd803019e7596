"""What is recorded of lower precisions: measured over the test parts, and added to a bundle beside its weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from data_specs.bundle import BundleManifest, TrainingData
from inference.bundles.loading import load_bundle
from inference.runtime.openvino_session import is_installed, precisions
from tests.conftest import ROOT
from training.bundle.agreement import Evaluated, add_agreement, evaluated_on, main, measure
from training.bundle.golden import recordings
from training.cohorts.cohort import Cohort

BUNDLES = ROOT / "models" / "bundles"
LOWER = [each for each in precisions() if each != "fp32"] if is_installed() else []
NEEDS_LOWER = pytest.mark.skipif(not LOWER, reason="this machine computes in fp32 alone: nothing to compare")
SOURCE = TrainingData(name="made-up", citation="", licence="", n_persons=0, n_items=0)


def parent() -> BundleManifest:
    return BundleManifest.model_validate_json((BUNDLES / "cardiac-1.0.0" / "screening.json").read_bytes())


@pytest.fixture(scope="module")
def evaluated() -> Evaluated:
    """Made-up recordings; what is right is the network's own fp32 answer above its median."""
    chance = np.random.default_rng(3)
    x = np.concatenate([recordings(1000) * size for size in (0.5, 0.8, 1.0, 1.4)])
    x = (x + chance.normal(0, 0.05, x.shape)).astype(np.float32)
    bundle = load_bundle(BUNDLES / "cardiac-1.0.0")
    logits = bundle.session.run(x)[0]
    columns = {spec.column for spec in bundle.manifest.findings}
    return Evaluated(x, {c: (logits[:, c] > np.median(logits[:, c])).astype(float) for c in columns}, "made-up")


def compared(evaluated: Evaluated, outcomes: dict[int, np.ndarray] | None = None) -> dict[str, tuple[float, float]]:
    manifest = parent()
    found = measure(
        BUNDLES / "cardiac-1.0.0" / manifest.weights.path,
        manifest.outputs,
        evaluated.x,
        evaluated.outcomes if outcomes is None else outcomes,
        manifest.findings,
        part=evaluated.part,
    )
    assert {(each.n, each.part) for each in found} <= {(len(evaluated.x), "made-up")}
    return {each.precision: (each.auc_difference, each.probability_difference) for each in found}


@NEEDS_LOWER
def test_every_lower_precision_is_compared_and_the_finer_one_is_nearer(evaluated: Evaluated) -> None:
    found = compared(evaluated)
    assert sorted(found) == sorted(LOWER)
    assert all(0 < probability < 0.05 for _, probability in found.values())
    if {"fp16", "bf16"} <= set(found):
        assert found["fp16"][1] < found["bf16"][1]


def test_columns_without_outcomes_or_of_one_kind_are_errors(evaluated: Evaluated) -> None:
    first, *others = evaluated.outcomes
    with pytest.raises(ValueError, match="without outcomes"):
        compared(evaluated, {column: evaluated.outcomes[column] for column in others})
    if LOWER:
        with pytest.raises(ValueError, match="both outcomes"):
            compared(evaluated, {**evaluated.outcomes, first: np.ones(len(evaluated.x))})


def test_a_new_version_has_the_same_weights_and_says_what_was_measured(evaluated: Evaluated, tmp_path: Path) -> None:
    folder = add_agreement(BUNDLES / "cardiac-1.0.0", evaluated, out=tmp_path, version="1.0.9")
    made, was = load_bundle(folder).manifest, parent()
    assert (made.version, made.weights, made.findings) == ("1.0.9", was.weights, was.findings)
    assert sorted(each.precision for each in made.agreement) == sorted(LOWER)
    assert (made.from_bundle[-1].version, made.from_bundle[-1].weights_sha256) == ("1.0.0", was.weights.sha256)
    card = (folder / "docs" / "README.md").read_text()
    assert all(f"In {each} by openvino, on 24 cases (made-up)" in card for each in LOWER)
    with pytest.raises(FileExistsError):
        add_agreement(BUNDLES / "cardiac-1.0.0", evaluated, out=tmp_path, version="1.0.9")


def cohort(name: str, labels: dict[str, list[float]], ages: tuple[float, float]) -> Cohort:
    n = len(next(iter(labels.values())))
    return Cohort(
        name=name,
        x=np.arange(n, dtype=np.float32)[:, None],
        labels=pd.DataFrame(labels),
        person=np.array([f"{name}{i}" for i in range(n)]),
        part=np.array(["train", *["test"] * (n - 1)]),
        subgroups=pd.DataFrame(index=range(n)),
        source=SOURCE,
        age_years=ages,
    )


def test_each_finding_is_known_for_the_cases_of_the_cohort_that_answers_it() -> None:
    (spec, *_) = parent().findings
    children = spec.model_copy(update={"name": "pneumonia", "column": 0, "age_years": (1.0, 6.0)})
    adults = spec.model_copy(update={"name": "pneumonia", "column": 1, "age_years": (18.0, 86.0)})
    cohorts = [
        cohort("children", {"pneumonia": [0, 1, 0]}, (1.0, 6.0)),
        cohort("adults", {"pneumonia": [1, 1]}, (18.0, 86.0)),
    ]
    found = evaluated_on(cohorts, [children, adults])
    assert found.x[:, 0].tolist() == [1, 2, 1]
    np.testing.assert_array_equal(found.outcomes[0], [1, 0, np.nan])
    np.testing.assert_array_equal(found.outcomes[1], [np.nan, np.nan, 1])
    assert found.part == "children, test, adults, test"
    with pytest.raises(ValueError, match="0 cohorts have"):
        evaluated_on(cohorts[:1], [adults])


def test_the_gate_is_measured_where_it_is_exported(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    arguments = ["--bundle", str(BUNDLES / "cxr_gate-1.0.0"), "--version", "1.0.9", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "the gate is measured when it is exported" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
