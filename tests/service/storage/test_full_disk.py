"""A disk that is full: what does not fit is refused, leaves nothing behind, and what was accepted is finished."""

from __future__ import annotations

import io
import os
import resource
import zipfile
from contextlib import contextmanager

import pytest

from data_specs.problems import message
from service.errors import StorageFull, StorageUnavailable
from service.storage.drafts import HELD_BYTES, Drafts
from service.storage.pieces import FilePieces
from service.storage.store import FolderStore
from service.storage.tables import ArrivalRow
from tests.data_specs.cxr_made import phantom
from tests.service.orthanc import free_port, listens
from tests.service.page_fixture import made_film
from tests.service.receive.dicom.made import PEERS, associate, film, parsed
from tests.service.receive.test_uploads import PIECE, begun, offset
from tests.service.serving import serving, settings_for, until, visit_files
from tests.service.storage.outages import NO_WAIT, finished, refused, stored, stored_files

LARGE_FILM = phantom(rows=600, columns=600)
LARGE = os.urandom(3 * HELD_BYTES)


@contextmanager
def full(folder, leave=0):
    """Fill the disk of a folder, but for about ``leave`` bytes."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (65536, 4096):
            while True:
                free = os.statvfs(folder)
                if free.f_bavail * free.f_frsize - size < leave:
                    break
                file.write(bytes(size))
    try:
        yield
    finally:
        filler.unlink(missing_ok=True)


def zipped(**files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"{name}.png", content)
    return out.getvalue()


def test_a_full_disk_is_said_so_at_every_door_and_leaves_no_draft(small_disk, tmp_path):
    """The database is on another disk here, so that the files themselves are what does not fit."""
    port, small = free_port(), made_film(64)
    settings = settings_for(
        small_disk,
        database_url=f"sqlite:///{tmp_path}/sangloc.db",
        min_free_mb=0,
        dicom_port=port,
        dicom_peers=PEERS,
        dicom_gather_seconds=0.3,
    )
    with serving(settings) as served, served.client() as client:
        until(lambda: listens(port), 10)
        drafts = served.app.state.service.store.drafts
        visit = client.post("/v1/visits", files=visit_files()).json()["id"]
        where = begun(client, len(LARGE))
        related = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
        part = b"--b\r\nContent-Type: application/dicom\r\n\r\n"
        with full(small_disk):
            for answer in (
                client.post("/v1/visits", files=visit_files(LARGE)),
                client.post("/v1/visits", files=visit_files(b"small, and kept in memory until it is stored")),
                client.post("/v1/visits", files=[("image", (f"{i}.png", LARGE)) for i in range(3)]),
                client.post("/v1/visits", content=LARGE, headers={"Content-Type": "image/png"}),
                client.post("/v1/visits", content=zipped(a=small), headers={"Content-Type": "application/zip"}),
                client.post("/dicomweb/studies", content=part + LARGE + b"\r\n--b--\r\n", headers=related),
            ):
                refused(answer, "storage_full")
                assert list(drafts.iterdir()) == []
            stow = client.post("/dicomweb/studies", content=part + film() + b"\r\n--b--\r\n", headers=related)
            assert (stow.status_code, stow.headers["retry-after"]) == (503, "10")
            assert stow.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA700]
            assert stored_by_dicom(port, film()) == [(0xA700, "storage_full")]
            assert stored_by_dicom(port, film(values=LARGE_FILM), aborted=True) == [(0xA700, "storage_full")]
            until(lambda: list(drafts.iterdir()) == [], 5)
            page = client.post("/post", files=[("image", ("a.png", LARGE))], data={"token": "t"})
            assert (page.status_code, page.headers["retry-after"]) == (503, "10")
            assert message("storage_full", "en") in page.text
            assert client.get(f"/v1/visits/{visit}/inputs/0").content == b"an image", "reading goes on"
            ready = client.get("/readyz")
            assert (ready.status_code, ready.json()["checks"]["store"]) == (503, "storage_full")
            assert list(drafts.iterdir()) == []
        with full(small_disk, leave=HELD_BYTES):
            patch = client.patch(where, headers={**PIECE, "Upload-Offset": "0"}, content=LARGE)
            refused(patch, "upload_stopped")
        so_far = offset(client, where)
        assert 0 < so_far < len(LARGE)
        rest = client.patch(where, headers={**PIECE, "Upload-Offset": str(so_far)}, content=LARGE[so_far:])
        assert rest.status_code == 204
        made = client.post("/v1/uploads/visit", json={"uploads": [where.rpartition("/")[2]]})
        assert client.get(f"{made.headers['location']}/inputs/0").content == LARGE
        assert stored_by_dicom(port, film()) == [(0, None)]
        assert (stored(served, ArrivalRow), client.get("/readyz").status_code) == (1, 200)


def stored_by_dicom(port, *objects, aborted=False):
    """Status and ErrorComment of each object that is sent.

    The listener aborts an association whose data set it can no longer write (``aborted``). It is not released then:
    pynetdicom's own thread may take the abort from the queue in which ``release`` waits for an answer.
    """
    association = associate(port, *objects)
    answers = [association.send_c_store(parsed(each)) for each in objects]
    if aborted:
        until(lambda: association.is_aborted, 10)
    else:
        association.release()
    return [(answer.Status, answer.get("ErrorComment")) for answer in answers]


def test_what_is_accepted_before_the_disk_of_the_database_is_full_is_finished(small_disk, tmp_path):
    settings = settings_for(
        tmp_path / "data", database_url=f"sqlite:///{small_disk}/sangloc.db", min_free_mb=0, lease_seconds=1
    )
    with serving(settings) as served, served.client(**NO_WAIT) as client:
        kept, full_answers = [], []
        with full(small_disk, leave=300_000):
            for number in range(600):
                files = visit_files(b"SLOW 0.2", person={"id": f"P-{number}"})
                answer = client.post("/v1/visits", files=files, headers={"Idempotency-Key": f"k-{number}"})
                if answer.status_code in (201, 202):
                    kept.append(answer.json()["id"])
                else:
                    full_answers.append(answer)
                if len(full_answers) == 5:
                    break
            assert kept
            assert {each.json()["code"] for each in full_answers} <= {"storage_full", "outcome_unknown"}
            assert len(full_answers) == 5
            assert client.get("/v1/visits?limit=1").status_code == 200
        until(lambda: finished(client, kept), 30)
        unknown = sum(each.json()["code"] == "outcome_unknown" for each in full_answers)
        assert len(kept) <= stored(served) <= len(kept) + unknown
        assert client.get("/readyz").status_code == 200


@contextmanager
def no_file_larger_than(n_bytes):
    """The kernel refuses to let a file of this process grow further, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("size", [len(LARGE), HELD_BYTES // 2])
def test_a_draft_that_cannot_be_written_is_removed(tmp_path, size):
    store = FolderStore(tmp_path)
    drafts = Drafts(store.drafts)
    with no_file_larger_than(1000):
        with pytest.raises(StorageFull):
            _write_and_put(store, drafts, LARGE[:size])
        drafts.remove()
    assert stored_files(tmp_path) == 0


def _write_and_put(store, drafts, content):
    draft = drafts.new()
    draft.write(content)
    store.put(draft)


def test_what_is_written_of_a_piece_counts(tmp_path):
    pieces = FilePieces(tmp_path)
    pieces.begin("upload")
    with no_file_larger_than(1000):
        assert pieces.append("upload", 0, LARGE[:600]) == 600
        with pytest.raises(StorageFull):
            pieces.append("upload", 600, LARGE[600:2000])
    at = pieces.append("upload", None, b"", durable=True)
    assert (at, (tmp_path / "upload").read_bytes()) == (1000, LARGE[:1000])


def test_other_errors_of_a_disk_are_no_lack_of_room(tmp_path):
    store = FolderStore(tmp_path)
    store.drafts.rmdir()
    for harmed in (store.probe, lambda: _write_and_put(store, Drafts(store.drafts), b"")):
        with pytest.raises(StorageUnavailable) as outage:
            harmed()
        assert type(outage.value) is StorageUnavailable
