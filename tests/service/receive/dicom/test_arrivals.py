"""DICOM objects that are received one by one: kept, known again, or refused."""

from __future__ import annotations

import threading

from pydicom.uid import generate_uid

from data_specs.dicom.reference import DicomReference
from service.receive.dicom.arrivals import receive
from service.storage.drafts import Draft
from service.storage.tables import ArrivalRow
from tests.data_specs.cxr_made import CT
from tests.service.receive.dicom.arriving import arrive, rows, visits_of
from tests.service.receive.dicom.made import NAME, SITE, film, recording
from tests.service.serving import serving, settings_for, until


def test_received_objects_are_stored_and_become_one_visit(gathering):
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


def test_refused_objects_leave_nothing(gathering):
    before, whole = len(rows(gathering, ArrivalRow)), film()
    refusals = arrive(
        gathering,
        b"",
        b"no DICOM",
        whole[: whole.index(b"P-17") + 2],
        film(SOPClassUID=CT, Modality="CT"),
    )
    assert [(each.code, each.status) for each in refusals] == [
        *[("unreadable", 0xC000)] * 3,
        ("unsupported_format", 0x0122),
    ]
    assert len(rows(gathering, ArrivalRow)) == before


def test_the_same_object_again_and_another_object_with_its_uid(gathering):
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


def test_a_store_that_cannot_be_written_refuses_objects(tmp_path):
    with serving(settings_for(tmp_path)) as served:
        for number in range(256):  # files in place of the folders of the store
            (tmp_path / "files" / f"{number:02x}").write_bytes(b"")
        (refusal,) = arrive(served, film())
        assert (refusal.code, refusal.status) == ("storage_unavailable", 0xA700)
        assert rows(served, ArrivalRow) == []
