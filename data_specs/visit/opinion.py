"""What doctors say of a visit: signed, in order, never changed. What the machine said is kept as it was."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator
from pydantic_core import PydanticCustomError

from data_specs.schema import Schema
from data_specs.visit.contract import ORGANS, VISIBLE
from data_specs.vocabulary import term_of, terms

AuthorRole = Literal["referrer", "specialist"]
Verdict = Literal["agree", "disagree", "add"]
Advice = Literal["manage", "ask", "refer"]
"""What to do next: manage here, ask a specialist, refer the person."""


def _is_a_finding(name: str) -> str:
    known = [each for each in terms() if each not in ORGANS]
    if name not in known:
        raise PydanticCustomError("literal_error", "a finding of the vocabulary", {"expected": ", ".join(known)})
    return name


FindingName = Annotated[str, Field(max_length=60), AfterValidator(_is_a_finding)]


class Judgement(Schema):
    """What the doctor says of one finding: ``agree`` or ``disagree`` with the machine's, or ``add`` their own.

    To ``disagree`` with a positive finding says that it is not there; with a negative one, that it is there.
    """

    finding: FindingName
    verdict: Verdict
    note: Annotated[str, Field(max_length=500)] = ""

    def says(self, machine: bool) -> bool:
        """Whether the doctor says that the finding is there, where the machine's statement was ``machine``."""
        return {"agree": machine, "disagree": not machine, "add": True}[self.verdict]


class Author(Schema):
    """The doctor who signed, by the key that they signed with."""

    id: str
    name: str
    facility: str
    role: AuthorRole


class NewOpinion(Schema):
    """What a doctor sends. Signing without judgements or text says: as the machine found it."""

    judgements: Annotated[tuple[Judgement, ...], Field(max_length=60)] = ()
    text: Annotated[str, Field(max_length=4000)] = ""
    advice: Advice | None = None
    referral: Annotated[str, Field(max_length=36, pattern=r"^[!-~]*$")] | None = None

    @field_validator("judgements")
    @classmethod
    def _each_finding_once(cls, judgements: tuple[Judgement, ...]) -> tuple[Judgement, ...]:
        if len({judgement.finding for judgement in judgements}) < len(judgements):
            raise PydanticCustomError("finding_twice", "each finding once", {"expected": "1 × finding"})
        return judgements

    def says(self, machine: Mapping[str, bool]) -> dict[str, bool]:
        """Whether each finding that the doctor speaks of is there, where the machine's statements were ``machine``.

        A finding that is there brings the one that it implies: who sees an effusion reads an abnormal film, also where
        they do not say so.
        """
        said = {each.finding: each.says(machine.get(each.finding, False)) for each in self.judgements}
        implied = {term_of(name).implies: True for name, is_there in said.items() if is_there}
        return said | {name: True for name in implied if name is not None}


class Opinion(NewOpinion):
    """A signed opinion.

    Parameters
    ----------
    number
        1 for the first; it makes version ``number + 1`` of the report.
    referral
        The question that it answers, where it is a specialist's.
    blind
        Whether it was written before its author was shown what the machine and others had found.
    """

    number: int
    author: Author
    signed_at: datetime
    blind: bool = False

    def answers(self, machine: Mapping[str, bool]) -> dict[str, bool]:
        """Whether each finding is there that can be seen on a film or a trace, by words or by silence.

        An author who saw the machine's findings and does not judge one agrees with the machine. One who read blind and
        does not name a finding says that it is absent.
        """
        judged = {name: positive for name, positive in machine.items() if name in VISIBLE}
        answers = dict.fromkeys(judged, False) if self.blind else judged
        answers |= {name: there for name, there in self.says(machine).items() if name in VISIBLE}
        implied = [term_of(name).implies for name, is_there in answers.items() if is_there]
        return {name: True for name in implied if name is not None} | answers
