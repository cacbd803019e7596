"""The store: one interface, a folder or whatever fsspec opens, the same behaviour."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time

import pytest

from service.errors import StorageUnavailable, StoredFileDamaged, StoredFileMissing
from service.storage.drafts import HELD_BYTES, Drafts
from service.storage.owner import Owner
from service.storage.store import FolderStore, RemoteStore, open_store
from tests.service.s3 import s3_server
from tests.service.serving import serving, settings_for, visit_files


@pytest.fixture(scope="module")
def s3_environment():
    with s3_server() as environment:
        yield environment


@pytest.fixture(params=["file", "memory", "s3"])
def store(request, tmp_path, monkeypatch):
    if request.param == "s3":
        for name, value in request.getfixturevalue("s3_environment").items():
            monkeypatch.setenv(name, value)
    url = {
        "file": (tmp_path / "a store").as_uri(),
        "memory": f"memory://{tmp_path.name}",
        "s3": f"s3://visits/{tmp_path.name}",
    }
    return open_store(url[request.param], tmp_path / "data")


def draft_of(store, content):
    draft = Drafts(store.drafts).new()
    draft.write(content[:10])
    draft.write(memoryview(content)[10:])
    assert (draft.sha256, draft.n_bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    with draft.open() as file:
        assert file.read() == content
    return draft


def put(store, content):
    draft = draft_of(store, content)
    store.put(draft)
    assert not list(store.drafts.iterdir())
    return draft.sha256


LARGE = bytes(range(256)) * (HELD_BYTES // 256 + 1)


def test_a_stored_file_is_read_back(store):
    sha256 = put(store, b"content")
    assert store.read(sha256) == b"content"
    assert put(store, b"content") == sha256
    assert store.read(put(store, b"")) == b""
    assert store.read(put(store, LARGE)) == LARGE
    store.probe()


def test_missing_and_damaged_files_are_different_errors(store):
    with pytest.raises(StoredFileMissing):
        store.read("0" * 64)
    wrong = draft_of(store, b"wrong")
    wrong._hash = hashlib.sha256(b"right")
    store.put(wrong)
    with pytest.raises(StoredFileDamaged):
        store.read(hashlib.sha256(b"right").hexdigest())


def test_put_is_durable_before_it_returns(tmp_path, monkeypatch):
    store = FolderStore(tmp_path)
    happened = []
    fsync = os.fsync

    def recorded(descriptor):
        happened.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    sha256 = put(store, b"durable")
    folder = tmp_path / sha256[:2]
    assert happened[0].startswith(str(store.drafts))
    assert happened[1:] == [str(tmp_path), str(folder)]


def test_old_drafts_are_removed_and_young_ones_stay(tmp_path):
    store = FolderStore(tmp_path)
    old, young = store.drafts / "old", store.drafts / "young"
    for draft in (old, young):
        draft.write_bytes(b"x")
    long_ago = time.time() - 7200
    os.utime(old, (long_ago, long_ago))
    FolderStore(tmp_path)
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("content", [b"small", LARGE])
def test_only_drafts_that_were_not_stored_are_removed(tmp_path, content):
    store = FolderStore(tmp_path)
    drafts = Drafts(store.drafts)
    kept, left = drafts.new(), drafts.new()
    for each in (kept, left):
        each.write(content)
    assert len(list(store.drafts.iterdir())) == (2 if content is LARGE else 0), "small ones wait in memory"
    store.put(kept)
    assert drafts
    drafts.remove()
    assert not drafts
    assert not list(store.drafts.iterdir())
    assert store.read(kept.sha256) == content


@pytest.mark.parametrize("content", [b"small", LARGE])
def test_a_draft_that_is_removed_while_it_is_stored_stores_nothing_else(tmp_path, content):
    store = FolderStore(tmp_path)
    before = put(store, content)
    draft = draft_of(store, content)
    draft.remove()  # what a request does that was cut off
    with contextlib.suppress(StorageUnavailable, ValueError):
        store.put(draft)
    assert store.read(before) == content


def test_a_url_in_the_settings_opens_a_remote_store(tmp_path):
    assert isinstance(open_store("memory://x", tmp_path), RemoteStore)
    assert isinstance(open_store(f"local://{tmp_path}/x", tmp_path), FolderStore)


def test_an_object_store_that_cannot_be_used(tmp_path):
    store = RemoteStore(f"file://{tmp_path}/no-folder", tmp_path / "drafts")
    (tmp_path / "no-folder").write_bytes(b"")
    draft = draft_of(store, b"content")
    for use in (lambda: store.put(draft), lambda: store.read(draft.sha256), store.probe):
        with pytest.raises(StorageUnavailable):
            use()
    draft.remove()
    assert not list(store.drafts.iterdir())


def test_visits_over_an_object_store(tmp_path):
    with serving(settings_for(tmp_path, store_url=f"memory://{tmp_path.name}")) as served, served.client() as client:
        answer = client.post("/v1/visits", files=visit_files(b"remote"))
        assert answer.json()["status"] == "complete"
        assert client.get(f"{answer.headers['location']}/inputs/0").content == b"remote"
        assert client.get("/readyz").json()["checks"]["store"] == "ok"


def test_owner_is_known_to_have_stopped_only_when_it_has(tmp_path):
    first, second = Owner(tmp_path), Owner(tmp_path)
    assert second.stopped_owners() == []
    first.close()
    assert second.stopped_owners() == [first.id]
    second.forget_owner(first.id)
    assert second.stopped_owners() == []
    second.close()
