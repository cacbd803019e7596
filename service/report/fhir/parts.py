"""The parts of which all resources of the FHIR document are made, and the list of these resources.

References
----------
FHIR R4 (4.0.1), http://hl7.org/fhir/R4: datatypes, narrative, bundle, references, extensibility.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from data_specs.visit.context import Person
from data_specs.visit.contract import Code
from data_specs.visit.report import Report, identifier
from data_specs.vocabulary import SYSTEMS, Language, display, terms
from service.language.texts import age, text
from service.report import words

Resource = dict[str, Any]

UCUM = "http://unitsofmeasure.org"
URI = "urn:ietf:rfc:3986"
"""System of an identifier that is a URI: ``urn:uuid:…``, ``urn:oid:…``."""
VISIT, SITE, SHA256 = "urn:sangloc:visit", "urn:sangloc:site", "urn:sangloc:sha256"
"""Our own identifier systems: of a visit, of a site's name, and of a file or model by its hash."""
IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"
TRANSLATION = "http://hl7.org/fhir/StructureDefinition/translation"

OBSERVATION_VALUE = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue"
AI_DEVICE = "http://hl7.org/fhir/uv/aitransparency/CodeSystem/AIdeviceTypeCS"
"""Kinds of devices of HL7's AI Transparency on FHIR, which is not published yet (read: the build 1.0.0-current)."""

LOINC_NAMES = {
    "47045-0": "Study report",
    "55110-1": "Conclusions",
    "59776-5": "Findings",
    "18776-5": "Plan of care note",
    "11488-4": "Consult note",
}
"""LOINC codes of the document and its sections.

References
----------
47045-0, 18776-5, 11488-4: FHIR R4 value set doc-typecodes. 55110-1, 59776-5: DICOM PS3.16, CID 7001.
"""

_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that a FHIR string and XML 1.0 do not allow."""


@dataclass
class Document:
    """A document that is being written. ``resources`` are its resources by ``fullUrl``, in order."""

    report: Report
    language: Language
    resources: dict[str, Resource] = field(default_factory=dict)

    def url(self, resource_type: str, *key: object) -> str:
        """``fullUrl`` of a resource, which depends on visit, version, type and ``key`` only."""
        parts = [printable(str(part)).replace("/", "%2F") for part in key]  # 'a/b', 'c' is not 'a', 'b/c'
        return identifier(self.report.visit, self.report.version, "fhir", resource_type, *parts).urn

    def put(self, resource_type: str, *key: object, says: Sequence[str], **members: Any) -> Resource:
        """Add a resource unless it is there already, and return the reference to it.

        Parameters
        ----------
        key
            What distinguishes it from other resources of its type.
        says
            Lines of its narrative.
        members
            Of the resource.
        """
        url = self.url(resource_type, *key)
        if url not in self.resources:
            self.resources[url] = {
                "resourceType": resource_type,
                "id": url.removeprefix("urn:uuid:"),
                "language": self.language,
                "text": narrative(says or [resource_type], self.language),
                **members,
            }
        return {"reference": url}

    @property
    def effective(self) -> str:
        """The day of the visit, or the moment at which it was received if the day is not known."""
        report = self.report
        return report.visited_on.isoformat() if report.visited_on else moment(report.received_at)

    @property
    def machine_status(self) -> str:
        """Status of the machine's resources: final once a doctor has signed the report, and never amended."""
        return "preliminary" if self.report.version == 1 else "final"


# ---------------------------------------------------------------- datatypes
def moment(at: datetime) -> str:
    """A FHIR instant in UTC. A time without a zone is in UTC."""
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def coding(system: str, code: str, shown: str = "") -> Resource:
    return {"system": system, "code": code, "display": shown}


def concept(name: str, language: Language, code: Code | None = None) -> Resource:
    """A term of the vocabulary as CodeableConcept: its text in ``language``, its display in English.

    The display in another language is in the standard's extension for translations.
    """
    term = terms().get(name)
    if code is None and term is not None:
        code = Code(system=term.system, code=term.code)
    shown = display(name, language)
    if code is None:
        return {"text": shown}
    coded = coding(code.system, code.code, display(name, "en"))
    if language != "en":
        translation = [{"url": "lang", "valueCode": language}, {"url": "content", "valueString": shown}]
        coded["_display"] = {"extension": [{"url": TRANSLATION, "extension": translation}]}
    return {"coding": [coded], "text": shown}


def loinc(code: str, title: str) -> Resource:
    """A code of :data:`LOINC_NAMES`, with the report's own words as text."""
    return {"coding": [coding(SYSTEMS["loinc"], code, LOINC_NAMES[code])], "text": title}


def asserted_by_ai() -> Resource:
    """The code for what a machine has made or changed.

    References
    ----------
    HL7 v3-ObservationValue, AIAST (Artificial Intelligence asserted); AI Transparency on FHIR, requirements (labeling).
    """
    return coding(OBSERVATION_VALUE, "AIAST", "Artificial Intelligence asserted")


def made_by_ai() -> Resource:
    """``Resource.meta`` of what the machine made: every receiver finds it there, whatever the resource is."""
    return {"security": [asserted_by_ai()]}


def artificial_intelligence() -> Resource:
    return {"coding": [coding(AI_DEVICE, "Artificial-Intelligence", "All kinds of Artificial Intelligence")]}


def placer(value: str) -> Resource:
    return {"type": {"coding": [coding(IDENTIFIER_TYPE, "PLAC", "Placer Identifier")]}, "value": value}


def accession(value: str) -> Resource:
    return {"type": {"coding": [coding(IDENTIFIER_TYPE, "ACSN", "Accession ID")]}, "value": value}


def number(value: float) -> float | int:
    """A number without a digit that was not measured: 104, not 104.0."""
    return int(value) if float(value).is_integer() and abs(value) < 1e15 else value


def distinct(references: Iterable[Resource]) -> list[Resource]:
    return list({each["reference"]: each for each in references}.values())


# ---------------------------------------------------------------- narrative
def narrative(lines: Iterable[str], language: Language) -> Resource:
    """The narrative of a resource: one paragraph for each line, in the XHTML that FHIR allows."""
    paragraphs = "".join(f"<p>{_escaped(line)}</p>" for line in lines if line.strip())
    namespace = f'xmlns="http://www.w3.org/1999/xhtml" lang="{language}" xml:lang="{language}"'
    return {"status": "generated", "div": f"<div {namespace}>{paragraphs or '<p>—</p>'}</div>"}


def _escaped(line: str) -> str:
    return html.escape(printable(line), quote=False).replace("\r\n", "\n").replace("\n", "<br/>")


def printable(words_: str) -> str:
    """Text that FHIR and XML allow. Each other character becomes U+FFFD, the replacement character."""
    return _FORBIDDEN.sub("\ufffd", words_)


def person_lines(person: Person, language: Language) -> list[str]:
    """Name; then number, birth date, age and sex, as far as they are known."""
    sex = text(f"sex_{person.sex}", language) if person.sex else ""
    born = person.birth_date.isoformat() if person.birth_date else ""
    years = age(person.age_years, language) if person.age_years is not None else ""
    return [person.name or "", " · ".join(each for each in (person.id, born, years, sex) if each)]


def priority_lines(report: Report, language: Language) -> list[str]:
    """The priority and its reasons."""
    reasons = " ".join(reason.message(language) for reason in report.priority_reasons)
    level = text(f"priority_{report.priority}", language)
    return [f"{words.say('priority', language)}: {level}. {reasons}".rstrip()]


# ---------------------------------------------------------------- empty members
def without_empty(value: Any) -> Any:
    """``value`` without empty members: FHIR allows no empty string, list or object and no null (ele-1)."""
    if isinstance(value, Mapping):
        kept = {name: without_empty(member) for name, member in value.items()}
        return {name: member for name, member in kept.items() if not _is_empty(member)}
    if isinstance(value, list | tuple):
        return [each for each in map(without_empty, value) if not _is_empty(each)]
    return printable(value).strip() if isinstance(value, str) else value


def _is_empty(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)
