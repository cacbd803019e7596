"""The room on the disks: what is left, and what is refused before nothing is left."""

from __future__ import annotations

from shutil import disk_usage

import pytest

from service.errors import StorageFull, StorageUnavailable
from service.storage import room as room_module
from service.storage.room import Room
from tests.data_specs.cxr_made import phantom
from tests.service.api.test_dicomweb import stow
from tests.service.receive.dicom.made import film
from tests.service.receive.test_uploads import TUS
from tests.service.serving import serving, settings_for, told, visit_files

MB = 1_000_000


async def test_the_least_of_all_disks_counts(tmp_path, small_disk, monkeypatch):
    monkeypatch.setattr(room_module, "LOOK_S", 60.0)
    room = Room({"data": tmp_path, "store": small_disk}, 4 * MB)
    assert room.free_bytes()["store"] == pytest.approx(8 * 1024 * 1024, rel=0.05)
    await room.wait_for_check()
    (small_disk / "a").write_bytes(bytes(5 * MB))
    await room.wait_for_check()  # the disks are not asked again before the time
    room = Room({"data": tmp_path, "store": small_disk}, 4 * MB)
    with pytest.raises(StorageFull):
        await room.wait_for_check()


def test_a_disk_that_does_not_say(tmp_path):
    with pytest.raises(StorageUnavailable):
        Room({"data": tmp_path / "nowhere"}, 0).check()


def test_before_the_disk_is_full_nothing_new_is_accepted_and_reading_goes_on(small_disk, monkeypatch):
    monkeypatch.setattr(room_module, "LOOK_S", 0.0)
    filler = small_disk / "filler"
    with serving(settings_for(small_disk, min_free_mb=5)) as served, served.client() as client:
        made = client.post("/v1/visits", files=visit_files()).json()["id"]
        assert client.get("/readyz").json()["checks"]["room"] == "ok"
        filler.write_bytes(bytes(5 * MB))
        ready = client.get("/readyz")
        assert (ready.status_code, ready.json()["checks"]["room"]) == (503, "storage_full")
        for answer in (
            client.post("/v1/visits", files=visit_files()),
            client.post("/v1/uploads", headers={**TUS, "Upload-Length": "10"}),
            client.post("/v1/uploads/visit", json={"uploads": []}),
            stow(client, film(phantom(rows=232, columns=228))),
        ):
            assert (answer.status_code, answer.json()["code"]) == (503, "storage_full")
            assert "retry-after" in answer.headers
        assert client.get(f"/v1/visits/{made}").status_code == 200
        counts = told(served)
        assert counts["sangloc_free_bytes", "store"] == pytest.approx(disk_usage(small_disk).free, abs=0.3 * MB)
        assert counts["sangloc_ready",] == 0
        filler.unlink()
        assert client.get("/readyz").status_code == 200
        assert client.post("/v1/visits", files=visit_files()).status_code == 201
