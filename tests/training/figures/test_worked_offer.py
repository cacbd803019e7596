"""Whether a finding is offered: at each limit itself, and on either side of it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from data_specs.bundle import Calibration, Estimate, FindingSpec, TrainingData, Withheld
from data_specs.visit.contract import OperatingPoint
from inference.findings import calibrated
from training.cohorts.cohort import MIN_CASES, Cohort
from training.figures.calibrate import FOLDS
from training.figures.evaluate import auroc, bootstrap
from training.figures.offer import DECIDES_AT, Offered, Rule, figures_elsewhere, offer

DRAWS = 25
NOBODY = TrainingData(name="Made-up", citation="none", licence="none", n_persons=0, n_items=0)


def logits_of(y: NDArray[Any], seed: int = 0) -> NDArray[np.float64]:
    """Negatives around -1, positives around 1: well told apart, and calibrated as they are."""
    return np.random.default_rng(seed).normal(2 * y - 1, 1.0)


def cohort(
    validation: tuple[int, int] = (40, 40),
    test: tuple[int, int] = (40, 40),
    train: tuple[int, int] = (30, 10),
    **changed: Any,
) -> Cohort:
    """Negatives and positives of each part, each case of a person of its own."""
    counts = {"train": train, "validation": validation, "test": test}
    y = np.concatenate([np.repeat([0.0, 1.0], given) for given in counts.values()])
    made = Cohort(
        name="made",
        x=np.zeros((len(y), 1), dtype=np.uint8),
        labels=pd.DataFrame({"abnormal": y}),
        person=np.arange(len(y)).astype(str),
        part=np.repeat(list(counts), [sum(given) for given in counts.values()]),
        subgroups=pd.DataFrame(index=range(len(y))),
        source=NOBODY,
        age_years=(18.0, 86.0),
    )
    return replace(made, **changed)


def outcomes(made: Cohort) -> NDArray[np.float64]:
    return made.labels["abnormal"].to_numpy(dtype=np.float64)


def asked(
    made: Cohort, rule: Rule | None = None, logits: NDArray[Any] | None = None, **given: Any
) -> Offered | Withheld:
    return offer(
        made,
        "abnormal",
        2,
        logits_of(outcomes(made)) if logits is None else logits,
        rule or Rule(),
        draws=DRAWS,
        **given,
    )


def spec_of(made: Cohort, rule: Rule | None = None, **given: Any) -> FindingSpec:
    found = asked(made, rule, **given)
    assert isinstance(found, Offered), found
    return found.spec


def reason_of(made: Cohort, rule: Rule | None = None, **given: Any) -> str:
    found = asked(made, rule, **given)
    assert isinstance(found, Withheld), "it was offered"
    assert (found.name, found.cohort) == ("abnormal", made.title or made.name)
    return found.reason


# ---------------------------------------------------------------- does it tell apart
def auroc_on_validation(made: Cohort) -> Estimate:
    y, z, v = outcomes(made), logits_of(outcomes(made)), made.rows("validation")
    return bootstrap(auroc, y[v], z[v], made.person[v], draws=DRAWS)


def test_the_lower_bound_decides_and_has_to_be_above_the_limit() -> None:
    made = cohort()
    auroc = auroc_on_validation(made)
    assert auroc.low < auroc.value - 0.01
    measured = (
        f"AUROC {auroc.value:.3f} ({auroc.low:.3f} to {auroc.high:.3f}) on 80 validation cases, 40 of them positive"
    )
    assert reason_of(made, Rule(min_auroc=auroc.low)) == (
        f"too few to say: {measured}; asked: the whole interval above {auroc.low:g}"
    )
    assert reason_of(made, Rule(min_auroc=auroc.high)) == (
        f"it does not tell them apart: {measured}; asked: above {auroc.high:g}"
    )
    assert reason_of(made, Rule(min_auroc=math.nextafter(auroc.high, 0))).startswith("too few to say")
    assert spec_of(made, Rule(min_auroc=math.nextafter(auroc.low, 0)))
    between = (auroc.low + auroc.value) / 2
    assert "too few to say" in reason_of(made, Rule(min_auroc=between)), "the value alone is no reason"
    assert (DECIDES_AT, Rule().negative, Rule().min_auroc) == ("screening", False, 0.65)


# ---------------------------------------------------------------- are there enough
TOO_FEW = "; 5 persons of each are needed to choose by, 10 cases to evaluate on"


@pytest.mark.parametrize("outcome", [0, 1])
def test_five_cases_of_a_class_choose_and_ten_evaluate(outcome: int) -> None:
    assert (FOLDS, MIN_CASES) == (5, 10)

    def counts(n: int) -> tuple[int, int]:
        return (n, 40) if outcome == 0 else (40, n)

    for few, said in (({"validation": counts(4)}, "validation"), ({"test": counts(9)}, "test")):
        reason = reason_of(cohort(**few))
        n_negative, n_positive = few[said]
        other = "test" if said == "validation" else "validation"
        assert (
            f"{said} {n_positive} with and {n_negative} without it, of {n_positive} and {n_negative} persons" in reason
        )
        assert f"{other} 40 with and 40 without it, of 40 and 40 persons" in reason
        assert reason.startswith("too few to say: validation ")
        assert reason.endswith(TOO_FEW)
    for enough in ({"validation": counts(5)}, {"test": counts(10)}):
        found = asked(cohort(**enough), Rule(min_auroc=0))
        assert isinstance(found, Offered) or "too few" not in found.reason


@pytest.mark.parametrize("part", ["validation", "test"])
@pytest.mark.parametrize("outcome", [0, 1])
def test_the_cases_of_a_class_are_of_five_persons(part: str, outcome: int) -> None:
    made = cohort()
    rows = np.flatnonzero((made.part == part) & (outcomes(made) == outcome))
    for n_persons, enough in ((5, True), (4, False)):
        person = made.person.copy()
        person[rows] = np.array([f"p{i % n_persons}" for i in range(len(rows))])
        found = asked(replace(made, person=person), Rule(min_auroc=0))
        assert (isinstance(found, Offered) or "too few" not in found.reason) is enough
        if not enough:
            assert isinstance(found, Withheld)
            with_it, without = (4, 40) if outcome == 1 else (40, 4)
            assert f"{part} 40 with and 40 without it, of {with_it} and {without} persons" in found.reason


def test_the_counts_of_both_parts_are_told() -> None:
    assert reason_of(cohort(validation=(40, 3), test=(7, 40))) == (
        "too few to say: validation 3 with and 40 without it, of 3 and 40 persons; "
        f"test 40 with and 7 without it, of 40 and 7 persons{TOO_FEW}"
    )


def test_intervals_have_a_thousand_draws_where_nothing_else_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(*args: object, draws: int) -> Estimate:
        return Estimate(value=draws, low=0, high=1, n=0)

    monkeypatch.setattr("training.figures.offer.bootstrap", stand_in)
    found = offer(cohort(), "abnormal", 0, logits_of(outcomes(cohort())), Rule())
    assert isinstance(found, Withheld)
    assert "AUROC 1000.000 " in found.reason


def test_unknown_cases_are_not_counted() -> None:
    made = cohort(test=(10, 10))
    y = outcomes(made)
    y[made.rows("test")[:1]] = np.nan
    assert "test 10 with and 9 without it" in reason_of(
        replace(made, labels=pd.DataFrame({"abnormal": y})), logits=logits_of(outcomes(made))
    )


# ---------------------------------------------------------------- what is asked of the caller
def test_logits_have_to_fit_and_be_finite_where_a_label_is_known() -> None:
    made = cohort()
    z = logits_of(outcomes(made))
    with pytest.raises(ValueError, match=r"^logits are \(199,\), labels \(200,\)$"):
        asked(made, logits=z[:-1])
    for part in ("validation", "test"):
        broken = z.copy()
        broken[made.rows(part)[3]] = np.inf
        with pytest.raises(ValueError, match=r"^a logit of a labelled case is not finite$"):
            asked(made, logits=broken)
    train = z.copy()
    train[made.rows("train")] = np.nan
    assert spec_of(made, logits=train) == spec_of(made), "train cases are not read"
    for wrong in (np.zeros((79, 2)), np.zeros((80, 2, 1)), np.zeros(80)):
        shape = str(wrong.shape).replace("(", r"\(").replace(")", r"\)")
        with pytest.raises(ValueError, match=f"^perturbed is {shape}, of 80 validation cases$"):
            asked(made, perturbed=wrong)


# ---------------------------------------------------------------- what is offered
def test_a_probability_assumes_the_prevalence_of_train_and_validation() -> None:
    made = cohort(train=(29, 31))
    y = outcomes(made)
    y[0], y[made.rows("validation")[0]] = np.nan, np.nan
    unknown = replace(made, labels=pd.DataFrame({"abnormal": y}))
    spec = spec_of(unknown, logits=logits_of(outcomes(made)))
    assert spec.calibration is not None
    assert spec.calibration.prevalence == pytest.approx(71 / 138)
    stated = spec_of(replace(made, prevalence=0.48))
    assert stated.calibration is not None
    assert stated.calibration.prevalence == 0.48


def figures_of(spec: FindingSpec, cohort: str, subgroup: str = "all") -> dict[str, Estimate]:
    return {e.metric: e.estimate for e in spec.evaluation if (e.cohort, e.subgroup) == (cohort, subgroup)}


def test_what_a_finding_carries() -> None:
    sex = np.where(np.arange(200) % 2 == 0, "F", "M").astype(object)
    sex[::10] = None
    made = cohort(
        title="Made-up films", subgroups=pd.DataFrame({"sex": sex}), part_names={"test": "the published test"}
    )
    found = asked(made, Rule())
    assert isinstance(found, Offered)
    spec, y, z = found.spec, outcomes(made), logits_of(outcomes(made))
    assert (spec.name, spec.column, spec.age_years, spec.decides_at) == ("abnormal", 2, (18.0, 86.0), "screening")
    assert {point.cohort for point in spec.operating_points} == {"Made-up films, validation"}
    v, t = made.rows("validation"), made.rows("test")
    assert spec.calibration is not None
    for part, rows in (("validation", v), ("test", t)):
        np.testing.assert_array_equal(found.parts[part][0], y[rows])
        np.testing.assert_array_equal(found.parts[part][1], calibrated(z[rows], spec.calibration))
    assert list(found.parts) == ["validation", "test"]
    assert {(e.cohort, e.subgroup) for e in spec.evaluation} == {
        ("the published test", "all"), ("the published test", "sex F"), ("the published test", "sex M"),
        ("Made-up films, validation", "all"),
    }  # fmt: skip
    on_test = figures_of(spec, "the published test")
    assert {"auroc", "ece", "ece_by_chance", "ece_debiased", "sensitivity@rule_in"} <= on_test.keys()
    assert figures_of(spec, "Made-up films, validation") == {"auroc": auroc_on_validation(made)}
    for name, member in (("F", sex == "F"), ("M", sex == "M")):
        group = figures_of(spec, "the published test", f"sex {name}")
        assert group.keys() == {"prevalence", "auroc", "sensitivity@screening", "specificity@screening"}
        assert group["prevalence"].n == member[t].sum()
    for point in spec.operating_points:
        p = found.parts["validation"][1]
        assert point.sensitivity == round(float((p[y[v] == 1] >= point.threshold).mean()), 3)
        assert point.specificity == round(float((p[y[v] == 0] < point.threshold).mean()), 3)
    assert found.chosen.startswith("platt (log loss of left-out persons: ")
    assert len(spec.roc) <= 60
    draws = {e.metric: e.estimate for e in spec.evaluation if e.subgroup == "all" and e.cohort == "the published test"}
    again = bootstrap(
        lambda y, p: float(roc_auc_score(y, p)), y[t], found.parts["test"][1], made.person[t], draws=DRAWS
    )
    assert draws["auroc"] == again


def test_points_have_three_digits_of_the_cases_as_taken() -> None:
    made = cohort(validation=(30, 30))
    y, v = outcomes(made), made.rows("validation")
    perturbed = np.column_stack([logits_of(y)[v] + shift for shift in (-0.4, 0.4)])
    found = asked(made, perturbed=perturbed)
    assert isinstance(found, Offered)
    p = found.parts["validation"][1]
    shares = []
    for point in found.spec.operating_points:
        assert point.cohort == "made, validation, as taken and perturbed"
        assert point.sensitivity == round(float((p[y[v] == 1] >= point.threshold).mean()), 3)
        assert point.specificity == round(float((p[y[v] == 0] < point.threshold).mean()), 3)
        shares += [point.sensitivity, point.specificity]
    assert any(round(share, 2) != share for share in shares if share is not None), "thirtieths have three digits"
    plain = spec_of(made)
    assert plain.calibration != found.spec.calibration


def test_a_case_at_its_threshold_counts_as_positive(monkeypatch: pytest.MonkeyPatch) -> None:
    made = cohort()
    y, v = outcomes(made), made.rows("validation")
    found = asked(made)
    assert isinstance(found, Offered)
    p = found.parts["validation"][1]
    at = (float(np.sort(p[y[v] == 1])[3]), float(np.sort(p[y[v] == 0])[30]))
    names = ("screening", "rule_in", "balanced")
    points = tuple(
        OperatingPoint(name=name, threshold=t, cohort="c") for name, t in zip(names, (*at, at[0]), strict=True)
    )
    monkeypatch.setattr("training.figures.offer.operating_points", lambda *given: points)
    screening, rule_in, _ = spec_of(made).operating_points
    assert screening.sensitivity == 37 / 40
    assert rule_in.specificity == 30 / 40


def test_what_is_miscalibrated_on_test_is_withheld() -> None:
    made = cohort(test=(200, 200))
    z = logits_of(outcomes(made))
    z[made.rows("test")] = 6 * z[made.rows("test")] + 3
    assert reason_of(made, logits=z).startswith("its calibration error is too large: made, test: ECE 0.")


def test_of_an_absence_screening_and_rule_in_change_places() -> None:
    made = cohort()
    plain = {point.name: point.threshold for point in spec_of(made).operating_points}
    swapped = [(point.name, point.threshold) for point in spec_of(made, Rule(negative=True)).operating_points]
    assert swapped == [
        ("screening", plain["rule_in"]),
        ("balanced", plain["balanced"]),
        ("rule_in", plain["screening"]),
    ]
    assert plain["screening"] < plain["rule_in"]


# ---------------------------------------------------------------- elsewhere
SPEC = FindingSpec(
    name="abnormal",
    column=0,
    calibration=Calibration(slope=2.0, intercept=0.0),
    operating_points=(
        OperatingPoint(name="screening", threshold=0.3, cohort="c"),
        OperatingPoint(name="rule_in", threshold=0.8, cohort="c"),
    ),
)


@pytest.mark.parametrize(
    ("n_negative", "n_positive", "figures"),
    [
        (10, 10, {"auroc", "sensitivity", "specificity"}),
        (9, 10, {"sensitivity"}),
        (10, 9, {"specificity"}),
        (9, 9, set()),
    ],
)
def test_figures_of_another_site_need_ten_cases_of_a_class(n_negative: int, n_positive: int, figures: set[str]) -> None:
    y = np.repeat([0.0, 1.0], [n_negative, n_positive])
    found = figures_elsewhere(SPEC, y, logits_of(y), np.arange(len(y)).astype(str), "elsewhere")
    expected = {f"{figure}@{point}" for figure in figures - {"auroc"} for point in ("screening", "rule_in")}
    assert {e.metric for e in found} == expected | figures & {"auroc"}
    assert {e.cohort for e in found} <= {"elsewhere"}


def test_figures_of_another_site_are_at_the_findings_own_thresholds() -> None:
    y = np.append(np.repeat([0.0, 1.0], 20), np.nan)
    z = np.append(np.random.default_rng(1).normal(np.repeat([-0.5, 0.5], 20), 0.7), 9)
    found = {e.metric: e.estimate for e in figures_elsewhere(SPEC, y, z, np.arange(41).astype(str), "elsewhere")}
    p = 1 / (1 + np.exp(-2 * z))
    assert found["auroc"].value == round(float(roc_auc_score(y[:40], z[:40])), 4)
    assert found["sensitivity@screening"].value == (p[20:40] >= 0.3).mean()
    assert found["specificity@screening"].value == (p[:20] < 0.3).mean()
    assert found["sensitivity@rule_in"].value == (p[20:40] >= 0.8).mean()
    assert found["specificity@rule_in"].value == (p[:20] < 0.8).mean()
    assert {(e.n, e.n_positive) for e in found.values()} == {(40, 20)}
    # A draw needs the class that its figure is of, so few persons of it leave out few draws.
    assert found["sensitivity@screening"].low <= found["sensitivity@screening"].value
    bare = SPEC.model_copy(update={"calibration": None})
    plain = {e.metric: e.estimate for e in figures_elsewhere(bare, y, z, np.arange(41).astype(str), "elsewhere")}
    assert plain["sensitivity@rule_in"].value == (1 / (1 + np.exp(-z[20:40])) >= 0.8).mean()
