"""The report as a FHIR R4 document: a Bundle that begins with the Composition. ``docs/reference/fhir.md`` describes it.

References
----------
FHIR R4 (4.0.1), http://hl7.org/fhir/R4/documents.html, composition, diagnosticreport, riskassessment, provenance.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from itertools import chain
from uuid import UUID

from data_specs.visit.context import Order
from data_specs.visit.report import Report, identifier
from data_specs.vocabulary import Language, display
from service.language.texts import opening
from service.language.zone import day_and_time
from service.report import words
from service.report.fhir.findings import finding, judgements, not_assessed, result_assessments
from service.report.fhir.parts import (
    URI,
    VISIT,
    Document,
    Resource,
    accession,
    coding,
    concept,
    distinct,
    loinc,
    made_by_ai,
    moment,
    narrative,
    person_lines,
    placer,
    priority_lines,
    without_empty,
)
from service.report.fhir.sources import author, computed, models, patient, referrer, service, signed, studies

VERSION_NUMBER = "http://hl7.org/fhir/StructureDefinition/composition-clinicaldocument-versionNumber"
SERVICE_SECTION = "http://terminology.hl7.org/CodeSystem/v2-0074"
_POSTED_REFERENCE = re.compile(r"(https?://\S+/)?ServiceRequest/[A-Za-z0-9.-]{1,64}(/_history/[A-Za-z0-9.-]{1,64})?")


def render(report: Report, language: Language) -> bytes:
    """The report as a FHIR R4 document in JSON (UTF-8); the same bytes for the same report and language."""
    document = Document(report, language)
    composition = {"reference": document.url("Composition")}
    document.resources[composition["reference"]] = {}  # the Composition is the first entry, and is written last
    subject = patient(document)
    sender = referrer(document)
    images = studies(document, subject)
    machine, by_model = service(document), models(document)
    found = [finding(document, each, subject, by_model.get(each.organ), images) for each in report.findings]
    absent = not_assessed(document, subject)
    authors = [author(document, opinion.author) for opinion in report.opinions]
    of_organ = {
        name: [reference for each, reference in zip(report.findings, found, strict=True) if each.organ == name]
        for name in report.organs
    }
    judged = [
        [*judgements(document, opinion, subject, by), *result_assessments(document, opinion, subject, by, of_organ)]
        for opinion, by in zip(report.opinions, authors, strict=True)
    ]
    results = [*found, *absent, *chain.from_iterable(judged)]
    diagnostic_report = _diagnostic_report(document, subject, results, images, authors)
    computed(document, [diagnostic_report, *found, *absent], machine, by_model)
    for opinion, by, observations in zip(report.opinions, authors, judged, strict=True):
        signed(document, opinion, [composition, *observations], by)
    sections = [
        _conclusion_section(document, diagnostic_report),
        _section(
            document,
            "section_person",
            [*person_lines(report.person, language), *_sender_lines(report)],
            [subject, *([sender] if sender else [])],
        ),
        _section(document, "section_inputs", _input_lines(report, language), distinct(images.values())),
        _section(document, "section_findings", _finding_lines(report, language), found, code="59776-5"),
        _section(document, "section_not_assessed", words.not_assessed(report, language), absent),
        _section(
            document,
            "section_next_steps",
            [words.next_step(step, language) for step in report.next_steps],
            code="18776-5",
        ),
        _opinions_section(document, authors, judged),
        _section(
            document,
            "section_models",
            [f"{used.name} {used.version}, SHA-256 {used.sha256}" for used in report.models],
            list(by_model.values()),
        ),
    ]
    document.resources[composition["reference"]] = _composition(document, subject, machine, authors, sections)
    bundle = {
        "resourceType": "Bundle",
        "id": str(document_id(report.visit, report.version, language)),
        "language": language,
        "identifier": {"system": URI, "value": document_id(report.visit, report.version, language).urn},
        "type": "document",
        "timestamp": moment(report.issued_at),
        "entry": [{"fullUrl": url, "resource": resource} for url, resource in document.resources.items()],
    }
    return json.dumps(without_empty(bundle), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def document_id(visit: str, version: int, language: Language) -> UUID:
    """``Bundle.id`` and ``Bundle.identifier``. ``PUT Bundle/{id}`` therefore stores a repeated document only once.

    Each language is a document of its own.
    """
    return identifier(visit, version, "fhir", "Bundle", language)


def _composition(
    document: Document, subject: Resource, machine: Resource, authors: Sequence[Resource], sections: list[Resource]
) -> Resource:
    report, language = document.report, document.language
    before = document_id(report.visit, report.version - 1, language).urn if report.version > 1 else None
    return {
        "resourceType": "Composition",
        "id": document.url("Composition").removeprefix("urn:uuid:"),
        "meta": made_by_ai(),
        "language": language,
        "text": narrative(_heading(report, language), language),
        "extension": [{"url": VERSION_NUMBER, "valueString": str(report.version)}],
        "identifier": {"system": VISIT, "value": report.visit},
        "status": report.status,
        "type": loinc("47045-0", words.say("title", language)),
        "subject": subject,
        "date": moment(report.issued_at),
        "author": distinct([machine, *authors]),
        "title": words.say("title", language),
        "attester": [
            {"mode": "professional", "time": moment(opinion.signed_at), "party": by}
            for opinion, by in zip(report.opinions, authors, strict=True)
        ],
        "relatesTo": [{"code": "replaces", "targetIdentifier": {"system": URI, "value": before}}] if before else [],
        "section": [section for section in sections if section],
    }


def _heading(report: Report, language: Language) -> list[str]:
    return [
        words.say("title", language),
        words.say("version", language, version=report.version, issued=day_and_time(report.issued_at)),
        words.say(f"status_{report.status}", language),
        words.say("decision_support", language),
    ]


def _diagnostic_report(
    document: Document,
    subject: Resource,
    results: Sequence[Resource],
    images: dict[int, Resource],
    authors: Sequence[Resource],
) -> Resource:
    report, language = document.report, document.language
    order = report.order or Order()
    services = {"image": ("RAD", "Radiology"), "ecg": ("EC", "Electrocardiac (e.g., EKG, EEC, Holter)")}
    kinds = dict.fromkeys(posted.field for posted in report.inputs if posted.accepted)
    return document.put(
        "DiagnosticReport",
        says=[words.conclusion(report, language), words.say("decision_support", language)],
        meta=made_by_ai(),
        identifier=[
            {"system": VISIT, "value": report.visit},
            *([placer(order.placer)] if order.placer else []),
            *([accession(order.accession_number)] if order.accession_number else []),
        ],
        basedOn=[_order(order)],
        status=report.status,
        category=[{"coding": [coding(SERVICE_SECTION, *services[kind])]} for kind in kinds],
        code=loinc("47045-0", words.say("title", language)),
        subject=subject,
        effectiveDateTime=document.effective,
        issued=moment(report.issued_at),
        resultsInterpreter=distinct(authors),
        result=[each for each in results if document.resources[each["reference"]]["resourceType"] == "Observation"],
        imagingStudy=distinct(images.values()),
        conclusion=words.conclusion(report, language),
        conclusionCode=[concept(name, language) for name in report.conclusions],
    )


def _order(order: Order) -> Resource:
    """The reference to the request: its address as it was posted, or an identifier.

    A URN is written as an identifier, because it points into the Bundle in which the request was posted.
    """
    posted = (order.request or "").strip()
    if _POSTED_REFERENCE.fullmatch(posted):
        return {"reference": posted, "type": "ServiceRequest"}
    if posted:
        name = {"system": URI, "value": posted} if posted.startswith("urn:") else {"value": posted}
        return {"type": "ServiceRequest", "identifier": name}
    return {"type": "ServiceRequest", "identifier": placer(order.placer)} if order.placer else {}


# ---------------------------------------------------------------- sections
def _section(
    document: Document, key: str, lines: Sequence[str], entries: Sequence[Resource] = (), code: str | None = None
) -> Resource:
    """A section with its lines as text; empty if there are no lines."""
    if not lines:
        return {}
    title = words.say(key, document.language)
    return {
        "title": title,
        "code": loinc(code, title) if code else {"text": title},
        "text": narrative(lines, document.language),
        "entry": list(entries),
    }


def _conclusion_section(document: Document, diagnostic_report: Resource) -> Resource:
    report, language = document.report, document.language
    lines = [
        words.conclusion(report, language),
        *priority_lines(report, language),
        words.say(f"status_{report.status}", language),
        words.say("decision_support", language),
    ]
    return _section(document, "section_conclusion", lines, [diagnostic_report], code="55110-1")


def _opinions_section(
    document: Document, authors: Sequence[Resource], judged: Sequence[Sequence[Resource]]
) -> Resource:
    """A section with one section for each opinion: its author, its sentences, and the findings that it judges."""
    opinions = document.report.opinions
    if not opinions:
        return {}
    title = words.say("section_opinions", document.language)
    parts = []
    for opinion, by, observations in zip(opinions, authors, judged, strict=True):
        lines = words.opinion_sentences(opinion, document.language)
        text = narrative(lines, document.language)
        parts.append({"title": lines[0], "author": [by], "text": text, "entry": list(observations)})
    return {"title": title, "code": loinc("11488-4", title), "section": parts}


def _sender_lines(report: Report) -> list[str]:
    """Who referred the person, and why."""
    by = report.referrer
    order = report.order or Order()
    sender = ", ".join(each for each in (by.name, by.facility) if each) if by else ""
    return [line for line in (sender, order.reason or "") if line]


def _input_lines(report: Report, language: Language) -> list[str]:
    """Each posted file: number, name and format, then its problems."""
    lines = []
    for posted in report.inputs:
        file = " · ".join(each for each in (posted.filename, (posted.format or "").upper()) if each)
        problems = " ".join(words.input_problems(posted, language))
        lines.append(f"{posted.index + 1}. {file}" + (f": {problems}" if problems else ""))
    return lines


def _finding_lines(report: Report, language: Language) -> list[str]:
    """For each assessed organ: its findings with their operating points, and what limits the assessment."""
    lines = []
    for name, organ in report.organs.items():
        if organ.status == "assessed":
            lines.append(opening(display(name, language)))
            lines += [organ.category_basis.message(language)] if organ.category_basis else []
            for found in organ.findings:
                sentences = [words.finding_sentence(found, language), words.point_sentence(found, language)]
                lines.append("; ".join(filter(None, sentences)))
            lines += [*words.sought(organ, language), *words.organ_reasons(report, name, language)]
    return lines
