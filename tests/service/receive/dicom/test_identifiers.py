"""Objects whose identifiers break PS3.5 section 9.1: by C-STORE and STOW-RS they become visits, as they came."""

from __future__ import annotations

import shutil
import subprocess
from urllib.parse import quote

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from data_specs.dicom.reference import DicomReference
from service.storage.tables import VisitRow
from tests.service.api.test_dicomweb import stow
from tests.service.orthanc import free_port, listens, orthanc
from tests.service.receive.dicom.arriving import arrive, context_in, count, nothing_waits, rows
from tests.service.receive.dicom.made import PEER, PEERS, associate, film, parsed, raw_store, recording, send
from tests.service.serving import serving, settings_for, until

LEADING_ZERO, LETTERS, LONG, POINT = "1.2.826.01.7", "1.2.ABC.7", "1." + "2" * 70, "1.2.826.7."
MALFORMED = [LEADING_ZERO, LETTERS, LONG, POINT, "HOSPITAL-7", "1.2\\1.3", "1." + "3" * 500]
KEYWORDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")


@pytest.fixture(scope="module")
def listening(tmp_path_factory, new_database):
    folder, port = tmp_path_factory.mktemp("identifiers"), free_port()
    settings = settings_for(
        folder, database_url=new_database(), dicom_port=port, dicom_peers=PEERS, dicom_gather_seconds=0.4
    )
    with serving(settings) as served:
        until(lambda: listens(port), 10)
        served.dicom_port = port
        yield served


def visits_of_person(served, person, n=1):
    until(lambda: count(served, VisitRow, VisitRow.person_id == person) >= n, 30)
    until(lambda: nothing_waits(served), 30)
    return sorted(rows(served, VisitRow, person_id=person), key=lambda visit: visit.received_at)


def references(visit):
    return [DicomReference.model_validate_json(each.dicom) for each in visit.inputs]


# ---------------------------------------------------------------- what is kept
@pytest.mark.parametrize("keyword", KEYWORDS)
def test_an_object_becomes_a_visit_with_its_identifiers_as_they_came(listening, keyword):
    persons = {uid: generate_uid()[-20:] for uid in MALFORMED}
    for uid, person in persons.items():
        mine = {"PatientID": person, keyword: f" {uid}"}
        assert arrive(listening, film(**mine), recording(**mine), film(**mine, ViewPosition="AP")) == [None] * 3
    for uid, person in persons.items():
        visits = visits_of_person(listening, person)
        assert len(visits) == (1 if keyword == "StudyInstanceUID" else 3), "the objects of one study are one visit"
        found = [getattr(each, keyword) for visit in visits for each in references(visit)]
        assert found == [uid] * 3


def test_objects_that_name_no_study_are_a_visit_each(listening):
    for person, study in (("E-1", ""), ("E-2", ""), ("E-3", None), ("E-4", "UNKNOWN"), ("E-5", "UNKNOWN")):
        assert arrive(listening, film(PatientID=person, StudyInstanceUID=study)) == [None]
    assert arrive(listening, recording(PatientID="E-1", StudyInstanceUID="")) == [None]
    for person, n in (("E-1", 2), ("E-2", 1), ("E-3", 1), ("E-4", 1), ("E-5", 1)):
        visits = visits_of_person(listening, person, n)
        assert [len(each.inputs) for each in visits] == [1] * n
        assert all(context_in(each).person.id == person for each in visits)
        assert all(each.study_uid.startswith("2.25.") for each in visits)


def test_objects_that_name_neither_study_nor_person_are_never_put_together(listening):
    until(lambda: nothing_waits(listening), 10)
    before = {each.id for each in rows(listening, VisitRow)}
    nobody = {"PatientID": "", "PatientName": "", "StudyInstanceUID": "", "SeriesInstanceUID": "", "SOPInstanceUID": ""}
    assert arrive(listening, film(**nobody), film(**nobody, ViewPosition="AP"), film(**nobody)) == [None] * 3
    until(lambda: count(listening, VisitRow) >= len(before) + 2, 10)
    until(lambda: nothing_waits(listening), 10)
    made = [each for each in rows(listening, VisitRow) if each.id not in before]
    assert [len(each.inputs) for each in made] == [1, 1], "one of the three was sent again"


def test_a_late_object_of_a_malformed_study_makes_a_visit_of_the_whole_study(listening):
    for _ in range(2):
        assert arrive(listening, film(PatientID="LATE", StudyInstanceUID=LEADING_ZERO)) == [None]
        until(lambda: nothing_waits(listening), 10)
    first, second = visits_of_person(listening, "LATE", 2)
    assert (len(first.inputs), len(second.inputs)) == (1, 2)
    assert first.study_uid != second.study_uid, "the report of a visit stands in a study of its own"


def test_two_persons_of_one_malformed_study_get_a_visit_each(listening):
    mine = [film(PatientID=person, StudyInstanceUID="1.2.0007") for person in ("M-1", "M-2")]
    assert arrive(listening, *mine) == [None, None]
    for person in ("M-1", "M-2"):
        (visit,) = visits_of_person(listening, person)
        assert len(visit.inputs) == 1


# ---------------------------------------------------------------- C-STORE
def test_c_store(listening):
    persons = {
        (keyword, uid): generate_uid()[-20:]
        for keyword in KEYWORDS
        for uid in (LEADING_ZERO, LETTERS, POINT, "HOSPITAL-7", *([] if keyword == "SOPInstanceUID" else [LONG, ""]))
    }
    films = [film(PatientID=person, **{keyword: uid}) for (keyword, uid), person in persons.items()]
    assert send(listening.dicom_port, *films) == [0] * len(films)
    for (keyword, uid), person in persons.items():
        (visit,) = visits_of_person(listening, person)
        assert getattr(references(visit)[0], keyword) == uid


COMMANDS = [
    ("as the object", LONG, LONG),
    ("cut to 64 characters, as DCMTK does", LONG, LONG[:64]),
    ("empty", "1.2.826.8", ""),
    ("absent", "1.2.826.9", None),
    ("stated, where the object has none", "", "1.2.826.10"),
    ("empty in both", "", ""),
]


@pytest.mark.parametrize(("own", "stated"), [row[1:] for row in COMMANDS], ids=[row[0] for row in COMMANDS])
def test_an_identifier_in_the_command_that_is_malformed(listening, own, stated):
    """An association takes what comes after it, too."""
    person = generate_uid()[-20:]
    objects = [film(PatientID=person, StudyInstanceUID="1.2.9", SOPInstanceUID=own, AcquisitionNumber=n) for n in "123"]
    association = associate(listening.dicom_port, objects[0])
    for content in objects:
        answer = raw_store(association, parsed(content), stated=stated)
        assert answer is not None
        assert answer.Status == 0
    association.release()
    visit = visits_of_person(listening, person)[-1]
    assert {each.SOPInstanceUID for each in references(visit)} == {own}
    assert len(visit.inputs) == 3


def test_another_object_than_the_command_names_is_refused(listening):
    content = parsed(film(SOPInstanceUID=LONG))
    association = associate(listening.dicom_port, content)
    for stated in ("1.2.3", LONG[:60], f"{LONG[:63]}9"):
        assert raw_store(association, content, stated=stated).Status == 0xA900
    association.release()


def tool(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} (dcmtk) is not installed: what it would send is not tested in this run")
    return found


def test_storescu(listening, tmp_path):
    contents = [film(PatientID="SCU", StudyInstanceUID=uid) for uid in (LEADING_ZERO, LETTERS, LONG, POINT, "")]
    contents += [film(PatientID="SCU", SeriesInstanceUID=""), film(PatientID="SCU", SOPInstanceUID=LONG)]
    for index, content in enumerate(contents):
        (tmp_path / f"{index}.dcm").write_bytes(content)
    command = [
        tool("storescu"),
        "-aet",
        PEER,
        "-aec",
        "SANGLOC",
        "+sd",
        "127.0.0.1",
        str(listening.dicom_port),
        tmp_path,
    ]
    sent = subprocess.run(command, capture_output=True, text=True, check=False)
    assert sent.returncode == 0, sent.stderr
    assert len(visits_of_person(listening, "SCU", 7)) == 7


def test_orthanc(listening, tmp_path):
    with orthanc(tmp_path / "orthanc", modalities={"sangloc": ("SANGLOC", listening.dicom_port)}) as peer:
        for uid in (LEADING_ZERO, LETTERS, POINT):
            peer.store("sangloc", peer.add(film(PatientID="ORT", StudyInstanceUID=uid)))
    visits = visits_of_person(listening, "ORT", 3)
    assert {references(each)[0].StudyInstanceUID for each in visits} == {LEADING_ZERO, LETTERS, POINT}


# ---------------------------------------------------------------- DICOMweb
@pytest.mark.parametrize("uid", [LEADING_ZERO, LETTERS, LONG, POINT, "HOSPITAL-7", "1.2 7"])
def test_dicomweb_takes_and_finds_a_study_under_its_malformed_identifier(listening, uid):
    site = f"web-{uid[:20]}"
    at = f"/dicomweb/studies/{quote(uid, safe='')}"
    content = film(PatientID="WEB", StudyInstanceUID=uid, SOPInstanceUID=f"{uid}.1", PatientName="Web^Thử")
    with listening.client(listening.key("site", site)) as client:
        assert client.get(at).status_code == 404
        answer = stow(client, content, film(StudyInstanceUID=generate_uid()), path=at)
        assert answer.status_code == 202, answer.text
        stored = Dataset.from_json(answer.json())
        assert [each.ReferencedSOPInstanceUID for each in stored.ReferencedSOPSequence] == [f"{uid}.1"]
        assert [each.FailureReason for each in stored.FailedSOPSequence] == [0xA900]
        assert stored.RetrieveURL == f"{listening.address}{at}"
        assert stow(client, content).status_code == 200
        until(lambda: [each.status for each in rows(listening, VisitRow, site=site)] == ["complete"], 20)
        (visit,) = rows(listening, VisitRow, site=site)
        assert references(visit)[0].StudyInstanceUID == uid
        for query in (client.get(f"{at}/series"), client.get("/dicomweb/series", params={"StudyInstanceUID": uid})):
            found = query.json()
            assert {each["0020000D"]["Value"][0] for each in found} == {visit.study_uid}
            assert {each["00080060"]["Value"][0] for each in found} == {"SR", "OT"}
        whole = client.get(at)
        assert whole.content.count(b"DICM") == 2
        metadata = client.get(f"{at}/metadata").json()
        assert {each["0020000D"]["Value"][0] for each in metadata} == {visit.study_uid}
        assert {each["00100010"]["Value"][0]["Alphabetic"] for each in metadata} == {"Web^Thử"}
        report = client.get(f"/v1/visits/{visit.id}/report.json").json()
        assert report["study_instance_uid"] == report["inputs"][0]["dicom"]["StudyInstanceUID"] == uid
    with listening.client(listening.key("site", "elsewhere")) as client:
        assert client.get(at).status_code == 404
        assert client.get("/dicomweb/series", params={"StudyInstanceUID": uid}).json() == []


def test_a_malformed_identifier_is_compared_letter_by_letter(listening):
    with listening.client(listening.key("site", "letters")) as client:
        assert stow(client, film(StudyInstanceUID="1.2.abc_7")).status_code == 200
        until(lambda: [each.status for each in rows(listening, VisitRow, site="letters")] == ["complete"], 20)
        assert client.get("/dicomweb/studies/1.2.abc_7").status_code == 200
        for other in ("1.2.ABC_7", "1.2.abcx7", "1.2.abc%25", "2.abc_7", "1.2.abc"):
            assert client.get(f"/dicomweb/studies/{other}").status_code == 404


# ---------------------------------------------------------------- what is not said
def test_no_identifier_gets_into_the_log(new_process):
    port = free_port()
    process = new_process(SANGLOC_DICOM_PORT=str(port), SANGLOC_DICOM_PEERS=PEERS, SANGLOC_DICOM_GATHER_SECONDS="0.3")
    process.start()
    until(lambda: listens(port), 10)
    marks = {"StudyInstanceUID": "1.077.5", "SeriesInstanceUID": "1.088.5", "SOPInstanceUID": "1.099.x"}
    assert send(port, film(**marks)) == [0]
    with process.served.client() as client:
        assert stow(client, film(**marks, ViewPosition="AP")).status_code == 200
        until(lambda: len(client.get("/v1/visits").json()["items"]) == 2, 20)
        assert client.get("/dicomweb/studies/1.077.5").status_code in (200, 404)
    assert process.stop() == 0
    said = process.log.read_text()
    assert not any(uid in said for uid in marks.values())
    assert "Warning" not in said
