"""Recalls, predictive values and missed cases by hand, their intervals by simulation, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_specs.bundle import FindingSpec, RocPoint
from data_specs.visit.contract import OperatingPoint
from tests.conftest import ROOT
from training.figures import planner
from training.figures.planner import find_finding, plan_text
from training.figures.screening import PlanError, choose, plan_point, plan_target


def point(threshold: float, tp: int, fn: int, tn: int, fp: int) -> RocPoint:
    return RocPoint(threshold=threshold, true_positives=tp, false_negatives=fn, true_negatives=tn, false_positives=fp)


ROC = (
    point(0.0, 100, 0, 0, 1000),
    point(0.2, 95, 5, 700, 300),
    point(0.5, 80, 20, 900, 100),
    point(0.7, 80, 20, 960, 40),
    point(0.9, 50, 50, 990, 10),
    point(1.0, 0, 100, 1000, 0),
)
FINDING = FindingSpec(
    name="abnormal",
    column=0,
    roc=ROC,
    operating_points=(
        OperatingPoint(name="screening", threshold=0.2, sensitivity=0.95, specificity=0.7, cohort="Bac Ninh films"),
        OperatingPoint(name="balanced", threshold=0.7, sensitivity=0.8, specificity=0.96, cohort="Bac Ninh films"),
        OperatingPoint(name="rule_in", threshold=0.7, sensitivity=0.8, specificity=0.96, cohort="Bac Ninh films"),
    ),
)


def test_the_who_target_at_a_prevalence_of_three_in_a_thousand() -> None:
    target = plan_target("", 0.9, 0.7, 0.003)
    assert target.ppv.value == pytest.approx(0.9 * 0.003 / (0.9 * 0.003 + 0.3 * 0.997))
    assert target.ppv.value == pytest.approx(0.009, abs=1e-4)
    assert target.npv.value == pytest.approx(0.7 * 0.997 / (0.7 * 0.997 + 0.1 * 0.003))
    assert target.recalled.value == pytest.approx(301.8)
    assert target.found.value == pytest.approx(2.7)
    assert target.missed.value == pytest.approx(0.3)
    assert target.ppv.low is None, "a target is not measured, so it has no interval"


def test_a_thousand_people_counted_one_by_one() -> None:
    # 50 of 1,000 are ill; of them 40 are found; of the 950 others 38 are recalled for nothing.
    made = plan_point("", ROC[3], 0.05)
    assert made.recalled.value == pytest.approx(40 + 38)
    assert made.found.value == pytest.approx(40)
    assert made.missed.value == pytest.approx(10)
    assert made.ppv.value == pytest.approx(40 / 78)
    assert made.npv.value == pytest.approx(912 / 922)


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    # A test of known sensitivity and specificity, measured again and again on 80 ill and 150 healthy people.
    rng = np.random.default_rng(3)
    truth = plan_target("", 0.85, 0.9, 0.02)
    covered = {"ppv": 0, "npv": 0, "recalled": 0, "missed": 0}
    for tp, tn in zip(rng.binomial(80, 0.85, 300), rng.binomial(150, 0.9, 300), strict=True):
        made = plan_point("", point(0.5, int(tp), 80 - int(tp), int(tn), 150 - int(tn)), 0.02)
        for name in covered:
            interval, value = getattr(made, name), getattr(truth, name).value
            covered[name] += interval.low <= value <= interval.high
    assert all(0.91 <= count / 300 <= 0.99 for count in covered.values()), covered


def test_more_cases_make_narrower_intervals() -> None:
    few, many = (plan_point("", point(0.5, 8 * k, 2 * k, 9 * k, k), 0.1).ppv for k in (2, 50))
    assert few.value == pytest.approx(many.value)
    assert few.high - few.low > 3 * (many.high - many.low)  # type: ignore[operator]


def test_the_most_sensitive_threshold_whose_recalls_fit() -> None:
    # At 5 %: 1000, 332.5, 135, 78, 34.5 and 0 recalls.
    assert choose(ROC, 0.05, 340).threshold == 0.2
    assert choose(ROC, 0.05, 332).threshold == 0.7, "0.5 is as sensitive and recalls more"
    assert choose(ROC, 0.05, 77).threshold == 0.9
    assert choose(ROC, 0.05, 1000).threshold == 0.0


@pytest.mark.parametrize(
    ("prevalence", "recalls", "said"),
    [
        (0.05, 30, "the fewest are 34.5"),
        (0, 30, "prevalence 0 "),
        (3, 30, "0.003"),
        (float("nan"), 30, "prevalence"),
        (0.05, 0, "0 recalls"),
        (0.05, 1001, "1001 recalls"),
    ],
)
def test_what_cannot_be_planned_is_said(prevalence: float, recalls: float, said: str) -> None:
    with pytest.raises(PlanError, match=said):
        choose(ROC, prevalence, recalls)


def test_ends_of_the_curve_have_no_predictive_value_where_nobody_is_left() -> None:
    assert np.isnan(plan_point("", ROC[0], 0.05).npv.value)
    assert np.isnan(plan_point("", ROC[-1], 0.05).ppv.value)
    assert "none" in planner.markdown_table([plan_point("", ROC[-1], 0.05)])


def test_the_plan_reads_as_a_table_with_its_cautions() -> None:
    text = plan_text(FINDING, 0.05, 100)
    assert "planned on: Bac Ninh films (100 with, 1000 without)" in text
    assert "Recall from a probability of 0.7000. Of 1,000 people screened, 78.0 are recalled" in text
    assert "balanced, rule_in" in text
    assert "The interval reaches" not in text
    assert "The interval reaches up to" in plan_text(FINDING, 0.05, 79)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    assert len(lines) == 2 + 3


def test_a_finding_that_reassures_recalls_those_without_it() -> None:
    # Of 1,100 with 1,000 not normal: at 0.7 there lie 960 of these below, and 20 of the 100 normal ones.
    text = plan_text(FINDING.model_copy(update={"name": "normal_ecg"}), 0.5, 1000 * (0.5 * 0.96 + 0.5 * 0.2))
    assert "(1000 with, 100 without)" in text
    assert "Recall below a probability of 0.7000" in text
    assert "96.0 (" in next(line for line in text.splitlines() if line.startswith("| chosen"))
    assert planner.BELOW in planner.card_section([FINDING.model_copy(update={"name": "normal_ecg"})])
    assert planner.BELOW not in planner.card_section([FINDING])


def test_a_bundle_without_a_roc_says_what_to_do() -> None:
    with pytest.raises(PlanError, match="has no ROC"):
        plan_text(FINDING.model_copy(update={"roc": ()}), 0.05, 100)
    assert planner.card_section([FINDING.model_copy(update={"roc": ()})]) == ""


def test_the_card_section_has_each_point_at_each_prevalence() -> None:
    text = planner.card_section([FINDING], (0.003, 0.2))
    assert all(name in text for name in ("screening at 0.3 %", "balanced, rule_in at 20 %", "Bac Ninh films"))


BUNDLES = ROOT / "models" / "bundles"


def test_the_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert planner.main(["--example"]) == 0
    shown = capsys.readouterr().out
    assert "PPV 0.9 %" in shown
    assert "302 of 1,000 people" in shown
    (tmp_path / "screening.json").write_text('{"name": "lung"}')
    asked = ["--finding", "pneumonia", "--prevalence", "0.003", "--recalls-per-1000", "30"]
    assert planner.main(["--bundle", str(tmp_path), *asked]) == 2
    assert "cannot plan" in capsys.readouterr().err
    assert planner.main(["--bundle", str(tmp_path / "none"), *asked]) == 2
    with pytest.raises(SystemExit):
        planner.main(["--finding", "pneumonia"])


def test_two_findings_of_one_name_are_told_apart_by_their_cohort() -> None:
    from data_specs.bundle import BundleManifest

    manifest = BundleManifest.model_validate_json((BUNDLES / "lung-1.0.0" / "screening.json").read_bytes())
    assert find_finding(manifest, "pneumonia", "kermany").age_years == (1, 6)
    assert find_finding(manifest, "pneumonia", "NIH").age_years == (18, 86)
    with pytest.raises(PlanError, match="2 findings match"):
        find_finding(manifest, "pneumonia", None)
    with pytest.raises(PlanError, match="no finding 'hernia'"):
        find_finding(manifest, "hernia", None)
