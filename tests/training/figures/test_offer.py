"""What is offered, what is withheld and with which reason; and that a probability means what the manifest says."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from data_specs.bundle import FindingSpec, TrainingData, Withheld
from inference.findings import calibrated
from training.bundle.card_tables import TOO_FEW, groups
from training.cohorts.cohort import Cohort
from training.figures.calibrate import move_prevalence
from training.figures.evaluate import evaluate, expected_calibration_error
from training.figures.offer import Offered, Rule, offer

SOURCE = TrainingData(name="Made-up", citation="none", licence="none", n_persons=0, n_items=0)
DRAWS = 60


def cohort(n: int = 3000, seed: int = 0) -> tuple[Cohort, np.ndarray]:
    """Outcomes drawn from true logits, which come with it; 400 train, half of the rest validate and test."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-0.4, 1.6, n)
    y = (rng.random(n) < expit(logits)).astype(float)
    part = np.array(["train"] * 400 + ["validation"] * ((n - 400) // 2) + ["test"] * (n - 400 - (n - 400) // 2))
    sex = np.where(rng.random(n) < 0.5, "F", "M").astype(object)
    sex[::17] = None
    made = Cohort(
        name="made",
        x=np.zeros((n, 1), dtype=np.uint8),
        labels=pd.DataFrame({"abnormal": y}),
        person=np.arange(n).astype(str),
        part=part,
        subgroups=pd.DataFrame({"sex": sex}),
        source=SOURCE,
        title="Made-up films",
        age_years=(18.0, 86.0),
    )
    return made, logits


def figure(spec: FindingSpec, metric: str, part: str = "test") -> float:
    return next(
        e.estimate.value
        for e in spec.evaluation
        if (e.metric, e.subgroup, e.cohort) == (metric, "all", f"Made-up films, {part}")
    )


def offered(result: Offered | Withheld) -> Offered:
    assert isinstance(result, Offered), result
    return result


def withheld(result: Offered | Withheld) -> str:
    assert isinstance(result, Withheld), "it was offered"
    assert (result.name, result.cohort) == ("abnormal", "Made-up films")
    return result.reason


def test_what_holds_is_offered_with_all_that_serving_and_planning_need() -> None:
    made, logits = cohort()
    one = offered(offer(made, "abnormal", 3, 2 * logits - 1, Rule(), draws=DRAWS))
    spec = one.spec
    assert (spec.name, spec.column, spec.age_years, spec.decides_at) == ("abnormal", 3, (18.0, 86.0), "screening")
    assert spec.calibration is not None
    v, t = made.rows("validation"), made.rows("test")
    y = made.labels.abnormal.to_numpy()
    assert spec.calibration.prevalence == pytest.approx(y[made.part != "test"].mean())
    np.testing.assert_array_equal(one.parts["test"][0], y[t])
    np.testing.assert_array_equal(one.parts["test"][1], calibrated(2 * logits[t] - 1, spec.calibration))
    assert np.abs(one.parts["test"][1] - expit(logits[t])).mean() < 0.03, "steepness and shift were undone"
    assert [p.name for p in spec.operating_points] == ["screening", "balanced", "rule_in"]
    own = {p.threshold for p in spec.operating_points}
    assert own <= {r.threshold for r in spec.roc}
    first = spec.roc[0]
    assert first.true_positives + first.false_negatives == y[v].sum()
    for metric in ("auroc", "ece", "ece_by_chance", "ece_debiased", "brier", "calibration_slope", "average_precision"):
        assert figure(spec, metric) >= 0
    screening = spec.operating_points[0]
    p = calibrated(2 * logits - 1, spec.calibration)[v]
    assert screening.sensitivity == pytest.approx((p[y[v] == 1] >= screening.threshold).mean(), abs=1e-3)
    assert screening.specificity == pytest.approx((p[y[v] == 0] < screening.threshold).mean(), abs=1e-3)
    assert figure(spec, "auroc", "validation") > 0.75
    assert {e.subgroup for e in spec.evaluation} == {"all", "sex F", "sex M"}
    assert "log loss of left-out persons" in one.chosen
    assert FindingSpec.model_validate_json(spec.model_dump_json()) == spec


def test_the_test_part_decides_nothing_but_whether_it_holds() -> None:
    # Other outcomes in the test part change no constant and no threshold.
    made, logits = cohort()
    other = made.labels.copy()
    rng = np.random.default_rng(9)
    others = made.part == "test"
    other.loc[others, "abnormal"] = (rng.random(others.sum()) < expit(logits[others])).astype(float)
    a, b = (
        offered(offer(c, "abnormal", 0, logits, Rule(), draws=DRAWS)).spec
        for c in (made, Cohort(**{**made.__dict__, "labels": other}))
    )
    assert (a.calibration, a.operating_points, a.roc) == (b.calibration, b.operating_points, b.roc)
    assert figure(a, "auroc") != figure(b, "auroc")


def test_a_test_part_that_is_miscalibrated_is_withheld_with_its_figures() -> None:
    # Another scanner: the same ranks, logits a quarter as steep and shifted.
    made, logits = cohort()
    seen = np.where(made.part == "test", 0.25 * logits + 1.2, logits)
    reason = withheld(offer(made, "abnormal", 0, seen, Rule(), draws=DRAWS))
    assert "Made-up films, test: ECE 0." in reason
    assert "shown to be at least 0." in reason
    assert "limit 0.05" in reason


def test_a_network_that_tells_nothing_apart_is_withheld_before_test_is_looked_at() -> None:
    made, _ = cohort()
    noise = np.random.default_rng(1).normal(size=len(made.person))
    reason = withheld(offer(made, "abnormal", 0, noise, Rule(), draws=DRAWS))
    assert "AUROC 0.5" in reason or "AUROC 0.4" in reason
    assert "on 1300 validation cases" in reason
    assert "above 0.65" in reason
    made, logits = cohort()
    assert "above 0.99" in withheld(offer(made, "abnormal", 0, logits, Rule(min_auroc=0.99), draws=DRAWS))


@pytest.mark.parametrize(("part", "left"), [("validation", 4), ("test", 9)])
def test_too_few_cases_or_persons_of_a_class_are_counted(part: str, left: int) -> None:
    made, logits = cohort()
    y = made.labels.abnormal.to_numpy(copy=True)
    positives = np.flatnonzero((made.part == part) & (y == 1))
    y[positives[left:]] = np.nan
    few = Cohort(**{**made.__dict__, "labels": pd.DataFrame({"abnormal": y})})
    reason = withheld(offer(few, "abnormal", 0, logits, Rule(), draws=DRAWS))
    assert f"{part} {left} with" in reason
    person = made.person.copy()
    person[positives] = "one and the same"
    one = Cohort(**{**made.__dict__, "person": person})
    reason = withheld(offer(one, "abnormal", 0, logits, Rule(), draws=DRAWS))
    assert "of 1 and" in reason
    assert "one and the same" not in reason


def test_a_group_with_three_positives_is_too_few_and_shows_its_counts() -> None:
    made, logits = cohort()
    y = made.labels.abnormal.to_numpy()
    t = made.rows("test")
    view = np.full(len(y), "PA", dtype=object)
    view[t[y[t] == 1][:3]] = view[t[y[t] == 0][:20]] = "AP"
    view[t[-5:]] = None
    with_view = Cohort(**{**made.__dict__, "subgroups": pd.DataFrame({"view": view})})
    spec = offered(offer(with_view, "abnormal", 0, logits, Rule(), draws=DRAWS)).spec
    metrics = {e.metric: e.estimate for e in spec.evaluation if e.subgroup == "view AP"}
    assert metrics.keys() == {"prevalence", f"specificity@{spec.decides_at}"}
    assert (metrics["prevalence"].n, metrics["prevalence"].n_positive) == (23, 3)
    row = next(line for line in groups(spec).splitlines() if line.startswith("| view AP"))
    assert "| 23 (3) |" in row
    assert row.count(TOO_FEW) == 2
    known = {e.subgroup: e.estimate.n for e in spec.evaluation if e.metric == "prevalence"}
    assert sum(known.values()) == len(t) - 5, "who is unknown is in no group"


def test_perturbed_logits_flatten_the_slope_and_hold_elsewhere() -> None:
    # Another scanner blurs what the network sees: logits as wide as here and worth less. The test part is from there.
    made, logits = cohort()
    rng = np.random.default_rng(4)
    v = made.rows("validation")
    y = made.labels.abnormal.to_numpy()
    elsewhere = np.where(made.part == "test", logits + rng.normal(0, 2, len(logits)), logits)
    perturbed = logits[v, None] + rng.normal(0, 2, (len(v), 4))
    reason = withheld(offer(made, "abnormal", 0, elsewhere, Rule(), draws=DRAWS))
    assert float(reason.split("ECE ")[1].split(",")[0]) > 0.12
    union = offered(offer(made, "abnormal", 0, elsewhere, Rule(), perturbed=perturbed, draws=DRAWS))
    plain = offered(offer(made, "abnormal", 0, logits, Rule(), draws=DRAWS)).spec.calibration
    assert plain is not None
    assert union.spec.calibration is not None
    ends = np.quantile(logits, [0.05, 0.95])
    here, there = (float(np.ptp(calibrated(ends, c))) for c in (plain, union.spec.calibration))
    assert there < 0.75 * here, "flatter: the same logits lie nearer to each other"
    assert figure(union.spec, "ece") < 0.06
    p = union.parts["validation"][1]
    for point in union.spec.operating_points:
        assert point.cohort == "Made-up films, validation, as taken and perturbed"
        assert point.sensitivity == pytest.approx((p[y[v] == 1] >= point.threshold).mean(), abs=1e-3)
        assert point.specificity == pytest.approx((p[y[v] == 0] < point.threshold).mean(), abs=1e-3)
    # 'screening' keeps 95 % of all that was seen, so more than that of the cases as taken
    assert union.spec.operating_points[0].sensitivity > 0.96
    assert union.spec.roc[0].true_positives == y[v].sum(), "the ROC for planning is that of the cases as taken"


def test_perturbed_logits_have_to_be_of_the_validation_cases() -> None:
    made, logits = cohort()
    for wrong in (np.zeros((3, 2)), np.zeros(1300)):
        with pytest.raises(ValueError, match="1300 validation cases"):
            offer(made, "abnormal", 0, logits, Rule(), perturbed=wrong, draws=DRAWS)
    with pytest.raises(ValueError, match="logits are"):
        offer(made, "abnormal", 0, logits[:5], Rule(), draws=DRAWS)
    broken = logits.copy()
    broken[-1] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        offer(made, "abnormal", 0, broken, Rule(), draws=DRAWS)


def test_unknown_labels_are_left_out_with_their_perturbed_logits() -> None:
    made, logits = cohort()
    v = made.rows("validation")
    y = made.labels.abnormal.to_numpy(copy=True)
    y[v[:50]] = np.nan
    some = Cohort(**{**made.__dict__, "labels": pd.DataFrame({"abnormal": y})})
    perturbed = logits[v, None] * 0.8
    wild = perturbed.copy()
    wild[:50] = 1e6
    a, b = (offered(offer(some, "abnormal", 0, logits, Rule(), perturbed=p, draws=DRAWS)) for p in (perturbed, wild))
    assert a.spec == b.spec


@pytest.mark.parametrize("prevalence", [0.4, 0.45])
def test_a_stated_prevalence_moves_probabilities_and_thresholds_and_no_decision(prevalence: float) -> None:
    made, logits = cohort()
    plain = offered(offer(made, "abnormal", 0, logits, Rule(), draws=DRAWS))
    stated = offered(offer(replace(made, prevalence=prevalence), "abnormal", 0, logits, Rule(), draws=DRAWS))
    a, b = plain.spec, stated.spec
    assert a.calibration is not None
    assert a.calibration.prevalence is not None
    assert b.calibration is not None
    assert b.calibration.prevalence == prevalence
    expected = move_prevalence(calibrated(logits, a.calibration), a.calibration.prevalence, prevalence)
    np.testing.assert_allclose(calibrated(logits, b.calibration), expected, atol=1e-9)
    t = made.rows("test")
    for before, after in zip(a.operating_points, b.operating_points, strict=True):
        decided = calibrated(logits[t], a.calibration) >= before.threshold
        np.testing.assert_array_equal(calibrated(logits[t], b.calibration) >= after.threshold, decided)
        assert (before.sensitivity, before.specificity) == (after.sensitivity, after.specificity)
        assert figure(b, f"sensitivity@{after.name}") == figure(a, f"sensitivity@{before.name}")
        assert figure(b, f"specificity@{after.name}") == figure(a, f"specificity@{before.name}")
    y, p = stated.parts["test"]
    np.testing.assert_array_equal(p, calibrated(logits[t], b.calibration))
    assert figure(b, "ece") == pytest.approx(expected_calibration_error(y, p), abs=1e-4), "as offered"


def test_a_prevalence_far_from_the_test_part_is_withheld_as_what_it_is_there() -> None:
    made, logits = cohort()
    assert "ECE 0." in withheld(offer(replace(made, prevalence=0.02), "abnormal", 0, logits, Rule(), draws=DRAWS))


def test_of_the_absence_of_disease_the_points_change_places() -> None:
    made, logits = cohort()
    plain = offered(offer(made, "abnormal", 0, logits, Rule(), draws=DRAWS)).spec.operating_points
    rule = Rule(negative=True)
    spec = offered(offer(made, "abnormal", 0, logits, rule, draws=DRAWS)).spec
    assert [p.name for p in spec.operating_points] == ["screening", "balanced", "rule_in"]
    assert [p.threshold for p in spec.operating_points] == [p.threshold for p in reversed(plain)]
    screening = spec.operating_points[0]
    assert screening.specificity is not None
    assert screening.specificity >= 0.95, "who is said to be healthy hardly ever is not"
    t = made.rows("test")
    y = made.labels.abnormal.to_numpy()
    assert spec.calibration is not None
    again = evaluate(
        y[t], calibrated(logits[t], spec.calibration), made.person[t], cohort="c", points=spec.operating_points, draws=2
    )
    specificity = next(e.estimate.value for e in again if e.metric == "specificity@screening")
    assert figure(spec, "specificity@screening") == specificity
