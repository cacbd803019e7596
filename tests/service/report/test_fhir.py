"""The FHIR document is valid by the library and by our own checks, and has the report's codes, numbers and names."""

from __future__ import annotations

import copy
import json
import random
import re
import time
from datetime import datetime

import pytest
from fhir.resources.R4B.bundle import Bundle

from data_specs.problems import Problem
from data_specs.visit.context import Order, Person
from data_specs.visit.opinion import Judgement
from data_specs.visit.report import Report, ReportFinding, ReportOrgan
from data_specs.vocabulary import LANGUAGES, display
from service.report import words
from service.report.fhir.document import document_id, render
from tests.conftest import ROOT
from tests.service import report_fixture
from tests.service.report.fhir_checks import check
from tests.service.report_fixture import DOCTOR, NAME, SPECIALIST, code, judged, measured

ALL = [(version, language) for version in (1, 2, 3) for language in LANGUAGES]
OPERATING_POINT = "urn:sangloc:fhir:operating-point"
DOCS = ROOT / "docs/reference/fhir.md"
BARE_OUTPUT = "urn:sangloc:fhir:uncalibrated-output"


def rendered(report: Report, language: str = "en") -> dict:
    return json.loads(render(report, language))


def of_kind(bundle: dict, kind: str) -> list[dict]:
    return [each["resource"] for each in bundle["entry"] if each["resource"]["resourceType"] == kind]


def leads_to(bundle: dict, reference: dict) -> dict:
    (found,) = [each["resource"] for each in bundle["entry"] if each["fullUrl"] == reference["reference"]]
    return found


def coded(concept: dict) -> tuple[str, str]:
    return concept["coding"][0]["system"], concept["coding"][0]["code"]


def numbers(bundle: dict) -> dict:
    """What the document says of each finding, by code, without the doctors' Observations."""
    found: dict = {}
    for risk in of_kind(bundle, "RiskAssessment"):
        (prediction,) = risk["prediction"]
        extensions = {each["url"]: each for each in prediction.get("extension", [])}
        bare = extensions.get(BARE_OUTPUT, {}).get("valueDecimal")
        flag = prediction.get("qualitativeRisk")
        point = {
            part["url"]: part.get("valueDecimal", part.get("valueString"))
            for part in extensions.get(OPERATING_POINT, {}).get("extension", [])
        }
        positive = None if flag is None else coded(flag)[1] == "POS"
        found[coded(prediction["outcome"])] = (prediction.get("probabilityDecimal", bare), positive, point)
    for observation in of_kind(bundle, "Observation"):
        if "valueQuantity" in observation:
            quantity = observation["valueQuantity"]
            found[coded(observation["code"])] = (quantity["value"], quantity.get("code"))
        elif "valueCodeableConcept" in observation and "performer" not in observation:
            found[coded(observation["code"])] = (observation["valueCodeableConcept"], None)
    return found


def said(finding: ReportFinding) -> tuple:
    if finding.value is not None:
        return finding.value, finding.unit
    point = finding.operating_point
    return finding.probability, finding.positive, point.model_dump(exclude_none=True) if point else {}


# ---------------------------------------------------------------- content
@pytest.mark.parametrize(("version", "language"), ALL)
def test_the_document_is_valid_and_has_the_reports_codes_and_numbers(version, language):
    report = report_fixture.report(version)
    body = render(report, language)
    Bundle.model_validate_json(body)
    bundle = json.loads(body)
    assert check(bundle) == []
    assert numbers(bundle) == {(each.code.system, each.code.code): said(each) for each in report.findings}
    (answer,) = of_kind(bundle, "DiagnosticReport")
    assert answer["status"] == report.status
    assert answer["conclusion"] == words.conclusion(report, language)
    conclusions = [code(name) for name in report.conclusions]
    assert [coded(each) for each in answer["conclusionCode"]] == [(each.system, each.code) for each in conclusions]
    assert [each["text"] for each in answer["conclusionCode"]] == [
        display(name, language) for name in report.conclusions
    ]
    assert answer["basedOn"] == [{"reference": "ServiceRequest/77", "type": "ServiceRequest"}]
    assert [each["value"] for each in answer["identifier"]] == [report.visit, "ORD-1", "ACC-1"]
    assert all(each["resource"]["language"] == language for each in bundle["entry"])


@pytest.mark.parametrize(("version", "language"), ALL)
def test_the_composition_has_the_reports_sentences_and_authors(version, language):
    report = report_fixture.report(version)
    bundle = rendered(report, language)
    composition = bundle["entry"][0]["resource"]
    assert composition["status"] == report.status
    assert composition["extension"][0]["valueString"] == str(version)
    assert bundle["timestamp"] == composition["date"] == report.issued_at.isoformat().replace("+00:00", "Z")
    story = json.dumps(composition, ensure_ascii=False)
    for sentence in (
        words.say("decision_support", language),
        words.conclusion(report, language),
        words.next_step(report.next_steps[0], language),
        *words.not_assessed(report, language),
        *words.input_problems(report.inputs[2], language),
        *(line for opinion in report.opinions for line in words.opinion_sentences(opinion, language)),
        NAME,
        "Khám sức khỏe",
    ):
        assert sentence.replace("&", "&amp;") in story
    authors = [leads_to(bundle, each) for each in composition["author"]]
    assert [each["resourceType"] for each in authors] == ["Device"] + ["PractitionerRole"] * len(report.opinions)
    signed = [(each["time"], leads_to(bundle, each["party"])) for each in composition.get("attester", [])]
    names = [(at, leads_to(bundle, role["practitioner"])["name"][0]["text"]) for at, role in signed]
    at = [opinion.signed_at.isoformat().replace("+00:00", "Z") for opinion in report.opinions]
    assert names == list(zip(at, [DOCTOR, SPECIALIST][: version - 1], strict=True))


def test_person_models_files_and_signatures():
    bundle = rendered(report_fixture.report(3))
    (patient,) = of_kind(bundle, "Patient")
    assert patient["name"] == [{"text": NAME}]
    assert (patient["gender"], patient["birthDate"], patient["identifier"]) == (
        "female",
        "1961-05-30",
        [{"value": "VN-0042"}],
    )
    devices = [each for each in of_kind(bundle, "Device") if "version" in each]
    assert [
        (each["deviceName"][0]["name"], each["version"][0]["value"], each["identifier"][0]["value"]) for each in devices
    ] == [
        ("lung", "1.2.0", "d" * 64),
        ("cardiac", "1.0.1", "e" * 64),
    ]
    computed, *signed = of_kind(bundle, "Provenance")
    assert [coded(each["type"])[1] for each in computed["agent"]] == [
        "assembler",
        "performer",
        "performer",
        "informant",
    ]
    assert [each["what"]["identifier"]["value"] for each in computed["entity"]] == ["a" * 64, "b" * 64]
    assert [each["recorded"] for each in signed] == ["2026-11-21T10:30:00Z", "2026-11-21T13:30:00Z"]
    assert {coded(agent["type"])[1] for each in signed for agent in each["agent"]} == {"author"}
    (study,) = of_kind(bundle, "ImagingStudy")
    assert study["identifier"][0] == {"system": "urn:dicom:uid", "value": f"urn:oid:{report_fixture.STUDY}"}
    assert study["series"][0]["instance"][0]["sopClass"]["code"] == "urn:oid:1.2.840.10008.5.1.4.1.1.1.1"
    pneumonia = next(each for each in of_kind(bundle, "RiskAssessment") if each.get("basis"))
    assert leads_to(bundle, pneumonia["basis"][0]) == study
    assert leads_to(bundle, pneumonia["performer"])["deviceName"][0]["name"] == "lung"


def test_an_organ_that_was_not_assessed_has_reasons_and_no_value():
    bundle = rendered(report_fixture.report(), "vi")
    (absent,) = [each for each in of_kind(bundle, "Observation") if "dataAbsentReason" in each]
    assert coded(absent["bodySite"]) == ("http://snomed.info/sct", "64033007")
    assert coded(absent["dataAbsentReason"])[1] == "not-performed"
    assert absent["note"] == [{"text": "Thiếu thông tin để đánh giá: creatinin máu."}]


def test_a_doctors_judgements_are_observations_of_their_own():
    bundle = rendered(report_fixture.report(3))
    judgements = [each for each in of_kind(bundle, "Observation") if "valueBoolean" in each]
    found = [(each["code"]["text"], each["valueBoolean"], each["issued"]) for each in judgements]
    assert found == [
        ("pneumonia", True, "2026-11-21T10:30:00Z"),
        ("pneumonia", False, "2026-11-21T13:30:00Z"),
        ("atelectasis", True, "2026-11-21T13:30:00Z"),
    ]
    report = report_fixture.report(2)
    judged_value = Judgement(finding="heart_rate", verdict="agree")
    opinion = report.opinions[0].model_copy(update={"judgements": (judged_value,)})
    bundle = rendered(report.model_copy(update={"opinions": (opinion,)}))
    assert not [
        each for each in of_kind(bundle, "Observation") if "valueBoolean" in each
    ]  # a value is not there or not
    assert "Heart rate: agrees" in json.dumps(bundle)


def is_tagged(resource: dict) -> bool:
    """Whether a resource says that a machine made or changed it (AIAST)."""
    labels = resource.get("meta", {}).get("security", [])
    return (AIAST["system"], AIAST["code"]) in [(each["system"], each["code"]) for each in labels]


AIAST = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "AIAST"}


@pytest.mark.parametrize("version", [1, 2, 3])
def test_what_the_machine_made_is_tagged_and_what_a_doctor_said_is_not(version):
    bundle = rendered(report_fixture.report(version))
    by_doctors = [each for each in of_kind(bundle, "Observation") if "performer" in each]
    by_machine = [each for each in of_kind(bundle, "Observation") if "performer" not in each]
    by_machine += [*of_kind(bundle, "RiskAssessment"), *of_kind(bundle, "DiagnosticReport")]
    by_machine += of_kind(bundle, "Composition")
    assert len(by_machine) > 6
    assert all(map(is_tagged, by_machine))
    assert (len(by_doctors) > 0) is (version > 1)
    rest = [each["resource"] for each in bundle["entry"] if each["resource"] not in by_machine]
    assert not any(map(is_tagged, [*by_doctors, *rest]))
    computed, *signed = of_kind(bundle, "Provenance")
    assert computed["reason"][0]["coding"][0]["code"] == "AIAST"
    assert not any("reason" in each for each in signed)
    models = [each for each in of_kind(bundle, "Device") if "version" in each]
    assert models
    assert {each["type"]["coding"][0]["code"] for each in models} == {"Artificial-Intelligence"}


def test_a_doctor_accepts_amends_or_rejects_the_machines_result():
    bundle = rendered(report_fixture.report(3), "vi")
    outcomes = [each for each in of_kind(bundle, "Observation") if "focus" in each]
    assert [(each["valueCodeableConcept"]["coding"][0]["code"], each["issued"]) for each in outcomes] == [
        ("accepted", "2026-11-21T10:30:00Z"),
        ("amended", "2026-11-21T13:30:00Z"),
    ]
    about = [leads_to(bundle, each) for each in outcomes[0]["focus"]]
    assert "pneumonia" in {
        each["prediction"][0]["outcome"]["coding"][0]["display"] for each in about if "prediction" in each
    }
    assert leads_to(bundle, outcomes[0]["performer"][0])["resourceType"] == "PractitionerRole"


def test_a_measured_value_that_a_doctor_adds_is_neither_present_nor_absent():
    """Its value is a word (KDIGO G stage), so it has no unit; it still does not state a presence."""
    report = report_fixture.report(2)
    added = Judgement(finding="kdigo_g", verdict="add")
    opinion = report.opinions[0].model_copy(update={"judgements": (added,)})
    kidney = report.organs["kidney"].model_copy(update={"findings": ()})
    organs = {**report.organs, "kidney": kidney}
    bundle = rendered(report.model_copy(update={"opinions": (opinion,), "organs": organs}))
    assert not [each for each in of_kind(bundle, "Observation") if "valueBoolean" in each]


def test_the_document_is_valid_by_the_definitions_and_invariants_of_r4():
    reason = "fhircraft is not installed: R4's own definitions and invariants are not tried, only R4B's and our checks"
    pytest.importorskip("fhircraft", reason=reason)
    from fhircraft.fhir.resources.datatypes.R4.core.bundle import Bundle as Document

    for version, language in ((1, "vi"), (2, "fr"), (3, "en")):
        Document.model_validate(rendered(report_fixture.report(version), language))
    broken = rendered(report_fixture.report())
    value(broken)["dataAbsentReason"] = {"text": "and yet there is a value"}
    with pytest.raises(ValueError, match="Observation"):
        Document.model_validate(broken)


# ---------------------------------------------------------------- kinds of findings
def with_findings(*findings: ReportFinding) -> Report:
    organ = ReportOrgan(
        status="assessed", code=code("kidney"), findings=findings, reasons=(Problem("acr_missing", "warn"),)
    )
    return report_fixture.report().model_copy(update={"organs": {"kidney": organ}})


def test_a_value_that_is_a_term_of_the_vocabulary_is_coded():
    report = with_findings(
        measured("kdigo_risk", "kidney", "very high"),
        measured("kdigo_g", "kidney", "G3a"),
        measured("egfr", "kidney", 52.4),
    )
    bundle = rendered(report, "fr")
    risk, stage, rate = of_kind(bundle, "Observation")
    assert risk["valueCodeableConcept"]["text"] == "très élevé"
    assert coded(risk["valueCodeableConcept"]) == ("urn:sangloc:term", "very_high")
    assert stage["valueCodeableConcept"] == {"text": "G3a"}
    assert rate["valueQuantity"]["value"] == 52.4
    assert rate["valueQuantity"]["code"] == "mL/min/{1.73_m2}"
    assert Problem("acr_missing", "warn").message("fr") in json.dumps(bundle, ensure_ascii=False)
    assert check(bundle) == []


def test_an_uncalibrated_output_is_not_called_a_probability():
    bare = judged("incident_ckd", "kidney", 0.4, 0.3).model_copy(update={"calibrated": False, "positive": None})
    bundle = rendered(with_findings(bare))
    (risk,) = of_kind(bundle, "RiskAssessment")
    assert "probabilityDecimal" not in risk["prediction"][0]
    assert "qualitativeRisk" not in risk["prediction"][0]
    assert "not calibrated" in risk["prediction"][0]["rationale"]
    assert numbers(bundle)["urn:sangloc:term", "incident_ckd"][:2] == (0.4, None)


def test_an_observation_with_the_code_of_a_vital_sign_has_that_category():
    rates = [
        each for each in of_kind(rendered(report_fixture.report()), "Observation") if coded(each["code"])[1] == "8867-4"
    ]
    assert [coded(each["category"][0])[1] for each in rates] == ["vital-signs"]
    assert rates[0]["effectiveDateTime"] == "2026-11-21"


# ---------------------------------------------------------------- missing and unusual values
def test_a_report_with_little_known_is_a_valid_document():
    full = report_fixture.report()
    dicom = full.inputs[0].dicom.model_copy(update={"StudyInstanceUID": "not a UID", "Modality": ""})
    bare = full.model_copy(
        update={
            "person": Person(),
            "referrer": None,
            "order": None,
            "visited_on": None,
            "models": (),
            "next_steps": (),
            "priority_reasons": (),
            "inputs": (full.inputs[0].model_copy(update={"dicom": dicom}),),
            "issued_at": datetime(2026, 11, 21, 8, 30),  # without a zone, as SQLite gives it back: UTC
        }
    )
    body = render(bare, "vi")
    Bundle.model_validate_json(body)
    bundle = json.loads(body)
    assert check(bundle) == []
    assert bundle["timestamp"] == "2026-11-21T08:30:00Z"
    assert not of_kind(bundle, "ImagingStudy")
    assert "basedOn" not in of_kind(bundle, "DiagnosticReport")[0]


def with_identifiers(**uids: str) -> Report:
    full = report_fixture.report()
    dicom = full.inputs[0].dicom.model_copy(update=uids)
    inputs = (full.inputs[0].model_copy(update={"dicom": dicom}), *full.inputs[1:])
    return full.model_copy(update={"inputs": inputs, "study_instance_uid": dicom.StudyInstanceUID})


@pytest.mark.parametrize("uid", ["1.2.840.099.7", "1.2.ABC.7", "1." + "2" * 70, "1.2.840.7.", "9.8.7"])
def test_a_study_that_is_no_oid_has_its_identifier_as_it_came(uid):
    body = render(with_identifiers(StudyInstanceUID=uid), "en")
    Bundle.model_validate_json(body)
    bundle = json.loads(body)
    assert check(bundle) == []
    (study,) = of_kind(bundle, "ImagingStudy")
    assert study["identifier"][0] == {"value": uid}
    assert f"urn:oid:{uid}" not in body.decode()
    assert ("series" in study) == (uid == "9.8.7"), "a UID of another root than OIDs have"
    assert (study["numberOfSeries"], study["numberOfInstances"]) == (1, 1)


@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "SOPInstanceUID"])
def test_a_series_or_an_object_of_a_malformed_identifier_is_not_listed(keyword):
    body = render(with_identifiers(**{keyword: "1.02.3"}), "en")
    Bundle.model_validate_json(body)
    assert check(json.loads(body)) == []
    (study,) = of_kind(json.loads(body), "ImagingStudy")
    assert study["identifier"][0]["value"] == f"urn:oid:{report_fixture.STUDY}"
    assert "series" not in study


def test_a_series_without_modality_states_that_it_is_unknown():
    full = report_fixture.report()
    dicom = full.inputs[0].dicom.model_copy(update={"Modality": "", "StudyDate": "20269999"})
    report = full.model_copy(update={"inputs": (full.inputs[0].model_copy(update={"dicom": dicom}),)})
    body = render(report, "en")
    Bundle.model_validate_json(body)
    assert check(json.loads(body)) == []
    assert "code" not in of_kind(json.loads(body), "ImagingStudy")[0]["series"][0]["modality"]


def test_what_a_doctor_writes_stays_text():
    report = report_fixture.report(2)
    written = 'SpO₂ < 90 % & "khó thở"\n<script>alert(1)</script> ]]> \x07\ud800 Ẵ'
    opinion = report.opinions[0].model_copy(update={"text": written})
    body = render(report.model_copy(update={"opinions": (opinion,)}), "vi")
    Bundle.model_validate_json(body)
    bundle = json.loads(body)
    assert check(bundle) == []
    story = bundle["entry"][0]["resource"]["section"][-2]["section"][0]["text"]["div"]
    assert 'SpO₂ &lt; 90 % &amp; "khó thở"<br/>&lt;script&gt;alert(1)&lt;/script&gt; ]]&gt; \ufffd\ufffd Ẵ' in story


@pytest.mark.parametrize(
    "odd", ["", " ", "\n", "\t x \x00", "\ud800", "<&>\"'", "\ufffe\uffff", "a/b", "\u202e", "Ẵ" * 200]
)
def test_no_text_makes_the_document_invalid(odd):
    full = report_fixture.report(2)
    report = full.model_copy(
        update={
            "person": full.person.model_copy(update={"id": odd, "name": odd}),
            "referrer": full.referrer.model_copy(update={"id": odd, "name": odd, "facility": odd}),
            "order": full.order.model_copy(
                update={"placer": odd, "accession_number": odd, "request": odd, "reason": odd}
            ),
            "inputs": (full.inputs[0].model_copy(update={"filename": odd}), *full.inputs[1:]),
            "opinions": (full.opinions[0].model_copy(update={"text": odd}),),
        }
    )
    body = render(report, "vi")
    Bundle.model_validate_json(body)
    assert check(json.loads(body)) == []


def test_doctors_whose_id_and_name_join_to_the_same_text_stay_two():
    full = report_fixture.report(2)
    referrer = full.referrer.model_copy(update={"id": "a", "name": "b/c"})
    by = full.opinions[0].author.model_copy(update={"id": "a/b", "name": "c"})
    opinions = (full.opinions[0].model_copy(update={"author": by}),)
    bundle = rendered(full.model_copy(update={"referrer": referrer, "opinions": opinions}))
    assert [each["name"][0]["text"] for each in of_kind(bundle, "Practitioner")] == ["b/c", "c"]


@pytest.mark.parametrize(
    ("posted", "expected"),
    [
        (
            "https://hospital.example/fhir/ServiceRequest/7",
            {"reference": "https://hospital.example/fhir/ServiceRequest/7"},
        ),
        ("urn:uuid:0c3151bd-1cbf-4d64-b04d-cd9187a4c6e0", {"identifier": {"system": "urn:ietf:rfc:3986"}}),
        ("số 77", {"identifier": {"value": "số 77"}}),
        (None, {"identifier": {"value": "ORD-1"}}),
    ],
)
def test_the_request_is_referred_to_as_it_was_posted(posted, expected):
    report = report_fixture.report().model_copy(update={"order": Order(request=posted, placer="ORD-1")})
    bundle = rendered(report)
    (based_on,) = of_kind(bundle, "DiagnosticReport")[0]["basedOn"]
    assert based_on["type"] == "ServiceRequest"
    assert based_on.get("reference") == expected.get("reference")
    assert expected.get("identifier", {}).items() <= based_on.get("identifier", {}).items()
    assert check(bundle) == []


# ---------------------------------------------------------------- identity and speed
def test_a_version_always_gives_the_same_document():
    first, again = (render(report_fixture.report(2), "vi") for _ in range(2))
    assert first == again
    assert json.loads(first)["id"] == str(document_id(report_fixture.VISIT, 2, "vi"))
    by_version = {version: rendered(report_fixture.report(version), "vi") for version in (1, 2, 3)}
    documents = {rendered(report_fixture.report(v), language)["identifier"]["value"] for v, language in ALL}
    assert len(documents) == len(ALL)
    for version in (2, 3):
        (before,) = by_version[version]["entry"][0]["resource"]["relatesTo"]
        assert before["targetIdentifier"] == by_version[version - 1]["identifier"]
    assert len({json.dumps(each["entry"][0]["resource"]["identifier"]) for each in by_version.values()}) == 1


def test_a_document_is_rendered_in_less_than_100_ms():
    report = report_fixture.report(3)
    render(report, "vi")
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        render(report, "vi")
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.1


# ---------------------------------------------------------------- each check finds its fault
def at(bundle: dict, kind: str, **having: object) -> dict:
    return next(each for each in of_kind(bundle, kind) if all(name in each for name in having))


def risk(bundle: dict) -> dict:
    return of_kind(bundle, "RiskAssessment")[0]


def value(bundle: dict) -> dict:
    return at(bundle, "Observation", valueQuantity=True)


def put(part: dict, **members: object) -> None:
    part.update(members)


def twice(bundle: dict) -> None:
    bundle["entry"].append(copy.deepcopy(bundle["entry"][1]))


def relative_twice(bundle: dict) -> None:
    for host in ("a", "b"):
        bundle["entry"].append(
            {"fullUrl": f"https://{host}.example/Patient/1", "resource": {**of_kind(bundle, "Patient")[0], "id": "1"}}
        )
    risk(bundle)["subject"] = {"reference": "Patient/1"}


BROKEN = [
    ("Bundle.resourceType:", lambda b: put(b, resourceType="Delivery")),
    ("Bundle.type:", lambda b: put(b, type="collection")),
    ("(bdl-9)", lambda b: b["identifier"].pop("system")),
    ("(bdl-9)", lambda b: b.pop("identifier")),
    ("(bdl-10)", lambda b: b.pop("timestamp")),
    ("(bdl-10)", lambda b: put(b, timestamp="2026-11-21T08:30:00")),
    ("(bdl-10)", lambda b: put(b, timestamp="2026-13-21T08:30:00Z")),
    ("(bdl-1)", lambda b: put(b, total=1)),
    ("(bdl-11)", lambda b: put(b, entry=[])),
    ("(bdl-11)", lambda b: b["entry"].reverse()),
    ("Bundle.entry[3]: has no resource (bdl-5)", lambda b: b["entry"][3].pop("resource")),
    ("Bundle.entry[3].request: ", lambda b: put(b["entry"][3], request={"method": "POST", "url": "Patient"})),
    ("(bdl-7)", twice),
    ("(bdl-8)", lambda b: put(b["entry"][3], fullUrl="https://h.example/Patient/1/_history/1")),
    ("Bundle.entry[3].fullUrl: has to be an absolute", lambda b: b["entry"][3].pop("fullUrl")),
    ("Bundle.entry[3].fullUrl: not a urn:uuid:", lambda b: put(b["entry"][3], fullUrl="urn:uuid:ABC")),
    ("Bundle.entry[3].resource.id: is not that", lambda b: put(b["entry"][3]["resource"], id="other")),
    ("Bundle.entry[3].resource.id: 1 to 64", lambda b: put(b["entry"][3]["resource"], id="x" * 65)),
    ("Bundle.entry[3].resource.resourceType: missing", lambda b: b["entry"][3]["resource"].pop("resourceType")),
    ("author: Composition has to have it", lambda b: b["entry"][0]["resource"].pop("author")),
    ("agent: Provenance has to have it", lambda b: at(b, "Provenance").pop("agent")),
    ("status: not a status of RiskAssessment", lambda b: put(risk(b), status="positive")),
    ("status: not a status of DiagnosticReport", lambda b: put(at(b, "DiagnosticReport"), status=["final"])),
    ("(dom-6)", lambda b: risk(b).pop("text")),
    ("(dom-2)", lambda b: put(risk(b), contained=[{"resourceType": "Group", "id": "g", "contained": [{"id": "h"}]}])),
    ("(dom-3)", lambda b: put(risk(b), contained=[{"resourceType": "Group", "id": "g"}])),
    (
        "(dom-4, dom-5)",
        lambda b: put(risk(b), contained=[{"resourceType": "Group", "id": "g", "meta": {"versionId": "1"}}]),
    ),
    ("section[0]: a section has", lambda b: b["entry"][0]["resource"]["section"].insert(0, {"title": "x"})),
    ("(cmp-2)", lambda b: put(b["entry"][0]["resource"]["section"][0], emptyReason={"text": "x"})),
    ("(obs-6)", lambda b: put(value(b), dataAbsentReason={"text": "x"})),
    ("has more than one value", lambda b: put(value(b), valueString="104")),
    ("neither a value nor a reason", lambda b: value(b).pop("valueQuantity")),
    ("(obs-7)", lambda b: put(value(b), component=[{"code": value(b)["code"], "valueString": "104"}])),
    ("prediction[0].probabilityDecimal: a share", lambda b: put(risk(b)["prediction"][0], probabilityDecimal=88.2)),
    ("prediction[0].probabilityDecimal: a share", lambda b: put(risk(b)["prediction"][0], probabilityDecimal=-0.1)),
    ("prediction[0].probabilityDecimal: a share", lambda b: put(risk(b)["prediction"][0], probabilityDecimal=True)),
    ("valueQuantity.code: not a unit", lambda b: put(value(b)["valueQuantity"], code="bpm")),
    ("valueQuantity.code: not a unit", lambda b: value(b)["valueQuantity"].pop("code")),
    ("(qty-3)", lambda b: value(b)["valueQuantity"].pop("system")),
    ("not in the vocabulary under http://snomed.info/sct", lambda b: put(outcome(b), code="233604008")),
    ("not in the vocabulary under http://loinc.org", lambda b: put(value(b)["code"]["coding"][0], code="8867-5")),
    ("not in the vocabulary under urn:sangloc:term", lambda b: put(outcome(b), system="urn:sangloc:term")),
    (
        "v3-ObservationInterpretation",
        lambda b: put(risk(b)["prediction"][0]["qualitativeRisk"]["coding"][0], code="YES"),
    ),
    ("(ext-1)", lambda b: put(risk(b)["prediction"][0]["extension"][0], valueString="x")),
    ("extension[0].url: has to be absolute", lambda b: put(risk(b)["prediction"][0]["extension"][0], url="point")),
    ("not a div of XHTML", lambda b: put(risk(b)["text"], div="<div>plain</div>")),
    ("not a div of XHTML", lambda b: put(risk(b)["text"], div=risk(b)["text"]["div"] + "<p>")),
    ("(txt-1)", lambda b: put(risk(b)["text"], div=risk(b)["text"]["div"].replace("p>", "script>"))),
    ("(txt-2)", lambda b: put(risk(b)["text"], div='<div xmlns="http://www.w3.org/1999/xhtml"><p> </p></div>')),
    ("(per-1)", lambda b: put(risk(b)["prediction"][0]["whenPeriod"], end="2026-11-20")),
    ("(ele-1)", lambda b: put(risk(b), method={})),
    ("(ele-1)", lambda b: put(risk(b)["note"][0], text="")),
    ("(ele-1)", lambda b: put(risk(b), identifier=None)),
    ("subject.reference: leads nowhere", lambda b: put(risk(b), subject={"reference": "urn:uuid:" + "0" * 36})),
    ("subject.reference: leads nowhere", lambda b: put(risk(b), subject={"reference": "#patient"})),
    ("subject.reference: leads nowhere", lambda b: put(risk(b), subject={"reference": "Patient/77"})),
    ("subject.reference: leads to 2", relative_twice),
    ("subject.reference: has to lead to a Patient", lambda b: put(risk(b), subject=risk(b)["performer"])),
    (
        "basedOn[0].reference: leads nowhere",
        lambda b: put(at(b, "DiagnosticReport")["basedOn"][0], reference="urn:uuid:1"),
    ),
]


def outcome(bundle: dict) -> dict:
    return risk(bundle)["prediction"][0]["outcome"]["coding"][0]


@pytest.mark.parametrize(("fault", "break_it"), BROKEN, ids=[f"{n}-{fault}" for n, (fault, _) in enumerate(BROKEN)])
def test_each_fault_of_a_broken_document_is_found(fault, break_it):
    bundle = rendered(report_fixture.report(3))
    break_it(bundle)
    found = check(bundle)
    assert any(fault in each for each in found), found
    assert all(each.startswith("Bundle") for each in found)


def test_the_checks_never_raise():
    chance = random.Random(5)
    whole = rendered(report_fixture.report(3))
    for junk in (None, [], {}, 0, 1.5, "x", [0], [[]], [None], {"reference": "#"}, {"code": 1}, {"resource": {}}):
        for _ in range(25):
            bundle = copy.deepcopy(whole)
            holder, key = chance.choice(list(places(bundle)))
            holder[key] = junk
            assert isinstance(check(bundle), list)
    assert check({})


def places(value):
    """Every value of a JSON document: its container, and its name or index there."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, dict | list):
            yield from places(inner)


# ---------------------------------------------------------------- the docs
def test_the_documented_finding_is_the_rendered_one():
    shown = json.loads(re.findall(r"```json\n(.*?)```", DOCS.read_text(), re.DOTALL)[1])
    rendered_one = next(
        each for each in of_kind(rendered(report_fixture.report()), "RiskAssessment") if each["id"] == shown["id"]
    )
    assert {**shown, "text": rendered_one["text"]} == rendered_one
