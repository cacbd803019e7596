"""Unfinished uploads: a file that one machine goes on with, or objects that any machine goes on with."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from unittest import mock

import pytest
from sqlalchemy import delete, select

from service.errors import OffsetMismatch, StorageUnavailable, StoredFileDamaged, UploadGone
from service.storage.database import Database
from service.storage.pieces import FilePieces, ObjectPieces, open_pieces
from service.storage.store import open_store
from service.storage.tables import Base, UploadPieceRow, UploadRow


@pytest.fixture
def database(tmp_path, new_database):
    database = Database(new_database() or f"sqlite:///{tmp_path / 'sangloc.db'}")
    Base.metadata.create_all(database.engine)
    yield database
    database.close()


@pytest.fixture(params=["file", "memory", "s3"])
def pieces(request, tmp_path, monkeypatch, database):
    url = {"file": (tmp_path / "store").as_uri(), "memory": f"memory://{tmp_path.name}"}
    if request.param == "s3":
        for name, value in request.getfixturevalue("s3_environment").items():
            monkeypatch.setenv(name, value)
        url["s3"] = f"s3://visits/{tmp_path.name}"
    return open_pieces(open_store(url[request.param], tmp_path), tmp_path, database)


def begun(database, pieces, name="an-upload"):
    now = datetime.now(UTC)
    pieces.begin(name)
    with database.transaction(write=True) as session:
        session.add(UploadRow(id=name, key_id="k", filename="", field="", n_bytes=9, created_at=now, expires_at=now))
    return name


def content_of(pieces, name):
    with pieces.open(name) as file:
        return file.read()


def forgotten(database, name):
    with database.transaction(write=True) as session:
        session.execute(delete(UploadRow).where(UploadRow.id == name))


def test_pieces_follow_each_other(database, pieces):
    name = begun(database, pieces)
    assert pieces.append(name, None, b"") == 0
    assert content_of(pieces, name) == b""
    assert pieces.append(name, 0, b"0123") == 4
    assert pieces.append(name, 4, b"4567", durable=True) == 8
    assert pieces.append(name, 8, b"", durable=True) == 8
    with pytest.raises(OffsetMismatch) as elsewhere:
        pieces.append(name, 4, b"other")
    assert elsewhere.value.found == "8"
    assert content_of(pieces, name) == b"01234567"


def test_an_upload_that_is_not_there_is_gone(database, pieces):
    name = begun(database, pieces)
    pieces.append(name, 0, b"0123")
    pieces.remove(name)
    forgotten(database, name)
    for ask in (
        lambda: pieces.append(name, None, b""),
        lambda: pieces.append(name, 4, b"4"),
        lambda: pieces.open(name),
    ):
        with pytest.raises(UploadGone):
            ask()


def test_of_many_requests_for_one_place_one_writes(database, pieces):
    """What the others bring does not count, and is not between the bytes."""
    name = begun(database, pieces)

    def write(i):
        try:
            return pieces.append(name, 0, bytes([i]) * 4)
        except OffsetMismatch:
            return None

    with ThreadPoolExecutor(6) as pool:
        ends = list(pool.map(write, range(6)))
    assert sorted(ends, key=str) == [4, *[None] * 5]
    assert content_of(pieces, name) == bytes([ends.index(4)]) * 4


def test_old_bytes_without_an_upload_are_removed(database, pieces, tmp_path):
    old, new = begun(database, pieces, "old"), begun(database, pieces, "new")
    pieces.append(old, 0, b"old")
    pieces.append(new, 0, b"new")
    pieces.remove_older(3600)
    assert content_of(pieces, old) == b"old"
    if isinstance(pieces, FilePieces):
        os.utime(tmp_path / "uploads" / old, (time.time() - 7200,) * 2)
        pieces.remove_older(3600)
        assert content_of(pieces, new) == b"new"
    else:
        forgotten(database, old)
        pieces.remove_older(0)  # it looked a moment ago, and an object store is not looked through again so soon
        assert pieces._objects._files.find(f"{pieces._root}/{old}")
        again = ObjectPieces(pieces._objects, tmp_path, database)
        again.remove_older(-3600)
        assert not pieces._objects._files.find(pieces._root)
    with pytest.raises(UploadGone):
        pieces.open(old)


# ---------------------------------------------------------------- objects
@pytest.fixture
def objects(pieces):
    if isinstance(pieces, FilePieces):
        pytest.skip("a file has no objects")
    return pieces


def test_two_machines_go_on_with_one_upload(database, objects, tmp_path):
    other = ObjectPieces(objects._objects, tmp_path, database)
    name = begun(database, objects)
    assert objects.append(name, 0, b"first ") == 6
    assert other.append(name, None, b"") == 6
    assert other.append(name, 6, b"second ") == 13
    assert objects.append(name, 13, b"third") == 18
    assert content_of(other, name) == b"first second third"
    objects.remove(name)
    assert not objects._objects._files.find(f"{objects._root}/{name}")


def test_an_object_that_no_row_names_does_not_count(database, objects):
    """A process was killed after it wrote the object, and before it wrote the row."""
    name = begun(database, objects)
    objects.append(name, 0, b"0123")
    transactions, real = [], database.transaction

    def second_fails(**options):
        transactions.append(options)
        if len(transactions) == 2:
            raise KeyboardInterrupt
        return real(**options)

    with mock.patch.object(database, "transaction", second_fails), pytest.raises(KeyboardInterrupt):
        objects.append(name, 4, b"lost")
    assert len(objects._objects._files.find(f"{objects._root}/{name}")) == 2
    assert objects.append(name, None, b"") == 4
    assert objects.append(name, 4, b"4567") == 8
    assert content_of(objects, name) == b"01234567"
    objects.remove(name)
    assert not objects._objects._files.find(f"{objects._root}/{name}")


def test_pieces_go_with_their_upload(database, objects):
    name = begun(database, objects)
    objects.append(name, 0, b"0123")
    forgotten(database, name)
    with database.transaction() as session:
        assert session.scalars(select(UploadPieceRow)).all() == []


def test_a_piece_that_is_missing_or_short_is_said(database, objects):
    name = begun(database, objects)
    objects.append(name, 0, b"0123")
    (path,) = objects._objects._files.find(f"{objects._root}/{name}")
    objects._objects._files.pipe_file(path, b"012")
    with pytest.raises(StoredFileDamaged):
        objects.open(name)
    objects._objects._files.rm_file(path)
    with pytest.raises(StorageUnavailable):
        objects.open(name)
