"""Cases to learn from: what is known of them, and what a trainee says of one."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from data_specs.schema import Schema
from data_specs.visit.contract import VISIBLE
from data_specs.visit.opinion import Advice, FindingName, Judgement, NewOpinion
from data_specs.vocabulary import is_reassuring, judged_findings, term_of

TEACHING = "teaching:"
"""A site whose name begins with it holds cases and nothing else."""
Basis = Literal["outcome", "specialists"]
Confidence = Literal[1, 2, 3, 4, 5]
PROBABILITY: Mapping[int, float] = {step: (2 * step - 1) / 10 for step in get_args(Confidence)}
"""What each step says: the middle of a fifth, 0 to 20 % for the first and 80 to 100 % for the last."""
MOST_FINDINGS = 60
LEARNT = tuple(name for name in VISIBLE if not is_reassuring(name))
"""Findings that somebody can learn to see: on a film or a trace, and no good sign."""
Share = Annotated[float, Field(ge=0, le=1)]
Said = Annotated[dict[FindingName, bool], Field(max_length=MOST_FINDINGS)]


def teaches(site: str) -> bool:
    """Whether a site holds cases to learn from."""
    return site.startswith(TEACHING)


class SpecialistSaid(Schema):
    """What a specialist signed, without their words: for each finding whether it is there, and the advice.

    ``blind``: signed before they saw what the machine had found.
    """

    says: Said
    advice: Advice | None = None
    blind: bool = False


class Truth(Schema):
    """What became known of a visit: the outcome of findings, and what specialists signed, in order."""

    outcomes: Said = Field(default={})
    specialists: Annotated[tuple[SpecialistSaid, ...], Field(max_length=100)] = ()


class Known(Schema):
    """What is known of one finding of a case.

    Parameters
    ----------
    specialists
        How many specialists say that it is there, and how many speak of it.
    machine
        Its probability by the machine at home.
    """

    there: bool
    by: Basis
    specialists: tuple[int, int] = (0, 0)
    machine: Share | None = None

    @property
    def difficulty(self) -> float | None:
        """How hard it is before anybody has read it, 0 to 1; ``None`` where nobody said anything of it.

        The distance of the machine from the truth, and the share of specialists against it, in equal parts; where one
        of them is not known, the other.
        """
        yes, of = self.specialists
        machine = [] if self.machine is None else [abs(self.there - self.machine)]
        against = [(of - yes if self.there else yes) / of] if of else []
        known = machine + against
        return sum(known) / len(known) if known else None


class Case(Truth):
    """A case as it came: what is known of it, and the machine's probabilities at home by finding."""

    machine: dict[FindingName, Share] = Field(default={}, max_length=MOST_FINDINGS)

    @cached_property
    def known(self) -> dict[str, Known]:
        """The findings whose truth is known. The outcome counts before specialists, and of these the majority.

        A finding that is there brings the one that it implies, unless that one's outcome says otherwise. A good sign,
        such as a normal ECG, is none of them: where it is there, the findings of its organ are not.
        """
        spoken = {name for said in self.specialists for name in said.says}
        found = {name: known for name in sorted({*self.outcomes, *spoken}) if (known := self._known(name)) is not None}
        for name, known in list(found.items()):
            implied = term_of(name).implies
            if known.there and implied is not None and implied not in self.outcomes:
                found[implied] = Known(
                    there=True, by=known.by, specialists=self._votes(implied), machine=self.machine.get(implied)
                )
        for name in [name for name, known in found.items() if known.there and is_reassuring(name)]:
            for other in judged_findings(term_of(name).organ or ""):
                found.setdefault(
                    other,
                    Known(
                        there=False,
                        by=found[name].by,
                        specialists=self._votes(other),
                        machine=self.machine.get(other),
                    ),
                )
        return {name: found[name] for name in LEARNT if name in found}

    @property
    def has_finding(self) -> bool:
        """Whether a known finding is there."""
        return any(known.there for known in self.known.values())

    def _votes(self, name: str) -> tuple[int, int]:
        said = [each.says[name] for each in self.specialists if name in each.says]
        return sum(said), len(said)

    def _known(self, name: str) -> Known | None:
        yes, of = self._votes(name)
        machine = self.machine.get(name)
        if name in self.outcomes:
            return Known(there=self.outcomes[name], by="outcome", specialists=(yes, of), machine=machine)
        if 2 * yes == of:
            return None
        return Known(there=2 * yes > of, by="specialists", specialists=(yes, of), machine=machine)


class NewReading(NewOpinion):
    """What a trainee says of a case: the findings that they see (``add``), as in a blind opinion.

    Parameters
    ----------
    confidence
        For a finding, named or not, in which fifth the probability lies that it is there: 1 is 0 to 20 %, 5 is 80 to
        100 %. Left out, the finding does not count for calibration.
    """

    confidence: dict[FindingName, Confidence] = Field(default={}, max_length=MOST_FINDINGS)

    @field_validator("judgements")
    @classmethod
    def _only_what_is_seen(cls, judgements: tuple[Judgement, ...]) -> tuple[Judgement, ...]:
        if any(judgement.verdict != "add" for judgement in judgements):
            raise PydanticCustomError("literal_error", "nobody else has spoken", {"expected": "verdict: add"})
        return judgements

    @field_validator("referral")
    @classmethod
    def _no_question(cls, referral: str | None) -> str | None:
        if referral is not None:
            raise PydanticCustomError("literal_error", "no question is asked about a case", {"expected": "null"})
        return referral

    @cached_property
    def seen(self) -> frozenset[str]:
        """The findings that the trainee says are there. What they do not name is absent."""
        return frozenset(name for name, there in self.says({}).items() if there)
