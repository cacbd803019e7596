"""Each migration with data in the tables, up and down; code of the release before beside the migrated tables."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
from datetime import UTC, date, datetime

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from service.storage.database import Database
from service.storage.migrate import (
    DEPLOY,
    REVISIONS,
    _config,
    downgrade,
    due_at_start,
    migrate,
    revision_of,
    upgrade,
)
from service.upgrade import main
from tests.conftest import ROOT
from tests.service.serving import serving, settings_for, visit_files

KNOWN = list(REVISIONS)
STEPS = list(itertools.pairwise(KNOWN))
MOMENT = datetime(2026, 1, 2, 3, 4, 5)
EMPTIED = {"0010": {"sessions"}}
"""Tables whose rows a migration deletes: whoever was signed in signs in again."""
APPEND_ONLY = {"audit"}
"""Tables whose rows the database refuses to change and to delete."""
INDEXES = "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'"
JSON = {"context", "options", "dicom", "opinion", "assessment", "report", "asked_by"}


@pytest.fixture
def database(tmp_path, new_database):
    made = Database(new_database() or f"sqlite:///{tmp_path / 'sangloc.db'}")
    yield made
    made.close()


def tables(connection):
    """The tables as code of this revision knows them."""
    found = sa.MetaData()
    found.reflect(connection)
    return [each for each in found.sorted_tables if each.name != "alembic_version"]


def made_value(column, word):
    if column.name in JSON:
        return "{}"
    if isinstance(column.type, sa.DateTime):
        return MOMENT.replace(tzinfo=UTC) if column.type.timezone else MOMENT
    if isinstance(column.type, sa.Date):
        return date(2026, 1, 2)
    if isinstance(column.type, sa.Boolean):
        return True
    if isinstance(column.type, sa.Float):
        return 7.5
    return ord(word) if isinstance(column.type, sa.Integer) else word


def fill(connection, found, word):
    """A row in each table; rows of one word refer to each other."""
    for table in found:
        connection.execute(table.insert(), {column.name: made_value(column, word) for column in table.columns})


def content(connection, found):
    """The rows of these tables, with the columns that these tables had."""
    return {table.name: sorted(map(repr, connection.execute(sa.select(*table.columns)).all())) for table in found}


def still_there(connection, found):
    """The same tables without the columns that the database does not have any more."""
    now = {table.name: set(table.columns.keys()) for table in tables(connection)}
    rest = []
    for table in found:
        columns = [column._copy() for column in table.columns if column.name in now.get(table.name, ())]
        if columns:
            rest.append(sa.Table(table.name, sa.MetaData(), *columns))
    return rest


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_data_of_each_revision_survive_the_next_one_up_down_and_up_again(database, before, after):
    with database.engine.connect() as connection, connection.begin():
        upgrade(connection, before)
        old = tables(connection)
        fill(connection, old, "v")
        upgrade(connection, after)
        kept = still_there(connection, old)
        assert {table.name for table in kept} == {table.name for table in old}
        first = content(connection, kept)
        assert {name for name, rows in first.items() if len(rows) != 1} == EMPTIED.get(after, set())
        all_of_it = content(connection, tables(connection))
        downgrade(connection, before)
        assert revision_of(connection) == before
        assert content(connection, kept) == first
        upgrade(connection, after)
        assert content(connection, tables(connection)) == all_of_it
        upgrade(connection, "head")
        assert content(connection, still_there(connection, kept)).keys() == first.keys()


def works(connection, found, word):
    """Whether code that knows these tables can insert, change, read and delete."""
    changing = [table for table in found if table.name not in APPEND_ONLY]
    with contextlib.suppress(sa.exc.DBAPIError), connection.begin_nested():
        fill(connection, found, word)
        for table in changing:
            key = next(iter(table.primary_key))
            mine = sa.update(table).where(key == made_value(key, word))
            connection.execute(mine.values({name: made_value(table.c[name], word) for name in table.c.keys()}))  # noqa: SIM118
            assert connection.execute(sa.select(*table.columns)).all()
        for table in reversed(changing):
            key = next(iter(table.primary_key))
            connection.execute(sa.delete(table).where(key == made_value(key, word)))
        return True
    return False


@pytest.mark.parametrize(("before", "after"), STEPS)
def test_code_of_the_release_before_works_on_beside_what_may_run_before(database, before, after):
    with database.engine.connect() as connection, connection.begin():
        upgrade(connection, before)
        old = tables(connection)
        fill(connection, old, "v")
        upgrade(connection, after)
        new = tables(connection)
        old_code_works = works(connection, old, "o")
        assert works(connection, new, "n")
        downgrade(connection, "base")
        upgrade(connection, before)
        new_code_works = works(connection, new, "n")
    expected = {"before": (True, None), "after": (None, True), "stopped": (False, False)}[DEPLOY[after]]
    assert expected[0] in (None, old_code_works)
    assert expected[1] in (None, new_code_works)


def test_every_migration_says_when_it_may_run():
    scripts = ScriptDirectory.from_config(_config())
    assert [each.revision for each in reversed([*scripts.walk_revisions()])] == KNOWN
    assert scripts.get_heads() == [KNOWN[-1]]


def test_tables_that_are_in_order_need_no_alembic(tmp_path):
    migrate(settings := settings_for(tmp_path), Database(settings.database))
    probe = (
        "import sys; from pathlib import Path; from service.settings import Settings\n"
        "from service.storage.database import Database; from service.storage.migrate import migrate\n"
        "settings = Settings(data_dir=Path(sys.argv[1])); migrate(settings, Database(settings.database))\n"
        "sys.exit('alembic' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", probe, str(settings.data_dir)], check=True, cwd=ROOT)


def test_indexes_that_were_made_beforehand_are_those_of_the_migration(tmp_path, postgres):
    """``docs/how-to/upgrade.md`` has them for large tables."""
    page = (ROOT / "docs" / "how-to" / "upgrade.md").read_text()
    statements = [line for line in page.splitlines() if line.startswith("CREATE INDEX CONCURRENTLY")]
    found = []
    for beforehand in ([], statements):
        made = Database(postgres())
        with made.engine.begin() as connection:
            upgrade(connection, "0011")
        with made.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            for statement in beforehand:
                connection.exec_driver_sql(statement)
        with made.engine.begin() as connection:
            before = len(connection.exec_driver_sql(INDEXES).all())
            upgrade(connection, "0012")
            found.append(sorted(connection.exec_driver_sql(INDEXES).all()))
            if beforehand:
                assert before == len(found[-1]) + 1  # all were there, and the one that a new one replaces
        made.close()
    assert found[0] == found[1]


def test_what_only_new_code_can_live_with_waits():
    deploy = {"1": "before", "2": "after", "3": "before", "4": "after", "5": "after"}
    assert due_at_start(list(deploy), deploy) == "3"
    assert due_at_start(["1"], deploy) == "1"


def test_a_server_of_the_release_before_starts_beside_a_later_one(tmp_path, new_database):
    """The tables are of a revision that this code does not know, with a column and a table more."""
    settings = settings_for(tmp_path / "data", database_url=new_database())
    with serving(settings) as served, served.client() as client:
        assert client.post("/v1/visits", files=visit_files(b"before")).status_code == 201
    database = Database(settings.database)
    with database.engine.begin() as connection:
        for statement in (
            "ALTER TABLE visits ADD COLUMN later VARCHAR(10)",
            "CREATE TABLE later (id INTEGER PRIMARY KEY)",
            "UPDATE alembic_version SET version_num = '9999'",
        ):
            connection.exec_driver_sql(statement)
    with serving(settings) as served, served.client() as client:
        posted = client.post("/v1/visits", files=visit_files(b"after", person={"id": "P"}))
        assert posted.status_code == 201
        assert len(client.get("/v1/visits").json()["items"]) == 2
    with database.engine.connect() as connection:
        assert revision_of(connection) == "9999"
    database.close()


def test_the_command_shows_runs_and_goes_back(tmp_path, new_database, monkeypatch, capsys):
    settings = settings_for(tmp_path / "data", database_url=new_database())
    monkeypatch.setenv("SANGLOC_DATA_DIR", str(settings.data_dir))
    monkeypatch.setenv("SANGLOC_DATABASE_URL", settings.database_url)
    (settings.data_dir / "files").mkdir(parents=True)
    database = Database(settings.database)
    migrate(settings, database)
    last, previous = KNOWN[-1], KNOWN[-2]
    assert main(["status"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == [last, DEPLOY[last], "done"]
    assert main(["back", previous]) == 0
    assert main(["status"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].split() == [last, DEPLOY[last], "waits"]
    assert main(["run"]) == 0
    assert f"{previous} -> {last}" in capsys.readouterr().out
    assert main(["back", last]) == 1
    assert "is not one of those before it" in capsys.readouterr().err
    with database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for arguments in (["status"], ["run"], ["back", previous]):
        assert main(arguments) == 1
        assert "which this version does not know" in capsys.readouterr().err
    database.close()
