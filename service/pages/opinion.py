"""What a doctor has typed into the opinion's form, as the form has it and as the opinion that it means."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError
from starlette.datastructures import FormData

from data_specs.visit.contract import Finding
from data_specs.visit.opinion import Judgement, NewOpinion
from data_specs.visit.teaching import NewReading
from service.errors import FieldFault, InvalidRequest
from service.faults import field_faults
from service.keys import MAX_LABEL, Key

VERDICT, SURE = "verdict:", "confidence:"
MAX_FIELDS = 100
"""Of a form that is given back; the page's own has about half as many."""


@dataclass(frozen=True, slots=True)
class Typed:
    """The fields of the form, also those that cannot be signed: a form that is refused comes back as it was typed.

    Parameters
    ----------
    read
        Version of the report that the doctor has read; 0 where the form does not say it.
    verdicts
        Verdict by finding; without those on which the doctor has no word.
    added
        Findings that the doctor has ticked.
    signer
        Name of the person, asked for where the key has none.
    confidence
        Step of confidence by finding, for a case to learn from.
    """

    read: int = 0
    verdicts: Mapping[str, str] = field(default_factory=dict)
    added: tuple[str, ...] = ()
    text: str = ""
    advice: str = ""
    referral: str = ""
    signer: str = ""
    confidence: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, form: FormData) -> Typed:
        given = [(name, value) for name, value in form.multi_items() if isinstance(value, str)][:MAX_FIELDS]
        version = str(form.get("version", ""))
        is_number = version.isascii() and version.isdigit() and len(version) < 10
        one = {name: str(form.get(name) or "").strip() for name in ("text", "advice", "referral", "signer")}
        return cls(
            read=int(version) if is_number else 0,
            verdicts={name.removeprefix(VERDICT): v for name, v in given if name.startswith(VERDICT) and v},
            added=tuple(dict.fromkeys(value for name, value in given if name == "add")),
            confidence={name.removeprefix(SURE): v for name, v in given if name.startswith(SURE) and v},
            **one,
        )

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Names and values, for a form that carries them unseen."""
        named = [("text", self.text), ("advice", self.advice), ("referral", self.referral), ("signer", self.signer)]
        verdicts = [(f"{VERDICT}{name}", verdict) for name, verdict in self.verdicts.items()]
        sure = [(f"{SURE}{name}", step) for name, step in self.confidence.items()]
        return [("version", str(self.read)), *verdicts, *(("add", name) for name in self.added), *sure, *named]

    def seen_with(self, judged: Iterable[Finding]) -> Typed:
        """The same, where the machine's verdicts have come into view meanwhile: a tick becomes a word on them."""
        machine = {finding.name: finding.positive for finding in judged if finding.name in self.added}
        words = {name: "agree" if positive else "disagree" for name, positive in machine.items()}
        return replace(
            self, verdicts={**words, **self.verdicts}, added=tuple(name for name in self.added if name not in machine)
        )

    def opinion(self) -> NewOpinion:
        """The opinion that it means.

        Raises
        ------
        InvalidRequest
            The form has something that the page does not offer.
        """
        judgements = [{"finding": name, "verdict": verdict} for name, verdict in self.verdicts.items()]
        judgements += [{"finding": name, "verdict": "add"} for name in self.added]
        given = {
            "judgements": tuple(checked(Judgement, each) for each in judgements),
            "text": self.text,
            "advice": self.advice or None,
            "referral": self.referral or None,
        }
        opinion: NewOpinion = checked(NewOpinion, given)
        return opinion

    def reading(self) -> NewReading:
        """The reading of a case that it means.

        Raises
        ------
        InvalidRequest
            The form has something that the page does not offer.
        """
        given = {
            "judgements": tuple(checked(Judgement, {"finding": name, "verdict": "add"}) for name in self.added),
            "text": self.text,
            "advice": self.advice or None,
            "confidence": {name: int(step) if step.isdecimal() else step for name, step in self.confidence.items()},
        }
        reading: NewReading = checked(NewReading, given)
        return reading

    def name(self, key: Key) -> str:
        """The name of the person who signs: the key's, or else what they have typed.

        Raises
        ------
        InvalidRequest
            The key has no name, and none was typed that can stand in a report.
        """
        name = key.label or " ".join(self.signer.split())
        if not name:
            raise InvalidRequest(FieldFault("signer", "field_missing"))
        if len(name) > MAX_LABEL or not name.isprintable():
            raise InvalidRequest(FieldFault("signer", "field_invalid", f"≤ {MAX_LABEL} × U+"))
        return name


def typed_of(opinion: NewOpinion) -> str:
    """What was typed for an opinion, in one order: ``draft.js`` compares it with what it has kept."""
    fields = [
        ("add", each.finding) if each.verdict == "add" else (f"{VERDICT}{each.finding}", each.verdict)
        for each in opinion.judgements
    ]
    fields += [("text", opinion.text), ("advice", opinion.advice or "")]
    return "\n".join(sorted(f"{name}={value}" for name, value in fields if value))


def checked(kind: Any, given: dict[str, Any]) -> Any:
    """A document of ``kind`` made of fields of a form.

    Raises
    ------
    InvalidRequest
    """
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        raise InvalidRequest(*field_faults(error.errors(include_url=False))) from None
