"""From a hospital's archive and back, with nobody touching it: an order by HL7 v2, a film by C-STORE from Orthanc, the
findings back in Orthanc as SR and SC and at a FHIR server; a specialist's signature then changes them everywhere.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread

from tests.conftest import ROOT
from tests.data_specs.cxr_made import dicom
from tests.service.orthanc import free_port, orthanc
from tests.service.serving import real_server, until

NAME = "Người^Được Khám^Thử Nghiệm Ẵặ"
STUDY = "1.2.826.0.1.3680043.8.498.77"
SR, SC = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.7"
ORDER = "\r".join(
    (
        r"MSH|^~\&|HIS|BV|SANGLOC|SL|20261121081500+0700||ORM^O01^ORM_O01|1|P|2.5.1||||||UNICODE UTF-8",
        f"PID|1||VN-0042^^^BV^PI||{NAME}||19840530|M",
        "ORC|NW|ORD-1^HIS|||||||20261121080000|||D-7^Thử Nghiệm^Tuyến Dưới^^^BS.|||||||||Trạm y tế thử nghiệm",
        "OBR|1|ORD-1^HIS||36643-5^XR^LN||||||||||||||ACC-77|||||||||||||^Ho khạc đờm",
        "",
    )
)


class FhirServer:
    """Keeps what is put into it, as a FHIR server does: the last content under each address, and how often it came."""

    def __init__(self):
        self.bundles, self.puts = {}, []
        kept = self

        class Answer(BaseHTTPRequestHandler):
            def do_PUT(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                kept.puts.append(self.path)
                kept.bundles[self.path] = body
                self.send_response(201)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_POST = do_PUT

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.address = f"http://127.0.0.1:{self.server.server_port}/fhir"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def reports(self):
        """The diagnostic reports in what came, by their status."""
        entries = [entry["resource"] for bundle in self.bundles.values() for entry in bundle["entry"]]
        return {each["status"]: each for each in entries if each["resourceType"] == "DiagnosticReport"}

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def fhir():
    server = FhirServer()
    yield server
    server.close()


def adult_film():
    """The sample film with findings, as an archive has it."""
    pixels = np.asarray(Image.open(ROOT / "samples/film-abnormal.jpg").convert("L"))
    return dicom(
        pixels,
        bits=8,
        SpecificCharacterSet="ISO_IR 192",
        StudyInstanceUID=STUDY,
        SeriesInstanceUID=f"{STUDY}.1",
        SOPInstanceUID=f"{STUDY}.1.1",
        PatientName=NAME,
        PatientID="VN-0042",
        PatientSex="M",
        PatientBirthDate="19840530",
        StudyDate="20261121",
        StudyTime="081500",
        AccessionNumber="ACC-77",
    )


def test_from_the_archive_and_back(tmp_path, fhir):
    hl7_client = pytest.importorskip("hl7.client", reason="the hl7 library is not installed: no order is sent")
    dicom_port, hl7_port = free_port(), free_port()
    with orthanc(tmp_path / "orthanc", modalities={"sangloc": ("SANGLOC", dicom_port)}) as peer:
        process = real_server(
            _made(tmp_path / "data"),
            SANGLOC_DICOM_PORT=str(dicom_port),
            SANGLOC_DICOM_PEERS="ORTHANC@127.0.0.1=lao-cai",
            SANGLOC_DICOM_GATHER_SECONDS="0.5",
            SANGLOC_HL7_PORT=str(hl7_port),
            SANGLOC_HL7_PEERS="127.0.0.1=lao-cai",
        )
        try:
            served = process.start(seconds=120).served
            with served.client() as admin:
                for kind, address in (("dicom", f"ORTHANC@127.0.0.1:{peer.dicom_port}"), ("fhir", fhir.address)):
                    made = admin.post(
                        "/v1/destinations", json={"kind": kind, "address": address, "site": "lao-cai", "language": "vi"}
                    )
                    assert made.status_code == 201, made.text

            with hl7_client.MLLPClient("127.0.0.1", hl7_port) as orders:
                assert b"MSA|AA|1" in orders.send_message(ORDER.encode())
            peer.store("sangloc", peer.add(adult_film()))  # from here on nobody touches anything

            until(lambda: len(peer.find(SOPClassUID=SR)) == 1 and peer.find(SOPClassUID=SC), 60)
            until(lambda: "preliminary" in fhir.reports(), 30)
            first = peer.find(SOPClassUID=SR)[0]
            structured = dcmread(io.BytesIO(peer.file(first["ID"])))
            assert (structured.StudyInstanceUID, str(structured.PatientName)) == (STUDY, NAME)
            assert structured.AccessionNumber == "ACC-77"
            assert structured.VerificationFlag == "UNVERIFIED"
            _opens_with_dsrdump(tmp_path, peer.file(first["ID"]))
            preliminary = fhir.reports()["preliminary"]
            assert {concept["coding"][0]["code"] for concept in preliminary.get("conclusionCode", [])} == _conclusions(
                structured
            )

            doctor = served.key("doctor", "lao-cai", doctor_id="D-7", label="BS. Thử Nghiệm Tuyến Dưới")
            specialist = served.key("specialist", "central", doctor_id="S-1", label="BS. Thử Nghiệm Tuyến Trên")
            with served.client(doctor) as at_district, served.client(specialist) as at_centre:
                (visit,) = at_district.get("/v1/visits").json()["items"]  # the order named the referring doctor
                asked = at_district.post(f"/v1/visits/{visit['id']}/referrals", json={"to_site": "central"})
                assert asked.status_code == 201, asked.text
                signed = at_centre.post(
                    f"/v1/visits/{visit['id']}/opinions",
                    json={
                        "version": 1,
                        "text": "Xẹp phổi.",
                        "judgements": [{"finding": "atelectasis", "verdict": "add"}],
                    },
                )
                assert signed.status_code == 201, signed.text
                until(lambda: len(peer.find(SOPClassUID=SR)) == 2 and "final" in fhir.reports(), 60)
                everything = {(v, kind, "delivered") for v in (1, 2) for kind in ("dicom", "fhir")}
                until(lambda: _deliveries(at_district, visit["id"]) == everything, 30)
            second = next(
                document
                for each in peer.find(SOPClassUID=SR)
                if (document := dcmread(io.BytesIO(peer.file(each["ID"])))).SOPInstanceUID != structured.SOPInstanceUID
            )
            assert second.VerificationFlag == "VERIFIED"
            assert second.PredecessorDocumentsSequence
            final = {concept["coding"][0]["code"] for concept in fhir.reports()["final"]["conclusionCode"]}
            assert final == _conclusions(second) == _conclusions(structured) | {"46621007"}  # atelectasis
            assert len(fhir.puts) == len(set(fhir.puts)) == 2  # each version once
        finally:
            code = process.stop()
    assert code == 0


def _deliveries(client, visit):
    history = client.get(f"/v1/visits/{visit}/history").json()
    return {(each["version"], each["kind"], each["state"]) for each in history["deliveries"]}


def _made(folder):
    folder.mkdir()
    return folder


def _conclusions(document):
    """Codes of the conclusions (DCM 121077) of a structured report."""

    def walk(item):
        for each in item.get("ContentSequence", ()):
            yield each
            yield from walk(each)

    return {
        each.ConceptCodeSequence[0].CodeValue
        for each in walk(document)
        if each.ValueType == "CODE" and each.ConceptNameCodeSequence[0].get("CodeValue") == "121077"
    }


def _opens_with_dsrdump(folder, content):
    dsrdump = shutil.which("dsrdump")
    if dsrdump is None:
        return  # dcmtk is not installed; tests/service/report/test_dicom.py says so
    file = folder / "sr.dcm"
    file.write_bytes(content)
    shown = subprocess.run([dsrdump, file], check=True, capture_output=True)
    assert "Được Khám".encode() in shown.stdout
