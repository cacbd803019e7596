"""Content items and concepts of an SR, the parts of the content tree. Importing this module loads highdicom."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from highdicom.sr import (
    AlgorithmIdentification,
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    Measurement,
    NumContentItem,
    PnameContentItem,
    TextContentItem,
)
from pydicom.valuerep import PersonName

from data_specs.dicom.reference import CAPTURE_CLASS_PREFIX, RADIOGRAPH_CLASSES, WAVEFORM_CLASS_PREFIX, DicomReference
from data_specs.visit.contract import Code, ModelUsed
from data_specs.visit.report import Report, ReportFinding
from data_specs.vocabulary import Language, display, terms
from service.language.texts import measured
from service.report.dicom.identity import DESIGNATORS, MAKER, OWN_SCHEME
from service.report.dicom.values import line, paragraph, short
from service.report.words import say

CONTAINS, CONTEXT, MODIFIER, PROPERTY = "CONTAINS", "HAS OBS CONTEXT", "HAS CONCEPT MOD", "HAS PROPERTIES"
INFERRED, ACQUIRED = "INFERRED FROM", "HAS ACQ CONTEXT"
"""Relationship types (PS3.3 C.17.3.2.4)."""

Item = TypeVar("Item")


def concept(value: str, scheme: str, meaning: str) -> CodedConcept:
    """A coded concept. highdicom puts a value of more than 16 characters into LongCodeValue (PS3.3 section 8.8)."""
    return CodedConcept(line(value), scheme, short(meaning) or "—")


def own(code: str, meaning: str) -> CodedConcept:
    """A code of our own scheme."""
    return concept(code, OWN_SCHEME, meaning)


def no_units() -> CodedConcept:
    """The unit of a bare number (PS3.16 CID 82)."""
    return concept("1", "UCUM", "no units")


def section(name: CodedConcept, relation: str | None = CONTAINS, template: str | None = None) -> ContainerContentItem:
    """A container. ``relation`` is ``None`` for the root."""
    return ContainerContentItem(name, is_content_continuous=False, template_id=template, relationship_type=relation)


def code_item(name: CodedConcept, value: CodedConcept, relation: str = CONTAINS) -> ContentItem:
    return CodeContentItem(name, value, relation)


def text_item(name: CodedConcept, value: str, relation: str = CONTAINS) -> ContentItem:
    return TextContentItem(name, paragraph(value), relation)


def number_item(name: CodedConcept, value: float, unit: CodedConcept, relation: str = CONTAINS) -> ContentItem:
    item = NumContentItem(name, value, unit, relationship_type=relation)
    if isinstance(value, int):
        item.MeasuredValueSequence[0].NumericValue = str(value)  # highdicom would write 3 as 3.0
    return item


def measurement(
    name: CodedConcept, value: float, unit: CodedConcept, properties: Iterable[ContentItem] = ()
) -> Measurement:
    """A measurement (TID 300) with its properties."""
    made = Measurement(name, value, unit)
    under(made[0], properties)
    return made


def person_item(name: CodedConcept, person: str) -> ContentItem:
    # Set afterwards, because highdicom warns of a name in one component.
    item = PnameContentItem(name, "^", CONTEXT)
    item.PersonName = PersonName(person)
    return item


def algorithm(model: ModelUsed) -> AlgorithmIdentification:
    """Name, version and hash of a model (TID 4019)."""
    name, version = paragraph(model.name), paragraph(model.version)
    return AlgorithmIdentification(name, version, [paragraph(f"sha256={model.sha256}")], manufacturer=MAKER)


def under(item: Item, items: Iterable[Any]) -> Item:
    """``item`` with ``items`` as its content; without a content sequence if there are none."""
    found = list(items)
    if found:
        setattr(item, "ContentSequence", found)  # noqa: B010  pydicom takes more than its types say
    return item


def is_waveform(given: DicomReference) -> bool:
    return given.SOPClassUID.startswith(WAVEFORM_CLASS_PREFIX)


def is_image(given: DicomReference) -> bool:
    return given.SOPClassUID.startswith(CAPTURE_CLASS_PREFIX) or given.SOPClassUID in RADIOGRAPH_CLASSES


class Concepts:
    """Coded concepts of one report, named in one language."""

    def __init__(self, report: Report, language: Language) -> None:
        self.report = report
        self.language = language

    def own(self, key: str) -> CodedConcept:
        """A concept of our own, named by the sentence ``sr_{key}`` of ``words.toml``."""
        return own(key, say(f"sr_{key}", self.language))

    def term(self, name: str, code: Code) -> CodedConcept:
        """A term of the vocabulary with the code that the report has for it."""
        return concept(code.code, DESIGNATORS.get(code.system, OWN_SCHEME), display(name, self.language))

    def named(self, name: str) -> CodedConcept:
        """A term of the vocabulary by its name; a concept of our own if the vocabulary has no such term."""
        term = terms().get(name)
        return own(name, name) if term is None else self.term(name, Code(system=term.system, code=term.code))

    def unit(self, finding: ReportFinding) -> CodedConcept:
        """The UCUM unit of a finding, spelled as in the language."""
        if not finding.unit:
            return no_units()
        return concept(finding.unit, "UCUM", measured(0.0, finding.unit, self.language)[1])
