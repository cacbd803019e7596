"""The content tree of the report's SR: TID 1500 with sections of our own behind it, which the template allows.

What the machine found stands under the machine as observer; an opinion stands under the doctor who signed it. Concept
names of the standard's own templates stay as the standard has them; the report's terms, headings and sentences are in
the reader's language.

References
----------
DICOM PS3.16 TID 1500 (extensible), 1501, 300, 1002, 1204, 1600, 4019; PS3.3 A.35.3.3.1 (which item may follow which).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from datetime import UTC
from typing import Any

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    CompositeContentItem,
    ContainerContentItem,
    ContentItem,
    DeviceObserverIdentifyingAttributes,
    FindingSite,
    ImageContentItem,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    ObserverContext,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
    WaveformContentItem,
)
from pydicom.sr.codedict import codes

from data_specs.dicom.reference import DicomReference
from data_specs.problems import Problem
from data_specs.visit.contract import Code, Organ
from data_specs.visit.opinion import Author, Judgement, Opinion
from data_specs.visit.report import NextStep, Report, ReportFinding, ReportInput, ReportOrgan, uid
from data_specs.vocabulary import Language, display, terms
from service.language.texts import measured, opening, text
from service.report import words
from service.report.dicom.identity import DESIGNATORS, MAKER, OWN_SCHEME, RADIOGRAPHS, reference
from service.report.dicom.sr_items import (
    ACQUIRED,
    CONTAINS,
    CONTEXT,
    INFERRED,
    MODIFIER,
    PROPERTY,
    algorithm,
    code_item,
    concept,
    measurement,
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

WAVEFORMS = "1.2.840.10008.5.1.4.1.1.9."
CAPTURES = "1.2.840.10008.5.1.4.1.1.7"
"""How SOP classes of waveforms and of secondary captures begin (PS3.4 table B.5-1)."""

PROCEDURES = {
    "image": ("168537006", "SCT", "Plain radiography"),
    "ecg": ("268400002", "SCT", "12 lead electrocardiogram (procedure)"),
}
"""What was done, by the kind of file that shows it (SNOMED CT as PS3.16 lists it)."""

FILM_MODALITIES = {"CR": "Computed Radiography", "DX": "Digital Radiography"}
"""PS3.16 CID 29."""


def content_of(report: Report, language: Language) -> ContainerContentItem:
    """The root of the content tree."""
    return _Writer(report, language).root()


class _Writer:
    """Content items of one report in one language."""

    def __init__(self, report: Report, language: Language) -> None:
        self.report = report
        self.language = language

    # ------------------------------------------------------------ the document
    def root(self) -> ContainerContentItem:
        """TID 1500."""
        root = section(concept("126000", "DCM", "Imaging Measurement Report"), None, "1500")
        parts: list[ContentItem] = [
            code_item(concept("121049", "DCM", "Language of Content Item and Descendants"), self.spoken(), MODIFIER),
            *self.machine(),
            *(code_item(concept("121058", "DCM", "Procedure reported"), each, MODIFIER) for each in self.procedures()),
        ]
        films = self.films()
        if films:
            parts.append(films)
        groups = [*self.organ_groups(), *map(self.finding_group, self.report.findings)]
        if groups:
            imaging = section(concept("126010", "DCM", "Imaging Measurements"))
            parts.append(under(imaging, (item for group in groups for item in group)))
        parts += [self.evaluations(), self.inputs(), *self.next_steps(), *self.opinions(), *self.models()]
        parts += [self.conclusions(), *self.notes()]
        return under(root, parts)

    def spoken(self) -> CodedConcept:
        return concept(self.language, "RFC5646", LANGUAGE_NAMES[self.language])

    def machine(self) -> list[ContentItem]:
        """The machine as observer (TID 1004); another set of models is another device."""
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
        """Image library (TID 1600, 1601) of what came as DICOM."""
        images: dict[str, ContentItem] = {}
        for each in self.report.inputs:
            film = reference(self.report, each.index)
            if film is None or not _is_image(film) or film.SOPInstanceUID in images:
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
        """TID 1602, 1603: what the file's header says of the film."""
        described: list[ContentItem] = []
        if film.Modality in FILM_MODALITIES:
            modality = concept(film.Modality, "DCM", FILM_MODALITIES[film.Modality])
            described.append(code_item(concept("121139", "DCM", "Modality"), modality, ACQUIRED))
        pixels = concept("{pixels}", "UCUM", "pixels")
        sides = (("110910", "Pixel Data Rows", film.Rows), ("110911", "Pixel Data Columns", film.Columns))
        described += [
            number_item(concept(code, "DCM", meaning), side, pixels, ACQUIRED) for code, meaning, side in sides if side
        ]
        return described

    # ------------------------------------------------------------ what the machine found
    def organ_groups(self) -> Iterable[MeasurementsAndQualitativeEvaluations]:
        for name, organ in self.report.organs.items():
            if organ.status == "assessed" and (organ.risk is not None or organ.category is not None):
                yield self.organ_group(name, organ)

    def organ_group(self, name: Organ, organ: ReportOrgan) -> MeasurementsAndQualitativeEvaluations:
        """An organ's risk and category (TID 1501)."""
        measurements, evaluations = [], []
        if organ.risk is not None:
            measurements.append(measurement(self.own("risk"), organ.risk, no_units()))
        if organ.category is not None:
            category = own(organ.category, text(f"category_{organ.category}", self.language))
            evaluations.append(QualitativeEvaluation(self.own("category"), category))
        concept_of_organ = self.term(name, organ.code)
        return self.group(name, name, concept_of_organ, measurements=measurements, qualitative_evaluations=evaluations)

    def finding_group(self, finding: ReportFinding) -> MeasurementsAndQualitativeEvaluations:
        """One finding (TID 1501): its probability with its operating point, or its value with its unit."""
        named = self.term(finding.name, finding.code)
        measurements = []
        evaluations = []
        texts: list[ContentItem] = []
        if finding.probability is not None:
            measurements.append(self.probability(finding, finding.probability))
        elif isinstance(finding.value, float) and math.isfinite(finding.value):
            measurements.append(measurement(named, finding.value, self.unit(finding)))
        elif isinstance(finding.value, str) and finding.value in terms():
            evaluations.append(QualitativeEvaluation(named, self.named(finding.value)))
        elif finding.value is not None:
            texts.append(text_item(named, str(finding.value)))
        if finding.positive is not None:
            judged = ("10828004", "positive") if finding.positive else ("260385009", "negative")
            result = concept(judged[0], "SCT", say(f"sr_{judged[1]}", self.language))
            evaluations.append(QualitativeEvaluation(self.own("result"), result))
        group = self.group(
            finding.name, finding.organ, named, measurements=measurements, qualitative_evaluations=evaluations
        )
        sentences = filter(
            None, [words.finding_sentence(finding, self.language), words.point_sentence(finding, self.language)]
        )
        texts.append(text_item(concept("121106", "DCM", say("sr_note", self.language)), "; ".join(sentences)))
        shown = dict.fromkeys(each.input for each in finding.evidence)
        group[0].ContentSequence.extend([*texts, *(item for index in shown for item in self.source(index))])
        return group

    def group(
        self,
        name: str,
        organ: Organ,
        named: CodedConcept,
        *,
        measurements: list[Measurement],
        qualitative_evaluations: list[QualitativeEvaluation],
    ) -> MeasurementsAndQualitativeEvaluations:
        tracked = TrackingIdentifier(uid=uid(self.report.visit, 1, "tracking", name), identifier=name)
        site = FindingSite(self.term(organ, self.report.organs[organ].code))
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracked,
            finding_type=named,
            finding_sites=[site],
            algorithm_id=self.algorithm_of(organ),
            measurements=measurements,
            qualitative_evaluations=qualitative_evaluations,
        )

    def probability(self, finding: ReportFinding, probability: float) -> Measurement:
        """The probability, and under it what the threshold is and what was seen of it in which cohort."""
        name = "bare_output" if finding.calibrated is False else "probability"
        properties: list[ContentItem] = []
        point = finding.operating_point
        if point is not None:
            shares = {"threshold": point.threshold, "sensitivity": point.sensitivity, "specificity": point.specificity}
            properties += [
                number_item(self.own(key), share, no_units(), PROPERTY)
                for key, share in shares.items()
                if share is not None
            ]
            properties.append(text_item(self.own("operating_point"), point.name, PROPERTY))
            properties.append(text_item(self.own("cohort"), point.cohort, PROPERTY))
        return measurement(self.own(name), probability, no_units(), properties)

    def source(self, index: int) -> list[ContentItem]:
        """The image or recording that the evidence lies on, where it came as DICOM."""
        given = reference(self.report, index)
        if given is None:
            return []
        instance = given.SOPClassUID, given.SOPInstanceUID
        if _is_image(given):
            return [SourceImageForMeasurementGroup(*instance)]
        if given.SOPClassUID.startswith(WAVEFORMS):
            return [WaveformContentItem(self.own("evidence"), *instance, relationship_type=CONTAINS)]
        return []

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
        """One sentence for each reason, under its code."""
        named = say("sr_reason", self.language)
        return [text_item(own(each.code, named), opening(each.message(self.language)), PROPERTY) for each in problems]

    # ------------------------------------------------------------ what it was found in, and with what
    def inputs(self) -> ContainerContentItem:
        """What was looked at, how good it was, and where it lies in the hospital's archive."""
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
            wave, image = given.SOPClassUID.startswith(WAVEFORMS), _is_image(given)
            kind = WaveformContentItem if wave else ImageContentItem if image else CompositeContentItem
            source = concept("260753009", "SCT", "Source")
            properties.append(kind(source, given.SOPClassUID, given.SOPInstanceUID, relationship_type=INFERRED))
        return under(text_item(self.own("file"), posted.filename), properties)

    def models(self) -> Iterable[ContentItem]:
        """Every model that had a part in it (TID 4019)."""
        if not self.report.models:
            return
        box = section(own("models", say("section_models", self.language)))
        items = []
        for model in self.report.models:
            item = section(own("model", say("sr_model", self.language)))
            items.append(under(item, algorithm(model)))
        yield under(box, items)

    def algorithm_of(self, organ: Organ) -> AlgorithmIdentification | None:
        """The organ's model, where the report has one of its name."""
        found = [model for model in self.report.models if model.name == organ]
        return algorithm(found[0]) if len(found) == 1 else None

    # ------------------------------------------------------------ what follows, and what doctors say
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
            text_item(self.own("source"), step.source, PROPERTY),
        ]
        return under(text_item(advised, words.next_step(step, self.language)), properties)

    def opinions(self) -> Iterable[ContentItem]:
        if not self.report.opinions:
            return
        box = section(own("opinions", say("section_opinions", self.language)))
        yield under(box, map(self.opinion, self.report.opinions))

    def opinion(self, opinion: Opinion) -> ContentItem:
        """A doctor's opinion, with that doctor as its observer (TID 1002)."""
        signature, *said = words.opinion_sentences(opinion, self.language)
        items = [*self.doctor(opinion.author), text_item(self.own("signature"), signature)]
        items += map(self.judgement, opinion.judgements)
        comment = concept("121106", "DCM", say("sr_note", self.language))
        if opinion.text:
            items.append(text_item(comment, opinion.text))
        elif not opinion.judgements and not opinion.advice:
            items += (text_item(comment, sentence) for sentence in said)
        if opinion.advice:
            advice = own(opinion.advice, say(f"step_{opinion.advice}", self.language))
            items.append(code_item(self.own("advice"), advice))
        if opinion.blind:
            items.append(code_item(self.own("reading"), own("blind", say("read_blind", self.language))))
        if opinion.referral:
            items.append(text_item(self.own("referral"), opinion.referral))
        # no DATETIME item: DCMTK 3.6.7 refuses a document with one in UTC; VerificationDateTime has it typed
        items.append(text_item(self.own("signed_at"), f"{opinion.signed_at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"))
        box = section(own("opinion", say("sr_opinion", self.language)))
        return under(box, items)

    def doctor(self, author: Author) -> list[ContentItem]:
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
        """What a doctor says of a finding: the finding's concept, and agree, disagree or add."""
        verdict = own(judgement.verdict, say(f"verdict_{judgement.verdict}", self.language))
        item = code_item(self.named(judgement.finding), verdict)
        note = [text_item(self.own("note"), judgement.note, PROPERTY)] if judgement.note else []
        return under(item, note)

    def conclusions(self) -> ContainerContentItem:
        """The sentence, and the findings that stand as codes."""
        box = section(concept("121076", "DCM", say("section_conclusion", self.language)))
        heading = concept("121077", "DCM", say("section_conclusion", self.language))
        standing = [code_item(heading, self.named(name)) for name in self.report.conclusions]
        return under(box, [text_item(heading, words.conclusion(self.report, self.language)), *standing])

    def notes(self) -> list[ContentItem]:
        """Why it was asked for, version and status, and that it is decision support."""
        status, order = self.report.status, self.report.order
        items = [
            number_item(self.own("version"), self.report.version, no_units()),
            code_item(self.own("status"), own(status, say(f"status_{status}", self.language))),
            text_item(self.own("note"), say("decision_support", self.language)),
        ]
        if order and order.reason:
            items.insert(0, text_item(concept("121109", "DCM", "Indications for Procedure"), order.reason))
        return items

    # ------------------------------------------------------------ items
    def own(self, key: str) -> CodedConcept:
        """One of our own concepts, by the key of its name in ``words.toml``."""
        return own(key, say(f"sr_{key}", self.language))

    def term(self, name: str, code: Code) -> CodedConcept:
        """A term by the code that the report has for it."""
        return concept(code.code, DESIGNATORS.get(code.system, OWN_SCHEME), display(name, self.language))

    def named(self, name: str) -> CodedConcept:
        """A term by its name; what is no term is one of our own under its own name."""
        term = terms().get(name)
        return own(name, name) if term is None else self.term(name, Code(system=term.system, code=term.code))

    def unit(self, finding: ReportFinding) -> CodedConcept:
        """A UCUM unit, with the spelling that readers of the language know."""
        if not finding.unit:
            return no_units()
        return concept(finding.unit, "UCUM", measured(0.0, finding.unit, self.language)[1])


def _is_image(given: DicomReference) -> bool:
    return given.SOPClassUID.startswith(CAPTURES) or given.SOPClassUID in RADIOGRAPHS
