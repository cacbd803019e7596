"""DICOMweb over real HTTP: an archive (Orthanc) and a client of others' making (dicomweb-client) at the other end."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest
from dicomweb_client.api import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_auth
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian
from requests.auth import AuthBase
from sqlalchemy import select

from data_specs.visit.opinion import Author, Opinion
from service.receive.dicom.stow import MAX_PARTS
from service.storage.tables import ArrivalRow, OpinionRow, ReferralRow, VisitRow
from tests.service.api.test_contract import problem
from tests.service.orthanc import orthanc
from tests.service.serving import serving, settings_for, until

DX, CT = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.2"
SR = "1.2.840.10008.5.1.4.1.1.88.33"
STUDY = "1.2.840.99999.7"
NAME = "Người^Được Khám Thử Nghiệm Ẵặ"
JSON = "application/dicom+json"


def film(number, study=STUDY, **tags):
    """A small chest film of its own SOPInstanceUID."""
    ds = Dataset()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.SOPClassUID, ds.SOPInstanceUID = DX, f"{study}.1.{number}"
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = study, f"{study}.1", "DX"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20261120", "081500", "S1", "ACC-7"
    ds.PatientID, ds.PatientName, ds.PatientBirthDate, ds.PatientSex = "VN-0042", NAME, "19610530", "F"
    ds.ReferringPhysicianName = "BS.^Thử Nghiệm"
    ds.PhotometricInterpretation, ds.SamplesPerPixel, ds.PixelRepresentation = "MONOCHROME2", 1, 0
    ds.Rows, ds.Columns, ds.BitsAllocated, ds.BitsStored, ds.HighBit = 256, 240, 16, 12, 11
    values = (np.add.outer(np.arange(256), np.arange(240)) * 7 % 4096).astype("<u2")
    ds.PixelData = values.tobytes()
    for keyword, value in tags.items():
        setattr(ds, keyword, value)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    out = io.BytesIO()
    ds.save_as(out, enforce_file_format=True)
    return out.getvalue()


def related(*files, boundary="b", kind="application/dicom"):
    pieces = [f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + each + b"\r\n" for each in files]
    return b"".join(pieces) + f"--{boundary}--\r\n".encode()


RELATED = 'multipart/related; type="application/dicom"; boundary=b'


def stow(client, *files, path="/dicomweb/studies", **headers):
    return client.post(path, content=related(*files), headers={"Content-Type": RELATED, "Accept": JSON, **headers})


class Bearer(AuthBase):
    def __init__(self, key):
        self.key = key

    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {self.key}"
        return request


def web_client(served, key):
    client = DICOMwebClient(f"{served.address}/dicomweb", session=create_session_from_auth(Bearer(key)))
    client.set_http_retry_params(retry=False)
    return client


@pytest.fixture(scope="module")
def archive(served):
    """A site's key, with finished visits: two of one study, one of another person and day, one without any DICOM."""
    key = served.key("site", "archive")
    with served.client(key) as client:
        other = film(1, f"{STUDY}.9", PatientID="VN-0077", PatientName="Khác", AccessionNumber="", StudyDate="20251231")
        bodies = [{"image": film(1)}, {"image": film(2)}, {"image": other}]
        ids = []
        for files in bodies:
            made = client.post("/v1/visits", files={name: ("f.dcm", content) for name, content in files.items()})
            assert (made.status_code, made.json()["status"]) == (201, "complete")
            ids.append(made.json()["id"])
        context = {"person": {"id": "VN-3", "age_years": 40}, "visited_on": "2026-03-04"}
        ids.append(client.post("/v1/visits", files={"context": (None, json.dumps(context))}).json()["id"])
    return key, ids


def arrivals(served, site):
    query = select(ArrivalRow).where(ArrivalRow.site == site)
    with served.app.state.service.database.transaction() as session:
        return session.scalars(query).all()


def values(item, tag):
    return item[tag].get("Value")


# ---------------------------------------------------------------------- STOW-RS
def test_posted_objects_are_kept_and_the_answer_names_each(served):
    with served.client(served.key("site", "stow")) as client:
        answer = stow(client, film(1), film(2), path=f"/dicomweb/studies/{STUDY}")
        assert (answer.status_code, answer.headers["content-type"]) == (200, JSON)
        stored = Dataset.from_json(answer.json())
        assert [each.ReferencedSOPInstanceUID for each in stored.ReferencedSOPSequence] == [
            f"{STUDY}.1.1",
            f"{STUDY}.1.2",
        ]
        assert stored.RetrieveURL == f"{served.address}/dicomweb/studies/{STUDY}"
        assert "FailedSOPSequence" not in stored
        assert {each.sop_uid for each in arrivals(served, "stow")} == {f"{STUDY}.1.1", f"{STUDY}.1.2"}
        assert stow(client, film(1)).status_code == 200, "an object sent again is taken as known"
        assert len(arrivals(served, "stow")) == 2


def test_each_object_is_taken_or_refused_by_itself(served):
    with served.client(served.key("site", "partly")) as client:
        strange = film(3, SOPClassUID=CT)
        elsewhere = film(4, f"{STUDY}.4")
        answer = stow(client, film(1), b"no DICOM at all", strange, elsewhere, path=f"/dicomweb/studies/{STUDY}")
        assert answer.status_code == 202, answer.text
        stored = Dataset.from_json(answer.json())
        assert [each.ReferencedSOPInstanceUID for each in stored.ReferencedSOPSequence] == [f"{STUDY}.1.1"]
        failed = {each.ReferencedSOPInstanceUID: each.FailureReason for each in stored.FailedSOPSequence}
        assert failed == {f"{STUDY}.1.3": 0x0122, f"{STUDY}.4.1.4": 0xA900}
        assert [each.FailureReason for each in stored.OtherFailuresSequence] == [0xC000]
        assert [each.sop_uid for each in arrivals(served, "partly")] == [f"{STUDY}.1.1"]
        none = stow(client, b"no DICOM", strange)
        assert none.status_code == 409
        assert "ReferencedSOPSequence" not in Dataset.from_json(none.json())


def test_bodies_that_are_refused(served, client):
    path = "/dicomweb/studies"
    for kind in ("application/dicom", "application/dicom+json", "multipart/form-data; boundary=b", "", "x"):
        problem(client.post(path, content=b"--b--", headers={"Content-Type": kind}), 415, "unsupported_media_type")
    metadata = 'multipart/related; type="application/dicom+json"; boundary=b'
    problem(stow(client, b"{}", **{"Content-Type": metadata}), 415, "unsupported_media_type")
    wrong = client.post(path, content=related(film(1), kind="image/png"), headers={"Content-Type": RELATED})
    problem(wrong, 415, "unsupported_media_type")
    problem(stow(client, film(1), **{"Content-Encoding": "gzip"}), 415, "unsupported_media_type")
    problem(stow(client, film(1), Accept="application/dicom+xml"), 406, "not_acceptable")
    long = f"multipart/related; boundary={'b' * 201}"
    for kind in ("multipart/related", 'multipart/related; type="application/dicom"; boundary=""', long):
        problem(stow(client, film(1), **{"Content-Type": kind}), 422, "invalid_request")
    for body in (b"", b"--b--\r\n", b"--b\r\n\r\n", related(film(1))[:-9], b"--b\r\nno header\r\n\r\n--b--\r\n"):
        problem(client.post(path, content=body, headers={"Content-Type": RELATED}), 422, "invalid_request")
    problem(stow(client, *[b"x"] * (MAX_PARTS + 1)), 422, "invalid_request")
    problem(stow(client, film(1), path=f"{path}/not-a-uid"), 404, "not_found")
    problem(stow(client, b"x" * 2_100_000), 413, "body_too_large")
    with served.client(served.key("doctor", "north", doctor_id="D-1", label="BS. Thử Nghiệm")) as doctor:
        problem(stow(doctor, film(1)), 403, "forbidden")
    with httpx.Client(base_url=served.address) as nobody:
        problem(stow(nobody, film(1)), 401, "unauthorised")
        problem(nobody.get("/dicomweb/studies"), 401, "unauthorised")


def test_a_body_that_is_cut_off_leaves_nothing(served):
    with served.client(served.key("site", "cut")) as client:
        whole = related(film(1), film(2))
        problem(
            client.post("/dicomweb/studies", content=whole[:-200], headers={"Content-Type": RELATED}),
            422,
            "invalid_request",
        )
    assert not arrivals(served, "cut")
    assert not list(served.app.state.service.store.drafts.iterdir())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_body_is_answered_below_500(served, data):
    whole = bytearray(related(film(1)[:1200], b"\r\n--b\r\n", kind="application/dicom"))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(whole) - 1))
        whole[at : at + data.draw(st.integers(0, 30))] = data.draw(st.binary(max_size=20))
    kind = data.draw(st.sampled_from([RELATED, "multipart/related; boundary=b", RELATED.replace("=b", '="b"')]))
    with served.client() as client:
        answer = client.post("/dicomweb/studies", content=bytes(whole), headers={"Content-Type": kind})
    assert answer.status_code in (200, 202, 409, 415, 422), answer.text


def test_dicomweb_client_stores(served):
    client = web_client(served, served.key("site", "python"))
    answer = client.store_instances([dcmread(io.BytesIO(film(n))) for n in (1, 2)])
    assert len(answer.ReferencedSOPSequence) == 2
    assert len(arrivals(served, "python")) == 2


# ---------------------------------------------------------------------- QIDO-RS
def test_studies_are_found_by_their_attributes(served, archive):
    client = web_client(served, archive[0])
    studies = client.search_for_studies()
    assert len(studies) == 3
    assert values(studies[-1], "0020000D") == [STUDY], "two visits of one study are one, the latest visits first"

    def found(**wanted):
        return {each["0020000D"]["Value"][0] for each in client.search_for_studies(search_filters=wanted)}

    other, made = f"{STUDY}.9", values(studies[0], "0020000D")[0]
    assert found(StudyInstanceUID=STUDY) == {STUDY}
    assert found(StudyInstanceUID=f"{STUDY},{other}") == {STUDY, other}
    assert found(AccessionNumber="ACC-7") == found(AccessionNumber="ACC*") == {STUDY}
    assert found(PatientID="VN-0042") == found(PatientID="VN-0?42") == {STUDY}
    assert found(PatientID="VN-3") == {made}
    assert found(PatientID="VN-") == found(PatientID="%") == found(PatientID="[A-Z]*") == set()
    assert found(PatientName="người*ẵặ") == {STUDY}
    assert found(StudyDate="20261120") == found(StudyDate="20261101-20261130") == {STUDY}
    assert found(StudyDate="-20260101") == {other}
    assert found(StudyDate="20260304") == {made}
    assert found(StudyDate="20260101-") == {STUDY, made}
    assert found(StudyDate="00010101-99991231") == {STUDY, other, made}
    assert found(ModalitiesInStudy="PR") == {STUDY, other}
    assert found(ModalitiesInStudy="SR") == {STUDY, other, made}
    assert found(ModalitiesInStudy="CT") == set()
    assert found(**{"00100020": "VN-0077", "StudyTime": "08-0900"}) == {other}
    assert found(SOPClassUID=SR, AccessionNumber="") == {STUDY, other, made}


def test_pages(served, archive):
    client = web_client(served, archive[0])
    every = [values(each, "00080018")[0] for each in client.search_for_instances()]
    assert len(every) == len(set(every)) == 10, "three films with SR, SC and GSPS each, and one SR alone"
    with served.client(archive[0]) as http:
        paged, warned = [], []
        for offset in range(0, 12, 3):
            page = http.get("/dicomweb/instances", params={"limit": 3, "offset": offset, "includefield": "all"})
            paged += [values(each, "00080018")[0] for each in page.json()]
            warned.append("warning" in page.headers)
        assert paged == every
        assert warned == [True, True, True, False]
        fuzzy = http.get("/dicomweb/studies", params={"fuzzymatching": "true", "limit": 5000})
        assert len(fuzzy.headers.get_list("warning")) == 2
        assert http.get("/dicomweb/studies", params={"StudyInstanceUID": "1.2.3"}).json() == []


def test_a_query_returns_the_attributes_of_the_object(served, archive):
    client = web_client(served, archive[0])
    (study,) = client.search_for_studies(search_filters={"StudyInstanceUID": STUDY})
    assert values(study, "00201206") == [6]
    assert values(study, "00201208") == [6]
    assert values(study, "00080061") == ["OT", "PR", "SR"]
    series = client.search_for_series(STUDY)
    assert {values(each, "00080060")[0] for each in series} == {"SR", "OT", "PR"}
    assert {values(each, "00201209")[0] for each in series} == {1}
    for one in client.search_for_instances(STUDY):
        uids = [values(one, tag)[0] for tag in ("0020000D", "0020000E", "00080018")]
        file = client.retrieve_instance(*uids)
        (address,) = values(one, "00081190")  # this client leaves the port out of Host
        assert address.endswith(f"/dicomweb/studies/{uids[0]}/series/{uids[1]}/instances/{uids[2]}")
        said = json.loads(file.to_json())
        added = {"00080056", "00080061", "00081190", "00083002"}
        assert {tag: each for tag, each in one.items() if tag not in added} == {
            tag: said.get(tag) for tag in one if tag not in added
        }
        assert str(file.PatientName) == NAME
        assert client.search_for_instances(*uids[:2], search_filters={"SOPInstanceUID": uids[2]}) == [one]


def test_queries_that_cannot_be_used(served, archive):
    with served.client(archive[0]) as client:
        for wrong in (
            {"limit": -1},
            {"limit": "x"},
            {"offset": "²"},
            {"offset": 10**12},
            {"fuzzymatching": "maybe"},
            {"InstitutionName": "x"},
            {"00080080": "x"},
            {"ffffffff": "x"},
            {"nothing": "x"},
            {"\x00": "x"},
            {"PatientID": "a\x00b"},
            {"PatientID": "a" * 2000},
            {"StudyDate": "yesterday"},
            {"StudyDate": "20261341"},
            {"StudyDate": "20260230-"},
            {"StudyDate": "-"},
            {"StudyDate": "²0260101"},
            {"StudyTime": "noon"},
            {"PatientID": ["a", "b"]},
        ):
            problem(client.get("/dicomweb/studies", params=wrong), 422, "invalid_request")
        xml = {"Accept": 'multipart/related; type="application/dicom+xml"'}
        problem(client.get("/dicomweb/studies", headers=xml), 406, "not_acceptable")
        problem(client.get("/dicomweb/studies/x%00y/series"), 404, "not_found")
        for host in ("[", "a b", "x" * 3000, "é".encode(), "\\"):
            assert client.get("/dicomweb/studies", headers={"Host": host}).status_code < 500
        many = client.get("/dicomweb/studies", params={"PatientName": "*a" * 400})
        assert many.json() == [], "many wildcards are no burden"


def test_a_key_sees_only_the_studies_that_it_may_see(served, archive):
    key, _ = archive
    with served.client(key) as own:
        (one,) = own.get(f"/dicomweb/studies/{STUDY}/instances", params={"Modality": "SR", "limit": 1}).json()
    path = f"/dicomweb/studies/{STUDY}/series/{values(one, '0020000E')[0]}/instances/{values(one, '00080018')[0]}"
    strangers = [
        served.key("site", "elsewhere"),
        served.key("doctor", "archive", doctor_id="D-9", label="BS. Thử Nghiệm"),
        served.key("specialist", "central", doctor_id="S-9", label="BS. Thử Nghiệm"),
    ]
    for stranger in strangers:
        with served.client(stranger) as client:
            for level in ("studies", "series", "instances", f"studies/{STUDY}/series", f"studies/{STUDY}/instances"):
                assert client.get(f"/dicomweb/{level}").json() == []
            for address in (
                f"/dicomweb/studies/{STUDY}",
                path,
                f"{path}/metadata",
                f"/dicomweb/studies/{STUDY}/metadata",
            ):
                problem(client.get(address), 404, "not_found")
    with served.client() as admin:
        assert admin.get(path).status_code == 200


def test_a_blind_reader_gets_nothing_before_signing(served, archive):
    _, ids = archive
    specialist = served.key("specialist", "blind", doctor_id="S-1", label="BS. Thử Nghiệm Tuyến Trên")
    database = served.app.state.service.database
    with served.client() as admin:
        key_id = next(each["id"] for each in admin.get("/v1/keys").json()["items"] if each["site"] == "blind")
    now = datetime(2026, 11, 21, tzinfo=UTC)
    author = Author(id="D-7", name="BS. Thử Nghiệm", facility="", role="referrer")
    asked = ReferralRow(
        id="99999999-2222-4333-8444-555555555555",
        visit_id=ids[2],
        to_site="blind",
        key_id=key_id,
        asked_by=author.model_dump_json(),
        asked_at=now,
        question="?",
        blind=True,
    )
    with database.transaction(write=True) as session:
        session.add(asked)
    with served.client(specialist) as client:
        assert client.get("/dicomweb/studies").json() == []
        problem(client.get(f"/dicomweb/studies/{STUDY}.9"), 404, "not_found")
        opinion = Opinion(number=1, author=author.model_copy(update={"role": "specialist"}), signed_at=now, text="x")
        with database.transaction(write=True) as session:
            session.get(VisitRow, ids[2]).version = 2
            question = session.get(ReferralRow, asked.id)
            question.closed_at, question.answered_by = now, 1
            row = {"key_id": key_id, "role": "specialist", "signed_at": now, "opinion": opinion.model_dump_json()}
            session.add(OpinionRow(visit_id=ids[2], number=1, **row))
        found = client.get(f"/dicomweb/studies/{STUDY}.9/instances").json()
    assert len(found) == 6, "the objects of both versions"
    with served.client() as admin, database.transaction(write=True) as session:
        for each in session.scalars(select(OpinionRow)):
            session.delete(each)
        session.get(VisitRow, ids[2]).version = 1


# ---------------------------------------------------------------------- WADO-RS
def test_objects_are_retrieved_at_every_level(served, archive):
    client = web_client(served, archive[0])
    study = client.retrieve_study(STUDY)
    assert sorted(each.Modality for each in study) == ["OT", "OT", "PR", "PR", "SR", "SR"]
    assert all(each.StudyInstanceUID == STUDY for each in study)
    one = next(each for each in study if each.Modality == "OT")
    uids = (STUDY, one.SeriesInstanceUID, one.SOPInstanceUID)
    (again,) = client.retrieve_series(*uids[:2])
    assert again == one
    metadata = client.retrieve_instance_metadata(*uids)
    assert "7FE00010" not in metadata
    assert metadata["00080018"]["Value"] == [one.SOPInstanceUID]
    assert len(client.retrieve_study_metadata(STUDY)) == 6
    assert len(client.retrieve_series_metadata(*uids[:2])) == 1


def test_one_object_as_a_file_and_as_a_picture(served, archive):
    with served.client(archive[0]) as client:
        items = client.get(f"/dicomweb/studies/{STUDY}/instances").json()
        paths = {values(each, "00080060")[0]: values(each, "00081190")[0] for each in items}
        plain = client.get(paths["OT"], headers={"Accept": "application/dicom"})
        assert plain.headers["content-type"] == "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"
        capture = dcmread(io.BytesIO(plain.content))
        for kind in ("png", "jpeg"):
            picture = client.get(f"{paths['OT']}/rendered", headers={"Accept": f"image/{kind}"})
            assert picture.headers["content-type"] == f"image/{kind}"
            shown = Image.open(io.BytesIO(picture.content))
            assert shown.size == (capture.Columns, capture.Rows)
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(client.get(f"{paths['OT']}/rendered").content))), capture.pixel_array
        )
        problem(client.get(f"{paths['SR']}/rendered"), 406, "not_acceptable")
        for accept in ("application/dicom;q=0", "text/html", 'multipart/related; type="image/jpeg"'):
            problem(client.get(paths["SR"], headers={"Accept": accept}), 406, "not_acceptable")
        jpeg = 'multipart/related; type="application/dicom"; transfer-syntax=1.2.840.10008.1.2.4.50'
        problem(client.get(paths["OT"], headers={"Accept": jpeg}), 406, "not_acceptable")
        every = 'text/html;q=0.1, multipart/related; type="application/dicom"; transfer-syntax=*;q=0.9, ,;,"'
        assert client.get(paths["SR"], headers={"Accept": every}).status_code == 200
        problem(client.get(f"{paths['SR']}1"), 404, "not_found")
        problem(client.get(f"/dicomweb/studies/{STUDY}/series/1.2.3"), 404, "not_found")
        problem(client.get(f"/dicomweb/studies/{'9' * 65}"), 404, "not_found")


def test_an_object_keeps_its_language_whatever_language_is_asked_for(served, archive):
    with served.client(archive[0]) as client:
        said = {}
        for language in ("vi", "fr", "en"):
            query = {"Modality": "SR", "limit": 1}
            (item,) = client.get(
                f"/dicomweb/studies/{STUDY}/instances", params=query, headers={"Accept-Language": language}
            ).json()
            said[language] = values(item, "00081190")[0]
        assert len(set(said.values())) == 3
        for address in said.values():
            content = client.get(address, headers={"Accept": "application/dicom"}).content
            assert dcmread(io.BytesIO(content)).SOPInstanceUID == address.rsplit("/", 1)[1]


# ---------------------------------------------------------------------- Orthanc
def test_orthanc_posts_objects_and_fetches_the_report(tmp_path):
    with serving(settings_for(tmp_path / "data", dicom_gather_seconds=0.3)) as served:
        key = served.key("site", "orthanc")
        servers = {"sangloc": (f"{served.address}/dicomweb/", {"Authorization": f"Bearer {key}"})}
        with orthanc(tmp_path / "orthanc", dicomweb_servers=servers) as peer, served.client(key) as client:
            instances = [peer.add(film(number)) for number in (1, 2)]
            peer.stow("sangloc", *instances)
            assert len(arrivals(served, "orthanc")) == 2
            until(lambda: len(client.get("/dicomweb/instances").json()) == 3, 20)
            (visit,) = client.get("/v1/visits").json()["items"]
            assert len(visit["inputs"]) == 2, "both films are one visit"
            answer = peer.http.post("/dicom-web/servers/sangloc/retrieve", json={"Resources": [{"Study": STUDY}]})
            assert answer.status_code == 200, answer.text
            (made,) = peer.find(Modality="SR")
            tags = peer.tags(made["ID"])
            assert (tags["SOPClassUID"], tags["PatientName"]) == (SR, NAME)
            assert len(peer.find(StudyInstanceUID=STUDY)) == 5, "two films, and SR, SC and GSPS"
