"""DICOM sent out: to a real archive (Orthanc) by C-STORE and STOW-RS, and to peers that say no in every backoff."""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import shutil
import socket
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
from PIL import Image
from pydicom import dcmread
from pynetdicom import AE, evt

from service.delivery.message import NotDelivered
from service.delivery.senders.dicom import already_there, c_store
from service.delivery.senders.stow import stow
from service.protocols.peers import read_ae_address
from service.report.dicom import images as dicom_images
from service.report.dicom import sr as dicom_sr
from tests.service.api.test_dicomweb import film
from tests.service.orthanc import free_port, orthanc
from tests.service.report_fixture import NAME, STUDY, report
from tests.service.serving import serving, settings_for

SR, SC = "1.2.840.10008.5.1.4.1.1.88.33", "1.2.840.10008.5.1.4.1.1.7"
HOST = "127.0.0.1"
NO_ASSOCIATION = "dicom_no_association"


@pytest.fixture(scope="module")
def files():
    """SR and SC of one report."""
    picture = io.BytesIO()
    Image.new("RGB", (64, 48), (10, 200, 30)).save(picture, "PNG")
    made = dicom_images.render_heatmap(report(3), "vi", "pneumonia", 0, picture.getvalue())
    return [dicom_sr.render(report(3), "vi"), made]


@pytest.fixture(scope="module")
def peer(tmp_path_factory):
    modalities = {"sangloc": ("SANGLOC", free_port()), "dcmtk": ("FINDSCU", free_port())}
    with orthanc(tmp_path_factory.mktemp("orthanc"), modalities=modalities) as it:
        yield it


class Archive:
    """An archive's listener that answers every object with ``status``, or aborts where it has none."""

    address = ""
    status = 0x0000

    def __init__(self):
        self.taken = []

    def answer(self, event):
        if self.status is None:
            event.assoc.abort()
            return 0x0000
        self.taken.append(event.dataset.SOPInstanceUID)
        return self.status


@contextlib.contextmanager
def listener(*classes):
    archive = Archive()

    entity = AE("ARCHIVE")
    for each in classes:
        entity.add_supported_context(each)
    server = entity.start_server((HOST, 0), block=False, evt_handlers=[(evt.EVT_C_STORE, archive.answer)])
    try:
        archive.address = f"ARCHIVE@{HOST}:{server.socket.getsockname()[1]}"
        yield archive
    finally:
        server.shutdown()


@pytest.fixture(scope="module")
def one_archive():
    with listener(SR, SC) as it:
        yield it


@pytest.fixture
def archive(one_archive):
    one_archive.taken.clear()
    return one_archive


@contextlib.contextmanager
def web_server(status, body=b"", **headers):
    """A web server that answers every POST alike; gives its address."""

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer((HOST, 0), Answer)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://{HOST}:{server.server_port}/dicom-web"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def refused(send, *arguments, **options):
    with pytest.raises(NotDelivered) as raised:
        send(*arguments, timeout_s=5, **options)
    return raised.value.code, raised.value.permanent


# ---------------------------------------------------------------------- an archive
def test_orthanc_accepts_our_objects_by_c_store(peer, files, tmp_path):
    address = f"{peer.ae_title}@{HOST}:{peer.dicom_port}"
    assert already_there(address, "SANGLOC", files[0], timeout_s=10) is False
    c_store(address, "SANGLOC", files, timeout_s=10)
    c_store(address, "SANGLOC", files, timeout_s=10)
    assert already_there(address, "SANGLOC", files[0], timeout_s=10) is True
    found = httpx.get(f"{peer.dicomweb}studies/{STUDY}/instances", auth=peer.auth, verify=False).json()
    assert {each["00080016"]["Value"][0] for each in found} == {SR, SC}
    (held,) = peer.find(Modality="SR")
    assert peer.tags(held["ID"])["PatientName"].replace("^", " ") == NAME
    content = peer.file(held["ID"])
    assert dcmread(io.BytesIO(content)) == dcmread(io.BytesIO(files[0]))
    if shutil.which("dsrdump"):
        (tmp_path / "sr.dcm").write_bytes(content)
        shown = subprocess.run(["dsrdump", tmp_path / "sr.dcm"], capture_output=True, check=False)
        assert shown.returncode == 0, shown.stderr


def test_findscu_finds_the_stored_objects_in_the_archive(peer, files):
    """A third party asks: dcmtk's own client, by C-FIND."""
    findscu = shutil.which("findscu")
    if findscu is None:
        pytest.skip("findscu (dcmtk) is not installed: nobody else asks the archive in this run")
    c_store(f"{peer.ae_title}@{HOST}:{peer.dicom_port}", "SANGLOC", files, timeout_s=30)
    keys = ("QueryRetrieveLevel=IMAGE", f"StudyInstanceUID={STUDY}", "SOPClassUID")
    asked = [part for key in keys for part in ("-k", key)]
    answer = subprocess.run(
        [findscu, "-v", "-S", "-aet", "FINDSCU", "-aec", peer.ae_title, HOST, str(peer.dicom_port), *asked],
        check=True,
        capture_output=True,
    )
    said = (answer.stdout + answer.stderr).decode(errors="replace")
    assert "ComprehensiveSRStorage" in said
    assert "SecondaryCaptureImageStorage" in said


def test_orthanc_accepts_our_objects_by_stow(peer):
    made = [dicom_sr.render(report(version), "fr") for version in (1, 2)]
    basic = base64.b64encode(":".join(peer.auth).encode()).decode()
    stow(peer.dicomweb, made, secret=f"Basic {basic}", timeout_s=10)
    stow(f"{peer.dicomweb}studies", made, secret=f"Basic {basic}", timeout_s=10)
    uids = {dcmread(io.BytesIO(each)).SOPInstanceUID for each in made}
    assert uids <= {each["SOPInstanceUID"] for each in peer.find(Modality="SR")}
    assert refused(stow, peer.dicomweb, made, secret="Basic eDp5") == ("http_401", False)


def test_orthanc_lists_the_objects_that_it_refuses(peer):
    basic = base64.b64encode(":".join(peer.auth).encode()).decode()
    code, _ = refused(stow, peer.dicomweb, [b"no DICOM"], secret=f"Basic {basic}")
    assert code in ("dicom_0110", "http_400")


def test_our_own_listener_accepts_films_and_refuses_an_unknown_class(tmp_path):
    with serving(settings_for(tmp_path)) as served:
        key, url = served.key("site", "north"), f"{served.address}/dicomweb"
        stow(url, [film(1), film(2)], secret=key, timeout_s=10)
        strange = film(3, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
        assert refused(stow, url, [film(1), strange], secret=key) == ("dicom_0122", True)
        assert refused(stow, url, [b"no DICOM"], secret=key) == ("dicom_C000", True)
        assert refused(stow, url, [film(1)], secret=None) == ("http_401", False)


# ---------------------------------------------------------------------- C-STORE
@pytest.mark.parametrize("status", [0x0000, 0xB000, 0xB006, 0xB007, 0x0107, 0x0111])
def test_success_warnings_and_duplicates_count_as_delivered(archive, files, status):
    archive.status = status
    c_store(archive.address, "SANGLOC", files, timeout_s=5)
    assert len(archive.taken) == 2


@pytest.mark.parametrize(
    ("status", "permanent"),
    [(0xA700, False), (0x0110, False), (0xA900, True), (0xC000, True), (0xC123, True), (0x0122, True), (0x0124, False)],
)
def test_a_failure_is_final_or_temporary(archive, files, status, permanent):
    archive.status = status
    assert refused(c_store, archive.address, "SANGLOC", files) == (f"dicom_{status:04X}", permanent)
    assert len(archive.taken) == 1, "the rest waits"


# pynetdicom leaves a socket that never connected to the garbage collector, which says so
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_peers_that_refuse(peer, archive, files):
    for other in (SC, "1.2.840.10008.1.1"):
        with listener(other) as narrow:
            assert refused(c_store, narrow.address, "SANGLOC", files) == ("dicom_no_context", True)
    archive.status = None
    assert refused(c_store, archive.address, "SANGLOC", files) == ("dicom_aborted", False)
    assert already_there(archive.address, "SANGLOC", files[0], timeout_s=5) is None
    wrong = f"NOBODY@{HOST}:{peer.dicom_port}"
    # On a busy machine pynetdicom may see that the peer has closed the connection before it reads the rejection.
    told = (refused(c_store, wrong, "SANGLOC", files) for _ in range(10))
    assert next((each for each in told if each[0] != NO_ASSOCIATION), None) == ("dicom_rejected", False)
    assert refused(c_store, f"ARCHIVE@{HOST}:{free_port()}", "SANGLOC", files) == (NO_ASSOCIATION, False)


def test_a_silent_peer_ends_in_a_timeout(files):
    with socket.socket() as silent:
        silent.bind((HOST, 0))
        silent.listen()
        port = silent.getsockname()[1]
        with pytest.raises(NotDelivered, match=NO_ASSOCIATION):
            c_store(f"ARCHIVE@{HOST}:{port}", "SANGLOC", files, timeout_s=0.3)
        with pytest.raises(NotDelivered, match="timeout"):
            stow(f"http://{HOST}:{port}", files, secret=None, timeout_s=0.3)


def test_host_names_that_cannot_be_resolved(files):
    assert refused(c_store, "ARCHIVE@nobody.invalid:104", "SANGLOC", files) == ("unreachable", False)
    assert refused(c_store, "ARCHIVE", "SANGLOC", files) == ("address", True)


def test_addresses():
    peer = read_ae_address("MY ARCHIVE@archive.example:11112")
    assert (peer.ae_title, peer.host, peer.port) == ("MY ARCHIVE", "archive.example", 11112)
    assert read_ae_address("A@[::1]:104").host == "::1"
    for wrong in ("", "A@h", "A@h:0", "A@h:70000", "@h:1", "A" * 17 + "@h:1", " @h:1", "A@h:1\n", "A@h h:1"):
        with pytest.raises(ValueError, match="AE_TITLE"):
            read_ae_address(wrong)


# ---------------------------------------------------------------------- STOW-RS
@pytest.mark.parametrize(
    ("status", "body", "code", "permanent"),
    [
        (503, b"", "http_503", False),
        (429, b"", "http_429", False),
        (404, b"", "http_404", True),
        (415, b"", "http_415", True),
        (302, b"", "http_302", False),
        (409, b"", "http_409", True),
        (
            202,
            b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [42752]}}]}}',
            "dicom_A700",
            False,
        ),
        (200, b'[{"00081198": {"vr": "SQ", "Value": [{}]}}]', "stow_failed", False),
        (200, b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"Value": ["x"]}}]}}', "stow_failed", False),
        (
            409,
            b'{"0008119A": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [49152]}}]}}',
            "dicom_C000",
            True,
        ),
        (200, b"<xml/>", "answer_unreadable", False),
        (200, b"[" * 100_000, "answer_unreadable", False),
        (200, b" " * 1_100_000, "answer_too_large", False),
    ],
)
def test_answers_of_a_web_server(files, status, body, code, permanent):
    with web_server(status, body) as url:
        assert refused(stow, url, files, secret="s") == (code, permanent)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"3", b'{"00081198": {"vr": "SQ"}}'])
def test_answers_without_a_failure_are_delivered(files, body):
    with web_server(200, body) as url:
        stow(url, files, secret=None, timeout_s=5)


def test_retry_after_of_a_web_server(files):
    with web_server(503, Retry_After="17") as url, pytest.raises(NotDelivered) as raised:
        stow(url, files, secret=None, timeout_s=5)
    assert raised.value.retry_after_s == 17


def test_an_object_that_the_server_already_has_is_delivered(files):
    body = b'{"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [273]}}]}}'
    with web_server(409, body) as url:
        stow(url, files, secret=None, timeout_s=5)


@pytest.mark.parametrize("url", ["ftp://h/x", "no address", "http://h:x"])
def test_addresses_that_cannot_be_used(files, url):
    assert refused(stow, url, files, secret=None) == ("address", True)


def test_an_address_without_a_server(files):
    assert refused(stow, f"http://{HOST}:{free_port()}", files, secret=None) == ("unreachable", False)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_library_logs_nothing_of_what_is_sent(files, caplog):
    logging.getLogger("pynetdicom").setLevel(logging.DEBUG)
    address = f"ARCHIVE@{HOST}:{free_port()}"
    assert refused(c_store, address, "SANGLOC", files) == (NO_ASSOCIATION, False)
    assert [record.name for record in caplog.records if record.name.startswith(("pynetdicom", "pydicom"))] == []
