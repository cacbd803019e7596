"""A report is read back from every format: each has the same codes and numbers, in three languages."""

from __future__ import annotations

import io
import json
from html.parser import HTMLParser

import pydicom
import pytest
from pypdf import PdfReader

from data_specs.visit.report import Report
from data_specs.vocabulary import LANGUAGES, SYSTEMS, Language, display, terms
from service.language.texts import opening, verdict
from service.report import as_json, html, pdf
from service.report.dicom import sr as dicom_sr
from service.report.fhir import document as fhir
from service.report.hl7 import message as hl7
from service.report.sheet import code_text, result_text
from tests.service.report_fixture import DOCTOR, NAME, SPECIALIST, report

hl7_library = pytest.importorskip("hl7", reason="the hl7 library is not installed: no HL7 v2 message is read back")

Fact = tuple[float | str | None, str | None, bool | None]
"""A probability (unit ``1``) or a value, its unit, and whether it is positive."""
VERSIONS_AND_LANGUAGES = [(version, language) for version in (1, 2, 3) for language in LANGUAGES]


def facts(made: Report) -> dict[str, Fact]:
    """The fact of each finding that every format has to show, by code."""
    return {
        each.code.code: (each.probability, "1", each.positive) if each.value is None else (each.value, each.unit, None)
        for each in made.findings
    }


def conclusions(made: Report) -> set[str]:
    return {terms()[name].code for name in made.conclusions}


def signers(made: Report) -> list[str]:
    return [each.author.name for each in made.opinions]


@pytest.mark.parametrize(("version", "language"), VERSIONS_AND_LANGUAGES)
def test_json(version: int, language: Language) -> None:
    made = report(version)
    document = json.loads(as_json.render(made, language))
    found = {
        each["code"]["code"]: (each["probability"], "1", each["positive"])
        if each["value"] is None
        else (each["value"], each["unit"], None)
        for organ in document["organs"].values()
        for each in organ["findings"]
    }
    assert found == facts(made)
    assert (document["version"], document["status"]) == (made.version, made.status)
    assert document["person"]["name"] == NAME
    assert [each["author"]["name"] for each in document["opinions"]] == signers(made)


class PageFindings(HTMLParser):
    """The findings of the page from the attributes of their rows, and the text of the page."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.found: dict[str, Fact] = {}
        self.text: list[str] = []
        self.feed(content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if "data-finding" not in attributes:
            return
        value, unit = attributes.get("data-value"), attributes.get("data-unit")
        if value is None:
            self.found[str(attributes["data-code"])] = (
                float(str(attributes["data-probability"])),
                "1",
                {"true": True, "false": False}[str(attributes["data-positive"])],
            )
        else:
            self.found[str(attributes["data-code"])] = (float(value) if unit else value, unit, None)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.mark.parametrize(("version", "language"), VERSIONS_AND_LANGUAGES)
def test_page(version: int, language: Language) -> None:
    made = report(version)
    page = PageFindings(html.render(made, language))
    assert page.found == facts(made)
    text = " ".join(" ".join(page.text).split())
    assert NAME in text
    assert all(name in text for name in signers(made))


@pytest.mark.parametrize(("version", "language"), VERSIONS_AND_LANGUAGES)
def test_pdf(version: int, language: Language) -> None:
    made = report(version)
    pages = PdfReader(io.BytesIO(pdf.render(made, language))).pages
    assert len(pages) == 1
    text = " ".join(pages[0].extract_text().split())
    for finding in made.findings:
        said = f"{verdict(finding, language)} {result_text(finding, language)}"
        row = f"{opening(display(finding.name, language))} {code_text(finding.code)} {said}"
        assert " ".join(row.split()) in text
    assert NAME in text
    assert all(name in text for name in signers(made))


@pytest.mark.parametrize(("version", "language"), VERSIONS_AND_LANGUAGES)
def test_fhir(version: int, language: Language) -> None:
    made = report(version)
    resources = [entry["resource"] for entry in json.loads(fhir.render(made, language))["entry"]]
    found: dict[str, Fact] = {}
    for each in resources:
        if each["resourceType"] == "RiskAssessment":
            prediction = each["prediction"][0]
            side = prediction["qualitativeRisk"]["coding"][0]["code"]
            found[prediction["outcome"]["coding"][0]["code"]] = (
                prediction["probabilityDecimal"],
                "1",
                {"POS": True, "NEG": False}[side],
            )
        elif each["resourceType"] == "Observation" and "valueQuantity" in each:
            quantity = each["valueQuantity"]
            found[each["code"]["coding"][0]["code"]] = (quantity["value"], quantity["code"], None)
    assert found == facts(made)
    (diagnostic,) = (each for each in resources if each["resourceType"] == "DiagnosticReport")
    assert diagnostic["status"] == made.status
    assert {each["coding"][0]["code"] for each in diagnostic["conclusionCode"]} == conclusions(made)
    (patient,) = (each for each in resources if each["resourceType"] == "Patient")
    assert patient["name"][0]["text"] == NAME
    doctors = {each["name"][0]["text"] for each in resources if each["resourceType"] == "Practitioner"}
    assert set(signers(made)) <= doctors <= {DOCTOR, SPECIALIST}


@pytest.mark.parametrize(("version", "language"), VERSIONS_AND_LANGUAGES)
def test_dicom_structured_report(version: int, language: Language) -> None:
    made = report(version)
    document = pydicom.dcmread(io.BytesIO(dicom_sr.render(made, language)))
    found: dict[str, Fact] = {}
    organs = {terms()[name].code for name in made.organs}
    for group in _named(document, "125007"):
        concept = _code(_named(group, "121071")[0].ConceptCodeSequence)
        if concept in organs:
            continue
        numbers = [each for each in group.ContentSequence if each.ValueType == "NUM"]
        side = [_code(each.ConceptCodeSequence) for each in _named(group, "result")]
        measured = numbers[0].MeasuredValueSequence[0]
        found[concept] = (
            float(measured.NumericValue),
            _code(measured.MeasurementUnitsCodeSequence),
            {"10828004": True, "260385009": False}[side[0]] if side else None,
        )
    assert found == facts(made)
    concluded = {_code(each.ConceptCodeSequence) for each in _named(document, "121077") if each.ValueType == "CODE"}
    assert concluded == conclusions(made)
    assert "Ẵặ" in str(document.PatientName)
    assert [str(each.PersonName) for each in _named(document, "121008")] == signers(made)
    assert document.SpecificCharacterSet == "ISO_IR 192"


def _code(sequence: pydicom.Sequence) -> str:
    return str(sequence[0].get("CodeValue") or sequence[0].LongCodeValue)


def _named(item: pydicom.Dataset, code: str) -> list[pydicom.Dataset]:
    found = []
    for each in item.get("ContentSequence", ()):
        if "ConceptNameCodeSequence" in each and _code(each.ConceptNameCodeSequence) == code:
            found.append(each)
        found += _named(each, code)
    return found


@pytest.mark.parametrize(("version", "language"), VERSIONS_AND_LANGUAGES)
def test_hl7_v2(version: int, language: Language) -> None:
    made = report(version)
    parsed = hl7_library.parse(hl7.render(made, language).decode().rstrip("\r"))
    known = {(each.name, each.code.system): each.code.code for each in made.findings}
    systems = {"SCT": SYSTEMS["sct"], "LN": SYSTEMS["loinc"], "99SANGLOC": SYSTEMS["own"]}
    codes = {code: code for code in known.values()}
    found: dict[str, Fact] = {}
    concluded = set()
    for obx in parsed.segments("OBX"):
        name, system, value = str(obx[3][0][0]), str(obx[3][0][2]), obx[5][0]
        if name == "conclusion":
            concluded.add(str(value[0]))
        elif name in codes and str(obx[2]) == "NM" and not str(obx[4]):
            assert system in systems
            flag = str(obx[8])
            found[name] = (float(str(value)), str(obx[6][0][0]), None if not flag else flag == "A")
    assert found == facts(made)
    assert concluded == conclusions(made)
    assert str(parsed.segment("OBR")[25]) == {"preliminary": "P", "final": "F", "amended": "C"}[made.status]
    assert NAME.split()[-1] in str(parsed.segment("PID")[5])
