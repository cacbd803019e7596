"""The rule for triage and the verdicts of a site, at their borders and worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_specs.bundle import Estimate, Evaluation, FindingSpec
from training.figures.evaluate import bootstrap, sensitivity_at, specificity_at
from training.figures.triage import (
    TRIAGE_RULE,
    BadRule,
    SiteRule,
    TriageRule,
    enough_to_show,
    fewest_without_error,
    judge_triage,
    read_rule,
    refuted,
    share_low,
    site_verdict,
    wilson_low,
)
from training.figures.use import for_use, home_of


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


# ---------------------------------------------------------------- at other places
def share(value: float, low: float, high: float, n: int) -> Estimate:
    """A share of ``n`` cases of its own class, whichever that is."""
    return Estimate(value=value, low=low, high=high, n=2 * n, n_positive=n)


def test_enough_cases_are_those_at_which_a_share_as_asked_reaches_its_lower_end() -> None:
    n = TRIAGE_RULE.enough
    assert n == enough_to_show(0.9, 0.8) == 62
    assert share_low(share(0.9, 0.9, 1.0, 620), 620) > 0.8
    assert binomial_low(0.9, n) >= 0.8 > binomial_low(0.9, n - 1)


def binomial_low(value: float, n: int) -> float:
    z2 = 1.959964**2
    return float((value + z2 / (2 * n) - (z2 * (value * (1 - value) / n + z2 / (4 * n * n))) ** 0.5) / (1 + z2 / n))


@pytest.mark.parametrize(
    ("sensitivity", "specificity", "said"),
    [
        (share(0.87, 0.77, 0.96, 53), share(0.6, 0.5, 0.7, 61), ""),  # few: 0.9 lies in the interval
        (share(0.8, 0.7, 0.89, 53), share(0.6, 0.5, 0.7, 61), "sensitivity 0.80"),
        (share(0.8, 0.7, 0.9, 61), None, ""),
        (share(0.8, 0.7, 0.9, 62), None, "sensitivity 0.80"),  # enough: it has to be shown
        (share(0.9, 0.85, 0.95, 200), None, ""),
        (share(0.899, 0.85, 0.95, 200), None, "sensitivity 0.90"),
        (share(0.9, 0.79, 0.95, 200), None, "sensitivity 0.90"),
        (None, share(0.51, 0.38, 0.62, 61), ""),
        (None, share(0.51, 0.38, 0.62, 63), "specificity 0.51 (0.38 to 0.62; 63 cases), asked: from 0.5"),
        (None, share(0.04, 0.0, 0.49, 20), "specificity 0.04"),
        (None, share(0.04, 0.0, 0.5, 20), ""),
        (None, None, ""),
    ],
)
def test_another_place_refutes_with_few_cases_and_has_to_show_with_many(
    sensitivity: Estimate | None, specificity: Estimate | None, said: str
) -> None:
    found = refuted(sensitivity, specificity)
    assert found.startswith(said)
    assert bool(found) is bool(said)
    # The absence of disease has them the other way round.
    swapped = refuted(specificity, sensitivity, absence=True)
    assert swapped == found


def evaluation(place: str, metric: str, estimate: Estimate, subgroup: str = "all") -> Evaluation:
    return Evaluation(cohort=place, metric=metric, estimate=estimate, subgroup=subgroup)


def finding(*figures: Evaluation) -> FindingSpec:
    at_home = (
        evaluation("home, test", "auroc", share(0.95, 0.9, 0.98, 200)),
        evaluation("home, test", "sensitivity@screening", share(0.95, 0.9, 0.98, 200)),
        evaluation("home, test", "specificity@screening", share(0.7, 0.6, 0.8, 200)),
        evaluation("home, test", "ece", share(0.02, 0.0, 0.04, 200)),
        evaluation("home, validation", "auroc", share(0.95, 0.9, 0.98, 200)),
    )
    return FindingSpec(name="abnormal", column=0, decides_at="screening", evaluation=(*figures, *at_home))


def test_a_finding_is_for_triage_where_it_is_shown_at_home_and_refuted_nowhere() -> None:
    assert home_of(finding(evaluation("away", "auroc", share(0.9, 0.8, 0.95, 30)))) == "home, test"
    assert for_use(finding()).use == "triage"
    few = evaluation("away", "sensitivity@screening", share(0.8, 0.6, 0.95, 30))
    assert for_use(finding(few)).use == "triage"
    other_point = evaluation("away", "sensitivity@rule_in", share(0.2, 0.1, 0.3, 300))
    of_a_group = evaluation("away", "sensitivity@screening", share(0.2, 0.1, 0.3, 300), "sex F")
    assert for_use(finding(other_point, of_a_group)).use == "triage"
    healthy_recalled = evaluation("away", "specificity@screening", share(0.04, 0.0, 0.1, 74))
    judged = for_use(finding(healthy_recalled))
    assert (judged.use, judged.use_because) == (
        "information",
        "away: specificity 0.04 (0.00 to 0.10; 74 cases), asked: from 0.5",
    )
    asks_more = TriageRule(sensitivity=0.97)
    assert for_use(finding(), asks_more).use_because.startswith("home, test: sensitivity 0.95")


def test_the_absence_of_disease_recalls_those_that_are_not_called_normal() -> None:
    figures = (
        evaluation("home", "auroc", share(0.95, 0.9, 0.98, 200)),
        evaluation("home", "sensitivity@screening", share(0.6, 0.52, 0.68, 200)),
        evaluation("home", "specificity@screening", share(0.95, 0.9, 0.98, 200)),
        evaluation("home", "ece", share(0.02, 0.0, 0.04, 200)),
    )
    normal = FindingSpec(name="normal_ecg", column=0, decides_at="screening", evaluation=figures, risk="complement")
    assert for_use(normal).use == "triage"
    assert for_use(normal.model_copy(update={"risk": "direct"})).use == "information"
    assert for_use(normal.model_copy(update={"risk": None})).use == "information"


def test_every_place_that_speaks_against_triage_is_named() -> None:
    two = [evaluation(place, "specificity@screening", share(0.04, 0.0, 0.1, 74)) for place in ("one", "other")]
    said = for_use(finding(*two)).use_because
    assert said == "; ".join(
        f"{place}: specificity 0.04 (0.00 to 0.10; 74 cases), asked: from 0.5" for place in ("one", "other")
    )


def test_a_part_with_one_of_the_two_figures_at_home_says_nothing() -> None:
    for metric in ("sensitivity@screening", "specificity@screening"):
        figures = (evaluation("home", metric, share(0.1, 0.0, 0.2, 90)), evaluation("home", "ece", share(0, 0, 0, 90)))
        assert for_use(FindingSpec(name="x", column=0, decides_at="screening", evaluation=figures)).use == "triage"


def test_home_is_where_the_calibration_was_judged_else_the_first_auroc_else_the_first() -> None:
    a, b, c = (share(0.9, 0.8, 0.95, 50),) * 3

    def home(*figures: Evaluation) -> str | None:
        return home_of(FindingSpec(name="x", column=0, evaluation=figures))

    assert home() is None
    assert home(evaluation("first", "brier", a), evaluation("second", "brier", b)) == "first"
    assert home(evaluation("first", "brier", a), evaluation("second", "auroc", b)) == "second"
    assert home(evaluation("one", "auroc", a), evaluation("two", "auroc", b), evaluation("three", "brier", c)) == "one"
    assert home(evaluation("one", "auroc", a), evaluation("two", "ece", b), evaluation("three", "auroc", c)) == "two"
    assert home(evaluation("one", "auroc", a, "sex F"), evaluation("two", "auroc", b)) == "two"


def of(value: float, low: float, high: float, n_positive: int, n_negative: int) -> Estimate:
    return Estimate(value=value, low=low, high=high, n=n_positive + n_negative, n_positive=n_positive)


def test_each_share_has_the_cases_of_its_own_class() -> None:
    """70 with it are enough to have to show the sensitivity; 20 without it can only refute the specificity."""
    found, cleared = of(0.85, 0.75, 0.95, 70, 20), of(0.45, 0.25, 0.65, 70, 20)
    assert refuted(found, cleared).startswith("sensitivity 0.85 (0.75 to 0.95; 70 cases)")
    assert "specificity" not in refuted(found, cleared)
    assert refuted(of(0.85, 0.75, 0.95, 20, 70), of(0.45, 0.25, 0.65, 20, 70)).startswith("specificity 0.45")
    both = refuted(of(0.5, 0.4, 0.6, 70, 70), of(0.3, 0.2, 0.4, 70, 70))
    assert both == (
        "sensitivity 0.50 (0.39 to 0.60; 70 cases), asked: 0.9 (from 0.8) and "
        "specificity 0.30 (0.20 to 0.40; 70 cases), asked: from 0.5"
    )
    unknown = Estimate(value=0.3, low=0.2, high=0.4, n=70)
    assert refuted(None, unknown).startswith("specificity 0.30 (0.20 to 0.40; 70 cases)")


def test_a_lower_end_as_asked_is_enough() -> None:
    """With so many cases Wilson's end lies higher than the bootstrap's, which then decides."""
    assert refuted(of(0.95, 0.8, 1.0, 4000, 4000), of(0.7, 0.5, 0.9, 4000, 4000)) == ""
    judged = judge_triage(of(0.95, 0.8, 1.0, 4000, 3000), of(0.7, 0.5, 0.9, 4000, 3000))
    assert judged.because == (
        "sensitivity 0.95 (from 0.80; 4000 cases), specificity 0.70 (from 0.50; 3000 cases); as asked"
    )
    neither = judge_triage(of(0.8, 0.7, 0.9, 4000, 3000), of(0.4, 0.3, 0.5, 4000, 3000)).because
    assert neither.endswith("; asked: a sensitivity of 0.9 (from 0.8) and a specificity from 0.5")
    # at the number of cases from which it has to be shown
    assert refuted(None, share(0.51, 0.38, 0.62, TRIAGE_RULE.enough)).startswith("specificity 0.51")


def test_intervals_after_wilson() -> None:
    """Wilson 1927: 5 of 10 is 0.237 to 0.763; 9 of 10 begins at 0.596; nothing is known of no case."""
    assert wilson_low(0.5, 10) == pytest.approx(0.2366, abs=1e-4)
    assert wilson_low(0.9, 10) == pytest.approx(0.5958, abs=1e-4)
    assert share_low(estimate(1.0, 1.0), 0) == 0.0
    assert share_low(estimate(1.0, 1.0), 1) == pytest.approx(1 / 4.8415, abs=1e-4)
    assert fewest_without_error(0.9) == 35
    assert enough_to_show(1.0, 0.2) == 1


def test_verdicts_at_their_borders() -> None:
    rule, at = SiteRule(), SiteRule().auroc
    assert at == 0.65
    enough = {"n_positive": 10, "n_negative": 10}
    assert site_verdict(share(0.9, 0.8, 1.0, 10), None, None, **enough, rule=rule)[0] == "information only"
    for known in ({"sensitivity": share(1, 1, 1, 99)}, {"specificity": share(1, 1, 1, 99)}):
        given: dict[str, Estimate | None] = {"sensitivity": None, "specificity": None, **known}
        verdict, because = site_verdict(share(0.9, 0.8, 1.0, 10), **given, **enough)  # type: ignore[arg-type]
        assert (verdict, because.endswith("it has no point that decides")) == ("information only", True)
    assert site_verdict(share(0.5, 0.4, at, 10), None, None, **enough)[0] == "not here"
    assert site_verdict(share(0.7, at, 0.8, 10), None, None, **enough)[0] == "too few to say"
    few = site_verdict(share(0.9, 0.8, 1.0, 10), None, None, n_positive=9, n_negative=4)[1]
    assert few == "9 with and 4 without it: at least 1 more with it and 6 more without it are needed"
    one = site_verdict(share(0.9, 0.8, 1.0, 10), None, None, n_positive=10, n_negative=4)[1]
    assert one == "10 with and 4 without it: at least 6 more without it are needed"


# ---------------------------------------------------------------- a programme's own
def test_a_programme_states_its_own_rule(tmp_path: Path) -> None:
    assert read_rule(None) is TRIAGE_RULE
    path = tmp_path / "triage.toml"
    path.write_text("specificity_low = 0.7\n")
    assert read_rule(path) == TriageRule(0.9, 0.8, 0.7)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("specificity = 0.7", "specificity: expected"),
        ("sensitivity = 90", "sensitivity: expected"),
        ("sensitivity = true", "sensitivity: expected"),
        ("sensitivity = 1", "sensitivity: expected"),
        ("sensitivity = 1.5", "sensitivity: expected"),
        ("specificity_low = 0", "specificity_low: expected"),
        ("specificity_low = -0.5", "specificity_low: expected"),
        (
            "a = 0.5\nb = 0.5",
            "a, b: expected shares between 0 and 1 named sensitivity, sensitivity_low, specificity_low",
        ),
        ("sensitivity = '0.9'", "sensitivity: expected"),
        ("sensitivity_low = 0.9", "sensitivity_low has to be below sensitivity"),
        ("sensitivity = ", "cannot be read"),
    ],
)
def test_a_rule_with_a_mistake_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "triage.toml"
    path.write_text(text)
    with pytest.raises(BadRule, match=said):
        read_rule(path)
    with pytest.raises(BadRule, match="cannot be read"):
        read_rule(tmp_path / "absent.toml")


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
