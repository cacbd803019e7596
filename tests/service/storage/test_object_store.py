"""An object store that keeps silent, refuses connections or asks for patience: real S3 behind a link that does so."""

from __future__ import annotations

import threading
import time

import pytest

from benchmarks.chaos.processes import NOT_NOW
from benchmarks.chaos.s3 import environment_at
from benchmarks.chaos.thin_link import ThinLink
from service.errors import StorageUnavailable
from service.storage import object_store
from service.storage.database import ANSWER_S
from service.storage.store import open_store
from tests.service.serving import serving, settings_for, visit_files
from tests.service.storage.outages import NO_WAIT, finished, refused
from tests.service.storage.test_store import draft_of

AT_ONCE_S = 1.0
LABS = [("context", (None, '{"labs": [{"name": "creatinine", "value": 84, "unit": "umol/L"}]}', "application/json"))]


@pytest.fixture
def link(s3, monkeypatch):
    """Stands between the service and S3."""
    from s3fs import S3FileSystem

    made = ThinLink(s3.port)
    for name, value in environment_at(made.address).items():
        monkeypatch.setenv(name, value)
    S3FileSystem.clear_instance_cache()  # fsspec keeps its clients, whatever the environment says
    yield made
    S3FileSystem.clear_instance_cache()
    made.close()


@pytest.fixture
def impatient(monkeypatch):
    """Limits that are reached soon."""
    monkeypatch.setitem(object_store.S3_LIMITS, "read_timeout", 1.0)
    monkeypatch.setattr(object_store, "WRITE_S", 4.0)
    monkeypatch.setattr(object_store, "SILENT_S", 1.0)


def fails(use):
    with pytest.raises(StorageUnavailable):
        use()


def test_nobody_waits_longer_for_a_silent_store_than_for_a_silent_database():
    limits = object_store.S3_LIMITS
    assert (limits["connect_timeout"] + limits["read_timeout"]) * limits["retries"]["total_max_attempts"] <= ANSWER_S
    assert object_store.WRITE_S <= ANSWER_S


@pytest.mark.usefixtures("impatient")
def test_while_a_store_is_silent_one_request_tries_it_and_the_others_are_refused_at_once(link, tmp_path):
    store = open_store(f"s3://visits/{tmp_path.name}", tmp_path)
    store.put(draft_of(store, b"before"))
    link.hold()
    began = time.monotonic()
    fails(store.probe)
    assert time.monotonic() - began < 10
    trial = threading.Thread(target=fails, args=(store.probe,))
    trial.start()
    time.sleep(0.2)
    for use in (store.probe, lambda: store.put(draft_of(store, b"meanwhile"))):
        began = time.monotonic()
        fails(use)
        assert time.monotonic() - began < AT_ONCE_S
    trial.join()
    link.mend()
    store.put(draft_of(store, b"after"))
    store.probe()


@pytest.mark.parametrize("harm", [lambda link: link.refuse(), lambda link: link.answer(NOT_NOW)])
def test_a_store_that_refuses_is_asked_each_time(link, tmp_path, harm):
    store = open_store(f"s3://visits/{tmp_path.name}", tmp_path)
    store.probe()
    harm(link)
    for _ in range(2):
        fails(store.probe)
    link.mend()
    store.probe()


@pytest.mark.usefixtures("impatient")
def test_what_needs_no_store_goes_on_while_it_is_silent(link, postgres, tmp_path):
    settings = settings_for(tmp_path, store_url=f"s3://visits/{tmp_path.name}", database_url=postgres())
    with serving(settings) as served, served.client() as client:
        kept = client.post("/v1/visits", files=visit_files(b"before")).json()["id"]
        link.hold()
        films = [threading.Thread(target=_post_film, args=(served, n)) for n in range(12)]
        for thread in films:
            thread.start()
        time.sleep(6)  # the first of them have waited
        began = time.monotonic()
        refused(client.post("/v1/visits", files=visit_files(b"a film")), "storage_unavailable")
        made = client.post("/v1/visits", files=LABS, headers=NO_WAIT)
        assert made.status_code in (201, 202)
        assert client.get(f"/v1/visits/{kept}").status_code == 200
        assert time.monotonic() - began < 3 * AT_ONCE_S
        for thread in films:
            thread.join()
        link.mend()
        assert client.post("/v1/visits", files=visit_files(b"after")).status_code == 201
        assert finished(client, [kept])


def _post_film(served, n):
    with served.client() as client:
        refused(client.post("/v1/visits", files=visit_files(b"film %d" % n)), "storage_unavailable")


def test_a_service_starts_though_its_store_is_away(link, postgres, tmp_path):
    settings = settings_for(tmp_path, store_url=f"s3://visits/{tmp_path.name}", database_url=postgres())
    link.refuse()
    with serving(settings) as served, served.client() as client:
        assert client.get("/readyz").json()["checks"]["store"] == "storage_unavailable"
        assert client.get("/v1/visits").status_code == 200
        link.mend()
        assert client.post("/v1/visits", files=visit_files(b"a film")).status_code == 201
