"""The findings in the report's SR: a measurement group for each organ and each finding.

References
----------
DICOM PS3.16 TID 1501 (measurement group), 300 (measurement), 4019 (algorithm identification).
"""

from __future__ import annotations

import math

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ContentItem,
    FindingSite,
    Measurement,
    MeasurementsAndQualitativeEvaluations,
    QualitativeEvaluation,
    SourceImageForMeasurementGroup,
    TrackingIdentifier,
    WaveformContentItem,
)

from data_specs.visit.contract import Organ
from data_specs.visit.report import ReportFinding, ReportOrgan, uid
from data_specs.vocabulary import terms
from service.language.texts import category_words
from service.report import words
from service.report.dicom.identity import reference
from service.report.dicom.sr_items import (
    CONTAINS,
    PROPERTY,
    Concepts,
    algorithm,
    concept,
    is_image,
    is_waveform,
    measurement,
    no_units,
    number_item,
    own,
    text_item,
)
from service.report.words import say


class FindingGroups(Concepts):
    """The measurement groups of one report in one language."""

    def groups(self) -> list[MeasurementsAndQualitativeEvaluations]:
        """A measurement group for each organ that has a risk or a category, then one for each finding."""
        organs = [
            self.organ_group(name, organ)
            for name, organ in self.report.organs.items()
            if organ.status == "assessed" and (organ.risk is not None or organ.category is not None or organ.looked_for)
        ]
        return [*organs, *map(self.finding_group, self.report.findings)]

    def organ_group(self, name: Organ, organ: ReportOrgan) -> MeasurementsAndQualitativeEvaluations:
        """An organ's risk and category (TID 1501)."""
        measurements, evaluations = [], []
        if organ.risk is not None:
            measurements.append(measurement(self.own("risk"), organ.risk, no_units()))
        if organ.category is not None:
            category = own(organ.category, category_words(name, organ.category, self.language))
            evaluations.append(QualitativeEvaluation(self.own("category"), category))
        concept_of_organ = self.term(name, organ.code)
        group = self.group(name, name, concept_of_organ, measurements=measurements, qualitative_evaluations=evaluations)
        basis = [organ.category_basis.message(self.language)] if organ.category_basis else []
        note = concept("121106", "DCM", say("sr_note", self.language))
        sentences = [*basis, *words.sought(organ, self.language)]
        group[0].ContentSequence.extend(text_item(note, sentence) for sentence in sentences)
        return group

    def finding_group(self, finding: ReportFinding) -> MeasurementsAndQualitativeEvaluations:
        """A finding: its probability with the operating point, or its value with its unit (TID 1501)."""
        name = self.term(finding.name, finding.code)
        measurements = []
        evaluations = []
        texts: list[ContentItem] = []
        if finding.probability is not None:
            measurements.append(self.probability(finding, finding.probability))
        elif isinstance(finding.value, float) and math.isfinite(finding.value):
            measurements.append(measurement(name, finding.value, self.unit(finding)))
        elif isinstance(finding.value, str) and finding.value in terms():
            evaluations.append(QualitativeEvaluation(name, self.named(finding.value)))
        elif finding.value is not None:
            texts.append(text_item(name, str(finding.value)))
        if finding.positive is not None:
            code, key = ("10828004", "sr_positive") if finding.positive else ("260385009", "sr_negative")
            result = concept(code, "SCT", say(key, self.language))
            evaluations.append(QualitativeEvaluation(self.own("result"), result))
        group = self.group(
            finding.name, finding.organ, name, measurements=measurements, qualitative_evaluations=evaluations
        )
        sentences = filter(
            None, [words.finding_sentence(finding, self.language), words.point_sentence(finding, self.language)]
        )
        texts.append(text_item(concept("121106", "DCM", say("sr_note", self.language)), "; ".join(sentences)))
        indexes = dict.fromkeys(evidence.input for evidence in finding.evidence)
        group[0].ContentSequence.extend([*texts, *(item for index in indexes for item in self.source(index))])
        return group

    def group(
        self,
        name: str,
        organ: Organ,
        finding_type: CodedConcept,
        *,
        measurements: list[Measurement],
        qualitative_evaluations: list[QualitativeEvaluation],
    ) -> MeasurementsAndQualitativeEvaluations:
        """A measurement group (TID 1501). ``name`` is what tracks it from version to version."""
        tracked = TrackingIdentifier(uid=uid(self.report.visit, 1, "tracking", name), identifier=name)
        site = FindingSite(self.term(organ, self.report.organs[organ].code))
        return MeasurementsAndQualitativeEvaluations(
            tracking_identifier=tracked,
            finding_type=finding_type,
            finding_sites=[site],
            algorithm_id=self.algorithm_of(organ),
            measurements=measurements,
            qualitative_evaluations=qualitative_evaluations,
        )

    def probability(self, finding: ReportFinding, probability: float) -> Measurement:
        """The probability with its threshold, sensitivity, specificity and cohort as properties (TID 300)."""
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
        """The image or recording that shows the evidence, if it was posted as DICOM."""
        given = reference(self.report, index)
        if given is None:
            return []
        instance = given.SOPClassUID, given.SOPInstanceUID
        if is_image(given):
            return [SourceImageForMeasurementGroup(*instance)]
        if is_waveform(given):
            return [WaveformContentItem(self.own("evidence"), *instance, relationship_type=CONTAINS)]
        return []

    def algorithm_of(self, organ: Organ) -> AlgorithmIdentification | None:
        """The model of the organ's name, if the report has exactly one."""
        models = [model for model in self.report.models if model.name == organ]
        return algorithm(models[0]) if len(models) == 1 else None
