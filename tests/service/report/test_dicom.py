"""The report as DICOM: SR, secondary capture and presentation state are read back and checked by validators."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image

from data_specs.dicom.uids import is_uid
from data_specs.problems import Problem, Refused
from data_specs.visit.assessment import EvidenceMap
from data_specs.visit.context import Order, Person, Referrer
from data_specs.visit.contract import ORGANS, ModelUsed
from data_specs.visit.opinion import Author
from data_specs.visit.report import Report, ReportFinding, ReportOrgan, own_study
from data_specs.vocabulary import LANGUAGES, display, terms
from inference.render.pictures import evidence_png
from service.report.dicom.identity import instances, prior_document
from service.report.dicom.images import MAX_SIDE_PX, render_heatmap, render_presentation
from service.report.dicom.sr import render
from service.report.words import finding_sentence, say
from tests.service.report_fixture import DOCTOR, NAME, SPECIALIST, STUDY, VISIT, code, judged, measured, report

pytestmark = pytest.mark.filterwarnings("error")
VERSIONS = (1, 2, 3)
PN_IN_BYTES = "Length invalid for this VR"
"""dciodvfy counts the bytes of a name, but DICOM counts its characters (PS3.5 section 6.2)."""


# ---------------------------------------------------------------- reports and films
def without_dicom() -> Report:
    whole = report(3)
    inputs = tuple(each.model_copy(update={"dicom": None}) for each in whole.inputs)
    return whole.model_copy(update={"inputs": inputs, "study_instance_uid": "2.25.5"})


def without_person() -> Report:
    nobody = {"person": Person(), "referrer": None, "order": None, "visited_on": None}
    return without_dicom().model_copy(update=nobody)


def nothing_assessed() -> Report:
    why = (Problem("labs_missing", "reject", found="creatinine"),)
    organs = {name: ReportOrgan(status="not_assessed", code=code(name), reasons=why) for name in ORGANS}
    nothing = {"inputs": (), "models": (), "next_steps": (), "opinions": (), "priority_reasons": ()}
    state = {"version": 1, "status": "preliminary", "priority": "unassessed", "organs": organs}
    return without_person().model_copy(update={**nothing, **state})


def kidney() -> Report:
    """Values that are words, units and own codes of more than 16 characters, and an uncalibrated output."""
    risk = ReportFinding(
        name="kfre_2y_north_america", organ="kidney", code=code("kfre_2y_north_america"), probability=0.001
    )
    findings = (
        measured("egfr", "kidney", 57.3),
        measured("kdigo_g", "kidney", "G3a"),
        measured("kdigo_risk", "kidney", "very high"),
        risk,
        judged("incident_ckd", "kidney", 0.5, 0.2).model_copy(update={"calibrated": False}),
    )
    organ = ReportOrgan(status="assessed", code=code("kidney"), risk=0.2, category="intermediate", findings=findings)
    return report(1).model_copy(update={"organs": {"kidney": organ}})


def with_recording(sop_class: str = "1.2.840.10008.5.1.4.1.1.9.1.1") -> Report:
    """A report whose recording was posted as DICOM too, of the same study."""
    whole = report(2)
    film = whole.inputs[0].dicom
    assert film is not None
    change = {"SOPClassUID": sop_class, "SOPInstanceUID": f"{STUDY}.3.1", "SeriesInstanceUID": f"{STUDY}.3"}
    recording = film.model_copy(update={**change, "Modality": "ECG", "Rows": None, "Columns": None})
    inputs = (whole.inputs[0], whole.inputs[1].model_copy(update={"dicom": recording}), *whole.inputs[2:])
    return whole.model_copy(update={"inputs": inputs})


def hostile() -> Report:
    """A report with invalid values in headers and context, and with a second film of another study."""
    whole = report(3)
    film = whole.inputs[0].dicom
    assert film is not None
    broken = film.model_copy(
        update={
            "StudyDate": "20261399",
            "StudyTime": "99:00",
            "StudyID": "x" * 17,
            "AccessionNumber": "A\\B",
            "PatientID": "P" * 65,
            "PatientName": "a^b\\c=\x00d=e=f",
            "PatientBirthDate": "1961-05-30",
            "PatientSex": "female",
            "ReferringPhysicianName": "\x1b[31m",
            "Modality": "\\",
        }
    )
    other = film.model_copy(update={"StudyInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"})
    no_uid = film.model_copy(update={"SOPInstanceUID": "none of this"})
    inputs = tuple(
        each.model_copy(update={"dicom": dicom, "filename": "\x00\\\n"})
        for each, dicom in zip(whole.inputs, (broken, other, no_uid), strict=True)
    )
    author = Author(id="\\", name="^=^", facility="", role="referrer")
    return whole.model_copy(
        update={
            "inputs": inputs,
            "site": "\x00",
            "person": Person(id="p\\q", name="^"),
            "referrer": Referrer(name="=" * 200),
            "order": Order(placer="\\" * 200, accession_number="A" * 64, reason="\r\x00\n" * 300),
            "models": (ModelUsed(name="\x00", version="", sha256=""),),
            "opinions": tuple(each.model_copy(update={"author": author, "text": "\x00"}) for each in whole.opinions),
        }
    )


def film_file(photometric: str = "MONOCHROME2", **elements: object) -> bytes:
    """A DX film like the fixture's first input: 512 × 400 pixels, 12 bits."""
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.1.1", f"{STUDY}.2.1"
    dataset.Modality, dataset.PhotometricInterpretation = "DX", photometric
    dataset.Rows, dataset.Columns, dataset.SamplesPerPixel, dataset.PixelRepresentation = 512, 400, 1, 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = "0", "1", "US"
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    y, x = np.mgrid[:512, :400]
    dataset.PixelData = (2000 + 1500 * np.sin(x / 60) * np.cos(y / 50)).astype("<u2").tobytes()
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def heatmap() -> EvidenceMap:
    return next(each for each in report(1).findings if each.name == "pneumonia").evidence[0]


def picture() -> bytes:
    return evidence_png(film_file(), heatmap())


def parsed(content: bytes) -> pydicom.Dataset:
    return pydicom.dcmread(io.BytesIO(content))


# ---------------------------------------------------------------- reading an SR back
def valued(sequence) -> tuple[str, str]:
    item = sequence[0]
    return item.get("CodeValue") or item.LongCodeValue, item.CodingSchemeDesignator


def walk(item):
    for each in item.get("ContentSequence", ()):
        yield each
        yield from walk(each)


def named(item, value: str):
    """Items under ``item``, at any depth, whose concept is ``value``."""
    return [
        each
        for each in walk(item)
        if "ConceptNameCodeSequence" in each and valued(each.ConceptNameCodeSequence)[0] == value
    ]


def number(item) -> tuple[float, str]:
    measured_value = item.MeasuredValueSequence[0]
    return float(measured_value.NumericValue), valued(measured_value.MeasurementUnitsCodeSequence)[0]


def found(document) -> dict:
    """Number, unit and whether it is positive, by the concept of each measurement group."""
    said = {}
    for group in named(document, "125007"):
        concept = valued(named(group, "121071")[0].ConceptCodeSequence)
        numbers = [number(each) for each in group.ContentSequence if each.ValueType == "NUM"]
        judged_as = {"10828004": True, "260385009": False}
        results = [judged_as[valued(each.ConceptCodeSequence)[0]] for each in named(group, "result")]
        said[concept] = (*(numbers[0] if numbers else (None, None)), results[0] if results else None)
    return said


# ---------------------------------------------------------------- validators
def lines_of_error(content: bytes, folder: Path) -> list[str]:
    if shutil.which("dciodvfy") is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed: no DICOM object is validated in this run")
    file = folder / "object.dcm"
    file.write_bytes(content)
    said = subprocess.run(["dciodvfy", "-new", file], capture_output=True, check=False)
    assert said.stderr.strip(), "dciodvfy names at least the object that it takes the file for"
    return [line for line in said.stderr.decode(errors="replace").splitlines() if line.startswith("Error")]


def dumped(content: bytes, folder: Path) -> str:
    if shutil.which("dsrdump") is None:
        pytest.skip("dsrdump (dcmtk) is not installed: no SR is opened by another reader in this run")
    file = folder / "report.dcm"
    file.write_bytes(content)
    said = subprocess.run(["dsrdump", "+Pl", file], capture_output=True, check=False)
    assert said.returncode == 0, said.stderr.decode(errors="replace")
    return said.stdout.decode()


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_of_every_version_is_valid(version, language, tmp_path):
    made = report(version)
    assert lines_of_error(render(made, language), tmp_path) == []
    assert lines_of_error(render_heatmap(made, language, "pneumonia", 0, picture()), tmp_path) == []
    assert lines_of_error(render_presentation(made, language, "pneumonia", 0, film_file()), tmp_path) == []


@pytest.mark.parametrize("make", [without_dicom, without_person, nothing_assessed, kidney])
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_report_with_little_known_is_valid_and_opens(make, language, tmp_path):
    content = render(make(), language)
    assert lines_of_error(content, tmp_path) == []
    assert "Comprehensive SR" in dumped(content, tmp_path)


def test_invalid_headers_do_not_make_an_invalid_object(tmp_path):
    content = render(hostile(), "vi")
    assert lines_of_error(content, tmp_path) == []
    dumped(content, tmp_path)
    dataset = parsed(content)
    assert (dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber) == ("", "", "", "")
    assert (dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex) == ("", "", "")
    assert dataset.VerifyingObserverSequence[0].VerifyingOrganization == "—"
    assert [each.StudyInstanceUID for each in dataset.CurrentRequestedProcedureEvidenceSequence] == [STUDY]
    assert [each.StudyInstanceUID for each in dataset.PertinentOtherEvidenceSequence] == ["1.2.3.4"]
    assert "none of this" not in str(dataset)


@pytest.mark.parametrize("sop_class", ["1.2.840.10008.5.1.4.1.1.9.1.1", "1.2.840.10008.5.1.4.1.1.104.1"])
def test_a_recording_in_the_archive_is_referenced(sop_class, tmp_path):
    content = render(with_recording(sop_class), "vi")
    assert lines_of_error(content, tmp_path) == []
    dumped(content, tmp_path)
    document = parsed(content)
    kinds = {
        each.ReferencedSOPSequence[0].ReferencedSOPInstanceUID: each.ValueType
        for each in walk(document)
        if "ReferencedSOPSequence" in each
    }
    wave = sop_class.startswith("1.2.840.10008.5.1.4.1.1.9")
    assert kinds == {f"{STUDY}.2.1": "IMAGE", f"{STUDY}.3.1": "WAVEFORM" if wave else "COMPOSITE"}
    (evidence,) = document.CurrentRequestedProcedureEvidenceSequence
    assert len(evidence.ReferencedSeriesSequence) == 2
    assert bool(named(document, "evidence")) == wave


def test_dsrdump_shows_the_names_with_every_diacritic(tmp_path):
    shown = dumped(render(report(3), "vi"), tmp_path)
    assert "Người^Được Khám Thử Nghiệm Ẵặ" in shown
    assert DOCTOR in shown
    assert SPECIALIST in shown
    assert NAME in dumped(render(without_dicom(), "vi"), tmp_path)


def test_a_name_longer_in_bytes_than_in_characters_stays_whole(tmp_path):
    name = "Ẵ" * 60
    content = render(without_dicom().model_copy(update={"person": Person(name=name)}), "vi")
    assert str(parsed(content).PatientName) == name
    assert all("PatientName" in line and PN_IN_BYTES in line for line in lines_of_error(content, tmp_path))


# ---------------------------------------------------------------- SR, read back
@pytest.mark.parametrize("language", LANGUAGES)
def test_codes_numbers_and_units_are_those_of_the_report(language):
    for made in (report(3), kidney()):
        document = parsed(render(made, language))
        said = found(document)
        for finding in made.findings:
            term = terms()[finding.name]
            scheme = {"http://snomed.info/sct": "SCT", "http://loinc.org": "LN"}.get(term.system, "99SANGLOC")
            value, unit, positive = said[term.code, scheme]
            assert positive == finding.positive
            if finding.probability is not None:
                assert (value, unit) == (finding.probability, "1")
            elif isinstance(finding.value, float):
                assert (value, unit) == (finding.value, finding.unit)


def test_an_operating_point_is_a_property_of_its_probability():
    document = parsed(render(report(1), "en"))
    group = next(each for each in named(document, "125007") if "233604007" in str(named(each, "121071")[0]))
    (probability,) = named(group, "probability")
    point = {key: number(named(probability, key)[0])[0] for key in ("threshold", "sensitivity", "specificity")}
    assert point == {"threshold": 0.547, "sensitivity": 0.912, "specificity": 0.745}
    assert named(probability, "cohort")[0].TextValue == "made up, n=100"
    assert named(probability, "operating_point")[0].TextValue == "balanced"
    assert named(group, "111001")[0].TextValue == "lung"
    assert named(group, "111003")[0].TextValue == "1.2.0"
    assert named(group, "111002")[0].TextValue == f"sha256={'d' * 64}"
    assert named(group, "121112")[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == f"{STUDY}.2.1"


def test_an_uncalibrated_output_is_not_called_a_probability():
    document = parsed(render(kidney(), "en"))
    assert [number(each)[0] for each in named(document, "bare_output")] == [0.5]
    assert [number(each)[0] for each in named(document, "probability")] == [0.001]


def test_values_that_are_words():
    document = parsed(render(kidney(), "fr"))
    assert named(document, "kdigo_g")[0].TextValue == "G3a"
    (risk,) = (each for each in named(document, "kdigo_risk") if each.ValueType == "CODE")
    assert valued(risk.ConceptCodeSequence) == ("very_high", "99SANGLOC")
    assert risk.ConceptCodeSequence[0].CodeMeaning == "très élevé"


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_are_in_the_language(language):
    document = parsed(render(report(3), language))
    assert valued(named(document, "121049")[0].ConceptCodeSequence) == (language, "RFC5646")
    texts = [each.TextValue for each in walk(document) if each.ValueType == "TEXT"]
    assert say("decision_support", language) in texts
    assert any(text.startswith(finding_sentence(report(3).findings[1], language)) for text in texts)
    assert document.SeriesDescription.startswith(say("title", language)[:20])
    meanings = {each.ConceptCodeSequence[0].CodeMeaning for each in named(document, "121071")}
    assert display("pneumonia", language) in meanings


def test_an_organ_that_was_not_assessed_has_its_reasons():
    document = parsed(render(report(1), "vi"))
    (evaluations,) = named(document, "C0034375")
    kidneys = next(
        each for each in evaluations.ContentSequence if valued(each.ConceptNameCodeSequence)[0] == "64033007"
    )
    assert valued(kidneys.ConceptCodeSequence) == ("not_assessed", "99SANGLOC")
    (reason,) = kidneys.ContentSequence
    assert valued(reason.ConceptNameCodeSequence) == ("labs_missing", "99SANGLOC")
    assert "creatinin" in reason.TextValue
    refused = named(document, "wrong_view")
    assert len(refused) == 1
    assert refused[0].ValueType == "TEXT"


def test_state_and_signatures_by_version():
    first, second, third = (parsed(render(report(version), "vi")) for version in VERSIONS)
    assert [each.PreliminaryFlag for each in (first, second, third)] == ["PRELIMINARY", "FINAL", "FINAL"]
    assert [each.VerificationFlag for each in (first, second, third)] == ["UNVERIFIED", "VERIFIED", "VERIFIED"]
    assert {each.CompletionFlag for each in (first, second, third)} == {"COMPLETE"}
    assert "VerifyingObserverSequence" not in first
    assert [str(each.VerifyingObserverName) for each in third.VerifyingObserverSequence] == [DOCTOR, SPECIALIST]
    assert third.VerifyingObserverSequence[1].VerificationDateTime == "20261121133000+0000"
    assert [named(each, "version")[0].MeasuredValueSequence[0].NumericValue for each in (first, third)] == [1, 3]


def test_an_opinion_has_its_doctor_as_observer():
    document = parsed(render(report(3), "vi"))
    assert named(document, "121013")[0].TextValue == "Sàng Lọc"
    referrer, specialist = named(document, "opinion")
    assert [str(each.PersonName) for each in named(specialist, "121008")] == [SPECIALIST]
    assert [str(each.PersonName) for each in named(referrer, "121008")] == [DOCTOR]
    verdicts = {
        valued(each.ConceptNameCodeSequence)[0]: valued(each.ConceptCodeSequence)[0]
        for each in specialist.ContentSequence
        if each.RelationshipType == "CONTAINS" and each.ValueType == "CODE"
    }
    assert verdicts["233604007"] == "disagree"
    assert verdicts["46621007"] == "add"
    assert verdicts["advice"] == "manage"
    assert verdicts["reading"] == "blind"
    texts = [each.TextValue for each in specialist.ContentSequence if each.ValueType == "TEXT"]
    assert "Không thấy đông đặc." in texts
    assert "2026-11-21T13:30:00Z" in texts


def test_an_opinion_says_what_it_makes_of_the_machines_result():
    referrer, specialist = named(parsed(render(report(3), "vi")), "opinion")
    for opinion, outcome in ((referrer, "accepted"), (specialist, "amended")):
        (box,) = named(opinion, "ai_result")
        (item,) = box.ContentSequence
        assert valued(item.ConceptNameCodeSequence) == (terms()["lung"].code, "SCT")
        assert valued(item.ConceptCodeSequence) == (outcome, "99SANGLOC")


def test_conclusions_are_the_findings_that_hold_after_all_opinions():
    for version in VERSIONS:
        made = report(version)
        document = parsed(render(made, "fr"))
        codes = [valued(each.ConceptCodeSequence)[0] for each in named(document, "121077") if each.ValueType == "CODE"]
        assert codes == [terms()[name].code for name in made.conclusions]


def test_patient_study_and_request():
    dataset = parsed(render(report(1), "vi"))
    assert dataset.SpecificCharacterSet == "ISO_IR 192"
    assert str(dataset.PatientName) == "Người^Được Khám Thử Nghiệm Ẵặ"
    assert (dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex) == ("VN-0042", "19610530", "F")
    assert (dataset.StudyInstanceUID, dataset.StudyDate, dataset.StudyTime, dataset.StudyID) == (
        STUDY, "20261121", "081500", "S1",
    )  # fmt: skip
    assert (dataset.AccessionNumber, str(dataset.ReferringPhysicianName)) == ("ACC-1", "BS.^Thử Nghiệm Tuyến Dưới")
    (request,) = dataset.ReferencedRequestSequence
    assert (request.AccessionNumber, request.PlacerOrderNumberImagingServiceRequest) == ("ACC-1", "ORD-1")
    (evidence,) = dataset.CurrentRequestedProcedureEvidenceSequence
    assert evidence.ReferencedSeriesSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == f"{STUDY}.2.1"
    assert dataset.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99SANGLOC"
    assert "TimezoneOffsetFromUTC" not in dataset  # the hospital's study time has no known zone


def test_patient_is_taken_from_the_context_if_no_header_states_it():
    dataset = parsed(render(without_dicom(), "vi"))
    assert str(dataset.PatientName) == NAME
    assert dataset.PatientName.given_name == ""
    assert (dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex) == ("VN-0042", "19610530", "F")
    assert (dataset.StudyDate, dataset.AccessionNumber) == ("20261121", "ACC-1")
    assert str(dataset.ReferringPhysicianName) == DOCTOR
    nobody = parsed(render(without_person(), "vi"))
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "ReferringPhysicianName"):
        assert keyword in nobody
        assert not nobody[keyword].value
    assert (nobody.StudyDate, nobody.StudyTime, nobody.TimezoneOffsetFromUTC) == ("20261121", "083000", "+0000")


def test_an_accession_number_is_never_shortened():
    long = without_dicom().model_copy(update={"order": Order(accession_number="A" * 17)})
    assert parsed(render(long, "en")).AccessionNumber == ""


# ---------------------------------------------------------------- identity
def test_the_same_report_is_the_same_file():
    film, png = film_file(), picture()
    for version in VERSIONS:
        assert render(report(version), "vi") == render(report(version), "vi")
    assert render_heatmap(report(1), "vi", "pneumonia", 0, png) == render_heatmap(report(1), "vi", "pneumonia", 0, png)
    once, twice = (render_presentation(report(1), "vi", "pneumonia", 0, film) for _ in range(2))
    assert once == twice


def test_rendered_objects_have_the_identifiers_of_instances():
    made = report(2)
    sr, sc, gsps = instances(made, "vi")
    assert [(each.kind, each.finding, each.index) for each in (sr, sc, gsps)] == [
        ("sr", None, None), ("sc", "pneumonia", 0), ("gsps", "pneumonia", 0),
    ]  # fmt: skip
    rendered = (
        render(made, "vi"),
        render_heatmap(made, "vi", "pneumonia", 0, picture()),
        render_presentation(made, "vi", "pneumonia", 0, film_file()),
    )
    for each, content in zip((sr, sc, gsps), rendered, strict=True):
        dataset = parsed(content)
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID == each.sop_instance_uid
        assert dataset.SOPClassUID == dataset.file_meta.MediaStorageSOPClassUID == each.sop_class_uid
        assert (dataset.SeriesInstanceUID, dataset.Modality) == (each.series_instance_uid, each.modality)
        assert (dataset.StudyInstanceUID, dataset.InstanceNumber) == (each.study_instance_uid, each.instance_number)


def test_every_version_and_language_has_its_own_identifiers():
    every = [each for version in VERSIONS for language in LANGUAGES for each in instances(report(version), language)]
    assert len({each.sop_instance_uid for each in every}) == len(every) == 27
    assert len({each.series_instance_uid for each in every}) == 27


def test_a_version_refers_to_the_version_before():
    assert "PredecessorDocumentsSequence" not in parsed(render(report(1), "vi"))
    assert prior_document(report(1), "vi") is None
    (prior,) = parsed(render(report(3), "vi")).PredecessorDocumentsSequence
    (series,) = prior.ReferencedSeriesSequence
    before = parsed(render(report(2), "vi"))
    assert (prior.StudyInstanceUID, series.SeriesInstanceUID) == (before.StudyInstanceUID, before.SeriesInstanceUID)
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID


def test_no_presentation_state_without_the_film_in_the_archive():
    assert [each.kind for each in instances(without_dicom(), "vi")] == ["sr", "sc"]
    assert [each.kind for each in instances(nothing_assessed(), "vi")] == ["sr"]
    whole = report(1)
    film = whole.inputs[0].dicom
    assert film is not None
    for change in ({"Rows": None}, {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, {"SOPInstanceUID": "x"}):
        first = whole.inputs[0].model_copy(update={"dicom": film.model_copy(update=change)})
        changed = whole.model_copy(update={"inputs": (first, *whole.inputs[1:])})
        assert [each.kind for each in instances(changed, "vi")] == ["sr", "sc"]


def test_an_invalid_study_uid_is_replaced_by_one_made_from_the_visit():
    made = without_dicom().model_copy(update={"study_instance_uid": "study of Tuesday"})
    assert parsed(render(made, "vi")).StudyInstanceUID.startswith("2.25.")
    assert VISIT not in parsed(render(made, "vi")).StudyInstanceUID


IDENTIFIERS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
MALFORMED = ["1.2.840.099.7", "1.2.ABC.7", "1." + "2" * 70, "1.2.840.7.", "HOSPITAL-7", "1.2\\1.3", ""]


def with_identifier(keyword: str, uid: str) -> Report:
    """A report on a film with this identifier."""
    whole = report(2)
    film = whole.inputs[0].dicom
    assert film is not None
    film = film.model_copy(update={keyword: uid})
    study = own_study(VISIT) if keyword == "StudyInstanceUID" and not uid else film.StudyInstanceUID
    inputs = (whole.inputs[0].model_copy(update={"dicom": film}), *whole.inputs[1:])
    return whole.model_copy(update={"inputs": inputs, "study_instance_uid": study})


@pytest.mark.parametrize("uid", MALFORMED)
@pytest.mark.parametrize("keyword", IDENTIFIERS)
def test_a_film_whose_identifier_is_malformed_is_not_referred_to_and_the_objects_are_valid(keyword, uid, tmp_path):
    made = with_identifier(keyword, uid)
    assert [each.kind for each in instances(made, "vi")] == ["sr", "sc"], "a presentation state has to name its film"
    contents = [render(made, "vi"), render_heatmap(made, "vi", "pneumonia", 0, picture())]
    for content in contents:
        assert lines_of_error(content, tmp_path) == []
        dataset = parsed(content)
        uids = [element.value for element in dataset.iterall() if element.VR == "UI"]
        assert all(is_uid(each) for each in uids), uids
        film = made.inputs[0].dicom
        assert film is not None
        assert (dataset.PatientID, dataset.PatientName) == (film.PatientID, film.PatientName)
        assert (dataset.AccessionNumber, dataset.StudyDate) == (film.AccessionNumber, film.StudyDate)
        study = own_study(VISIT) if keyword == "StudyInstanceUID" else STUDY
        assert dataset.StudyInstanceUID == study
    dumped(contents[0], tmp_path)


# ---------------------------------------------------------------- images
def test_the_capture_holds_the_picture_and_names_the_finding():
    png = picture()
    dataset = parsed(render_heatmap(report(1), "vi", "pneumonia", 0, png))
    assert np.array_equal(dataset.pixel_array, np.asarray(Image.open(io.BytesIO(png))))
    assert (dataset.Rows, dataset.Columns, dataset.PhotometricInterpretation) == (512, 400, "RGB")
    assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert dataset.ConversionType == "WSD"
    said = finding_sentence(report(1).findings[1], "vi")
    assert said in dataset.DerivationDescription
    assert said in dataset.ImageComments
    assert say("decision_support", "vi") in dataset.ImageComments
    assert "BurnedInAnnotation" not in dataset
    (source,) = dataset.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == f"{STUDY}.2.1"
    assert source.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert "SourceImageSequence" not in parsed(render_heatmap(without_dicom(), "vi", "pneumonia", 0, png))


@pytest.mark.parametrize("size", [(3001, 1501), (333, 335)])
def test_a_capture_is_limited_in_size_and_of_even_length(size, tmp_path):
    out = io.BytesIO()
    Image.new("RGB", size, "#102030").save(out, "PNG")
    content = render_heatmap(report(1), "en", "pneumonia", 0, out.getvalue())
    dataset = parsed(content)
    assert max(dataset.Rows, dataset.Columns) <= MAX_SIDE_PX
    assert dataset.pixel_array.shape == (dataset.Rows, dataset.Columns, 3)
    assert lines_of_error(content, tmp_path) == []


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + bytes(40)])
def test_bytes_that_are_not_a_png_are_refused(content):
    with pytest.raises(Refused) as refused:
        render_heatmap(report(1), "vi", "pneumonia", 0, content)
    assert refused.value.problem.code == "unreadable"


def test_what_the_report_does_not_have_is_not_rendered():
    for finding, index in (("effusion", 0), ("pneumonia", 1), ("st_t_change", 1), ("nothing", 0)):
        with pytest.raises(KeyError):
            render_heatmap(report(1), "vi", finding, index, picture())
        with pytest.raises(KeyError):
            render_presentation(report(1), "vi", finding, index, film_file())


def test_the_presentation_state_draws_outlines_over_the_film():
    dataset = parsed(render_presentation(report(1), "fr", "pneumonia", 0, film_file()))
    (series,) = dataset.ReferencedSeriesSequence
    assert series.SeriesInstanceUID == f"{STUDY}.2"
    assert series.ReferencedImageSequence[0].ReferencedSOPInstanceUID == f"{STUDY}.2.1"
    (area,) = dataset.DisplayedAreaSelectionSequence
    assert list(area.DisplayedAreaBottomRightHandCorner) == [400, 512]
    (annotation,) = dataset.GraphicAnnotationSequence
    words = annotation.TextObjectSequence[0].UnformattedTextValue
    assert words.startswith("Pneumonie 88,3")
    assert annotation.GraphicLayer == dataset.GraphicLayerSequence[0].GraphicLayer
    for line in annotation.GraphicObjectSequence:
        points = np.array(line.GraphicData).reshape(-1, 2)
        assert len(points) == line.NumberOfGraphicPoints
        assert np.array_equal(points[0], points[-1])
        assert points.min() >= 0
        assert (points.max(axis=0) <= (400, 512)).all()
    # The map's highest cells are the middle left (255) and the lower right one (200). Both have an outline.
    left, right = sorted(
        (np.array(line.GraphicData).reshape(-1, 2).mean(axis=0).tolist() for line in annotation.GraphicObjectSequence),
        key=lambda middle: -middle[1],
    )[:2]
    assert {left[0] < 200, right[0] < 200} == {True, False}


def test_a_presentation_state_keeps_the_films_grey_scale(tmp_path):
    plain = parsed(render_presentation(report(1), "vi", "pneumonia", 0, film_file()))
    assert plain.PresentationLUTShape == "IDENTITY"
    assert "SoftcopyVOILUTSequence" not in plain
    content = render_presentation(
        report(1), "vi", "pneumonia", 0, film_file("MONOCHROME1", WindowCenter="1875.5", WindowWidth=["2500", "9"])
    )
    windowed = parsed(content)
    assert windowed.PresentationLUTShape == "INVERSE"
    assert windowed.RescaleSlope == 1
    assert windowed.SoftcopyVOILUTSequence[0].WindowCenter == 1875.5
    assert windowed.SoftcopyVOILUTSequence[0].WindowWidth == 2500
    assert lines_of_error(content, tmp_path) == []


def test_another_library_reads_the_measurements():
    from highdicom.sr import ComprehensiveSR
    from highdicom.sr.coding import CodedConcept

    groups = ComprehensiveSR.from_dataset(parsed(render(report(1), "fr"))).content.get_image_measurement_groups()
    pneumonia = next(each for each in groups if each.tracking_identifier == "pneumonia")
    assert pneumonia.finding_type.value == "233604007"
    assert pneumonia.finding_sites[0].value.value == "39607008"
    probability = CodedConcept("probability", "99SANGLOC", "Probabilité")
    assert [each.value for each in pneumonia.get_measurements(probability)] == [0.883]


@pytest.mark.parametrize("bits", [12, 16])
def test_a_films_look_up_table_is_copied(bits, tmp_path):
    table = pydicom.Dataset()
    entries = np.linspace(0, 4095, 4096).astype("<u2")
    table.add_new("LUTDescriptor", "US", [4096, 0, bits])
    table.add_new("LUTData", "OW", entries.tobytes())
    content = render_presentation(report(1), "vi", "pneumonia", 0, film_file(VOILUTSequence=[table]))
    (shown,) = parsed(content).SoftcopyVOILUTSequence
    assert list(shown.VOILUTSequence[0].LUTDescriptor) == [4096, 0, 16]
    carried = np.frombuffer(shown.VOILUTSequence[0].LUTData, "<u2")
    assert np.allclose(carried / 65535, entries / 4095, atol=1e-5)  # 12 bits that are shown as 16 would be almost black
    assert lines_of_error(content, tmp_path) == []


def test_a_film_that_cannot_be_read_is_refused():
    with pytest.raises(Refused):
        render_presentation(report(1), "vi", "pneumonia", 0, b"no film")
