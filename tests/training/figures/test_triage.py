"""The rule for triage and the verdicts of a site, at their borders and worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from data_specs.bundle import Estimate
from training.figures.evaluate import bootstrap, sensitivity_at, specificity_at
from training.figures.triage import (
    SiteRule,
    TriageRule,
    fewest_without_error,
    judge_triage,
    share_low,
    site_verdict,
)


def estimate(value: float, low: float, high: float = 1.0, *, n: int = 400, n_positive: int = 200) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=n, n_positive=n_positive)


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "fit"),
    [
        ((0.95, 0.9), (0.6, 0.52), True),
        ((0.9, 0.85), (0.6, 0.5), True),
        ((0.89, 0.85), (0.6, 0.52), False),
        ((0.95, 0.79), (0.6, 0.52), False),
        ((0.95, 0.9), (0.6, 0.49), False),
        ((0.95, 0.9), (0.34, 0.25), False),
    ],
)
def test_each_border_of_the_rule(sensitivity: tuple[float, float], specificity: tuple[float, float], fit: bool) -> None:
    judged = judge_triage(estimate(*sensitivity), estimate(*specificity))
    assert bool(judged) is fit
    assert judged.because.endswith("as asked") is fit


def test_no_miss_among_five_is_no_sensitivity() -> None:
    """A bootstrap of five found of five is 1 (1 to 1); Wilson's interval begins at 5 / (5 + 3.84) = 0.57."""
    y, p = np.array([1.0] * 5 + [0.0] * 100), np.array([0.9] * 5 + [0.1] * 100)
    person = np.arange(105).astype(str)
    sensitivity = bootstrap(sensitivity_at(0.5), y, p, person, draws=50)
    specificity = bootstrap(specificity_at(0.5), y, p, person, draws=50)
    assert sensitivity.low == 1.0
    assert share_low(sensitivity, 5) == pytest.approx(5 / (5 + 3.8415), abs=1e-3)
    judged = judge_triage(sensitivity, specificity)
    assert not judged
    assert "from 0.57; 5 cases" in judged.because


def test_the_fewest_cases_are_those_at_which_a_perfect_network_first_passes() -> None:
    rule = TriageRule()
    assert (rule.fewest_positives, rule.fewest_negatives) == (16, 4)
    for n, low in ((16, 0.8), (4, 0.5)):
        assert fewest_without_error(low) == n
        assert share_low(estimate(1.0, 1.0), n) >= low > share_low(estimate(1.0, 1.0), n - 1)


def test_a_recall_of_who_is_not_normal_has_the_shares_the_other_way_round() -> None:
    """``normal_ecg`` that 96 of 100 of the diseased stay below, and 60 of 100 of the healthy do not."""
    normal_found, diseased_kept = estimate(0.6, 0.52), estimate(0.96, 0.9)
    assert judge_triage(normal_found, diseased_kept, absence=True)
    assert not judge_triage(normal_found, diseased_kept)


GOOD = {"n_positive": 200, "n_negative": 200}


def test_verdicts_of_a_site() -> None:
    sharp, wide, poor = estimate(0.9, 0.87, 0.93), estimate(0.8, 0.6, 0.95), estimate(0.55, 0.5, 0.6)
    found, cleared, recalls = estimate(0.95, 0.9), estimate(0.7, 0.6), estimate(0.34, 0.28)
    assert site_verdict(sharp, found, cleared, **GOOD)[0] == "fit for triage"
    verdict, because = site_verdict(sharp, found, recalls, **GOOD)
    assert verdict == "information only"
    assert "asked: a specificity from 0.5" in because
    assert site_verdict(sharp, None, None, **GOOD)[0] == "information only"
    assert site_verdict(poor, found, cleared, **GOOD)[0] == "not here"
    assert site_verdict(wide, found, cleared, **GOOD)[0] == "too few to say"
    verdict, because = site_verdict(sharp, found, cleared, miscalibrated="ECE 0.2", **GOOD)
    assert verdict == "not here"
    assert "recalibrate it first" in because
    # A rule of another programme.
    lenient = SiteRule(triage=TriageRule(specificity_low=0.2))
    assert site_verdict(sharp, found, recalls, rule=lenient, **GOOD)[0] == "fit for triage"


@pytest.mark.parametrize(("n_positive", "n_negative", "said"), [(3, 50, "7 more with it"), (50, 0, "10 more without")])
def test_a_rare_finding_is_too_few_to_say_and_never_told_to_be_wrong(
    n_positive: int, n_negative: int, said: str
) -> None:
    poor = estimate(0.3, 0.1, 0.5)
    verdict, because = site_verdict(poor, poor, poor, n_positive=n_positive, n_negative=n_negative)
    assert verdict == "too few to say"
    assert said in because
    assert site_verdict(None, None, None, **GOOD)[0] == "too few to say"
