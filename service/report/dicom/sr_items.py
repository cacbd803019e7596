"""Content items of an SR, as the report's tree is put together from them. Importing this loads highdicom."""

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

from data_specs.visit.contract import ModelUsed
from service.report.dicom.identity import MAKER, OWN_SCHEME
from service.report.dicom.values import line, paragraph, short

CONTAINS, CONTEXT, MODIFIER, PROPERTY = "CONTAINS", "HAS OBS CONTEXT", "HAS CONCEPT MOD", "HAS PROPERTIES"
INFERRED, ACQUIRED = "INFERRED FROM", "HAS ACQ CONTEXT"
"""Relationship types (PS3.3 C.17.3.2.4)."""

Item = TypeVar("Item")


def concept(value: str, scheme: str, meaning: str) -> CodedConcept:
    """A code; a value of more than 16 characters goes into LongCodeValue (PS3.3 section 8.8)."""
    return CodedConcept(line(value), scheme, short(meaning) or "—")


def own(code: str, meaning: str) -> CodedConcept:
    """A code of our own scheme."""
    return concept(code, OWN_SCHEME, meaning)


def no_units() -> CodedConcept:
    """The unit of a bare number (PS3.16 CID 82)."""
    return concept("1", "UCUM", "no units")


def section(name: CodedConcept, relation: str | None = CONTAINS, template: str | None = None) -> ContainerContentItem:
    """A container; without a relationship, the root."""
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


def person_item(name: CodedConcept, said: str) -> ContentItem:
    # highdicom warns of a name in one component, which is what is known of it
    item = PnameContentItem(name, "^", CONTEXT)
    item.PersonName = PersonName(said)
    return item


def algorithm(model: ModelUsed) -> AlgorithmIdentification:
    """TID 4019."""
    name, version = paragraph(model.name), paragraph(model.version)
    return AlgorithmIdentification(name, version, [paragraph(f"sha256={model.sha256}")], manufacturer=MAKER)


def under(item: Item, items: Iterable[Any]) -> Item:
    """``item`` with items under it; no sequence where there are none."""
    found = list(items)
    if found:
        setattr(item, "ContentSequence", found)  # noqa: B010  pydicom takes more than its types say
    return item
