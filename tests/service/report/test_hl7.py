"""A report as an HL7 v2 result: valid, and with the facts of the report."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from data_specs.problems import Problem
from data_specs.visit.context import Person
from data_specs.visit.report import ReportFinding, ReportOrgan
from service.protocols import mllp
from service.protocols.er7 import Message
from service.report.hl7 import message as hl7
from service.report.words import colon
from tests.service.hl7_judges import hl7_library, validated
from tests.service.report_fixture import DOCTOR, NAME, SPECIALIST, STUDY, VISIT, code, judged, measured, report

SYSTEMS = {"http://snomed.info/sct": "SCT", "http://loinc.org": "LN", "urn:sangloc:term": "99SANGLOC"}


def read_back(message):
    """What a receiver reads in a result, by the hl7 library alone."""
    parsed = hl7_library.parse(message.decode("utf-8").rstrip("\r"))
    findings, conclusions, authors, version = {}, [], [], None
    for obx in parsed.segments("OBX"):
        name, system = str(obx[3][0][0]), str(obx[3][0][2])
        value = obx[5][0]
        if name == "conclusion":
            conclusions.append((str(value[0]), str(value[2])))
        elif name == "report_version":
            version = int(str(value))
        elif name == "opinion":
            authors.append(parsed.unescape(str(obx[16][0][1])))
        elif not str(obx[4]) and str(obx[2]) in {"NM", "CWE", "ST"} and name not in {"priority", "category"}:
            number = str(obx[2]) == "NM"
            said = float(str(value)) if number else str(value[8]) if str(obx[2]) == "CWE" else str(value)
            flag, normal = str(obx[8]), str(obx[7])
            positive = None if not flag else (flag == "A") != normal.startswith(">=")
            findings[name, system] = (said, str(obx[6][0][0]) if str(obx[6]) else None, positive)
    status = {"P": "preliminary", "F": "final", "C": "amended"}[str(parsed.segment("OBR")[25])]
    person = parsed.unescape(str(parsed.segment("PID")[5][0][0]))
    return SimpleNamespace(
        findings=findings, conclusions=conclusions, authors=authors, version=version, status=status, person=person
    )


def validated_segments(facts):
    message = hl7.render(facts, "en")
    validated(message)
    return message.decode().split("\r")


@pytest.mark.parametrize(
    ("study", "value"),
    [
        (STUDY, f"^{STUDY}^ISO"),
        ("1.2.840.099.7", "^1.2.840.099.7^L"),
        ("1." + "2" * 70, f"^1.{'2' * 70}^L"),
        ("A|7^B", "^A\\F\\7\\S\\B^L"),
    ],
)
def test_the_study_is_named_as_it_came(study, value):
    message = hl7.render(report(1).model_copy(update={"study_instance_uid": study}), "en")
    validated(message)
    (said,) = [each for each in message.decode().split("\r") if "|113014^" in each]
    assert said.split("|")[2:6:3] == ["HD", value]


@pytest.mark.parametrize("language", ["vi", "fr", "en"])
@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_result_is_valid_and_has_the_facts_of_the_report(version, language):
    facts = report(version)
    message = hl7.render(facts, language)
    parsed = validated(message)
    assert parsed.name == "ORU_R01"
    assert [each.name for each in parsed.children] == ["MSH", "ORU_R01_PATIENT_RESULT"]
    said = read_back(message)
    assert said.findings == {
        (each.code.code, SYSTEMS[each.code.system]): (
            each.probability if each.value is None else each.value,
            "1" if each.value is None else each.unit,
            each.positive,
        )
        for each in facts.findings
    }
    assert said.conclusions == [(code(name).code, SYSTEMS[code(name).system]) for name in facts.conclusions]
    assert (said.version, said.status, said.person) == (facts.version, facts.status, NAME)
    assert said.authors == [DOCTOR, SPECIALIST][: version - 1]
    text = message.decode("utf-8")
    assert f"^{STUDY}^ISO" in text
    assert VISIT in text
    assert "nghieng.png" not in text  # a file's name may hold a person's
    assert text.split("\r")[0].split("|")[17] == "UNICODE UTF-8"


def test_a_result_of_short_texts_is_strictly_valid():
    from hl7apy.consts import VALIDATION_LEVEL

    validated(hl7.render(report(1), "en"), VALIDATION_LEVEL.STRICT)


def test_a_report_gives_the_same_bytes_each_time_and_every_result_has_its_own_control_id():
    once, again = hl7.render(report(2), "vi"), hl7.render(report(2), "vi")
    assert once == again
    ids = {hl7.control_id(report(version), language) for version in (1, 2, 3) for language in ("vi", "fr", "en")}
    assert len(ids) == 9
    assert all(len(each) == 20 and each.isalnum() for each in ids)


def test_a_result_names_the_order_the_referrer_and_the_signers():
    parsed = validated(hl7.render(report(3), "vi"))
    result = parsed.oru_r01_patient_result
    request = result.oru_r01_order_observation.obr
    assert request.obr_2.to_er7() == "ORD-1"
    assert request.obr_3.to_er7() == "ACC-1"
    assert request.obr_16.to_er7() == f"D-7^{DOCTOR}"
    assert request.obr_32.to_er7() == f"S-1&{SPECIALIST}"
    assert request.obr_33.to_er7() == f"D-7&{DOCTOR}"
    assert request.obr_22.to_er7() == "20261121133000+0000"
    pid = result.oru_r01_patient.pid
    assert (pid.pid_3.to_er7(), pid.pid_7.to_er7(), pid.pid_8.to_er7()) == ("VN-0042^^^lao-cai^PI", "19610530", "F")


def test_an_organ_that_was_not_assessed_has_the_status_not_obtained():
    message = hl7_library.parse(hl7.render(report(1), "en").decode().rstrip("\r"))
    unassessed = [each for each in message.segments("OBX") if str(each[3][0][0]) == "not_assessed"]
    assert [(str(each[4]), str(each[11])) for each in unassessed] == [("kidney", "X")]
    assert "blood creatinine" in str(unassessed[0][5])


def test_an_assessed_organ_says_its_category_what_it_rests_on_and_what_was_looked_for():
    lung = ReportOrgan(
        code=code("lung"),
        status="assessed",
        category="intermediate",
        category_basis=Problem("basis_flagged", "warn", found="pneumonia"),
        looked_for=["pneumonia"],
        not_looked_for=["pneumothorax"],
    )
    heart = lung.model_copy(update={"code": code("cardiac"), "category": None, "category_basis": None})
    facts = report(1).model_copy(update={"organs": {"lung": lung, "cardiac": heart}})
    segments = validated_segments(facts)
    first = next(n for n, each in enumerate(segments) if "|category^" in each)
    told = [each for each in segments[first:] if "|category^" in each]
    assert [each.split("|")[4] for each in told] == ["lung", "cardiac"]
    assert [each.split("|")[5] for each in told] == ["intermediate^To be confirmed^99SANGLOC", ""]
    assert [each.split("|")[11] for each in told] == ["P", "X"]
    assert [each.split("|")[3] for each in segments[first + 1 : first + 4]] == [
        "Above the screening threshold: pneumonia.",
        "Looked for: pneumonia.",
        "Not looked for by this model: pneumothorax.",
    ]


def test_a_result_with_almost_no_facts_is_valid():
    """No person, no order, nothing assessed, nothing signed."""
    bare = report(1).model_copy(
        update={
            "person": Person(age_years=70),
            "referrer": None,
            "order": None,
            "visited_on": None,
            "organs": {},
            "inputs": (),
            "models": (),
            "next_steps": (),
        }
    )
    message = hl7.render(bare, "fr")
    validated(message)
    assert f"PID|1||{VISIT}^^^SANGLOC^VN||~^^^^^^U\r" in message.decode()
    assert f"NTE|1|L|Âge (années){colon('fr')} 70\r" in message.decode()


def test_separators_and_control_characters_in_texts_leave_the_message_valid():
    typed = "a|b^c~d\\e&f\x0b\x1c\r\ng\x00\x7fẵ"
    facts = report(2)
    opinion = facts.opinions[0].model_copy(update={"text": typed})
    person = facts.person.model_copy(update={"name": typed, "id": typed})
    message = hl7.render(facts.model_copy(update={"opinions": (opinion,), "person": person}), "vi")
    validated(message)
    mllp.framed(message)
    said = Message(message)
    pid = next(each for each in said.segments if each.name == "PID")
    assert pid.text(5) == "a|b^c~d\\e&f g ẵ"
    written = next(each for each in said.segments if each.name == "OBX" and each.text(3) == "opinion").text(5)
    assert "a|b^c~d\\e&f  \ng  ẵ" in written
    assert read_back(message).person == "a|b^c~d\\e&f g ẵ"


def test_values_that_are_words_healthy_findings_and_undecided_findings():
    normal = judged("normal_ecg", "cardiac", 0.9, 0.5)
    not_normal = judged("normal_ecg", "cardiac", 0.2, 0.5)
    undecided = ReportFinding(
        name="mass", organ="lung", code=code("mass"), probability=0.4, calibrated=False, positive=None
    )
    risk, stage = measured("kdigo_risk", "kidney", "very high"), measured("kdigo_g", "kidney", "G3a")
    for healthy in (normal, not_normal):
        organs = {
            "lung": ReportOrgan(status="assessed", code=code("lung"), findings=(undecided,)),
            "cardiac": ReportOrgan(status="assessed", code=code("cardiac"), findings=(healthy,)),
            "kidney": ReportOrgan(status="assessed", code=code("kidney"), findings=(risk, stage)),
        }
        message = hl7.render(report(1).model_copy(update={"organs": organs}), "en")
        validated(message)
        said = read_back(message).findings
        assert said["164854000", "SCT"] == (healthy.probability, "1", healthy.positive)
        assert said["309529002", "SCT"] == (0.4, "1", None)
        assert said["kdigo_risk", "99SANGLOC"] == ("very high", None, None)
        assert said["kdigo_g", "99SANGLOC"] == ("G3a", None, None)
        assert "not calibrated" in message.decode()
        flag = "N" if healthy.positive else "A"
        assert f"|1^^UCUM|>=0.5|{flag}|" in message.decode()
