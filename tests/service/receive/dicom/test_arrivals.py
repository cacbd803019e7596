"""From arrivals to visits: what belongs together comes together, once, whoever dies on the way."""

from __future__ import annotations

import copy
import shutil
import socket
import subprocess
import threading
import time

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid
from sqlalchemy import select

from data_specs.dicom.reference import DicomReference
from data_specs.person import age_on, dicom_day
from data_specs.visit.context import Context, Order, Person, Referrer
from service.receive.dicom.arrivals import receive
from service.receive.dicom.context import by_person, context_of, readable_name
from service.receive.dicom.modality_worklist import WorklistSilent, find
from service.receive.orders import merge_order
from service.storage.database import Database, database_now
from service.storage.drafts import Draft
from service.storage.tables import ArrivalRow, OrderRow, VisitRow
from tests.data_specs.cxr_made import CT
from tests.service.orthanc import free_port, orthanc
from tests.service.receive.dicom.made import LETTERS, NAME, PEERS, SITE, film, parsed, recording, send
from tests.service.serving import serving, settings_for, until
from tests.service.standin import StandIn

QUIET_S = 0.4


@pytest.fixture(scope="module")
def gathering(tmp_path_factory, new_database):
    folder = tmp_path_factory.mktemp("arrivals")
    with serving(settings_for(folder, database_url=new_database(), dicom_gather_seconds=QUIET_S)) as served:
        yield served


def arrive(served, *contents, site=SITE, source="PEER"):
    """Receive files one after the other, as a thread of an association does."""
    service = served.app.state.service
    outcomes = []
    for content in contents:
        draft = Draft(service.store.drafts)
        draft.write(content)
        outcomes.append(receive(service, site, source, draft))
        draft.remove()
    assert list(service.store.drafts.iterdir()) == []
    return outcomes


def rows(served, table, **where):
    with served.app.state.service.database.transaction() as session:
        return list(session.scalars(select(table).filter_by(**where)))


def visits_of(served, study, n=1):
    until(lambda: len(rows(served, VisitRow, study_uid=study)) >= n, 10)
    return sorted(rows(served, VisitRow, study_uid=study), key=lambda visit: visit.received_at)


def quiet():
    time.sleep(3 * QUIET_S + 0.6)


def context_in(visit):
    return Context.model_validate_json(visit.context)


# ---------------------------------------------------------------- one by one
def test_what_is_received_is_durable_and_becomes_one_visit(gathering):
    study = generate_uid()
    films = [film(StudyInstanceUID=study) for _ in range(2)]
    assert arrive(gathering, *films, recording(StudyInstanceUID=study)) == [None] * 3
    kept = rows(gathering, ArrivalRow, study_uid=study)
    assert len(kept) == 3
    assert gathering.app.state.service.store.read(kept[0].sha256)
    (visit,) = visits_of(gathering, study)
    assert [each.field for each in visit.inputs] == ["image", "image", "ecg"]
    assert {each.visit_id for each in rows(gathering, ArrivalRow, study_uid=study)} == {visit.id}
    assert DicomReference.model_validate_json(visit.inputs[0].dicom).PatientName == NAME
    assert (visit.site, visit.key_id, visit.person_id, visit.referrer_id) == (SITE, "PEER", "P-17", None)
    until(lambda: visits_of(gathering, study)[0].status == "complete", 10)
    with gathering.client(gathering.key("site", SITE)) as client:
        assert client.get(f"/v1/visits/{visit.id}").status_code == 200
    with gathering.client(gathering.key("site", "elsewhere")) as client:
        assert client.get(f"/v1/visits/{visit.id}").status_code == 403


def test_what_is_refused_leaves_nothing(gathering):
    before = len(rows(gathering, ArrivalRow))
    refusals = arrive(
        gathering,
        b"",
        b"no DICOM",
        film()[:600],
        film(StudyInstanceUID=""),
        film(SOPInstanceUID="1.2.98765").replace(b"1.2.98765", b"1.2.9876x"),
        film(SOPClassUID=CT, Modality="CT"),
    )
    assert [(each.code, each.status) for each in refusals] == [
        *[("unreadable", 0xC000)] * 5,
        ("unsupported_format", 0x0122),
    ]
    assert len(rows(gathering, ArrivalRow)) == before


def test_the_same_object_again_and_another_under_its_uid(gathering):
    study, instance = generate_uid(), generate_uid()
    one = film(StudyInstanceUID=study, SOPInstanceUID=instance, SeriesInstanceUID="1.2.3")
    other = film(StudyInstanceUID=study, SOPInstanceUID=instance, SeriesInstanceUID="1.2.3", ViewPosition="AP")
    threads = [threading.Thread(target=arrive_quietly, args=(gathering, one)) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert arrive(gathering, one, other) == [None, None]
    assert len(rows(gathering, ArrivalRow, study_uid=study)) == 2
    (visit,) = visits_of(gathering, study)
    assert len(visit.inputs) == 2


def arrive_quietly(served, content):
    service = served.app.state.service
    draft = Draft(service.store.drafts)
    draft.write(content)
    assert receive(service, SITE, "PEER", draft) is None
    draft.remove()


def test_late_objects_make_a_visit_of_the_whole_study(gathering):
    study = generate_uid()
    arrive(gathering, film(StudyInstanceUID=study))
    (first,) = visits_of(gathering, study)
    arrive(gathering, recording(StudyInstanceUID=study))
    again, second = visits_of(gathering, study, 2)
    assert again.id == first.id
    assert len(first.inputs) == len(again.inputs) == 1
    assert [each.field for each in second.inputs] == ["image", "ecg"]
    quiet()
    assert len(visits_of(gathering, study)) == 2


def test_more_than_a_visit_holds_makes_several(gathering):
    study = generate_uid()
    films = [film(StudyInstanceUID=study) for _ in range(9)]
    arrive(gathering, *films, recording(StudyInstanceUID=study))
    visits = visits_of(gathering, study, 2)
    assert sorted(len(each.inputs) for each in visits) == [1, 9]
    arrive(gathering, film(StudyInstanceUID=study))
    visits = visits_of(gathering, study, 3)
    assert [each.field for each in visits[-1].inputs] == ["image", "image"], "the full visit is left as it is"


def test_two_persons_in_a_study_stay_apart(gathering):
    study = generate_uid()
    mine = [film(StudyInstanceUID=study, PatientID="ONE", PatientSex="F") for _ in range(2)]
    arrive(gathering, mine[0], film(StudyInstanceUID=study, PatientID="TWO", PatientSex="M"), mine[1])
    one, two = sorted(visits_of(gathering, study, 2), key=lambda visit: visit.person_id)
    assert (one.person_id, len(one.inputs), context_in(one).person.sex) == ("ONE", 2, "female")
    assert (two.person_id, len(two.inputs), context_in(two).person.sex) == ("TWO", 1, "male")


def test_a_full_disk_refuses(tmp_path):
    with serving(settings_for(tmp_path)) as served:
        for number in range(256):  # nothing can be put under a file
            (tmp_path / "files" / f"{number:02x}").write_bytes(b"")
        (refusal,) = arrive(served, film())
        assert (refusal.code, refusal.status) == ("internal_error", 0xA700)
        assert rows(served, ArrivalRow) == []


def test_a_full_queue_makes_studies_wait_and_senders_come_back(tmp_path):
    settings = settings_for(tmp_path, dicom_gather_seconds=QUIET_S, max_queue=1)
    with serving(settings, StandIn(seconds=2)) as served:
        studies = [generate_uid() for _ in range(3)]
        assert arrive(served, *(film(StudyInstanceUID=study) for study in studies)) == [None] * 3
        until(lambda: served.app.state.service.queue_was_full, 10)
        (refusal,) = arrive(served, film())
        assert (refusal.code, refusal.status) == ("queue_full", 0xA700)
        for study in studies:
            assert len(visits_of(served, study)) == 1
        until(lambda: all(visit.status == "complete" for visit in rows(served, VisitRow)), 10)
        assert arrive(served, film()) == [None]


# ---------------------------------------------------------------- what the headers say
def reference(**said):
    uids = dict.fromkeys(("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"), "1.2.3")
    return DicomReference(**uids, **said)


def test_context_of_headers():
    said = reference(
        PatientID="P-1",
        PatientName=f"{LETTERS[:40]}^{LETTERS[40:]}^^BS",
        PatientBirthDate="19540229",
        PatientSex="m",
        StudyDate="20260228",
        ReferringPhysicianName="Lê^Thị^^BS",
        AccessionNumber="A-1",
    )
    context = context_of([said, reference()])
    assert context.person.name == f"{LETTERS[:40]} {LETTERS[40:]} BS"
    assert context.person.birth_date is None, "1954 had no 29 February"
    assert (context.person.sex, context.order.accession_number) == ("male", "A-1")
    assert str(context.visited_on) == "2026-02-28"
    assert context.referrer == Referrer(name="Lê Thị BS")
    assert context_of([reference()]).model_dump(exclude_unset=True) == {}
    disagreeing = context_of([said, reference(PatientID="P-1", PatientSex="F", AccessionNumber="A-2")])
    assert (disagreeing.person.id, disagreeing.person.sex, disagreeing.order) == ("P-1", None, None)
    for sloppy in ("X" * 200, "2026-1-1", "2026-01-01", "01/02/2026", "99999999", "²0260101"):
        assert dicom_day(sloppy) is None
        context_of([reference(PatientID=sloppy, PatientBirthDate=sloppy, StudyDate=sloppy, PatientSex=sloppy)])
    assert context_of([reference(PatientID="X" * 65)]).person.id is None, "half an identifier is somebody else's"
    assert age_on(dicom_day("20260101"), dicom_day("20250101")) is None
    assert age_on(dicom_day("18500101"), dicom_day("20250101")) is None
    assert readable_name("=山田^太郎=") == "山田 太郎"
    assert readable_name("^^ =") is None


def test_a_placeholder_is_no_birth_date():
    said = reference(PatientID="P-1", PatientBirthDate="00010101", PatientAge="054Y", StudyDate="20261115")
    context = context_of([said])
    assert (context.person.birth_date, context.person.age_years) == (None, 54)
    order = Context(person=Person(id="P-1", birth_date="1972-03-01"), referrer=Referrer(id="BS01"))
    merged = merge_order(context, order)
    assert (str(merged.person.birth_date), merged.person.age_years, merged.referrer.id) == ("1972-03-01", 54, "BS01")


def test_persons_of_a_study():
    def apart(*said):
        return [len(each) for each in by_person([reference(**one) for one in said], lambda each: each)]

    one, two, nobody = {"PatientID": "1"}, {"PatientID": "2"}, {"PatientName": "X"}
    assert apart(one, one, nobody) == [3]
    assert apart(one, two, nobody, one) == [2, 1, 1]
    assert apart(one, {**one, "IssuerOfPatientID": "A"}) == [2]
    assert apart({**one, "IssuerOfPatientID": "B"}, {**one, "IssuerOfPatientID": "A"}) == [1, 1]
    assert apart(nobody, {}, nobody) == [3]
    assert apart(nobody, {"PatientName": "Y"}) == [1, 1]


# ---------------------------------------------------------------- orders
def test_an_order_that_was_sent_ahead_is_joined(gathering):
    order = Context(
        person=Person(id="P-17", birth_date="1970-01-02"),
        referrer=Referrer(id="dr-9"),
        order=Order(placer="PL-1", accession_number="A-77", reason="ho kéo dài"),
    )
    with gathering.app.state.service.database.transaction(write=True) as session:
        now = database_now(session)
        session.add(
            OrderRow(
                site=SITE, accession_number="A-77", context=order.model_dump_json(exclude_unset=True), received_at=now
            )
        )
    ordered, plain = generate_uid(), generate_uid()
    arrive(
        gathering,
        film(StudyInstanceUID=ordered, AccessionNumber="A-77", ReferringPhysicianName="", PatientBirthDate=""),
        film(StudyInstanceUID=plain, AccessionNumber="A-78"),
    )
    (visit,) = visits_of(gathering, ordered)
    assert (visit.referrer_id, visit.accession_number) == ("dr-9", "A-77")
    context = context_in(visit)
    assert (context.order.placer, context.order.reason) == ("PL-1", "ho kéo dài")
    assert context.person.age_years == 56.0
    (visit,) = visits_of(gathering, plain)
    assert (visit.referrer_id, visit.accession_number) == (None, "A-78")
    with gathering.client(gathering.key("doctor", SITE, doctor_id="dr-9")) as client:
        assert [each["id"] for each in client.get("/v1/visits").json()["items"]] == [
            visits_of(gathering, ordered)[0].id
        ]


def item(accession_number, **tags):
    """One step of a worklist, as a ``.wl`` file."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.AccessionNumber, dataset.PatientID, dataset.PatientName = accession_number, "P-17", f"Ả^{LETTERS[:50]}"
    dataset.PatientBirthDate, dataset.PatientSex = "19700102", "F"
    dataset.StudyInstanceUID = generate_uid()
    dataset.RequestingPhysician, dataset.ReferringPhysicianName = "Bác Sĩ^Ở Huyện", "Khác"
    doctor, coded = Dataset(), Dataset()
    coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning = "dr-4", "99HIS", "số hiệu"
    doctor.PersonIdentificationCodeSequence, doctor.InstitutionName = [coded], "Huyện"
    dataset.RequestingPhysicianIdentificationSequence = [doctor]
    dataset.ReasonForTheRequestedProcedure, dataset.RequestedProcedureDescription = "ho ra máu", "X quang ngực"
    dataset.RequestedProcedureID, dataset.PlacerOrderNumberImagingServiceRequest = "RP1", "PL-9"
    step = Dataset()
    step.ScheduledStationAETitle, step.Modality = "CLINIC", "DX"
    step.ScheduledProcedureStepStartDate, step.ScheduledProcedureStepStartTime = "20260102", "0800"
    step.ScheduledProcedureStepID, step.ScheduledPerformingPhysicianName = "S1", "X"
    step.ScheduledProcedureStepDescription = "X quang"
    dataset.ScheduledProcedureStepSequence = [step]
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.fixture(scope="module")
def worklist_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("worklist") / "HIS"
    folder.mkdir()
    items = [item("A-1"), item("A-2"), item("A-2", PatientID="P-18"), item("A-3", RequestingPhysician="")]
    for number, each in enumerate(items):
        each.save_as(folder / f"{number}.wl", implicit_vr=False, little_endian=True)
    (folder / "lockfile").touch()
    return folder


@pytest.fixture(scope="module", params=["wlmscpfs", "orthanc"])
def worklist(request, worklist_folder, tmp_path_factory):
    """A modality worklist of another maker; its address."""
    if request.param == "orthanc":
        modalities = {"us": ("SANGLOC", 4242)}
        with orthanc(
            tmp_path_factory.mktemp("mwl"), modalities=modalities, worklists=worklist_folder, DefaultEncoding="Utf8"
        ) as peer:
            yield f"{peer.ae_title}@127.0.0.1:{peer.dicom_port}"
        return
    if shutil.which("wlmscpfs") is None:
        pytest.skip("wlmscpfs (dcmtk) is not installed: its worklist is not asked in this run")
    port = free_port()
    process = subprocess.Popen(["wlmscpfs", "-csk", "-dfr", "-dfp", worklist_folder.parent, str(port)])
    until(lambda: _listens(port), 10)
    yield f"HIS@127.0.0.1:{port}"
    process.kill()
    process.wait(10)


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_worklist(worklist, tmp_path):
    settings = settings_for(tmp_path, dicom_worklist=worklist)
    found = find(settings, "A-1")
    assert found.person.name == f"Ả {LETTERS[:50]}"
    assert (found.person.id, str(found.person.birth_date), found.person.sex) == ("P-17", "1970-01-02", "female")
    assert found.referrer.name == "Bác Sĩ Ở Huyện"
    assert found.referrer.id in ("dr-4", None)  # not every worklist returns sequences within sequences
    assert found.order == Order(placer="PL-9", accession_number="A-1", reason="ho ra máu")
    assert find(settings, "A-3").referrer.name == "Khác"
    for number in ("A-2", "A-9", "A-*", "A-?", "*", "Ấ"):
        assert find(settings, number) is None


def test_a_study_takes_its_order_from_the_worklist(worklist, tmp_path):
    settings = settings_for(tmp_path, dicom_gather_seconds=QUIET_S, dicom_worklist=worklist)
    with serving(settings) as served:
        study = generate_uid()
        arrive(served, film(StudyInstanceUID=study, AccessionNumber="A-1", ReferringPhysicianName=""))
        (visit,) = visits_of(served, study)
        assert context_in(visit).order.placer == "PL-9"
        assert context_in(visit).referrer.name == "Bác Sĩ Ở Huyện"
        assert context_in(visit).person.name == "Người Được Khám Thử Nghiệm", "what the visit says itself stays"


def test_a_silent_worklist_holds_nothing_up(tmp_path, monkeypatch):
    monkeypatch.setattr("service.receive.dicom.modality_worklist.ANSWER_S", 1.0)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        address = f"HIS@127.0.0.1:{mute.getsockname()[1]}"
        settings = settings_for(tmp_path, dicom_gather_seconds=QUIET_S, dicom_worklist=address)
        began = time.monotonic()
        with pytest.raises(WorklistSilent):
            find(settings, "A-1")
        assert time.monotonic() - began < 8
        with serving(settings) as served:
            studies = [generate_uid() for _ in range(3)]
            arrive(served, *(film(StudyInstanceUID=study, AccessionNumber=f"A-{study[-4:]}") for study in studies))
            for study in studies:
                assert visits_of(served, study)[0].person_id == "P-17"
    with pytest.raises(WorklistSilent):
        find(settings_for(tmp_path, dicom_worklist=f"HIS@127.0.0.1:{free_port()}"), "A-1")


# ---------------------------------------------------------------- processes that die, and several of them
def database_of(process):
    url = process.environment["SANGLOC_DATABASE_URL"] or f"sqlite:///{process.folder}/sangloc.db"
    return Database(url)


def rows_in(database, table):
    with database.transaction() as session:
        return list(session.scalars(select(table)))


def test_killed_between_arrival_and_visit(new_process, new_database):
    port = free_port()
    process = new_process(
        database_url=new_database(),
        SANGLOC_DICOM_PORT=str(port),
        SANGLOC_DICOM_PEERS=PEERS,
        SANGLOC_DICOM_GATHER_SECONDS="3",
    ).start()
    until(lambda: _listens(port), 10)
    study = generate_uid()
    assert send(port, film(StudyInstanceUID=study), recording(StudyInstanceUID=study)) == [0, 0]
    process.kill()
    database = database_of(process)
    assert len(rows_in(database, ArrivalRow)) == 2
    assert rows_in(database, VisitRow) == []
    process.start()
    until(lambda: [each.status for each in rows_in(database, VisitRow)] == ["complete"], 20)
    (visit,) = rows_in(database, VisitRow)
    assert len(visit.inputs) == 2
    assert {each.visit_id for each in rows_in(database, ArrivalRow)} == {visit.id}
    database.close()


def test_several_processes_make_each_visit_once(new_process, new_database):
    url, ports = new_database(), [free_port() for _ in range(3)]
    processes = [
        new_process(
            database_url=url,
            SANGLOC_DICOM_PORT=str(port),
            SANGLOC_DICOM_PEERS=PEERS,
            SANGLOC_DICOM_GATHER_SECONDS="1.5",
        ).start(wait=False)
        for port in ports
    ]
    until(lambda: all(map(_listens, ports)), 30)
    base, studies = parsed(film()), [generate_uid() for _ in range(12)]
    for port in ports:  # each process gets one film of each study
        films = []
        for study in studies:
            films.append(copy.deepcopy(base))
            films[-1].StudyInstanceUID = study
            films[-1].SOPInstanceUID = films[-1].file_meta.MediaStorageSOPInstanceUID = generate_uid()
        assert send(port, *films) == [0] * len(studies)
    database = database_of(processes[0])
    until(lambda: all(each.visit_id for each in rows_in(database, ArrivalRow)), 20)
    visits = rows_in(database, VisitRow)
    assert sorted(each.study_uid for each in visits) == sorted(studies)
    assert {len(each.inputs) for each in visits} == {3}
    database.close()
