"""What can be offered with the counts of a cohort, before anything is trained: worked out and seen to be so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score

from tests.training.cohorts.test_checks import made, write
from training.cohorts.inputs import Inputs
from training.cohorts.table import load_table
from training.figures.prospects import cases_for_share, least_auroc, main, prospects, standard_error


def of(folder: Path, validation: tuple[int, int], test: tuple[int, int], *, split: bool = True, train: int = 40) -> str:
    """What is said of a cohort with so many positives and negatives; its files are not read."""
    parts = {"train": (train, train), "validation": validation, "test": test}
    rows = [
        {
            "patient": f"{part}{y}{i}",
            "image": "a.png",
            "age": "50",
            "sex": "F",
            "view": "PA",
            "part": part,
            "Pneumonia": y,
        }
        for part, (n_positive, n_negative) in parts.items()
        for y, n in ((1, n_positive), (0, n_negative))
        for i in range(n)
    ]
    columns = {"person": "patient", "file": "image", "age_years": "age", **({"split": "part"} if split else {})}
    path = write(folder, pd.DataFrame(rows), columns=columns)
    table = load_table(path)
    n = len(rows)
    inputs = Inputs(np.zeros((n, 1, 8, 8), np.uint8), np.ones(n, bool), [[]] * n, ["d"] * n)
    return "\n".join(f"{check.verdict} {check.name} {check.message}" for check in prospects(table, inputs))


def test_too_few_of_a_class_say_how_many_more(tmp_path: Path) -> None:
    said = of(tmp_path, (60, 4), (30, 3))
    assert "doubtful can be offered pneumonia: no. 4 negatives in validation: at least 1 more are needed" in said
    assert "3 negatives in test: at least 7 more are needed" in said


def test_where_no_network_can_be_shown_to_hold_it_says_so(tmp_path: Path) -> None:
    said = of(tmp_path, (7, 5), (40, 120))
    assert "only an AUROC from 0.8" in said
    assert "at least 2 more negatives are needed" in said or "of each in validation are needed" in said
    # Cross-validation would do.
    assert "Cross-validated (--folds 5), all 92 of train and validation decide" in said


def test_enough_cases_say_from_which_figure_it_is_offered(tmp_path: Path) -> None:
    said = of(tmp_path, (100, 100), (60, 200))
    assert "ok can be offered pneumonia: if its AUROC on validation is at least 0.7" in said
    assert "ok for triage" in said


def test_triage_needs_more_cases_than_an_offer(tmp_path: Path) -> None:
    said = of(tmp_path, (100, 100), (12, 50))
    assert "ok can be offered" in said
    assert "12 positives in test: no result can be enough; at least 21 more to show 0.95 from 0.8" in said
    assert "50 negatives in test: enough only if nearly none is wrong; at least 50 more to show 0.6 from 0.5" in said


def test_without_a_split_the_whole_cohort_is_named(tmp_path: Path) -> None:
    said = of(tmp_path, (60, 1), (30, 1), split=False, train=2)
    assert "more in all)" in said


def test_the_figures_behind_it() -> None:
    # Hanley and McNeil's error against what drawing shows, with 40 and 20 cases of an AUROC of about 0.85.
    rng = np.random.default_rng(3)
    y = np.array([1] * 40 + [0] * 20)
    drawn = [roc_auc_score(y, rng.normal(size=60) + 1.466 * y) for _ in range(400)]
    assert np.mean(drawn) == pytest.approx(0.85, abs=0.01)
    assert standard_error(0.85, 40, 20) == pytest.approx(np.std(drawn), rel=0.15)
    least = least_auroc(40, 20, 0.65)
    assert least is not None
    assert least - 1.96 * standard_error(least, 40, 20) == pytest.approx(0.65, abs=1e-3)
    assert least_auroc(0, 20, 0.65) is None
    n = cases_for_share(0.95, 0.8)
    assert binomtest(round(0.95 * n), n).proportion_ci(method="wilson").low >= 0.8
    assert binomtest(round(0.95 * (n - 1)), n - 1).proportion_ci(method="wilson").low < 0.8


def test_the_command_says_it_beforehand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cohort", str(write(tmp_path, made(tmp_path))), "--quiet"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "can be offered pneumonia: no. " in said
    assert "for triage pneumonia: 5 positives in test: no result can be enough" in said
