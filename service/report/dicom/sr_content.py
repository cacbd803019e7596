"""The content tree of the report's SR: TID 1500, then sections of our own, which the template allows.

The observer of a finding is the machine, the observer of an opinion is the doctor who signed it. Concept names of the
standard's templates are in English as in the standard; terms, headings and sentences of the report are in the reader's
language.

References
----------
DICOM PS3.16 TID 1500 (extensible), 1002, 1204, 1600, 4019; PS3.3 A.35.3.3.1 (which item may follow which).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC
from typing import Any

from highdicom.sr import (
    CodedConcept,
    CompositeContentItem,
    ContainerContentItem,
    ContentItem,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    ObserverContext,
    WaveformContentItem,
)
from pydicom.sr.codedict import codes

from data_specs.dicom.reference import DicomReference
from data_specs.problems import Problem
from data_specs.visit.next_step import NextStep
from data_specs.visit.opinion import Author, Judgement, Opinion
from data_specs.visit.report import Report, ReportInput, uid
from data_specs.visit.result_assessment import assess_results
from data_specs.vocabulary import Language
from service.language.texts import opening, text
from service.report import words
from service.report.dicom.identity import MAKER, reference
from service.report.dicom.sr_findings import FindingGroups
from service.report.dicom.sr_items import (
    ACQUIRED,
    CONTAINS,
    CONTEXT,
    INFERRED,
    MODIFIER,
    PROPERTY,
    Concepts,
    algorithm,
    code_item,
    concept,
    is_image,
    is_waveform,
    no_units,
    number_item,
    own,
    person_item,
    section,
    text_item,
    under,
)
from service.report.dicom.values import author_name, short
from service.report.words import say

LANGUAGE_NAMES: dict[Language, str] = {"vi": "Vietnamese", "fr": "French", "en": "English"}
"""Meanings of RFC 5646 codes (PS3.16 CID 5000)."""

PROCEDURES = {
    "image": ("168537006", "SCT", "Plain radiography"),
    "ecg": ("268400002", "SCT", "12 lead electrocardiogram (procedure)"),
}
"""The procedure by the kind of file that was posted (SNOMED CT codes that PS3.16 lists)."""

FILM_MODALITIES = {"CR": "Computed Radiography", "DX": "Digital Radiography"}
"""PS3.16 CID 29."""


def content_of(report: Report, language: Language) -> ContainerContentItem:
    """The root of the content tree."""
    return _Content(report, language).root()


class _Content(Concepts):
    """All sections of one report in one language."""

    # ------------------------------------------------------------ the document
    def root(self) -> ContainerContentItem:
        """TID 1500."""
        root = section(concept("126000", "DCM", "Imaging Measurement Report"), None, "1500")
        parts: list[ContentItem] = [
            code_item(
                concept("121049", "DCM", "Language of Content Item and Descendants"), self.language_code(), MODIFIER
            ),
            *self.machine(),
            *(code_item(concept("121058", "DCM", "Procedure reported"), code, MODIFIER) for code in self.procedures()),
        ]
        films = self.films()
        if films:
            parts.append(films)
        groups = FindingGroups(self.report, self.language).groups()
        if groups:
            imaging = section(concept("126010", "DCM", "Imaging Measurements"))
            parts.append(under(imaging, (item for group in groups for item in group)))
        parts += [self.evaluations(), self.inputs(), *self.next_steps(), *self.opinions(), *self.models()]
        parts += [self.conclusions(), *self.notes()]
        return under(root, parts)

    def language_code(self) -> CodedConcept:
        return concept(self.language, "RFC5646", LANGUAGE_NAMES[self.language])

    def machine(self) -> list[ContentItem]:
        """The machine as observer (TID 1004). Each set of models is a device of its own."""
        device = uid("device", 1, *(model.sha256 for model in self.report.models))
        who = DeviceObserverIdentifyingAttributes(
            uid=device, name=MAKER, manufacturer_name=MAKER, physical_location=short(self.report.site) or None
        )
        context: Iterable[Any] = ObserverContext(codes.cid270.Device, who)
        return list(context)

    def procedures(self) -> list[CodedConcept]:
        fields = dict.fromkeys(each.field for each in self.report.inputs if each.accepted)
        return [self.own("screening"), *(concept(*PROCEDURES[field]) for field in fields)]

    def films(self) -> ContainerContentItem | None:
        """Image library (TID 1600, 1601) of the images that were posted as DICOM."""
        images: dict[str, ContentItem] = {}
        for posted in self.report.inputs:
            film = reference(self.report, posted.index)
            if film is None or not is_image(film) or film.SOPInstanceUID in images:
                continue
            source = concept("260753009", "SCT", "Source")
            item = ImageContentItem(source, film.SOPClassUID, film.SOPInstanceUID, relationship_type=CONTAINS)
            images[film.SOPInstanceUID] = under(item, self.film_descriptors(film))
        if not images:
            return None
        group = section(concept("126200", "DCM", "Image Library Group"))
        library = section(concept("111028", "DCM", "Image Library"))
        return under(library, [under(group, images.values())])

    def film_descriptors(self, film: DicomReference) -> list[ContentItem]:
        """Modality and size of a film from its header (TID 1602, 1603)."""
        descriptors: list[ContentItem] = []
        if film.Modality in FILM_MODALITIES:
            modality = concept(film.Modality, "DCM", FILM_MODALITIES[film.Modality])
            descriptors.append(code_item(concept("121139", "DCM", "Modality"), modality, ACQUIRED))
        pixels = concept("{pixels}", "UCUM", "pixels")
        sides = (("110910", "Pixel Data Rows", film.Rows), ("110911", "Pixel Data Columns", film.Columns))
        descriptors += [
            number_item(concept(code, "DCM", meaning), side, pixels, ACQUIRED) for code, meaning, side in sides if side
        ]
        return descriptors

    def evaluations(self) -> ContainerContentItem:
        """Priority, and for each organ whether it was assessed and why not (TID 1500 rows 12 to 14)."""
        box = section(concept("C0034375", "UMLS", "Qualitative Evaluations"))
        urgency = self.report.priority
        priority = code_item(
            concept("260870009", "SCT", say("priority", self.language)),
            own(urgency, text(f"priority_{urgency}", self.language)),
        )
        organs = []
        for name, organ in self.report.organs.items():
            item = code_item(self.term(name, organ.code), self.own(organ.status))
            organs.append(under(item, self.reasons(organ.reasons)))
        return under(box, [under(priority, self.reasons(self.report.priority_reasons)), *organs])

    def reasons(self, problems: Iterable[Problem]) -> list[ContentItem]:
        """A text for each reason, whose concept is the reason's code."""
        meaning = say("sr_reason", self.language)
        return [
            text_item(own(problem.code, meaning), opening(problem.message(self.language)), PROPERTY)
            for problem in problems
        ]

    # ------------------------------------------------------------ posted files and models
    def inputs(self) -> ContainerContentItem:
        """The posted files: status, problems, and the reference to the object in the hospital's archive."""
        box = section(own("inputs", say("section_inputs", self.language)))
        return under(box, map(self.input, self.report.inputs))

    def input(self, posted: ReportInput) -> ContentItem:
        properties: list[ContentItem] = [
            code_item(self.own("status"), self.own("accepted" if posted.accepted else "refused"), PROPERTY)
        ]
        if posted.format:
            properties.append(text_item(self.own("file_format"), posted.format, PROPERTY))
        properties.append(text_item(own("sha256", "SHA-256"), posted.sha256, PROPERTY))
        properties += self.reasons(posted.problems)
        given = reference(self.report, posted.index)
        if given is not None:
            kind = (
                WaveformContentItem
                if is_waveform(given)
                else ImageContentItem
                if is_image(given)
                else CompositeContentItem
            )
            source = concept("260753009", "SCT", "Source")
            properties.append(kind(source, given.SOPClassUID, given.SOPInstanceUID, relationship_type=INFERRED))
        return under(text_item(self.own("file"), posted.filename), properties)

    def models(self) -> Iterable[ContentItem]:
        """Every model that computed a part of the report (TID 4019)."""
        if not self.report.models:
            return
        box = section(own("models", say("section_models", self.language)))
        items = []
        for model in self.report.models:
            item = section(own("model", say("sr_model", self.language)))
            items.append(under(item, algorithm(model)))
        yield under(box, items)

    # ------------------------------------------------------------ next steps, opinions, conclusion
    def next_steps(self) -> Iterable[ContentItem]:
        if not self.report.next_steps:
            return
        box = section(concept("121074", "DCM", say("section_next_steps", self.language)))
        yield under(box, map(self.next_step, self.report.next_steps))

    def next_step(self, step: NextStep) -> ContentItem:
        advised = concept("121075", "DCM", say("sr_advice", self.language))
        properties: list[ContentItem] = [
            code_item(self.own("advice"), own(step.step, say(f"step_{step.step}", self.language)), PROPERTY),
            *(code_item(self.own("because"), self.named(name), PROPERTY) for name in step.because),
            text_item(self.own("source"), words.source_of(step, self.language), PROPERTY),
        ]
        return under(text_item(advised, words.next_step(step, self.language)), properties)

    def opinions(self) -> Iterable[ContentItem]:
        if not self.report.opinions:
            return
        box = section(own("opinions", say("section_opinions", self.language)))
        yield under(box, map(self.opinion, self.report.opinions))

    def opinion(self, opinion: Opinion) -> ContentItem:
        """A doctor's opinion, with that doctor as its observer (TID 1002)."""
        signature, *sentences = words.opinion_sentences(opinion, self.language)
        items = [*self.doctor(opinion.author), text_item(self.own("signature"), signature)]
        items += map(self.judgement, opinion.judgements)
        items += self.result_assessments(opinion)
        comment = concept("121106", "DCM", say("sr_note", self.language))
        if opinion.text:
            items.append(text_item(comment, opinion.text))
        elif not opinion.judgements and not opinion.advice:
            items += (text_item(comment, sentence) for sentence in sentences)
        if opinion.advice:
            advice = own(opinion.advice, say(f"step_{opinion.advice}", self.language))
            items.append(code_item(self.own("advice"), advice))
        if opinion.blind:
            items.append(code_item(self.own("reading"), own("blind", say("read_blind", self.language))))
        if opinion.referral:
            items.append(text_item(self.own("referral"), opinion.referral))
        # A text, because DCMTK 3.6.7 refuses a document with a DATETIME item in UTC.
        items.append(text_item(self.own("signed_at"), f"{opinion.signed_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"))
        box = section(own("opinion", say("sr_opinion", self.language)))
        return under(box, items)

    def result_assessments(self, opinion: Opinion) -> Iterable[ContentItem]:
        """Whether the doctor accepted, amended or rejected the machine's result for each organ."""
        outcomes = assess_results(self.report, opinion)
        if not outcomes:
            return
        box = section(own("ai_result", say("ai_result", self.language)))
        items = [
            code_item(
                self.term(organ, self.report.organs[organ].code), own(outcome, say(f"ai_{outcome}", self.language))
            )
            for organ, outcome in outcomes.items()
        ]
        yield under(box, items)

    def doctor(self, author: Author) -> list[ContentItem]:
        """A doctor as observer (TID 1003)."""
        role = own(author.role, say(f"role_{author.role}", self.language))
        person = concept("121006", "DCM", "Person")
        items = [
            code_item(concept("121005", "DCM", "Observer Type"), person, CONTEXT),
            person_item(concept("121008", "DCM", "Person Observer Name"), author_name(author)),
            text_item(concept("128774", "DCM", "Person Observer's Login Name"), author.id, CONTEXT),
        ]
        if author.facility:
            organization = concept("121009", "DCM", "Person Observer's Organization Name")
            items.append(text_item(organization, author.facility, CONTEXT))
        items.append(code_item(concept("121011", "DCM", "Person Observer's Role in this Procedure"), role, CONTEXT))
        return items

    def judgement(self, judgement: Judgement) -> ContentItem:
        """A doctor's verdict on a finding: the finding's concept with agree, disagree or add as its value."""
        verdict = own(judgement.verdict, say(f"verdict_{judgement.verdict}", self.language))
        item = code_item(self.named(judgement.finding), verdict)
        note = [text_item(self.own("note"), judgement.note, PROPERTY)] if judgement.note else []
        return under(item, note)

    def conclusions(self) -> ContainerContentItem:
        """The conclusion as a sentence, and each finding that holds after all opinions as a code."""
        box = section(concept("121076", "DCM", say("section_conclusion", self.language)))
        heading = concept("121077", "DCM", say("section_conclusion", self.language))
        findings = [code_item(heading, self.named(name)) for name in self.report.conclusions]
        return under(box, [text_item(heading, words.conclusion(self.report, self.language)), *findings])

    def notes(self) -> list[ContentItem]:
        """Reason for the order, version, status, and the sentence that this is decision support."""
        status, order = self.report.status, self.report.order
        items = [
            number_item(self.own("version"), self.report.version, no_units()),
            code_item(self.own("status"), own(status, say(f"status_{status}", self.language))),
            text_item(self.own("note"), say("decision_support", self.language)),
        ]
        if order and order.reason:
            items.insert(0, text_item(concept("121109", "DCM", "Indications for Procedure"), order.reason))
        return items
