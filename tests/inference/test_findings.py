"""From numbers to findings: calibration, ages, requirements, operating points, categories, several inputs."""

from __future__ import annotations

import math

import numpy as np
import pytest

from data_specs.bundle import BundleManifest, Calibration, FindingSpec, Undecided
from data_specs.problems import Problem, Severity
from data_specs.visit.assessment import EvidenceMap, FoundFinding
from data_specs.visit.contract import Category, OperatingPoint, Use
from inference.findings import (
    ADULT_YEARS,
    Answer,
    InputResult,
    Who,
    ages_offered,
    answer,
    calibrate,
    contradicting,
    is_undecided,
    merge,
    nothing_offered,
    offered,
    positive_share,
    strength,
    without_verdict,
)
from tests.conftest import ROOT


def points(screening: float, rule_in: float) -> tuple[OperatingPoint, ...]:
    return (
        OperatingPoint(name="screening", threshold=screening, cohort="c"),
        OperatingPoint(name="rule_in", threshold=rule_in, cohort="c"),
    )


ABNORMAL = FindingSpec(name="abnormal", column=0, risk="direct", operating_points=points(0.3, 0.8))
NORMAL = FindingSpec(name="normal_ecg", column=0, risk="complement", operating_points=points(0.7, 0.3))


def logit(p: float) -> float:
    return math.log(p / (1 - p))


def test_platt_scaling_is_applied_and_never_overflows() -> None:
    spec = FindingSpec(name="x", column=0, calibration=Calibration(slope=2.0, intercept=-1.0))
    assert calibrate(spec, 0.5) == pytest.approx(0.5)
    assert calibrate(spec, 1.0) == pytest.approx(1 / (1 + math.exp(-1)))
    assert calibrate(spec, 1e6) == 1.0
    assert calibrate(spec, -1e6) == 0.0


@pytest.mark.parametrize(
    ("p", "positive", "category"), [(0.2, False, "low"), (0.5, True, "intermediate"), (0.9, True, "high")]
)
def test_direct_risk(p: float, positive: bool, category: str) -> None:
    result = answer([ABNORMAL], np.array([logit(p)]))
    assert result.findings[0].positive is positive
    assert result.category == category
    assert result.risk == pytest.approx(p)


@pytest.mark.parametrize(
    ("p", "positive", "category"), [(0.9, True, "low"), (0.5, False, "intermediate"), (0.1, False, "high")]
)
def test_complement_risk(p: float, positive: bool, category: str) -> None:
    result = answer([NORMAL], np.array([logit(p)]))
    assert result.findings[0].positive is positive
    assert result.category == category
    assert result.risk == pytest.approx(1 - p)


def test_what_is_required_or_does_not_apply_is_left_out() -> None:
    specs = [
        FindingSpec(name="egfr", column=0, kind="measured", unit="u", digits=1, requires=("creatinine",)),
        FindingSpec(name="kdigo_g", column=1, kind="measured", labels=("G1", "G2"), requires=("creatinine",)),
        FindingSpec(name="kfre_5y", column=2, kind="risk", requires=("acr",), applies_when={"egfr": (0, 60)}),
    ]
    numbers = np.array([59.96, 1.0, 0.04])
    assert answer(specs, numbers).findings == []
    known = answer(specs, numbers, features={"creatinine": 100.0, "acr": 300.0}).by_name
    assert (known["egfr"].value, known["kdigo_g"].value) == (60.0, "G2")
    assert known["kfre_5y"].probability == pytest.approx(0.04)
    assert "kfre_5y" not in answer(specs, np.array([60.0, 1.0, 0.04]), features={"creatinine": 1.0, "acr": 1.0}).by_name
    assert "kfre_5y" not in answer(specs, np.array([50, 1, np.nan]), features={"creatinine": 1.0, "acr": 1.0}).by_name


def test_evidence_goes_with_positive_findings_only() -> None:
    asked = []

    def maps(spec: FindingSpec) -> list[EvidenceMap]:
        asked.append(spec.name)
        return [EvidenceMap(kind="heatmap", input=0, values=[[255]])]

    assert answer([ABNORMAL], np.array([logit(0.5)]), evidence=maps).findings[0].evidence
    assert not answer([ABNORMAL], np.array([logit(0.1)]), evidence=maps).findings[0].evidence
    assert asked == ["abnormal"], "a map that nobody sees is not made"


def test_several_inputs_give_the_most_suspicious_of_each_finding() -> None:
    def of(name: str, p: float, value: float | None = None) -> FoundFinding:
        return FoundFinding(name=name, probability=None if value else p, value=value)

    first = Answer([of("abnormal", 0.2), of("normal_ecg", 0.9), of("heart_rate", 0, 70.0)], 0.2, "low")
    second = Answer([of("abnormal", 0.6), of("normal_ecg", 0.4), of("heart_rate", 0, 90.0)], 0.6, "intermediate")
    merged = merge([first, second])
    found = merged.by_name
    assert (found["abnormal"].probability, found["normal_ecg"].probability) == (0.6, 0.4)
    assert found["heart_rate"].value == 70.0
    assert (merged.risk, merged.category) == (0.6, "intermediate")


def test_maps_show_positive_contributions_relative_to_the_largest() -> None:
    assert positive_share(np.array([[-3.0, 0.0], [2.0, 4.0]])) == [[0, 0], [128, 255]]
    assert positive_share(np.array([-1.0, -2.0])) == [[0, 0]]


def just_below(number: float) -> float:
    return math.nextafter(number, -math.inf)


@pytest.fixture(scope="module")
def manifest() -> BundleManifest:
    """Findings for children of 1 to 5, for adults of 18 to 85, for all adults, and for everybody."""
    (path,) = (ROOT / "models" / "bundles").glob("lung-1.2.0/screening.json")
    ages = {"child": (1.0, 6.0), "adult": (18.0, 86.0), "any_adult": (18.0, 120.0), "anybody": None}
    specs = tuple(FindingSpec(name=name, column=0, age_years=years) for name, years in ages.items())
    return BundleManifest.model_validate_json(path.read_bytes()).model_copy(update={"findings": specs})


@pytest.mark.parametrize(
    ("age_years", "names"),
    [
        (just_below(1.0), ["anybody"]),
        (1.0, ["child", "anybody"]),
        (just_below(6.0), ["child", "anybody"]),
        (6.0, ["anybody"]),
        (just_below(18.0), ["anybody"]),
        (18.0, ["adult", "any_adult", "anybody"]),
        (just_below(86.0), ["adult", "any_adult", "anybody"]),
        (86.0, ["any_adult", "anybody"]),
        (120.0, ["anybody"]),
        (None, ["adult", "any_adult", "anybody"]),
    ],
)
def test_a_finding_is_offered_from_its_first_year_to_the_end_of_its_last(
    manifest: BundleManifest, age_years: float | None, names: list[str]
) -> None:
    """`[1, 6)`: from the first birthday to the day before the sixth."""
    assert [spec.name for spec in offered(manifest, age_years)] == names


def test_an_unknown_age_is_an_adults_only_where_no_child_was_evaluated(manifest: BundleManifest) -> None:
    nearly = FindingSpec(name="nearly", column=0, age_years=(just_below(ADULT_YEARS), 86))
    older = FindingSpec(name="older", column=0, age_years=(ADULT_YEARS + 1, 86))
    assert ADULT_YEARS == 18
    both = manifest.model_copy(update={"findings": (nearly, older)})
    assert [spec.name for spec in offered(both, None)] == ["older"]


def test_why_nothing_is_offered(manifest: BundleManifest) -> None:
    assert nothing_offered(manifest, "7") == Problem("age_out_of_range", "reject", "7", "1-5, 18-85, 18-119")
    left_out = manifest.model_copy(update={"findings": ()})
    assert nothing_offered(left_out, "7") == Problem("not_here", "reject", found="lung")
    of_none = left_out.model_copy(update={"organ": None})
    assert nothing_offered(of_none, "7") == Problem("not_here", "reject", found="")


def test_a_range_of_undecided_verdicts_holds_its_lower_end_and_not_its_upper_one() -> None:
    (one,) = ranges = (Undecided(coverage=0.9, low=0.2, high=0.6, n_positive=30, n_negative=30),)
    assert [is_undecided(ranges, p, Who()) for p in (just_below(0.2), 0.2, just_below(0.6), 0.6)] == [
        False,
        True,
        True,
        False,
    ]
    assert not is_undecided((one,), 0.4, Who(coverage=0.95))


def test_a_point_is_reached_at_its_threshold() -> None:
    spec = FindingSpec(name="edema", column=0, decides_at="screening", operating_points=points(0.3, 0.8))
    assert [strength(spec, p) for p in (just_below(0.3), 0.3, just_below(0.8), 0.8)] == [
        "below",
        "flagged",
        "flagged",
        "strong",
    ]


def test_ages_are_said_in_completed_years(manifest: BundleManifest) -> None:
    assert ages_offered(manifest) == "1-5, 18-85, 18-119"


@pytest.mark.parametrize(
    ("severities", "accepted"),
    [((), True), (("warn", "warn"), True), (("warn", "reject"), False), (("reject", "reject"), False)],
)
def test_an_input_with_one_refusal_was_not_used(severities: tuple[Severity, ...], accepted: bool) -> None:
    problems = [Problem("saturated", severity) for severity in severities]
    assert InputResult(indices=(0,), problems=problems).accepted is accepted


def test_conditions_include_their_lower_end_and_exclude_their_upper_end() -> None:
    between = FindingSpec(name="between", column=0, kind="risk", applies_when={"egfr": (15, 60), "age_years": (18, 90)})
    after = FindingSpec(name="after", column=0, kind="risk")
    for egfr, age, applies in (
        (just_below(15), 50, False),
        (15, 50, True),
        (just_below(60), 50, True),
        (60, 50, False),
        (30, just_below(18), False),
        (30, 18, True),
        (30, 90, False),
    ):
        found = answer([between, after], np.array([0.5]), features={"egfr": egfr, "age_years": age}).findings
        assert [f.name for f in found] == (["between", "after"] if applies else ["after"]), (egfr, age)
    assert [f.name for f in answer([between, after], np.array([0.5]), features={"egfr": 30}).findings] == ["after"]


@pytest.mark.parametrize(
    ("kind", "calibration", "calibrated"),
    [
        ("probability", None, False),
        ("probability", Calibration(slope=1.0, intercept=0.0), True),
        ("risk", None, True),
    ],
)
def test_only_what_was_calibrated_is_said_to_be(kind: str, calibration: Calibration | None, calibrated: bool) -> None:
    spec = FindingSpec.model_validate({"name": "f", "column": 0, "kind": kind, "calibration": calibration})
    assert answer([spec], np.array([0.5])).findings[0].calibrated is calibrated


@pytest.mark.parametrize(("number", "p"), [(-0.5, 0.0), (0.0, 0.0), (0.04, 0.04), (1.0, 1.0), (1.01, 1.0)])
def test_a_risk_is_taken_as_it_is_within_its_range(number: float, p: float) -> None:
    assert calibrate(FindingSpec(name="kfre_5y", column=0, kind="risk"), number) == p


def test_a_logit_without_calibration_is_its_logistic_function() -> None:
    spec = FindingSpec(name="f", column=0)
    for number, p in ((-2.0, 0.11920292202211755), (0.0, 0.5), (0.5, 0.6224593312018546), (3.0, 0.9525741268224334)):
        assert calibrate(spec, number) == pytest.approx(p, abs=1e-15)


def test_isotonic_calibration_is_linear_between_its_knots_and_constant_beyond() -> None:
    spec = FindingSpec(
        name="f", column=0, calibration=Calibration(kind="isotonic", knots=((-1.0, 0.1), (1.0, 0.5), (2.0, 0.9)))
    )
    for number, p in ((-9, 0.1), (-1, 0.1), (0, 0.3), (1, 0.5), (1.25, 0.6), (2, 0.9), (9, 0.9)):
        assert calibrate(spec, number) == pytest.approx(p, abs=1e-15)


DIRECT = ABNORMAL.model_copy(update={"kind": "risk"})
COMPLEMENT = NORMAL.model_copy(update={"kind": "risk"})


@pytest.mark.parametrize(
    ("spec", "p", "positive", "category"),
    [
        (DIRECT, just_below(0.3), False, "low"),
        (DIRECT, 0.3, True, "intermediate"),
        (DIRECT, just_below(0.8), True, "intermediate"),
        (DIRECT, 0.8, True, "high"),
        (COMPLEMENT, 0.7, True, "low"),
        (COMPLEMENT, just_below(0.7), False, "intermediate"),
        (COMPLEMENT, 0.3, False, "intermediate"),
        (COMPLEMENT, just_below(0.3), False, "high"),
    ],
)
def test_a_threshold_is_on_the_side_of_positive(
    spec: FindingSpec, p: float, positive: bool, category: Category
) -> None:
    result = answer([spec], np.array([p]))
    assert (result.findings[0].positive, result.category) == (positive, category)


def test_a_category_is_that_of_the_most_suspicious_finding_that_has_one() -> None:
    without_rule_in = DIRECT.model_copy(update={"name": "g", "operating_points": points(0.3, 0.8)[:1], "risk": None})
    decides_elsewhere = DIRECT.model_copy(update={"name": "h", "decides_at": "balanced", "risk": None})
    measured = FindingSpec(name="heart_rate", column=1, kind="measured")
    others = [without_rule_in, decides_elsewhere, measured]
    assert answer(others, np.array([0.9, 70])).category == "intermediate", "a flagged finding is never low"
    assert [f.positive for f in answer(others, np.array([0.9, 70])).findings] == [True, None, None]
    assert answer(others, np.array([0.1, 70])).category is None
    low, high = DIRECT.model_copy(update={"column": 2}), DIRECT.model_copy(update={"name": "i", "column": 3})
    for a, b, category in (
        (0.1, 0.1, "low"),
        (0.5, 0.1, "intermediate"),
        (0.1, 0.5, "intermediate"),
        (0.9, 0.1, "high"),
    ):
        assert answer([*others, low, high], np.array([0.1, 70, a, b])).category == category


@pytest.mark.parametrize(
    ("specs", "numbers", "code", "found"),
    [
        ([DIRECT], [0.1], "basis_nothing_flagged", ""),
        ([DIRECT], [0.5], "basis_flagged", "abnormal"),
        ([DIRECT], [0.9], "basis_strong", "abnormal"),
        ([COMPLEMENT], [0.9], "basis_nothing_flagged", ""),
        ([COMPLEMENT], [0.1], "basis_not_normal", ""),
        ([COMPLEMENT, DIRECT.model_copy(update={"column": 1})], [0.1, 0.5], "basis_not_normal", ""),
        ([COMPLEMENT, DIRECT.model_copy(update={"column": 1})], [0.1, 0.9], "basis_strong", "abnormal"),
        (
            [DIRECT, DIRECT.model_copy(update={"name": "mass", "column": 1})],
            [0.9, 0.8],
            "basis_strong",
            "abnormal, mass",
        ),
    ],
)
def test_a_category_says_what_it_rests_on(
    specs: list[FindingSpec], numbers: list[float], code: str, found: str
) -> None:
    result = answer(specs, np.array(numbers))
    assert result.category_basis == Problem(code, "warn", found=found)
    assert merge([result]).category_basis == result.category_basis


def test_without_a_category_there_is_nothing_to_rest_on() -> None:
    for_information = DIRECT.model_copy(update={"use": "information"})
    assert answer([for_information], np.array([0.9])).category_basis is None
    low = answer([DIRECT], np.array([0.1]))
    merged = merge([low, answer([for_information], np.array([0.9]))])
    assert (merged.category, merged.category_basis) == (None, None)


MEASURED = (
    OperatingPoint(name="screening", threshold=0.3, cohort="c", sensitivity=0.9, specificity=0.7),
    OperatingPoint(name="rule_in", threshold=0.8, cohort="c", sensitivity=0.5, specificity=0.95),
)


@pytest.mark.parametrize(
    ("p", "ratio"), [(0.8, 0.5 / 0.05), (0.5, 0.9 / 0.3), (0.3, 0.9 / 0.3), (just_below(0.3), 0.1 / 0.7)]
)
def test_a_likelihood_ratio_is_that_of_the_point_that_was_reached(p: float, ratio: float) -> None:
    spec = DIRECT.model_copy(update={"operating_points": MEASURED})
    (found,) = answer([spec], np.array([p])).findings
    assert found.likelihood_ratio == pytest.approx(ratio)


@pytest.mark.parametrize(
    "change", [{"sensitivity": None}, {"specificity": None}, {"specificity": 1.0}], ids=["sens", "spec", "no divisor"]
)
def test_a_likelihood_ratio_that_is_not_known_is_not_given(change: dict[str, float | None]) -> None:
    spec = DIRECT.model_copy(update={"operating_points": (MEASURED[0].model_copy(update=change),)})
    assert answer([spec], np.array([0.5])).findings[0].likelihood_ratio is None
    never = DIRECT.model_copy(update={"operating_points": (MEASURED[0].model_copy(update={"specificity": 0.0}),)})
    assert answer([never], np.array([0.1])).findings[0].likelihood_ratio is None


def test_findings_that_exclude_each_other_are_not_told_without_saying_so() -> None:
    fibrillation = DIRECT.model_copy(update={"name": "atrial_fibrillation", "column": 1})

    def said(normal: float, rhythm: float) -> list[Problem]:
        return contradicting(answer([COMPLEMENT, fibrillation], np.array([normal, rhythm])))

    assert said(0.9, 0.5) == [Problem("findings_contradict", "warn", found="atrial_fibrillation")]
    assert said(0.9, 0.1) == said(0.1, 0.5) == said(0.1, 0.1) == []


def test_a_measured_value_in_the_middle_ends_nothing() -> None:
    specs = [
        FindingSpec(name="qtc_interval", column=0, kind="measured", unit="ms", digits=0),
        DIRECT.model_copy(update={"column": 1}),
    ]
    found = answer(specs, np.array([431.6, 0.9])).by_name
    assert (found["qtc_interval"].value, found["qtc_interval"].unit) == (432, "ms")
    assert found["abnormal"].probability == 0.9


def finding(name: str, p: float | None, *, value: float | None = None, evidence: int = 0) -> FoundFinding:
    maps = [EvidenceMap(kind="heatmap", input=i, values=[[255]]) for i in range(evidence)]
    return FoundFinding(name=name, probability=p, value=value, evidence=maps)


@pytest.mark.parametrize(
    ("categories", "merged"),
    [
        (("low", "high", "intermediate"), "high"),
        (("low", "intermediate"), "intermediate"),
        (("low", "low"), "low"),
        ((None, "low"), None),
        ((None, "intermediate"), "intermediate"),
        ((None, None), None),
    ],
)
def test_an_organ_has_its_worst_category(categories: tuple[Category | None, ...], merged: Category | None) -> None:
    assert merge([Answer(category=category) for category in categories]).category == merged


def test_a_risk_that_only_one_input_has_is_the_organs() -> None:
    assert merge([Answer(), Answer(risk=0.2), Answer(risk=0.1)]).risk == 0.2
    assert merge([Answer(), Answer()]).risk is None


def test_the_evidence_of_every_input_is_kept_and_measured_values_are_the_firsts() -> None:
    first = Answer([finding("qrs_duration", None, value=90), finding("abnormal", 0.0, evidence=1)])
    second = Answer(
        [finding("abnormal", 0.4, evidence=2), finding("qrs_duration", None, value=130), finding("edema", 0.1)]
    )
    merged = merge([first, second])
    assert [f.name for f in merged.findings] == ["qrs_duration", "abnormal", "edema"]
    assert merged.by_name["qrs_duration"].value == 90
    assert (merged.by_name["abnormal"].probability, len(merged.by_name["abnormal"].evidence)) == (0.4, 3)
    assert merge([first]).by_name["qrs_duration"].value == 90
    nothing = merge([Answer([finding("normal_ecg", 0.0)]), Answer([finding("normal_ecg", 0.3)])])
    assert nothing.by_name["normal_ecg"].probability == 0.0


def test_a_map_of_small_activations_is_scaled_as_one_of_large_ones() -> None:
    assert positive_share(np.array([[0.001, 0.0005], [-1.0, 0.0]])) == [[255, 128], [0, 0]]
    assert positive_share(np.array([[0.0, -1.0]])) == [[0, 0]]


# ---------------------------------------------------------------- what a finding may decide
def open_between(low: float, high: float, coverage: float = 0.9, **group: object) -> Undecided:
    return Undecided(coverage=coverage, low=low, high=high, n_positive=30, n_negative=30, **group)


@pytest.mark.parametrize(
    ("p", "positive", "strength", "category"),
    [
        (0.199, False, "below", "low"),
        (0.2, None, "undecided", None),
        (0.599, None, "undecided", None),
        (0.6, True, "flagged", "intermediate"),
        (0.8, True, "strong", "high"),
    ],
)
def test_between_its_two_bounds_a_finding_is_undecided(
    p: float, positive: bool | None, strength: str, category: str | None
) -> None:
    spec = ABNORMAL.model_copy(update={"undecided": (open_between(0.2, 0.6),)})
    result = answer([spec], np.array([logit(p + 1e-12)]))
    (found,) = result.findings
    assert (found.positive, found.strength, found.use, result.category) == (positive, strength, "triage", category)
    assert found.probability == pytest.approx(p)
    assert found.operating_point is not None
    assert result.risk == pytest.approx(p)


def test_an_undecided_finding_hides_no_other_that_is_positive() -> None:
    spec = ABNORMAL.model_copy(update={"undecided": (open_between(0.2, 0.6),)})
    other = FindingSpec(name="edema", column=1, decides_at="screening", operating_points=points(0.3, 0.8))
    assert answer([spec, other], np.array([logit(0.4), logit(0.5)])).category == "intermediate"
    assert answer([spec, other], np.array([logit(0.4), logit(0.1)])).category is None
    assert answer([ABNORMAL, other], np.array([logit(0.1), logit(0.1)])).category == "low"


@pytest.mark.parametrize(
    ("group", "who", "is_open"),
    [
        ({}, Who(), True),
        ({}, Who(50, "female", "AP"), True),
        ({"sex": "female"}, Who(sex="female"), True),
        ({"sex": "female"}, Who(sex="male"), False),
        ({"sex": "female"}, Who(), False),
        ({"view": "AP"}, Who(view="AP"), True),
        ({"view": "AP"}, Who(view="PA"), False),
        ({"age_years": (40, 60)}, Who(age_years=40), True),
        ({"age_years": (40, 60)}, Who(age_years=59.9), True),
        ({"age_years": (40, 60)}, Who(age_years=39.9), False),
        ({"age_years": (40, 60)}, Who(age_years=60), False),
        ({"age_years": (40, 60)}, Who(), False),
        ({"coverage": 0.95}, Who(), False),
        ({"coverage": 0.95}, Who(coverage=0.95), True),
        ({}, Who(coverage=0.95), False),
        ({}, Who(coverage=None), False),
    ],
)
def test_bounds_hold_for_those_who_are_known_to_be_of_their_group(
    group: dict[str, object], who: Who, is_open: bool
) -> None:
    spec = ABNORMAL.model_copy(update={"undecided": (open_between(0.2, 0.6, **group),)})
    (found,) = answer([spec], np.array([logit(0.5)]), who=who).findings
    assert (found.strength == "undecided") is is_open
    assert (found.positive is None) is is_open


def test_one_group_of_several_is_enough_to_leave_it_open() -> None:
    spec = ABNORMAL.model_copy(update={"undecided": (open_between(0.2, 0.3), open_between(0.4, 0.6, sex="female"))})
    assert answer([spec], np.array([logit(0.5)]), who=Who(sex="female")).findings[0].strength == "undecided"


@pytest.mark.parametrize(
    ("p", "strength"), [(0.29, "below"), (0.3, "near"), (0.49, "near"), (0.5, "flagged"), (0.8, "strong")]
)
def test_how_far_a_probability_lies_from_the_points(p: float, strength: str) -> None:
    balanced = OperatingPoint(name="balanced", threshold=0.5, cohort="c")
    spec = FindingSpec(name="edema", column=0, decides_at="balanced", operating_points=(*points(0.3, 0.8), balanced))
    assert answer([spec], np.array([logit(p + 1e-12)])).findings[0].strength == strength


def test_a_finding_for_information_decides_nothing() -> None:
    spec = ABNORMAL.model_copy(update={"use": "information", "use_because": "…"})
    called = []
    result = answer([spec], np.array([logit(0.9)]), evidence=lambda spec: called.append(spec) or [])
    (found,) = result.findings
    assert (found.probability, found.positive, found.strength) == (pytest.approx(0.9), None, None)
    assert (found.use, found.operating_point, called) == ("information", None, [spec])
    assert (result.category, result.risk) == (None, None)
    other = FindingSpec(name="edema", column=1, decides_at="screening", operating_points=points(0.3, 0.8))
    both = answer([spec, other], np.array([logit(0.9), logit(0.1)]))
    assert both.category is None, "nothing says that the organ is well"
    assert answer([spec, other], np.array([logit(0.1), logit(0.5)])).category == "intermediate"


@pytest.mark.parametrize("use", ["triage", "information"])
def test_a_number_is_explained_from_the_point_that_decides(use: Use) -> None:
    """Also where it decides nothing; one further down has no map, which would show noise."""
    spec = FindingSpec(name="edema", column=0, decides_at="screening", operating_points=points(0.5, 0.8), use=use)
    called: list[float] = []
    for number in (0.0, -1e-9):
        answer([spec], np.array([number]), evidence=lambda _, number=number: called.append(number) or [])
    assert called == [0.0]
    uncalibrated = FindingSpec(name="edema", column=0, use=use)
    answer([uncalibrated], np.array([9.0]), evidence=lambda _: called.append(9.0) or [])
    assert called == [0.0]


def test_a_reserve_for_an_unlike_input_is_repeated_by_the_organ_and_a_refusal_is_not() -> None:
    result = InputResult(indices=(0,))
    result.add_unlikeness(None)
    assert (result.problems, result.reserves) == ([], [])
    reserve = Problem("unlike_training", "warn")
    result.add_unlikeness(reserve)
    assert (result.problems, result.reserves, result.accepted) == ([reserve], [reserve], True)
    refusal = Problem("far_from_training", "reject")
    result.add_unlikeness(refusal)
    assert (result.problems, result.reserves, result.accepted) == ([reserve, refusal], [reserve], False)


@pytest.mark.parametrize(
    ("name", "verdicts", "chosen"),
    [
        ("abnormal", [(0.6, None), (0.5, True)], 0.5),
        ("abnormal", [(0.4, False), (0.3, None)], 0.3),
        ("abnormal", [(0.5, True), (0.6, True)], 0.6),
        ("normal_ecg", [(0.4, None), (0.5, False)], 0.5),
        ("normal_ecg", [(0.9, True), (0.95, None)], 0.95),
    ],
)
def test_of_several_inputs_the_most_pressing_verdict_counts(
    name: str, verdicts: list[tuple[float, bool | None]], chosen: float
) -> None:
    answers = [Answer([finding(name, p).model_copy(update={"positive": positive})]) for p, positive in verdicts]
    assert merge(answers).by_name[name].probability == chosen


def test_each_reason_to_have_no_verdict_is_said_once() -> None:
    bare = finding("mass", 0.5).model_copy(update={"calibrated": False})
    shown = [finding(name, 0.5).model_copy(update={"use": "information"}) for name in ("edema", "effusion")]
    open_ = finding("abnormal", 0.5).model_copy(update={"strength": "undecided", "use": "triage"})
    decided = finding("pneumonia", 0.5).model_copy(update={"strength": "below", "use": "triage", "positive": False})
    assert without_verdict(Answer([bare, *shown, open_, decided, finding("qtc_interval", None, value=400)])) == [
        Problem("uncalibrated", "warn", found="mass"),
        Problem("information_only", "warn", found="edema, effusion"),
        Problem("undecided", "warn", found="abnormal"),
    ]
