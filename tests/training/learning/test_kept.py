"""Which epoch is kept, when training stops, what a search and folds choose, where curves go, how to go on."""

from __future__ import annotations

import re
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from data_specs.bundle import TrainingData
from inference.bundles.loading import load_bundle
from tests.training.learning import test_workflow
from tests.training.learning.ddp_curve import curve
from tests.training.learning.test_fit import RECIPE, assert_equal_bits, cases, network, untouched
from tests.training.learning.test_workflow import cohort, command
from training import __main__ as commands
from training.__main__ import main
from training.cohorts.cohort import Cohort
from training.figures.evaluate import bootstrap, evaluate
from training.figures.offer import offer
from training.learning.curves import NoMlflow, require_mlflow
from training.learning.fit import fit, predict
from training.learning.kept import Kept
from training.learning.trials import Mean, fold_of

smaller = test_workflow.smaller


@pytest.fixture(scope="module", autouse=True)
def coarse_intervals() -> Iterator[None]:
    """A fraction of the draws: the intervals themselves are held in test_evaluate.py."""
    with pytest.MonkeyPatch.context() as patch:
        for drawing in (bootstrap, evaluate, offer):
            patch.setitem(drawing.__kwdefaults__, "draws", 40)
        yield


def scripted(values: list[float], *, n: int = 10_000, **more: Any) -> tuple[Kept, list[nn.Module]]:
    """Networks whose AUROC is as the script says, all seen; their bias is the epoch."""
    script = iter(values)
    kept = Kept(lambda _: {"a": next(script)}, {"a": (n, n)}, **more)
    seen = []
    for epoch in range(len(values)):
        seen.append(nn.Linear(1, 1))
        nn.init.constant_(seen[-1].bias, epoch)
        kept.see(seen[-1])
    return kept, seen


def test_the_best_epoch_is_kept_where_validation_tells_them_apart() -> None:
    kept, _ = scripted([0.6, 0.7, 0.9, 0.8, 0.85])
    assert (kept.kept, kept.best) == (2, 2)
    assert float(kept.weights["bias"]) == 2
    assert kept.sentence(4).startswith("2 of 4; mean AUROC on validation 0.900, before training 0.600, best 0.900")


def test_the_latest_is_kept_where_it_does_not() -> None:
    kept, _ = scripted([0.6, 0.7, 0.9, 0.85], n=12)  # a standard error of 0.07
    assert (kept.kept, kept.best) == (3, 2)
    assert scripted([0.6, 0.7, 0.9, 0.75], n=12)[0].kept == 2


def test_a_bundle_that_training_harms_is_kept_and_chance_is_not() -> None:
    assert scripted([0.9, 0.7, 0.8])[0].kept == 0
    assert scripted([0.9, 0.7, 0.8], may_keep_start=False)[0].kept == 2


def test_training_stops_after_its_patience_and_nothing_measured_keeps_the_last() -> None:
    assert not scripted([0.6, 0.9, 0.8], patience=2)[0].stops
    assert scripted([0.6, 0.9, 0.8, 0.8], patience=2)[0].stops
    assert not scripted([0.6, 0.9, 0.8, 0.8])[0].stops
    unmeasured = Kept(lambda _: {}, {})
    assert not unmeasured.stops
    for _ in range(3):
        unmeasured.see(nn.Linear(1, 1))
    assert unmeasured.kept == 2
    assert "nothing could be measured" in unmeasured.sentence(2)


def test_fit_returns_the_kept_weights_stops_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    torch.set_num_threads(1)

    def made(script: list[float]) -> Kept:
        values = iter(script)
        return Kept(lambda _: {"a": next(values)}, {"a": (10_000, 10_000)}, patience=2)

    kept = made([0.5, 0.7, 0.6, 0.6, 0.99])
    trained = fit(network(), cases(), untouched, RECIPE, tmp_path / "a", device="cpu", kept=kept)
    assert len(curve(tmp_path / "a")) == 3  # six were asked for
    assert curve(tmp_path / "a", "before training/a") == pytest.approx([0.5])
    assert curve(tmp_path / "a", "watch/a") == pytest.approx([0.7, 0.6, 0.6])
    one = fit(network(), cases(), untouched, replace(RECIPE, epochs=6), tmp_path / "b", device="cpu",
              kept=made([0.5, 0.7, 0.6, 0.6]))  # fmt: skip
    assert_equal_bits(trained, one)
    again = made([])  # nothing is measured again, nothing trained
    resumed = fit(network(), cases(), untouched, RECIPE, tmp_path / "a", device="cpu", kept=again)
    assert_equal_bits(trained, resumed)
    assert (again.seen, again.kept) == (kept.seen, 1)
    last = fit(network(), cases(), untouched, RECIPE, tmp_path / "c", device="cpu")
    assert not torch.equal(last.classifier.weight, trained.classifier.weight)


def people(n: int) -> Cohort:
    return Cohort(
        name="one",
        x=np.zeros((n, 1), dtype=np.uint8),
        labels=pd.DataFrame({"pneumonia": (np.arange(n) // 2 % 5 == 0).astype(float)}),
        person=np.array([f"p{i // 2}" for i in range(n)]),
        part=np.where(np.arange(n) < n * 0.8, "train", np.where(np.arange(n) < n * 0.9, "validation", "test")),
        subgroups=pd.DataFrame(index=range(n)),
        source=TrainingData(name="one", citation="", licence="", n_persons=n // 2, n_items=n),
    )


def test_folds_keep_persons_together_and_spread_the_positives() -> None:
    whole = people(200)
    fold = fold_of(whole, 4, 1)
    assert set(fold[whole.part == "test"]) == {-1}
    assert set(fold[whole.part != "test"]) == {0, 1, 2, 3}
    assert all(len(set(fold[whole.person == p])) == 1 for p in set(whole.person))
    shares = [whole.labels.pneumonia[fold == k].mean() for k in range(4)]
    assert max(shares) - min(shares) < 0.05
    for n in (1, 91):
        with pytest.raises(ValueError, match="has 90 persons"):
            fold_of(whole, n, 1)


def test_the_mean_of_networks_is_the_mean_of_their_logits() -> None:
    torch.manual_seed(1)
    members = [network().eval() for _ in range(3)]
    for i, member in enumerate(members):
        nn.init.constant_(member.classifier.bias, i)
    x = cases().x[:4]
    expected = np.mean([predict(member, x) for member in members], axis=0)
    np.testing.assert_allclose(predict(Mean(members), x), expected, atol=1e-6)


@pytest.fixture(scope="module")
def visible(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cohort(tmp_path_factory.mktemp("visible") / "c", "made-up", {"pneumonia": "Pneumonia"})


def test_folds_become_one_bundle_calibrated_on_everyone_left_out(visible: Path, tmp_path: Path) -> None:
    more = ("--init", "none", "--folds", "2")
    assert main(command(tmp_path, visible, epochs=3, more=more)) == 0
    manifest = load_bundle(tmp_path / "lung-1.0.0").manifest
    (finding,) = manifest.findings
    by_cohort = {e.cohort: e.estimate.n for e in finding.evaluation if e.metric == "auroc" and e.subgroup == "all"}
    # 64 that trained and 24 that validated, all of them left out once; the test part is as it was.
    assert by_cohort == {"made-up, validation, left out by 2 folds": 88, "made-up, test": 24}
    assert manifest.recipe["folds"] == 2
    assert len(str(manifest.recipe["epochs kept (AUROC on the persons left out)"]).split(", ")) == 2
    assert len(str(manifest.recipe["sha256 of made-up"])) == 64
    assert {p.name for p in (tmp_path / "lung-1.0.0.run").iterdir()} >= {"fold-1", "fold-2", "cache"}


def test_a_search_takes_what_is_best_on_validation_and_says_among_what(
    visible: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(tmp_path, visible, epochs=1, more=("--init", "none", "--search"))) in (0, 2)
    said = capsys.readouterr().out
    tried = re.findall(r"learning rate (\S+), all weights: \d of 1; mean AUROC on validation (\S+),", said)
    assert [rate for rate, _ in tried] == ["0.0015", "0.005", "0.015"]  # a random backbone is never frozen
    if (tmp_path / "lung-1.0.0").exists():
        recipe = load_bundle(tmp_path / "lung-1.0.0").manifest.recipe
        best = max(tried, key=lambda one: float(one[1]))
        assert str(recipe["search"]).startswith(f"learning rate {best[0]}, all weights, the best on validation of")
        assert recipe["learning_rate"] == pytest.approx(float(best[0]))


def test_what_does_not_go_together_is_said(visible: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command(tmp_path, visible, more=("--init", "none", "--search", "--folds", "2"))) == 2
    assert "--folds or --search, not both" in capsys.readouterr().err


def test_ctrl_c_says_how_to_go_on(
    visible: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.learning import checkpoints
    from training.learning import fit as fitting

    def interrupted(*given: Any) -> None:
        checkpoints.save(*given)
        raise KeyboardInterrupt

    def at_once(arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(commands, "train_network", at_once)
        assert main(command(tmp_path, visible)) == 130
    assert "Stopped before an epoch was finished" in capsys.readouterr().err
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "save", interrupted)
        assert main(command(tmp_path, visible, epochs=2)) == 130
    said = capsys.readouterr().err
    assert "holds all finished epochs (1 checkpoint)" in said
    assert f"python -m training lung --cohort {visible} --out {tmp_path} --epochs 2" in said
    assert "Traceback" not in said


class FakeMlflow(types.ModuleType):
    """What is called of MLflow: runs by identifier, their parameters and metrics."""

    def __init__(self) -> None:
        super().__init__("mlflow")
        self.address = ""
        self.runs: list[tuple[str | None, str | None]] = []
        self.metrics: list[tuple[str, int]] = []
        self.params: dict[str, object] = {}
        self.__spec__ = types.SimpleNamespace(name="mlflow")  # type: ignore[assignment]

    def set_tracking_uri(self, address: str) -> None:
        self.address = address

    @contextmanager
    def start_run(self, run_id: str | None = None, run_name: str | None = None) -> Any:
        self.runs.append((run_id, run_name))
        yield types.SimpleNamespace(info=types.SimpleNamespace(run_id="r1"))

    def log_params(self, params: dict[str, object]) -> None:
        self.params = params

    def log_metric(self, name: str, value: float, step: int) -> None:
        self.metrics.append((name, step))


def test_mlflow_stands_beside_tensorboard_and_goes_on_in_its_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake = FakeMlflow()
    monkeypatch.setitem(sys.modules, "mlflow", fake)
    recipe = replace(RECIPE, epochs=1)
    for _ in range(2):
        fit(network(), cases(), untouched, recipe, tmp_path / "run", device="cpu", mlflow="sqlite:///m.db")
    assert fake.address == "sqlite:///m.db"
    assert fake.runs == [(None, "run"), ("r1", None)]
    assert ("loss", 0) in fake.metrics
    assert fake.params["learning_rate"] == recipe.learning_rate
    assert len(curve(tmp_path / "run")) == 1


def test_without_mlflow_it_is_said_before_anything_trains(
    visible: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NoMlflow, match="pip install mlflow"):
        require_mlflow()
    assert main(command(tmp_path, visible, more=("--init", "none", "--mlflow", "x"))) == 2
    assert "not installed here (pip install mlflow)" in capsys.readouterr().err
