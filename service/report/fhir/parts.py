"""What every resource of the FHIR document is made of: identifiers, codes, narrative, and the list that they stand in.

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
"""System of identifiers that are URIs themselves: ``urn:uuid:…``, ``urn:oid:…``."""
VISIT, SITE, SHA256 = "urn:sangloc:visit", "urn:sangloc:site", "urn:sangloc:sha256"
"""Our own systems of identifiers: a visit, a site by the name that the programme gave it, a content by its hash."""
IDENTIFIER_TYPE = "http://terminology.hl7.org/CodeSystem/v2-0203"
TRANSLATION = "http://hl7.org/fhir/StructureDefinition/translation"

LOINC_NAMES = {
    "47045-0": "Study report",
    "55110-1": "Conclusions",
    "59776-5": "Findings",
    "18776-5": "Plan of care note",
    "11488-4": "Consult note",
}
"""LOINC of the document and its sections, that are no findings.

References
----------
47045-0, 18776-5, 11488-4: FHIR R4 value set doc-typecodes. 55110-1, 59776-5: DICOM PS3.16, CID 7001.
"""

_FORBIDDEN = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What neither a FHIR string nor XML 1.0 can carry."""


@dataclass
class Document:
    """The document while it is written: its resources by their ``fullUrl``, in order."""

    report: Report
    language: Language
    resources: dict[str, Resource] = field(default_factory=dict)

    def url(self, resource_type: str, *key: object) -> str:
        """The same for the same part of the same version, whenever it is rendered."""
        parts = [printable(str(part)).replace("/", "%2F") for part in key]  # 'a/b', 'c' is not 'a', 'b/c'
        return identifier(self.report.visit, self.report.version, "fhir", resource_type, *parts).urn

    def put(self, resource_type: str, *key: object, says: Sequence[str], **members: Any) -> Resource:
        """Add a resource, once, with its words; returns the reference to it."""
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
        """When the person was seen: the day that was given, else the moment at which the visit came."""
        report = self.report
        return report.visited_on.isoformat() if report.visited_on else moment(report.received_at)

    @property
    def machine_status(self) -> str:
        """Of what the machine computed: it is never amended, a doctor signs the report that it stands in."""
        return "preliminary" if self.report.version == 1 else "final"


# ---------------------------------------------------------------- datatypes
def moment(at: datetime) -> str:
    """A FHIR instant in UTC; a time without a zone is UTC already."""
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")


def coding(system: str, code: str, shown: str = "") -> Resource:
    return {"system": system, "code": code, "display": shown}


def concept(name: str, language: Language, code: Code | None = None) -> Resource:
    """A term of the vocabulary: coded, its display in English as the code systems have it, its text in ``language``.

    The display in another language travels in the standard's extension for translations.
    """
    term = terms().get(name)
    if code is None and term is not None:
        code = Code(system=term.system, code=term.code)
    shown = display(name, language)
    if code is None:
        return {"text": shown}
    coded = coding(code.system, code.code, display(name, "en"))
    if language != "en":
        said = [{"url": "lang", "valueCode": language}, {"url": "content", "valueString": shown}]
        coded["_display"] = {"extension": [{"url": TRANSLATION, "extension": said}]}
    return {"coding": [coded], "text": shown}


def loinc(code: str, said: str) -> Resource:
    """A code of :data:`LOINC_NAMES`, with the report's own words for it."""
    return {"coding": [coding(SYSTEMS["loinc"], code, LOINC_NAMES[code])], "text": said}


def placer(value: str) -> Resource:
    return {"type": {"coding": [coding(IDENTIFIER_TYPE, "PLAC", "Placer Identifier")]}, "value": value}


def accession(value: str) -> Resource:
    return {"type": {"coding": [coding(IDENTIFIER_TYPE, "ACSN", "Accession ID")]}, "value": value}


def number(value: float) -> float | int:
    """As JSON writes it without a digit that nobody measured: 104, not 104.0."""
    return int(value) if float(value).is_integer() and abs(value) < 1e15 else value


def distinct(references: Iterable[Resource]) -> list[Resource]:
    return list({each["reference"]: each for each in references}.values())


# ---------------------------------------------------------------- narrative
def narrative(lines: Iterable[str], language: Language) -> Resource:
    """The words of a resource, one paragraph a line, as the XHTML that FHIR allows."""
    paragraphs = "".join(f"<p>{_escaped(line)}</p>" for line in lines if line.strip())
    namespace = f'xmlns="http://www.w3.org/1999/xhtml" lang="{language}" xml:lang="{language}"'
    return {"status": "generated", "div": f"<div {namespace}>{paragraphs or '<p>—</p>'}</div>"}


def _escaped(line: str) -> str:
    return html.escape(printable(line), quote=False).replace("\r\n", "\n").replace("\n", "<br/>")


def printable(words_: str) -> str:
    """Text as FHIR and XML can carry it; a control character becomes the mark for what could not be written."""
    return _FORBIDDEN.sub("\ufffd", words_)


def person_lines(person: Person, language: Language) -> list[str]:
    """Who: the name, then what else is known."""
    sex = text(f"sex_{person.sex}", language) if person.sex else ""
    born = person.birth_date.isoformat() if person.birth_date else ""
    years = age(person.age_years, language) if person.age_years is not None else ""
    return [person.name or "", " · ".join(each for each in (person.id, born, years, sex) if each)]


def priority_lines(report: Report, language: Language) -> list[str]:
    reasons = " ".join(problem.message(language) for problem in report.priority_reasons)
    level = text(f"priority_{report.priority}", language)
    return [f"{words.say('priority', language)}: {level}. {reasons}".rstrip()]


# ---------------------------------------------------------------- last of all
def without_empty(value: Any) -> Any:
    """The same without the members that say nothing: FHIR knows no empty string, list, object or null (ele-1)."""
    if isinstance(value, Mapping):
        kept = {name: without_empty(member) for name, member in value.items()}
        return {name: member for name, member in kept.items() if not _says_nothing(member)}
    if isinstance(value, list | tuple):
        return [each for each in map(without_empty, value) if not _says_nothing(each)]
    return printable(value).strip() if isinstance(value, str) else value


def _says_nothing(value: Any) -> bool:
    return value is None or (isinstance(value, str | list | dict) and not value)
