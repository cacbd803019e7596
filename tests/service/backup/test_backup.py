"""Backups of a running server, restored and compared; damage and stops are noticed."""

from __future__ import annotations

import contextlib
import gzip
import json
import signal
import stat
import threading
import time

import pytest
from sqlalchemy import text

from service.backup.check import check
from service.backup.contents import MANIFEST, NAMES, TABLES, Manifest, complete, open_backup, written
from service.backup.copying import others
from service.backup.prune import prune
from service.backup.restore import restore
from service.backup.save import save
from service.storage.commands import NotDone, one_at_a_time, open_existing
from service.storage.database import Database
from service.storage.store import FolderStore
from tests.service.commands import done, environment_of, started
from tests.service.serving import serving, settings_for, until, visit_files
from tests.service.storage.test_store import put

SECRET = "SECRET-NAME"


def ignore(_line):
    """What a command says on its way."""


def rows_of(backup):
    """The lines of each table of a backup; in which order the database gave them does not matter.

    That a backup was saved or restored is in the audit log, and nothing else that is compared here.
    """
    rows = {
        name: sorted(gzip.decompress((backup.folder / TABLES / f"{name}.jsonl.gz").read_bytes()).splitlines())
        for name in backup.manifest.tables
    }
    rows["audit"] = [line for line in rows["audit"] if b'"action": "backup_' not in line]
    return rows


def saved(settings, destination):
    database, store = open_existing(settings)
    try:
        return save(settings, database, store, destination, ignore)
    finally:
        database.close()


class Load:
    """Clients that post until they are stopped: who was answered, with what, and when."""

    def __init__(self, served, n=4):
        self.accepted, self.refused = {}, []
        self._served, self._stop = served, threading.Event()
        self._threads = [threading.Thread(target=self._post, args=(number,)) for number in range(n)]

    def __enter__(self):
        for each in self._threads:
            each.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for each in self._threads:
            each.join(60)

    def _post(self, number):
        with self._served.client() as client:
            count = 0
            while not self._stop.is_set():
                content = b"shared" if count % 5 == 0 else f"film {number} {count}".encode()
                person = {"id": f"P-{number}-{count}", "name": f"{SECRET} Đỗ “x” \\ {count}"}
                answer = client.post("/v1/visits", files=visit_files(content, person=person, visited_on="2026-03-04"))
                if answer.status_code == 201:
                    self.accepted[answer.json()["id"]] = content
                else:
                    self.refused.append(answer.status_code)
                count += 1


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Data of a server on SQLite that has ended, and its settings."""
    settings = settings_for(tmp_path_factory.mktemp("filled") / "data", bundles=tmp_path_factory.mktemp("bundles"))
    (settings.bundles / "registry.jsonl").write_text('{"a decision": 1}\n')
    with serving(settings) as served, served.client() as client:
        for number in range(12):
            content = f"film {number % 9}".encode() * 50_000 * (number % 2) or b"small"
            client.post("/v1/visits", files=visit_files(content, person={"id": f"P-{number}"}))
        served.key("site", "commune")
    (settings.data_dir / "admin.key").write_text("sangloc_a-secret\n")
    (settings.data_dir / "export.key").write_text("c6" * 32)
    return settings


@pytest.fixture
def backup(filled, tmp_path):
    return saved(filled, tmp_path / "backups")[0]


@pytest.fixture
def empty(tmp_path):
    """Settings of an empty target."""
    return settings_for(tmp_path / "target", bundles=tmp_path / "no-bundles")


# ---------------------------------------------------------------- the whole way
def test_a_backup_under_load_is_restored_to_a_server_that_has_everything(new_process, new_database, tmp_path):
    url = new_database()
    process = new_process(tmp_path / "data", database_url=url).start()
    backups, environment = tmp_path / "backups", environment_of(tmp_path / "data", url)
    with Load(process.served) as load:
        until(lambda: len(load.accepted) >= 40, 60)
        before = dict(load.accepted)
        code, out, err = done("service.backup", "save", backups, environment=environment)
        after = len(load.accepted)
        until(lambda: len(load.accepted) >= after + 10, 60)
        again = done("service.backup", "save", backups, environment=environment)
    assert code == 0, err
    assert again[0] == 0, again
    assert after > len(before), "nobody posted while it was saved"
    assert load.refused == [], "a backup may not cost a visit"
    assert process.stop() == 0
    first, second = map(open_backup, complete(backups))
    assert f"{second.manifest.names.lines - first.manifest.names.lines:,} of them new here" in again[1]
    assert SECRET not in out + err + again[1] + again[2]
    target, target_url = tmp_path / "target", new_database()
    there = environment_of(target, target_url)
    code, out, err = done("service.backup", "restore", first.folder, environment=there)
    assert code == 0, err
    assert SECRET not in out + err
    code, _, err = done("service.backup", "save", tmp_path / "of the restored", environment=there)
    assert code == 0, err
    restored = open_backup(tmp_path / "of the restored")
    assert rows_of(restored) == rows_of(first)
    assert list(restored.names()) == list(first.names())
    assert restored.manifest.lacking == ()
    saved_visits = {json.loads(row)["id"] for row in rows_of(first)["visits"]}
    assert before.keys() <= saved_visits <= load.accepted.keys()
    private = (target, backups, *target.rglob("*"), *backups.rglob("*"))
    for path in (each for each in private if each.name != "migrate.lock"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    server = new_process(target, database_url=target_url).start()
    with server.served.client() as client:
        for visit in saved_visits:
            until(lambda: client.get(f"/v1/visits/{visit}").json()["status"] == "complete", 20)  # noqa: B023
            assert client.get(f"/v1/visits/{visit}/inputs/0").content == load.accepted[visit]
    assert server.stop() == 0


def test_what_was_saved_from_one_kind_of_database_is_restored_to_the_other(filled, postgres, tmp_path):
    sqlite, _ = saved(filled, tmp_path / "a")
    there = settings_for(tmp_path / "there", database_url=postgres())
    restore(there, sqlite, ignore)
    postgresql, _ = saved(there, tmp_path / "b")
    back = settings_for(tmp_path / "back")
    restore(back, postgresql, ignore)
    again, _ = saved(back, tmp_path / "c")
    assert (postgresql.manifest.database, again.manifest.database) == ("postgresql", "sqlite")
    assert rows_of(sqlite) == rows_of(postgresql) == rows_of(again)
    assert rows_of(sqlite)["keys"]
    assert list(sqlite.names()) == list(again.names())


def test_the_store_may_be_of_another_kind(filled, empty, tmp_path):
    backup, _ = saved(filled, tmp_path / "backups")
    remote = empty.model_copy(update={"store_url": f"memory://{tmp_path.name}"})
    restore(remote, backup, ignore)
    database, store = open_existing(remote)
    again, n_new = save(remote, database, store, tmp_path / "again", ignore)
    database.close()
    check(again, ignore)
    assert n_new == backup.manifest.names.lines == len(list(store.names()))
    assert rows_of(again) == rows_of(backup)


def test_a_second_backup_copies_only_what_is_new(filled, tmp_path):
    first, n_first = saved(filled, tmp_path)
    second, n_second = saved(filled, tmp_path)
    assert (n_first, n_second) == (first.manifest.names.lines, 0)
    assert n_first > 3
    check(second, ignore)
    assert rows_of(first) == rows_of(second)


def test_the_keys_are_restored_and_the_registry_is_kept_beside(backup, empty):
    said = []
    restore(empty, backup, said.append)
    assert (empty.data_dir / "admin.key").read_text() == "sangloc_a-secret\n"
    assert (empty.data_dir / "export.key").read_text() == "c6" * 32
    assert (backup.folder / "kept/registry.jsonl").read_text() == '{"a decision": 1}\n'
    assert "registry.jsonl is not as it was saved" in said[-1]


# ---------------------------------------------------------------- what is refused
def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def a_file(backup):
    name, _ = max(backup.names(), key=lambda each: each[1])
    return backup.files._path(name)


DAMAGES = {
    "a table": (lambda backup: flip(backup.folder / TABLES / "visits.jsonl.gz"), "visits.jsonl.gz is damaged"),
    "a table is cut": (lambda backup: cut(backup.folder / TABLES / "inputs.jsonl.gz"), "inputs.jsonl.gz is damaged"),
    "a table is missing": (lambda backup: (backup.folder / TABLES / "keys.jsonl.gz").unlink(), "is missing"),
    "the names": (lambda backup: cut(backup.folder / NAMES), "files.txt is damaged"),
    "the manifest": (lambda backup: flip(backup.folder / MANIFEST), "manifest is damaged"),
    "a file is missing": (lambda backup: a_file(backup).unlink(), "1 files that inputs names are missing"),
    "a file": (lambda backup: flip(a_file(backup)), "is damaged or missing"),
    "a file is cut": (lambda backup: cut(a_file(backup)), "is damaged or missing"),
    "the key": (lambda backup: flip(backup.folder / "kept/admin.key"), "admin.key is damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_backup_is_refused_with_what_is_damaged(backup, empty, damage):
    check(backup, ignore)
    spoil, reason = DAMAGES[damage]
    spoil(backup)
    for use in (
        lambda: check(open_backup(backup.folder), ignore),
        lambda: restore(empty, open_backup(backup.folder), ignore),
    ):
        with pytest.raises(NotDone, match=reason):
            use()
    assert not (empty.data_dir / "sangloc.db").exists(), "a server must not find half the data"


def test_rows_that_name_a_file_too_many_are_noticed_whatever_the_manifest_says(backup):
    """As if a program had written the backup in the wrong order: all digests are right, and a file is not there."""
    name = next(name for name, _ in backup.names())
    backup.files._path(name).unlink()
    lines = [line for line in (backup.folder / NAMES).read_text().splitlines(True) if not line.startswith(name)]
    (backup.folder / NAMES).write_text("".join(lines))
    manifest = backup.manifest.model_copy(update={"names": written(backup.folder / NAMES, len(lines))})
    manifest.write(backup.folder / MANIFEST)
    with pytest.raises(NotDone, match="files that inputs names are missing"):
        check(open_backup(backup.folder), ignore)


def test_a_target_that_is_not_empty_is_refused(backup, empty, filled, postgres, tmp_path):
    restore(empty, backup, ignore)
    with pytest.raises(NotDone, match="restored into an empty target only"):
        restore(empty, backup, ignore)
    other = settings_for(tmp_path / "other")
    store = FolderStore(tmp_path / "other/files")
    put(store, b"a file of somebody else")
    with pytest.raises(NotDone, match="the store is not empty"):
        restore(other, backup, ignore)
    keyed = settings_for(tmp_path / "keyed")
    keyed.data_dir.mkdir()
    (keyed.data_dir / "admin.key").write_text("another\n")
    with pytest.raises(NotDone, match="holds another key"):
        restore(keyed, backup, ignore)
    tables = settings_for(tmp_path / "tables", database_url=postgres())
    database = Database(tables.database)
    with database.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE somebody (id integer)")
    database.close()
    with pytest.raises(NotDone, match="the database has tables"):
        restore(tables, backup, ignore)


def test_a_backup_of_a_later_version_is_refused_by_name(backup, empty):
    backup.manifest.model_copy(update={"revision": "9999", "software": "sangloc 9.9"}).write(backup.folder / MANIFEST)
    with pytest.raises(NotDone, match=r"revision 9999.*sangloc 9\.9 or later"):
        restore(empty, open_backup(backup.folder), ignore)
    assert not (empty.data_dir / "sangloc.db").exists()


def test_one_bad_file_in_the_store_does_not_prevent_the_backup_and_is_said(filled, tmp_path):
    source = settings_for(tmp_path / "source", bundles=filled.bundles)
    restore(source, saved(filled, tmp_path / "first")[0], ignore)
    _, store = database_and_store = open_existing(source)
    database_and_store[0].close()
    lost, flipped, *_ = store.names()
    store._path(lost).unlink()
    flip(store._path(flipped))
    environment = environment_of(source.data_dir)
    code, out, _ = done("service.backup", "save", tmp_path / "second", environment=environment)
    assert code == 1
    assert "2 files were missing or damaged in the store" in out
    backup = open_backup(tmp_path / "second")
    assert backup.manifest.lacking == (lost, flipped)
    check(backup, ignore)
    restore(settings_for(tmp_path / "target"), backup, ignore)


def test_only_one_command_saves_restores_or_deletes(filled, tmp_path):
    database, store = open_existing(filled)
    try:
        with one_at_a_time(filled, database), pytest.raises(NotDone, match="another command"):
            save(filled, database, store, tmp_path, ignore)
    finally:
        database.close()


def test_only_one_command_on_machines_that_share_a_postgresql(postgres, tmp_path):
    url = postgres()
    machines = [settings_for(tmp_path / name, database_url=url) for name in "ab"]
    databases = [Database(url) for _ in machines]
    for each in machines:
        each.data_dir.mkdir()
    with one_at_a_time(machines[0], databases[0]), pytest.raises(NotDone, match="another command"):  # noqa: SIM117
        with one_at_a_time(machines[1], databases[1]):
            pass
    with one_at_a_time(machines[1], databases[1]):
        pass
    for each in databases:
        each.close()


# ---------------------------------------------------------------- stops
def test_a_save_that_is_killed_leaves_no_backup_and_the_next_one_is_whole(filled, tmp_path):
    environment = environment_of(filled.data_dir)
    for n in range(4):
        process = started("service.backup", "save", tmp_path, environment=environment)
        until(lambda: list(tmp_path.glob("*.draft")) or process.poll() is not None, 60)  # noqa: B023
        time.sleep(0.003 * n)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        for folder in complete(tmp_path):
            check(open_backup(folder), ignore)
    backup, _ = saved(filled, tmp_path)
    check(backup, ignore)
    assert not list(tmp_path.glob("*.draft"))


def test_a_restore_that_is_killed_is_repeated(backup, tmp_path, postgres):
    for url in ("", postgres()):
        target = tmp_path / f"target{bool(url)}"
        environment = environment_of(target, url)
        for n in range(4):
            process = started("service.backup", "restore", backup.folder, environment=environment)
            until(lambda: (target / "files").exists() or process.poll() is not None, 60)  # noqa: B023
            time.sleep(0.03 * n)
            process.send_signal(signal.SIGKILL)
            process.communicate()
            if process.returncode == 0:
                break
        else:
            code, _, err = done("service.backup", "restore", backup.folder, environment=environment)
            assert code == 0 or "empty target only" in err, err
        again, _ = saved(settings_for(target, database_url=url), tmp_path / f"again{bool(url)}")
        assert rows_of(again) == rows_of(backup)
        assert list(again.names()) == list(backup.names())
        assert not list(target.glob("*.restoring*"))


def test_a_full_disk_is_said_in_one_line(filled, small_disk):
    with contextlib.suppress(OSError), (small_disk / "filler").open("wb", buffering=0) as filler:
        while filler.write(bytes(100_000)):
            pass
    code, _, err = done("service.backup", "save", small_disk / "b", environment=environment_of(filled.data_dir))
    assert code == 2
    assert len(err.splitlines()) == 1
    assert "no room left" in err or "No space left" in err
    assert complete(small_disk / "b") == []


# ---------------------------------------------------------------- old backups
def test_old_backups_go_with_the_files_that_only_they_have(filled, tmp_path):
    backups, source = tmp_path / "backups", settings_for(tmp_path / "source", bundles=filled.bundles)
    restore(source, saved(filled, tmp_path / "first")[0], ignore)
    oldest, _ = saved(source, backups)
    database, store = open_existing(source)
    gone = next(store.names())
    with database.transaction(write=True) as session:
        session.execute(text("DELETE FROM inputs WHERE sha256 = :gone"), {"gone": gone})
    database.close()
    newer, _ = saved(source, backups)
    latest, _ = saved(source, backups)
    assert oldest.files.has(gone)
    assert prune(backups, 2) == (1, 1)
    assert complete(backups) == [newer.folder, latest.folder]
    assert not latest.files.has(gone)
    check(newer, ignore)
    assert prune(backups, 2) == (0, 0)
    flip(latest.folder / MANIFEST)
    with pytest.raises(NotDone, match="manifest is damaged"):
        prune(backups, 1)
    assert newer.folder.exists()


def test_others_are_found_in_order_without_holding_them():
    assert list(others("abcef", "bcd")) == ["a", "e", "f"]
    assert list(others("", "a")) == []
    assert list(others("ab", "")) == ["a", "b"]


def test_commands_say_in_one_line_what_is_wrong(tmp_path):
    environment = environment_of(tmp_path / "nothing")
    for arguments, says in (
        (("save", tmp_path / "b"), "sangloc.db does not exist"),
        (("check", tmp_path), "no complete backup is there"),
        (("prune", tmp_path, "--keep", "1"), "no complete backup is there"),
    ):
        code, out, err = done("service.backup", *arguments, environment=environment)
        assert code in (1, 2)
        assert out == ""
        assert len(err.splitlines()) == 1
        assert says in err


def test_the_manifest_reads_back(backup):
    assert Manifest.read(backup.folder / MANIFEST) == backup.manifest
    assert backup.manifest.software == "sangloc 0.1.0"
