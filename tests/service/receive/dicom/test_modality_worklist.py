"""Orders from a modality worklist: those of dcmtk and of Orthanc, and one that does not answer."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time

import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from data_specs.visit.context import Order
from service.receive.dicom.modality_worklist import ModalityWorklistFailed, ask_modality_worklist
from tests.service.orthanc import free_port, listens, orthanc
from tests.service.receive.dicom.arriving import QUIET_S, arrive, context_in, visits_of
from tests.service.receive.dicom.made import LETTERS, film
from tests.service.serving import serving, settings_for, until


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
    """A modality worklist that is not ours; its address."""
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
    until(lambda: listens(port), 10)
    yield f"HIS@127.0.0.1:{port}"
    process.kill()
    process.wait(10)


def test_an_order_is_found_by_its_accession_number(worklist, tmp_path):
    settings = settings_for(tmp_path, dicom_worklist=worklist)
    found = ask_modality_worklist(settings, "A-1")
    assert found.person.name == f"Ả {LETTERS[:50]}"
    assert (found.person.id, str(found.person.birth_date), found.person.sex) == ("P-17", "1970-01-02", "female")
    assert found.referrer.name == "Bác Sĩ Ở Huyện"
    assert found.referrer.id in ("dr-4", None)  # not every worklist returns sequences within sequences
    assert found.order == Order(placer="PL-9", accession_number="A-1", reason="ho ra máu")
    assert ask_modality_worklist(settings, "A-3").referrer.name == "Khác"
    for number in ("A-2", "A-9", "A-*", "A-?", "*", "Ấ"):
        assert ask_modality_worklist(settings, number) is None


def test_a_study_takes_its_order_from_the_worklist(worklist, tmp_path):
    settings = settings_for(tmp_path, dicom_gather_seconds=QUIET_S, dicom_worklist=worklist)
    with serving(settings) as served:
        study = generate_uid()
        arrive(served, film(StudyInstanceUID=study, AccessionNumber="A-1", ReferringPhysicianName=""))
        (visit,) = visits_of(served, study)
        assert context_in(visit).order.placer == "PL-9"
        assert context_in(visit).referrer.name == "Bác Sĩ Ở Huyện"
        assert context_in(visit).person.name == "Người Được Khám Thử Nghiệm", "what the visit says itself stays"


def test_a_worklist_that_does_not_answer_delays_no_other_study(tmp_path, monkeypatch):
    monkeypatch.setattr("service.receive.dicom.modality_worklist.ANSWER_S", 1.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"HIS@127.0.0.1:{silent.getsockname()[1]}"
        settings = settings_for(tmp_path, dicom_gather_seconds=QUIET_S, dicom_worklist=address)
        began = time.monotonic()
        with pytest.raises(ModalityWorklistFailed):
            ask_modality_worklist(settings, "A-1")
        assert time.monotonic() - began < 8
        with serving(settings) as served:
            studies = [generate_uid() for _ in range(3)]
            arrive(served, *(film(StudyInstanceUID=study, AccessionNumber=f"A-{study[-4:]}") for study in studies))
            for study in studies:
                assert visits_of(served, study)[0].person_id == "P-17"
    with pytest.raises(ModalityWorklistFailed):
        ask_modality_worklist(settings_for(tmp_path, dicom_worklist=f"HIS@127.0.0.1:{free_port()}"), "A-1")
