"""The DICOM listener with real peers: dcmtk, Orthanc, pynetdicom, and some that are no DICOM peers at all."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import shutil
import socket
import struct
import subprocess
import threading
import time

import pytest
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid
from sqlalchemy import select

from data_specs.dicom.reference import ECG_CLASSES
from data_specs.visit.context import Context
from service.storage.tables import ArrivalRow
from tests.data_specs.cxr_made import (
    BIG,
    CT,
    DEFLATED,
    EXPLICIT,
    IMPLICIT,
    J2K,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    RLE,
    SC,
    phantom,
)
from tests.service.orthanc import free_port, listens, orthanc
from tests.service.receive.dicom.arriving import rows, visits_of
from tests.service.receive.dicom.made import (
    LETTERS,
    NAME,
    PEER,
    PEERS,
    SITE,
    associate,
    film,
    parsed,
    raw_store,
    recording,
    send,
)
from tests.service.serving import serving, settings_for, until

ASSOCIATIONS = 100


@pytest.fixture(scope="module")
def listening(tmp_path_factory):
    """A server that listens for DICOM and makes visits half a second after the last object."""
    folder, port = tmp_path_factory.mktemp("dicom"), free_port()
    settings = settings_for(
        folder, dicom_port=port, dicom_peers=PEERS, dicom_gather_seconds=1.0, max_upload_mb=2, idle_seconds=3
    )
    with serving(settings) as served:
        until(lambda: listens(port), 10)
        yield served


@pytest.fixture
def port(listening):
    return listening.app.state.service.settings.dicom_port


def tool(name):
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} (dcmtk) is not installed: what it would send is not tested in this run")
    return found


def drafts(served):
    return list(served.app.state.service.store.drafts.iterdir())


# ---------------------------------------------------------------- who may call
def test_verification(port):
    for calling, called, expected in ((PEER, "SANGLOC", 0), ("NOBODY", "SANGLOC", 1), (PEER, "OTHERS", 1)):
        answer = subprocess.run(
            [tool("echoscu"), "-aet", calling, "-aec", called, "127.0.0.1", str(port)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert answer.returncode == expected, answer.stderr
        assert expected == 0 or "Rejected" in answer.stderr


def test_a_port_in_use_stops_the_start(new_process):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = new_process(SANGLOC_DICOM_PORT=str(taken.getsockname()[1]), SANGLOC_DICOM_PEERS=PEERS)
        process.start(wait=False)
        assert process.process.wait(30) == 1
    assert '"event": "port_not_bound"' in process.log.read_text()
    assert "SANGLOC_DICOM_PORT" in process.log.read_text()


# ---------------------------------------------------------------- objects that are taken on
def test_storescu(listening, port, tmp_path):
    study = generate_uid()
    for index in range(2):
        (tmp_path / f"{index}.dcm").write_bytes(film(StudyInstanceUID=study))
    command = [tool("storescu"), "-aet", PEER, "-aec", "SANGLOC", "+sd", "127.0.0.1", str(port), tmp_path]
    sent = subprocess.run(command, capture_output=True, text=True, check=False)
    assert sent.returncode == 0, sent.stderr
    (visit,) = visits_of(listening, study)
    assert [each.field for each in visit.inputs] == ["image", "image"]
    assert (visit.site, visit.key_id) == (SITE, PEER)
    context = Context.model_validate_json(visit.context)
    assert context.person.name == "Người Được Khám Thử Nghiệm"
    assert (context.person.id, context.person.sex, context.person.age_years) == ("P-17", "female", 56.0)
    assert context.referrer.name == "Bác Sĩ Thử"
    assert context.referrer.id is None


def test_orthanc_stores_to_the_listener(listening, port, tmp_path):
    with orthanc(tmp_path / "orthanc", modalities={"sangloc": ("SANGLOC", port)}) as peer:
        assert peer.echo("sangloc")
        study = generate_uid()
        content = film(StudyInstanceUID=study, PatientName=f"{LETTERS[:32]}^{LETTERS[32:62]}", PatientID="Ị-1")
        peer.store("sangloc", peer.add(content), peer.add(recording(StudyInstanceUID=study, PatientID="Ị-1")))
    (visit,) = visits_of(listening, study)
    assert sorted(each.field for each in visit.inputs) == ["ecg", "image"]
    context = Context.model_validate_json(visit.context)
    assert context.person.name == f"{LETTERS[:32]} {LETTERS[32:62]}"
    assert context.person.id == visit.person_id == "Ị-1"


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, BIG, DEFLATED, RLE, JPEG_LOSSLESS_SV1, JPEG_LS, J2K])
def test_a_file_is_kept_as_it_was_sent(listening, port, syntax):
    content = film(phantom(rows=232, columns=228), syntax)
    assert send(port, content) == [0]
    (row,) = rows(listening, ArrivalRow, sop_uid=parsed(content).SOPInstanceUID)
    stored = dcmread(io.BytesIO(listening.app.state.service.store.read(row.sha256)))
    assert stored.file_meta.TransferSyntaxUID == syntax
    assert stored == parsed(content)
    assert stored.PatientName == NAME


def test_recordings_and_captures_are_accepted(listening, port):
    study = generate_uid()
    capture = film(StudyInstanceUID=study, SOPClassUID=SC, Modality="OT")
    recordings = [parsed(recording(StudyInstanceUID=study)) for _ in ECG_CLASSES]
    for dataset, sop_class in zip(recordings, ECG_CLASSES, strict=True):
        dataset.SOPClassUID = sop_class
    assert send(port, *recordings, capture, film(StudyInstanceUID=study)) == [0] * 6
    (visit,) = visits_of(listening, study)
    assert [each.field for each in visit.inputs] == ["ecg"] * 4 + ["image"] * 2


def test_the_same_object_again_changes_nothing(listening, port):
    study = generate_uid()
    content = film(StudyInstanceUID=study)
    assert send(port, content, content) == [0, 0]
    visits_of(listening, study)
    assert send(port, content) == [0]
    time.sleep(1.2)
    assert len(visits_of(listening, study)) == 1
    assert len(rows(listening, ArrivalRow, study_uid=study)) == 1
    assert drafts(listening) == []


def test_an_object_that_the_service_made_is_not_kept(listening, port):
    study = generate_uid()
    own = film(StudyInstanceUID=study, SOPClassUID=SC, Modality="OT", Manufacturer="Sàng Lọc")
    assert send(port, own) == [0]
    assert rows(listening, ArrivalRow, study_uid=study) == []


def test_two_studies_at_once_and_two_sites(listening, port):
    one, two = generate_uid(), generate_uid()
    films = [film(StudyInstanceUID=study, PatientID=study[-8:]) for _ in range(3) for study in (one, two)]
    assert send(port, *films) == [0] * 6
    other = film(StudyInstanceUID=one, PatientID="elsewhere")
    assert send(port, other, calling="OTHER") == [0]
    at_one, elsewhere = sorted(visits_of(listening, one, 2), key=lambda visit: len(visit.inputs), reverse=True)
    assert (len(at_one.inputs), at_one.site, at_one.person_id) == (3, SITE, one[-8:])
    assert (len(elsewhere.inputs), elsewhere.site, elsewhere.person_id) == (1, "district-8", "elsewhere")
    (visit,) = visits_of(listening, two)
    assert len(visit.inputs) == 3
    assert visit.person_id == two[-8:]


@pytest.fixture
def patient(tmp_path, monkeypatch):
    """A server that gives an association as long as a slow machine needs to open all the others."""
    port = free_port()
    monkeypatch.setattr("service.receive.dicom.listener.REQUEST_S", 100.0)
    monkeypatch.setattr("service.receive.dicom.listener.SILENT_S", 300.0)
    settings = settings_for(tmp_path, dicom_port=port, dicom_peers=PEERS, dicom_gather_seconds=0.5, idle_seconds=200)
    with serving(settings) as served:
        until(lambda: listens(port), 10)
        yield served


@pytest.mark.alone
def test_a_hundred_associations_at_once(patient):
    """All associations are open before the first one sends; two of them send one study."""
    listening, port = patient, patient.app.state.service.settings.dicom_port
    studies, base = [generate_uid() for _ in range(ASSOCIATIONS // 2)], parsed(film())
    objects = []
    for index in range(ASSOCIATIONS):
        objects.append(copy.deepcopy(base))
        objects[index].StudyInstanceUID, objects[index].PatientID = studies[index // 2], f"P{index // 2}"
        objects[index].SOPInstanceUID = objects[index].file_meta.MediaStorageSOPInstanceUID = generate_uid()
    associations, statuses = [], []
    ready = threading.Barrier(ASSOCIATIONS)

    def one(index):
        association = associate(port, objects[index])
        associations.append(association)
        ready.wait(150)  # none sends before all are established
        statuses.append(association.send_c_store(objects[index]).get("Status"))
        association.release()

    threads = [threading.Thread(target=one, args=(index,)) for index in range(ASSOCIATIONS)]
    for each in threads:
        each.start()
    began = time.monotonic()
    for each in threads:
        each.join(300)
    print(f"{ASSOCIATIONS} associations at once: {time.monotonic() - began:.1f} s")
    assert statuses == [0] * ASSOCIATIONS
    service = listening.app.state.service
    with service.database.transaction() as session:
        kept = session.scalars(select(ArrivalRow).where(ArrivalRow.study_uid.in_(studies))).all()
    assert len(kept) == ASSOCIATIONS
    assert all(len(service.store.read(each.sha256)) == each.n_bytes for each in kept[:20])
    for index, study in enumerate(studies):
        # on a busy machine a study may come too late for one visit; its last visit then has all of it
        until(lambda study=study: any(len(each.inputs) == 2 for each in visits_of(listening, study)), 60)
        visits = visits_of(listening, study)
        assert {each.person_id for each in visits} == {f"P{index}"}
        assert sum(len(each.inputs) == 2 for each in visits) == 1
    until(lambda: not service_threads(), 60)
    assert drafts(listening) == []


def service_threads():
    return [each for each in threading.enumerate() if each.name.startswith(("AcceptorThread", "dicom-connection"))]


# ---------------------------------------------------------------- and those that are not
def test_another_sop_class_is_refused(listening, port):
    """The class is not negotiated. Where a peer names one class and sends another, the object itself decides."""
    content = film(SOPClassUID=CT, Modality="CT")
    association = associate(port, content)
    assert not association.is_established or association.accepted_contexts == []
    association.abort()
    dataset = parsed(film())
    association = associate(port, dataset)
    dataset.SOPClassUID = CT
    sent = raw_store(association, dataset, sop_class="1.2.840.10008.5.1.4.1.1.1.1")
    association.release()
    assert (sent.Status, sent.ErrorComment) == (0xA900, "unreadable")
    assert rows(listening, ArrivalRow, study_uid=dataset.StudyInstanceUID) == []


def test_what_is_no_data_set_is_refused(listening, port):
    association = associate(port, film())
    answer = raw_store(association, parsed(film()), content=b"no data set at all")
    association.release()
    assert (answer.Status, answer.ErrorComment) == (0xC000, "unreadable")
    assert drafts(listening) == []


def test_too_large_an_object_is_refused_and_leaves_nothing(listening, port):
    study = generate_uid()
    large = parsed(film(phantom(rows=1200, columns=1100), StudyInstanceUID=study))
    association = associate(port, large)
    answer = association.send_c_store(large)
    assert answer.get("Status") in (0xA700, None)  # None: the abort was there before the answer was read
    until(lambda: association.is_aborted, 5)
    until(lambda: drafts(listening) == [], 5)
    assert rows(listening, ArrivalRow, study_uid=study) == []
    assert send(port, film()) == [0]


@pytest.mark.parametrize("how", ["abort", "close", "silence"])
def test_an_aborted_transfer_leaves_nothing(listening, port, how):
    study = generate_uid()
    dataset = parsed(film(phantom(rows=700, columns=700), StudyInstanceUID=study))
    association = associate(port, dataset)
    (context,) = association.accepted_contexts
    connection = association.dul.socket.socket
    pieces = _first_pieces(dataset, context)
    for piece in pieces:
        connection.sendall(piece)
    until(lambda: drafts(listening), 5)
    if how == "abort":
        association.abort()
    elif how == "close":
        connection.shutdown(socket.SHUT_RDWR)
    else:  # silent in the middle of a PDU, for longer than the limit
        connection.sendall(struct.pack(">BBL", 4, 0, 5000) + b"\0" * 100)
    until(lambda: drafts(listening) == [], 10)
    assert rows(listening, ArrivalRow, study_uid=study) == []
    until(lambda: not service_threads(), 10)
    association.dul.kill_dul()
    connection.close()


def _first_pieces(dataset, context):
    """PDUs of the beginning of a C-STORE request: 300 of 980 kB."""
    from pynetdicom.dsutils import encode

    syntax = context.transfer_syntax[0]
    data = encode(dataset, syntax.is_implicit_VR, syntax.is_little_endian)
    command = Dataset()
    command.AffectedSOPClassUID, command.AffectedSOPInstanceUID = dataset.SOPClassUID, dataset.SOPInstanceUID
    command.CommandField, command.MessageID, command.Priority, command.CommandDataSetType = 1, 1, 0, 0
    encoded = encode(command, True, True)
    length = Dataset()
    length.CommandGroupLength = len(encoded)
    yield _data_pdu(context.context_id, 3, encode(length, True, True) + encoded)
    for start in range(0, 300_000, 50_000):
        yield _data_pdu(context.context_id, 0, data[start : start + 50_000])


def _data_pdu(context_id, header, data):
    """PS3.8, section 9.3.5."""
    item = struct.pack(">LBB", len(data) + 2, context_id, header) + data
    return struct.pack(">BBL", 4, 0, len(item)) + item


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: clinic\r\n\r\n",
        b"\x01\x00\xff\xff\xff\xff" + b"\0" * 2000,  # a request of 4 GB
        b"\x01\x00\x00\x00\x00\x04\x00\x01\x00\x00",
        b"\x04\x00\x00\x00\x00\x06\x00\x00\x00\x02\x01\x03",
        b"\x16\x03\x01\x00\xa5\x01\x00",
        b"\x07" * 500,
        b"",
    ],
)
def test_bytes_that_are_no_dicom_end_their_own_connection_only(listening, port, garbage, capfd):
    with socket.create_connection(("127.0.0.1", port), timeout=15) as connection:
        with contextlib.suppress(OSError):  # the listener may have closed the connection already
            connection.sendall(garbage)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while connection.recv(1000):
                pass
    until(lambda: not service_threads(), 15)
    assert send(port, film()) == [0]
    assert "Traceback" not in capfd.readouterr().err


def test_damaged_messages_within_an_association(listening, port, capfd):
    """Bytes that are no message, commands without an end, data without a command."""
    dataset = parsed(film())
    no_field = struct.pack("<HHL", 0, 0x0800, 2) + b"\0\0"
    for pdus in (
        [_data_pdu(1, 3, b"\xff" * 50)],
        [_data_pdu(1, 3, no_field)],
        [_data_pdu(1, 1, b"\0" * 60_000)] * 3,
        [_data_pdu(1, 0, b"\0" * 1000)],
        [_data_pdu(99, 3, no_field)],
        [_data_pdu(1, 0, b"")],
        [struct.pack(">BBL", 2, 0, 4) + b"\0" * 4],
    ):
        association = associate(port, dataset)
        assert association.is_established
        connection = association.dul.socket.socket
        for pdu in pdus:
            connection.sendall(pdu)
        until(lambda association=association: not association.is_established or not association.is_alive(), 15)
    until(lambda: not service_threads() and drafts(listening) == [], 15)
    assert send(port, film()) == [0]
    assert "Traceback" not in capfd.readouterr().err


def test_the_log_names_no_person(listening, port, capfd, caplog):
    caplog.set_level(logging.DEBUG)
    study = generate_uid()
    content = film(StudyInstanceUID=study, PatientID="P-LOGGED", PatientBirthDate="not a date", PatientSex="?" * 40)
    assert send(port, content) == [0]
    visits_of(listening, study)
    out, err = capfd.readouterr()
    ours = [each for each in caplog.records if each.threadName.startswith(("AcceptorThread", "dicom", "asyncio"))]
    for told in (out, err, *(each.getMessage() for each in ours)):
        assert not any(word in told for word in ("P-LOGGED", "Người", study, "not a date", "CLINIC"))


def test_a_draining_service_accepts_no_object(tmp_path):
    port = free_port()
    with serving(settings_for(tmp_path, dicom_port=port, dicom_peers=PEERS)) as served:
        until(lambda: listens(port), 10)
        dataset = parsed(film())
        association = associate(port, dataset)
        served.app.state.service.stop()
        answer = association.send_c_store(dataset)
        association.release()
        assert (answer.Status, answer.ErrorComment) == (0xA700, "unavailable")
        assert rows(served, ArrivalRow) == []
    assert not listens(port)
