"""The report as a FHIR R4 document: a Bundle whose first entry is the Composition. ``docs/fhir.md`` says what is in it.

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
from service.report import words
from service.report.fhir.findings import finding, judgements, not_assessed
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
    document.resources[composition["reference"]] = {}  # the first entry, and the last to be written
    subject = patient(document)
    sender = referrer(document)
    looked_at = studies(document, subject)
    machine, by_model = service(document), models(document)
    found = [finding(document, each, subject, by_model.get(each.organ), looked_at) for each in report.findings]
    absent = not_assessed(document, subject)
    authors = [author(document, each.author) for each in report.opinions]
    judged = [judgements(document, opinion, subject, by) for opinion, by in zip(report.opinions, authors, strict=True)]
    answer = _diagnostic_report(document, subject, [*found, *absent, *chain.from_iterable(judged)], looked_at, authors)
    computed(document, [answer, *found, *absent], machine, by_model)
    for opinion, by, said in zip(report.opinions, authors, judged, strict=True):
        signed(document, opinion, [composition, *said], by)
    sections = [
        _conclusion_section(document, answer),
        _section(
            document,
            "section_person",
            [*person_lines(report.person, language), *_sender_lines(report)],
            [subject, *([sender] if sender else [])],
        ),
        _section(document, "section_inputs", _input_lines(report, language), distinct(looked_at.values())),
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
    """``Bundle.id`` and ``Bundle.identifier``: ``PUT Bundle/{id}`` stores a document once, however often it is sent.

    A translation is a document of its own.
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
        "section": [each for each in sections if each],
    }


def _heading(report: Report, language: Language) -> list[str]:
    return [
        words.say("title", language),
        words.say("version", language, version=report.version, issued=words.day_and_time(report.issued_at)),
        words.say(f"status_{report.status}", language),
        words.say("decision_support", language),
    ]


def _diagnostic_report(
    document: Document,
    subject: Resource,
    results: Sequence[Resource],
    looked_at: dict[int, Resource],
    authors: Sequence[Resource],
) -> Resource:
    report, language = document.report, document.language
    order = report.order or Order()
    services = {"image": ("RAD", "Radiology"), "ecg": ("EC", "Electrocardiac (e.g., EKG, EEC, Holter)")}
    kinds = dict.fromkeys(each.field for each in report.inputs if each.accepted)
    return document.put(
        "DiagnosticReport",
        says=[words.conclusion(report, language), words.say("decision_support", language)],
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
        imagingStudy=distinct(looked_at.values()),
        conclusion=words.conclusion(report, language),
        conclusionCode=[concept(name, language) for name in report.conclusions],
    )


def _order(order: Order) -> Resource:
    """The request that is answered: by the reference it was posted under, or by what names it.

    A URN points into the Bundle that it came in, which is not this one: it names the request as an identifier.
    """
    posted = (order.request or "").strip()
    if _POSTED_REFERENCE.fullmatch(posted):
        return {"reference": posted, "type": "ServiceRequest"}
    if posted:
        named = {"system": URI, "value": posted} if posted.startswith("urn:") else {"value": posted}
        return {"type": "ServiceRequest", "identifier": named}
    return {"type": "ServiceRequest", "identifier": placer(order.placer)} if order.placer else {}


# ---------------------------------------------------------------- sections
def _section(
    document: Document, key: str, lines: Sequence[str], entries: Sequence[Resource] = (), code: str | None = None
) -> Resource:
    """A section with its words; none where there is nothing to say."""
    if not lines:
        return {}
    title = words.say(key, document.language)
    return {
        "title": title,
        "code": loinc(code, title) if code else {"text": title},
        "text": narrative(lines, document.language),
        "entry": list(entries),
    }


def _conclusion_section(document: Document, answer: Resource) -> Resource:
    report, language = document.report, document.language
    lines = [
        words.conclusion(report, language),
        *priority_lines(report, language),
        words.say(f"status_{report.status}", language),
        words.say("decision_support", language),
    ]
    return _section(document, "section_conclusion", lines, [answer], code="55110-1")


def _opinions_section(
    document: Document, authors: Sequence[Resource], judged: Sequence[Sequence[Resource]]
) -> Resource:
    """A section in the section for each opinion: its author, their words, and the findings that they judged."""
    opinions = document.report.opinions
    if not opinions:
        return {}
    title = words.say("section_opinions", document.language)
    parts = []
    for opinion, by, said in zip(opinions, authors, judged, strict=True):
        lines = words.opinion_sentences(opinion, document.language)
        part = {"title": lines[0], "author": [by], "text": narrative(lines, document.language), "entry": list(said)}
        parts.append(part)
    return {"title": title, "code": loinc("11488-4", title), "section": parts}


def _sender_lines(report: Report) -> list[str]:
    by = report.referrer
    order = report.order or Order()
    named = ", ".join(each for each in (by.name, by.facility) if each) if by else ""
    return [each for each in (named, order.reason or "") if each]


def _input_lines(report: Report, language: Language) -> list[str]:
    """Each file by its place, name and format, then what is to be said against it."""
    lines = []
    for posted in report.inputs:
        named = " · ".join(each for each in (posted.filename, (posted.format or "").upper()) if each)
        reserves = " ".join(words.input_problems(posted, language))
        lines.append(f"{posted.index + 1}. {named}" + (f": {reserves}" if reserves else ""))
    return lines


def _finding_lines(report: Report, language: Language) -> list[str]:
    """Organ by organ: what was found, with the operating point's own record, and what is missing of an assessment."""
    lines = []
    for name, organ in report.organs.items():
        if organ.status == "assessed":
            lines.append(opening(display(name, language)))
            for each in organ.findings:
                said = [words.finding_sentence(each, language), words.point_sentence(each, language)]
                lines.append("; ".join(filter(None, said)))
            lines += words.organ_reasons(report, name, language)
    return lines
