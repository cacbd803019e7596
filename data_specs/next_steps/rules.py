"""One rule of a table of next steps: the facts of a visit that it looks at, its conditions on them, its sentences.

``next_steps.toml`` explains how a rule is written. ``matches``, of a condition and of a rule, gives the names of the
findings, values or organs that make it hold, and ``None`` where it does not hold.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
    model_validator,
)

from data_specs.labs import ANALYTES, standard_labs
from data_specs.problems import message
from data_specs.schema import Schema
from data_specs.visit.assessment import AssessedOrgan, FoundFinding
from data_specs.visit.context import Lab, Vitals
from data_specs.visit.contract import FIELD_OF_ORGAN, Organ
from data_specs.visit.opinion import Advice
from data_specs.vocabulary import terms

ADULT_YEARS = 18.0
"""Where the age is unknown, the rules for adults are used, as are the findings for adults (``inference.findings``)."""

POINT_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")

Otherwise = Literal["positive", "not_assessed", "open", "clear"]
"""What an ``otherwise`` rule answers: a positive finding or an organ that was not assessed, where no other rule does;
a visit that no rule answers, and that is not clear or is clear."""


@dataclass(frozen=True)
class Facts:
    """What the rules look at; nothing in it names the person.

    Parameters
    ----------
    labs
        As the laboratory wrote them; :func:`data_specs.labs.standard_labs` gives them the unit that the rules use.
    file_problems
        Codes of the problems of the posted files, by the field in which a file was posted.
    """

    organs: Mapping[Organ, AssessedOrgan]
    age_years: float | None = None
    labs: tuple[Lab, ...] = ()
    vitals: Vitals = field(default_factory=Vitals)
    file_problems: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @cached_property
    def findings(self) -> dict[str, FoundFinding]:
        """Findings of all organs by name."""
        return {finding.name: finding for organ in self.organs.values() for finding in organ.findings}

    @cached_property
    def values(self) -> dict[str, float | str]:
        """Measured findings, laboratory values and vitals by the vocabulary's names, which carry the units."""
        measured = {name: finding.value for name, finding in self.findings.items() if finding.value is not None}
        return {**standard_labs(self.labs)[0], **self.vitals.model_dump(exclude_none=True), **measured}

    def reasons(self, organ: Organ) -> set[str]:
        """Codes of the organ's reasons, and of the problems of the files that were posted for it."""
        of_files = self.file_problems.get(FIELD_OF_ORGAN.get(organ, ""), frozenset())
        return {*of_files, *(problem.code for problem in self.organs[organ].reasons)}

    @property
    def all_decided(self) -> bool:
        """Whether every organ was assessed, and whatever may decide has decided."""
        undecided = any(
            f.probability is not None and f.positive is None and f.use != "information" for f in self.findings.values()
        )
        assessed = bool(self.organs) and all(
            organ.status == "assessed" and not _lacks_its_main_finding(organ) for organ in self.organs.values()
        )
        return assessed and not undecided


def _lacks_its_main_finding(organ: AssessedOrgan) -> bool:
    """Whether findings are shown for information and none of them, or what is left, says how the organ is."""
    return organ.category is None and any(finding.use == "information" for finding in organ.findings)


def _judged_finding(name: str) -> str:
    term = terms().get(name)
    if term is not None and term.measured:
        raise ValueError(f"'{name}' is measured, not judged: write it as a value")
    if term is None or not term.judged:
        raise ValueError(f"'{name}' is not a finding of the vocabulary")
    return name


def _measured_value(name: str) -> str:
    if name not in terms() or not terms()[name].measured:
        raise ValueError(f"'{name}' is not a measured value of the vocabulary (those of laboratories carry their unit)")
    return name


def _point_name(name: str) -> str:
    if not POINT_NAME.fullmatch(name):
        raise ValueError("the name of an operating point has small letters, digits and _ only")
    return name


def _reason_code(code: str) -> str:
    try:
        message(code, "en")
    except KeyError:
        raise ValueError(f"'{code}' is not a reason of messages.toml") from None
    return code


JudgedFinding = Annotated[str, AfterValidator(_judged_finding)]
PointName = Annotated[str, AfterValidator(_point_name)]


class Positive(Schema):
    """The finding is positive.

    ``at``: and this is the operating point that decided. ``strength``: and it is past its ``rule_in`` point
    (``strong``), or not (``flagged``).
    """

    positive: JudgedFinding
    at: PointName | None = None
    strength: Literal["strong", "flagged"] | None = None

    def matches(self, facts: Facts) -> tuple[str, ...] | None:
        names = _decided(facts, self.positive, True, self.at)
        is_so = self.strength in (None, facts.findings[self.positive].strength) if names else False
        return names if is_so else None


class Negative(Schema):
    """The finding was looked for and is not positive. ``at``: and this is the operating point that decided."""

    negative: JudgedFinding
    at: PointName | None = None

    def matches(self, facts: Facts) -> tuple[str, ...] | None:
        return _decided(facts, self.negative, False, self.at)


class _Range(Schema):
    """A number in a range: ``from`` is included, ``below`` is not."""

    from_: Annotated[FiniteFloat | None, Field(alias="from")] = None
    below: FiniteFloat | None = None

    def contains(self, number: float) -> bool:
        return (self.from_ is None or number >= self.from_) and (self.below is None or number < self.below)

    def refuse_impossible(self, least: float, most: float) -> None:
        """Raise ``ValueError`` where no number from ``least`` to ``most`` is in the range."""
        low = least if self.from_ is None else self.from_
        if low > most or (self.below is not None and (low >= self.below or self.below <= least)):
            high = most if self.below is None else self.below
            raise ValueError(f"no value can be from {low:g} to below {high:g} (possible: {least:g} to {most:g})")


class Probability(_Range):
    """The calibrated probability of a finding is in a range."""

    probability: JudgedFinding

    @model_validator(mode="after")
    def _possible(self) -> Probability:
        if self.from_ is None and self.below is None:
            raise ValueError("say from or below")
        self.refuse_impossible(0, 1)
        return self

    def matches(self, facts: Facts) -> tuple[str, ...] | None:
        found = facts.findings.get(self.probability)
        if found is None or found.probability is None or found.calibrated is False:
            return None
        return (self.probability,) if self.contains(found.probability) else None


class Value(_Range):
    """A measured value is in a range, or is one of some words (``is``)."""

    value: Annotated[str, AfterValidator(_measured_value)]
    words: Annotated[tuple[str, ...], Field(alias="is")] = ()

    @model_validator(mode="after")
    def _possible(self) -> Value:
        if known := terms()[self.value].words:
            if not self.words or self.from_ is not None or self.below is not None:
                raise ValueError("its value is a word: say is")
            if unknown := [word for word in self.words if word not in known]:
                raise ValueError(f"is: '{unknown[0]}' is not one of {', '.join(known)}")
        elif self.words or (self.from_ is None and self.below is None):
            raise ValueError("its value is a number: say from or below")
        else:
            self.refuse_impossible(*_possible_values(self.value))
        return self

    def matches(self, facts: Facts) -> tuple[str, ...] | None:
        found = facts.values.get(self.value)
        if found is None:
            return None
        holds = found in self.words if isinstance(found, str) else not self.words and self.contains(found)
        return (self.value,) if holds else None


class OrganState(Schema):
    """An organ has this status, and one of these ``reasons`` among its own or among the problems of its files."""

    organ: Literal["lung", "cardiac", "kidney", "any"]
    status: Literal["assessed", "not_assessed"] | None = None
    reasons: tuple[Annotated[str, AfterValidator(_reason_code)], ...] = ()

    @model_validator(mode="after")
    def _says_something(self) -> OrganState:
        if self.status is None and not self.reasons:
            raise ValueError("say status or reasons")
        return self

    def matches(self, facts: Facts) -> tuple[str, ...] | None:
        return tuple(name for name in facts.organs if self._is_true_of(name, facts)) or None

    def _is_true_of(self, name: Organ, facts: Facts) -> bool:
        return (
            self.organ in (name, "any")
            and self.status in (None, facts.organs[name].status)
            and (not self.reasons or bool(facts.reasons(name) & set(self.reasons)))
        )


KINDS = ("positive", "negative", "probability", "value", "organ")


def _kind(row: Any) -> str | None:
    """The member by which a condition of the table says what it is about."""
    return next((kind for kind in KINDS if isinstance(row, dict) and kind in row), None)


Condition = Annotated[
    Annotated[Positive, Tag("positive")]
    | Annotated[Negative, Tag("negative")]
    | Annotated[Probability, Tag("probability")]
    | Annotated[Value, Tag("value")]
    | Annotated[OrganState, Tag("organ")],
    Discriminator(
        _kind, custom_error_type="condition", custom_error_message=f"a condition is about one of {', '.join(KINDS)}"
    ),
]


def _one_line(text: Any) -> Any:
    return " ".join(text.split()) if isinstance(text, str) else text


Sentence = Annotated[str, BeforeValidator(_one_line), Field(min_length=1, max_length=300)]


class Rule(Schema):
    """One rule, as the head of ``next_steps.toml`` explains. ``ages``: from (included) and below, in years."""

    step: Advice
    within_days: Annotated[int, Field(ge=0, le=3650)] | None = None
    ages: tuple[FiniteFloat, FiniteFloat] | None = None
    all_of: Annotated[tuple[Condition, ...], Field(alias="all")] = ()
    any_of: Annotated[tuple[Condition, ...], Field(alias="any")] = ()
    otherwise: Otherwise | None = None
    unless: tuple[str, ...] = ()
    vi: Sentence
    fr: Sentence
    en: Sentence
    source: Sentence

    @model_validator(mode="after")
    def _makes_sense(self) -> Rule:
        if self.otherwise is None and not self.all_of and not self.any_of:
            raise ValueError("it says neither all nor any nor otherwise: when does it hold?")
        if self.otherwise is not None and (self.all_of or self.any_of or self.ages or self.unless):
            raise ValueError("an otherwise rule holds for whatever is left: it takes no all, any, ages or unless")
        if self.ages is not None and not 0 <= self.ages[0] < self.ages[1]:
            raise ValueError(f"ages: no age can be from {self.ages[0]:g} to below {self.ages[1]:g}")
        return self

    def is_for_age(self, years: float | None) -> bool:
        """Whether the rule is for a person of this age; an unknown age is taken for that of an adult."""
        if self.ages is None:
            return True
        return self.ages[1] > ADULT_YEARS if years is None else self.ages[0] <= years < self.ages[1]

    def matches(self, facts: Facts) -> tuple[str, ...] | None:
        every = [condition.matches(facts) for condition in self.all_of]
        some = [names for condition in self.any_of if (names := condition.matches(facts)) is not None]
        if None in every or (self.any_of and not some):
            return None
        return tuple(dict.fromkeys(name for names in (*every, *some) for name in names or ()))


def _decided(facts: Facts, name: str, positive: bool, at: str | None) -> tuple[str, ...] | None:
    found = facts.findings.get(name)
    if found is None or found.positive is not positive:
        return None
    if at is not None and (found.operating_point is None or found.operating_point.name != at):
        return None
    return (name,)


def _possible_values(name: str) -> tuple[float, float]:
    """Least and greatest number that reaches the rules; others are refused when the visit is read."""
    for analyte in ANALYTES:
        if analyte.key == name:
            return analyte.minimum, analyte.maximum
    if name in Vitals.model_fields:
        bounds = Vitals.model_json_schema()["properties"][name]["anyOf"][0]
        return float(bounds["minimum"]), float(bounds["maximum"])
    return -math.inf if terms()[name].signed else 0.0, math.inf
