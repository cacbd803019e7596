"""From a bundle's numbers to findings: calibration, ages, operating points, risk and category."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_specs.bundle import BundleManifest, Calibration, FindingSpec, Undecided
from data_specs.person import BinarySex
from data_specs.problems import Problem
from data_specs.visit.assessment import EvidenceMap, FoundFinding
from data_specs.visit.contract import Category, OperatingPoint, Strength
from data_specs.vocabulary import is_reassuring

ADULT_YEARS = 18.0
"""Where the age is unknown, only findings that were evaluated from this age on are offered."""

UNCALIBRATED = Calibration(slope=1.0, intercept=0.0)
"""How a logit without calibration is shown: as its logistic function."""


COVERAGE = 0.9
"""Share of those with a finding, and of those without it, who may not get the opposite verdict (:class:`Undecided`)."""


@dataclass(frozen=True)
class Who:
    """Whose input it is, as far as that is known, and how sure a verdict has to be (``None``: one is always given)."""

    age_years: float | None = None
    sex: BinarySex | None = None
    view: Literal["PA", "AP"] | None = None
    coverage: float | None = COVERAGE


EVERYBODY = Who()


@dataclass
class Answer:
    """The result of one bundle for one input, or for one person's labs."""

    findings: list[FoundFinding] = field(default_factory=list)
    risk: float | None = None
    category: Category | None = None
    category_basis: Problem | None = None

    @property
    def by_name(self) -> dict[str, FoundFinding]:
        return {f.name: f for f in self.findings}


@dataclass
class InputResult:
    """The result of one film or one recording: its problems, and its answer where it was used.

    Parameters
    ----------
    indices
        Of its files among the visit's inputs.
    problems
        Of the input: why it was refused, or with which reserve it was used.
    reserves
        Of the organ: what limits the answer.
    traits, seen_by
        Numbers that drift is looked for in, by name (:mod:`inference.cxr.traits`), and the bundles that it is shown to.
    """

    indices: tuple[int, ...]
    format: str | None = None
    problems: list[Problem] = field(default_factory=list)
    reserves: list[Problem] = field(default_factory=list)
    answer: Answer | None = None
    traits: dict[str, float] = field(default_factory=dict)
    seen_by: str = ""

    @property
    def accepted(self) -> bool:
        return not any(p.severity == "reject" for p in self.problems)

    def add_unlikeness(self, problem: Problem | None) -> None:
        """Add what is said of an input unlike those learnt from; where it is answered, the organ repeats it."""
        if problem is not None:
            self.problems.append(problem)
            self.reserves += [problem] if problem.severity == "warn" else []


def offered(manifest: BundleManifest, age_years: float | None) -> tuple[FindingSpec, ...]:
    """Findings that were evaluated for this age, or for adults where it is unknown."""

    def holds(spec: FindingSpec) -> bool:
        if spec.age_years is None:
            return True
        low, high = spec.age_years
        return low >= ADULT_YEARS if age_years is None else low <= age_years < high

    return tuple(spec for spec in manifest.findings if holds(spec))


def ages_offered(manifest: BundleManifest) -> str:
    """Age ranges of the bundle, for messages: ``1-5, 18-85``."""
    ranges = sorted({spec.age_years for spec in manifest.findings if spec.age_years})
    return ", ".join(f"{low:g}-{high - 1:g}" for low, high in ranges)


def nothing_offered(manifest: BundleManifest, age: str) -> Problem:
    """Why a person is offered no finding of a bundle; ``age`` is theirs, in words."""
    if not manifest.findings:
        return Problem("not_here", "reject", found=manifest.organ or "")
    return Problem("age_out_of_range", "reject", age, ages_offered(manifest))


def answer(
    specs: Sequence[FindingSpec],
    numbers: NDArray[np.floating],
    *,
    who: Who = EVERYBODY,
    features: Mapping[str, float] | None = None,
    evidence: Callable[[FindingSpec], Sequence[EvidenceMap]] | None = None,
) -> Answer:
    """Findings from one row of a bundle's first output.

    Parameters
    ----------
    specs
        What is offered to this person.
    numbers
        ``(n_columns,)``: logits, risks or values.
    who
        Whose they are: some verdicts are left open for some groups.
    features
        Tabular features that are known. A finding that requires another feature, or other values, is left out.
    evidence
        Gives the maps of a finding; called where it is positive, or would be if it were not for information only.
    """
    result = Answer()
    values = dict(features or {})
    for spec in specs:
        number = float(numbers[spec.column])
        applies = all(name in values and low <= values[name] < high for name, (low, high) in spec.applies_when.items())
        if not applies or not values.keys() >= set(spec.requires) or not math.isfinite(number):
            continue
        values[spec.name] = number
        if spec.kind == "measured":
            value = spec.labels[round(number)] if spec.labels else round(number, spec.digits)
            result.findings.append(FoundFinding(name=spec.name, value=value, unit=spec.unit))
            continue
        probability = calibrate(spec, number)
        found = judged(spec, probability, who)
        maps = list(evidence(spec)) if evidence and is_explained(spec, found) else []
        result.findings.append(found.model_copy(update={"evidence": maps}))
        if spec.risk is not None and spec.use == "triage":
            result.risk = probability if spec.risk == "direct" else 1 - probability
    result.category, result.category_basis = categorise(specs, result)
    return result


def judged(spec: FindingSpec, probability: float, who: Who) -> FoundFinding:
    """A probability with its verdict, where there is one."""
    found = FoundFinding(
        name=spec.name,
        probability=probability,
        calibrated=spec.kind == "risk" or spec.calibration is not None,
    )
    point = operating_point(spec, spec.decides_at)
    if spec.use == "information":
        return found.model_copy(update={"use": spec.use})
    if point is None:
        return found
    open_ = is_undecided(spec.undecided, probability, who)
    verdict = {
        "positive": None if open_ else probability >= point.threshold,
        "strength": "undecided" if open_ else strength(spec, probability),
        "use": spec.use,
        "operating_point": point,
        "likelihood_ratio": None if open_ else likelihood_ratio(spec, probability),
    }
    return found.model_copy(update=verdict)


def is_explained(spec: FindingSpec, found: FoundFinding) -> bool:
    """Whether a map shows where a finding's number comes from: where it is past the point that decides.

    A finding for information has no verdict, and its number is explained all the same.
    """
    point = operating_point(spec, spec.decides_at)
    if spec.use == "information" and point is not None and found.probability is not None:
        return found.probability >= point.threshold
    return bool(found.positive)


def is_undecided(ranges: Sequence[Undecided], probability: float, who: Who) -> bool:
    """Whether the probability lies in the range of any group that the person is known to belong to."""

    def holds(one: Undecided) -> bool:
        of_age = one.age_years is None or (
            who.age_years is not None and one.age_years[0] <= who.age_years < one.age_years[1]
        )
        same = one.sex in (None, who.sex) and one.view in (None, who.view)
        return one.coverage == who.coverage and of_age and same and one.low <= probability < one.high

    return any(holds(one) for one in ranges)


def strength(spec: FindingSpec, probability: float) -> Strength:
    """How far a probability lies from the finding's operating points."""
    reached = {point.name for point in spec.operating_points if probability >= point.threshold}
    if spec.decides_at in reached:
        return "strong" if "rule_in" in reached else "flagged"
    return "near" if "screening" in reached else "below"


def likelihood_ratio(spec: FindingSpec, probability: float) -> float | None:
    """How many times as often persons with the finding have such a result as persons without it; ``None``: not known.

    Of a result past ``rule_in``, at that point; of one past the deciding point, at that one; of a negative one, at the
    deciding point too.

    References
    ----------
    Deeks and Altman, Diagnostic tests 4: likelihood ratios, BMJ 2004;329:168: sensitivity / (1 - specificity) of a
    positive result, (1 - sensitivity) / specificity of a negative one.
    """
    deciding, rule_in = (operating_point(spec, name) for name in (spec.decides_at, "rule_in"))
    point = rule_in if rule_in and probability >= rule_in.threshold else deciding
    if point is None or point.sensitivity is None or point.specificity is None:
        return None
    if probability >= point.threshold:
        return point.sensitivity / (1 - point.specificity) if point.specificity < 1 else None
    return (1 - point.sensitivity) / point.specificity if point.specificity > 0 else None


def calibrate(spec: FindingSpec, number: float) -> float:
    """Probability from a logit by the finding's calibration; a ``risk`` is one already."""
    if spec.kind == "risk":
        return min(max(number, 0.0), 1.0)
    return float(calibrated(number, spec.calibration or UNCALIBRATED))


def calibrated(logits: ArrayLike, calibration: Calibration) -> NDArray[np.float64]:
    """Probabilities of logits of any shape, in double precision.

    Training evaluates with this function, so that a case at a threshold is on the same side of it in both.
    """
    z = np.asarray(logits, dtype=np.float64)
    if calibration.kind == "isotonic":
        return np.asarray(np.interp(z, *np.transpose(calibration.knots)))
    with np.errstate(over="ignore"):  # of a very negative logit: 1 / (1 + inf) is 0
        return np.asarray(1 / (1 + np.exp(-(calibration.slope * z + calibration.intercept))))


def operating_point(spec: FindingSpec, name: str) -> OperatingPoint | None:
    return next((point for point in spec.operating_points if point.name == name), None)


def categorise(specs: Sequence[FindingSpec], result: Answer) -> tuple[Category | None, Problem | None]:
    """The category and what it rests on.

    ``high``: a finding is past its ``rule_in`` point. ``intermediate``: one is positive. ``low``: no finding is. For a
    finding whose complement is the risk (``normal_ecg``), the opposite of positive counts. Where a finding that gives
    the organ's risk has no verdict, nothing is called low.
    """
    by_name = {spec.name: spec for spec in specs}
    reached: dict[str, int] = {}
    for found in result.findings:
        spec = by_name[found.name]
        rule_in = operating_point(spec, "rule_in")
        if found.probability is None or found.positive is None:
            continue
        if rule_in is None:
            if found.positive and not is_reassuring(spec.name):
                reached[spec.name] = 1
        elif spec.risk == "complement":
            reached[spec.name] = 0 if found.positive else 2 if found.probability < rule_in.threshold else 1
        else:
            reached[spec.name] = 2 if found.probability >= rule_in.threshold else int(found.positive)
    level = max(reached.values(), default=-1)
    undecided = any(by_name[found.name].risk and found.positive is None for found in result.findings)
    if level == -1 or (level == 0 and undecided):
        return None, None
    code = ("basis_nothing_flagged", "basis_flagged", "basis_strong")[level]
    names = [name for name, at in reached.items() if at == level and level > 0]
    not_normal = [name for name in names if by_name[name].risk == "complement"]
    names = [name for name in names if name not in not_normal]
    if not_normal and not names:
        code = "basis_not_normal"
    categories: tuple[Category, ...] = ("low", "intermediate", "high")
    return categories[level], Problem(code, "warn", found=", ".join(names))


def merge(answers: Sequence[Answer]) -> Answer:
    """One answer from several inputs of an organ: the most pressing of each finding, with the evidence of all.

    A positive verdict is more pressing than none, none more than a negative one; then the highest probability counts.
    For a reassuring finding it is the other way round. A measured value is that of the first input that has it.
    Nothing is called low while one of the inputs has no category.
    """
    with_category = [a for a in answers if a.category]
    chosen = max(with_category, key=lambda a: ("low", "intermediate", "high").index(str(a.category)), default=Answer())
    merged = Answer(risk=max((a.risk for a in answers if a.risk is not None), default=None))
    if chosen.category != "low" or len(with_category) == len(answers):
        merged.category, merged.category_basis = chosen.category, chosen.category_basis
    for name in dict.fromkeys(f.name for a in answers for f in a.findings):
        same = [a.by_name[name] for a in answers if name in a.by_name]
        if same[0].probability is None:
            merged.findings.append(same[0])
            continue
        pick = min if is_reassuring(name) else max
        pressing = pick(same, key=lambda f: ((False, None, True).index(f.positive), f.probability or 0.0))
        maps = [m for f in same for m in f.evidence]
        merged.findings.append(pressing.model_copy(update={"evidence": maps}))
    return merged


def without_verdict(answer: Answer) -> list[Problem]:
    """What is to be said of the findings that have a probability and no verdict: one reserve for each reason."""
    reasons: dict[str, list[str]] = {"uncalibrated": [], "information_only": [], "undecided": []}
    for found in answer.findings:
        if found.calibrated is False:
            reasons["uncalibrated"].append(found.name)
        elif found.use == "information":
            reasons["information_only"].append(found.name)
        elif found.strength == "undecided":
            reasons["undecided"].append(found.name)
    return [Problem(code, "warn", found=", ".join(names)) for code, names in reasons.items() if names]


def contradicting(answer: Answer) -> list[Problem]:
    """What is to be said where a reassuring finding is positive beside findings that it excludes."""
    positive = [found.name for found in answer.findings if found.positive]
    excluded = [name for name in positive if not is_reassuring(name)]
    if not excluded or len(excluded) == len(positive):
        return []
    return [Problem("findings_contradict", "warn", found=", ".join(excluded))]


def positive_share(activation: NDArray[np.floating]) -> list[list[int]]:
    """Positive part of a class activation map as whole numbers, 255 for the largest."""
    positive = np.clip(np.atleast_2d(activation), 0, None)
    largest = float(positive.max())
    scaled = positive / largest * 255 if largest > 0 else positive
    return [[int(v) for v in row] for row in np.rint(scaled)]
