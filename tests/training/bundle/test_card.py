"""The card: what a reader needs first stands first, and every figure in it is the manifest's."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from data_specs.bundle import BundleManifest, Estimate, Evaluation, FindingSpec, Withheld
from inference.findings import calibrated
from tests.conftest import ROOT
from training.bundle.card import card
from training.bundle.card_tables import TOO_FEW, markdown, points, prevalence, summary
from training.figures.calibrate import at_prevalence, fit_platt
from training.figures.calibration_error import calibration_figures
from training.figures.evaluate import evaluate, operating_points
from training.figures.roc import roc_points
from training.figures.use import home_of

SHIPPED = sorted((ROOT / "models" / "bundles").glob("*-*.*.*"))


def manifest_of(folder: Path) -> BundleManifest:
    return BundleManifest.model_validate_json((folder / "screening.json").read_bytes())


@pytest.fixture(scope="module")
def finding() -> FindingSpec:
    rng = np.random.default_rng(0)
    z = rng.normal(0, 1.6, 400)
    y = (rng.random(400) < expit(z)).astype(float)
    person = np.arange(400).astype(str)
    calibration = fit_platt(y, z)
    p = calibrated(z, calibration)
    operating = operating_points(y, p, "Films, validation")
    groups = {"sex F": np.arange(400) < 200, "site | north": np.arange(400) > 394}
    share = Estimate(value=0.8, low=0.7, high=0.9, n=50, n_positive=50)
    return FindingSpec(
        name="abnormal",
        column=0,
        age_years=(18, 86),
        calibration=calibration,
        decides_at="balanced",
        operating_points=operating,
        evaluation=(
            Evaluation(cohort="Another hospital", metric="sensitivity@balanced", estimate=share),
            *evaluate(y, p, person, cohort="Films, test", points=operating, subgroups=groups, decides_at="balanced",
                      draws=30),
            *calibration_figures(y, p, cohort="Films, test"),
            Evaluation(cohort="Films, validation", metric="sensitivity@balanced", estimate=share),
        ),
        roc=roc_points(y, p, operating),
    )  # fmt: skip


@pytest.fixture(scope="module")
def text(finding: FindingSpec) -> str:
    lung = manifest_of(next(folder for folder in SHIPPED if folder.name == "lung-1.0.0"))
    withheld = (Withheld(name="edema", cohort="Films", reason="too few to say: test 3 with and 97 without it"),)
    new = lung.model_copy(
        update={"findings": (finding,), "withheld": withheld, "recipe": {"epochs": 14, "seed": 7, "precision": "bf16"}}
    )
    return card(new, parity_difference=1e-5)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split(" | ")]


def test_sections_come_in_the_order_that_a_reader_asks(text: str) -> None:
    headings = re.findall(r"^## (.+)$", text, flags=re.MULTILINE)
    assert headings == [
        "What it offers, and for whom",
        "Not offered, and why",
        "Limits",
        "Evaluation",
        "Planning",
        "How it was trained",
        "Trained on",
        "File",
    ]
    assert text.index("| finding |") < text.index("## Not offered")
    assert "- edema (Films): too few to say: test 3 with and 97 without it.\n" in text
    assert "| precision | bf16 |" in text
    assert "abnormal: per 1,000 screened" in text


def test_the_summary_shows_the_part_that_was_evaluated_and_the_point_that_decides(finding: FindingSpec) -> None:
    assert home_of(finding) == "Films, test"
    figure = {e.metric: e.estimate for e in finding.evaluation if (e.cohort, e.subgroup) == ("Films, test", "all")}
    head, _, row = summary([finding]).splitlines()
    shown = dict(zip(cells(head), cells(row), strict=True))
    said = lambda e: f"{e.value:.3f} ({e.low:.3f} to {e.high:.3f})"  # noqa: E731
    assert shown["AUROC"] == said(figure["auroc"])
    assert shown["sensitivity"] == said(figure["sensitivity@balanced"])
    assert shown["specificity"] == said(figure["specificity@balanced"])
    assert shown["ECE (by chance)"] == f"{figure['ece'].value:.3f} ({figure['ece_by_chance'].value:.3f})"
    assert shown["n (positive)"] == f"400 ({figure['auroc'].n_positive})"
    assert shown["assumed prevalence"] == prevalence(finding)
    assert shown["for ages"] == "18 to 85"


def test_operating_points_show_what_was_promised_and_what_was_kept(finding: FindingSpec) -> None:
    head, _, *rows = points(finding).splitlines()
    columns = cells(head)
    assert [c for c in columns if "," in c] == [
        "sensitivity, Films, test", "specificity, Films, test",
        "sensitivity, Another hospital", "specificity, Another hospital",
    ]  # fmt: skip
    by_name = {cells(row)[0]: dict(zip(columns, cells(row), strict=True)) for row in rows}
    assert by_name.keys() == {"screening", "**balanced** (decides)", "rule_in"}
    assert by_name["**balanced** (decides)"]["sensitivity, Another hospital"] == "0.800 (0.700 to 0.900)"
    assert by_name["**balanced** (decides)"]["sensitivity there"] == "0.800 (0.700 to 0.900)"
    promised = finding.operating_points[0].sensitivity
    assert by_name["screening"]["sensitivity there"] == f"{promised:.3f}"


def test_every_figure_of_the_manifest_is_in_the_card_once(finding: FindingSpec, text: str) -> None:
    for e in finding.evaluation:
        assert f"{e.estimate.value:.3f}" in text or e.metric == "prevalence", "of a group the counts are shown"
    section = text[text.index("### abnormal, 18 to 85 years") : text.index("## Planning")]
    rows = [line for line in section.splitlines() if line.startswith("| brier")]
    assert len(rows) == 1


def test_a_group_has_one_row_with_counts_or_says_too_few(text: str) -> None:
    (large,) = [line for line in text.splitlines() if line.startswith("| sex F")]
    (small,) = [line for line in text.splitlines() if line.startswith("| site")]
    assert TOO_FEW not in large
    assert large.count(" to ") == 3
    assert small.count(TOO_FEW) == 3
    assert re.search(r"\| 5 \(\d\) \|", small)
    assert "site \\| north" in small, "a name cannot break the table"
    assert "have only their counts" in text


def test_the_card_gives_the_prevalence_that_a_probability_assumes(finding: FindingSpec) -> None:
    lung = manifest_of(next(folder for folder in SHIPPED if folder.name == "lung-1.0.0"))
    assert finding.calibration is not None
    assert finding.calibration.prevalence is not None
    share = f"{100 * finding.calibration.prevalence:.3g} %"
    plain = card(lung.model_copy(update={"findings": (finding,)}), parity_difference=None)
    assert f"assumes a prevalence of {share}; among the 400 cases that its thresholds were chosen on it was" in plain
    stated = finding.model_copy(update={"calibration": at_prevalence(finding.calibration, 0.003)})
    moved = card(lung.model_copy(update={"findings": (stated,)}), parity_difference=None)
    assert "assumes a prevalence of 0.3 %; among the 400 cases" in moved
    assert "| 0.3 % |" in moved[: moved.index("## Limits")]


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda f: f.name)
def test_the_manifests_of_all_shipped_bundles_make_a_card(folder: Path) -> None:
    manifest = manifest_of(folder)
    made = card(manifest, parity_difference=1e-5, docs=folder / "docs")
    for finding in manifest.findings:
        assert f"| {finding.name} |" in made
        for e in finding.evaluation:
            # Of a group's share of positives the card gives the counts.
            assert e.metric == "prevalence" or f"{e.estimate.value:.3f}" in made
            assert e.cohort in made
        for point in finding.operating_points:
            assert f"{point.threshold:.3g}" in made
    for said in (manifest.weights.sha256, *manifest.limits, *(d.citation for d in manifest.training_data)):
        assert said in made
    tables = [line for line in made.splitlines() if line.startswith("| ")]
    assert tables
    assert "nan" not in made


def test_all_rows_of_a_table_have_its_columns(text: str) -> None:
    width = 0
    for line in text.splitlines():
        if not line.startswith("|"):
            width = 0
            continue
        n = len(re.findall(r"(?<!\\)\|", line))
        assert width in (0, n), line
        width = n
    assert markdown(["a"], [["x|y"]]).endswith("| x\\|y |\n")
