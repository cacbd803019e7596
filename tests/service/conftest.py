"""Real servers on loopback, over SQLite and over a real PostgreSQL."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.service.serving import Process, real_server, serving, settings_for, until

_count = itertools.count()


# ---------------------------------------------------------------- databases
@pytest.fixture(scope="session")
def postgres():
    """A PostgreSQL cluster of its own, on a Unix socket in a temporary folder; gives addresses of fresh databases."""
    found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    if found is None:
        pytest.skip("PostgreSQL (initdb) is not installed: nothing is tested over it in this run")
    psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
    bin_dir = Path(found).resolve().parent
    folder = Path(tempfile.mkdtemp(prefix="sangloc-pg-", dir="/tmp"))
    user = {}
    if os.getuid() == 0:  # PostgreSQL refuses to run as root
        name = next((each.pw_name for each in pwd.getpwall() if each.pw_name == "postgres"), "nobody")
        shutil.chown(folder, name)
        user = {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **user}
    initdb = [
        bin_dir / "initdb",
        "-D",
        folder / "data",
        "-U",
        "sangloc",
        "-A",
        "trust",
        "-E",
        "UTF8",
        "--locale=C",
        "-N",
    ]
    subprocess.run(initdb, check=True, **quiet)
    options = ["-c", "listen_addresses=", "-k", folder, "-c", "max_connections=200", "-c", "fsync=off"]
    server = subprocess.Popen([bin_dir / "postgres", "-D", folder / "data", *options], **quiet)

    def connect():
        return psycopg.connect(f"host={folder} user=sangloc dbname=postgres", autocommit=True)

    until(lambda: _works(connect), 20)

    def fresh_database():
        name = f"visits{next(_count)}"
        with connect() as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://sangloc@/{name}?host={folder}"

    yield fresh_database
    server.send_signal(signal.SIGQUIT)  # at once, without a checkpoint: nobody comes back to this cluster
    server.wait(20)
    shutil.rmtree(folder)


def _works(connect):
    try:
        connect().close()
    except Exception:
        return False
    return True


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_database(request):
    """Makes the address of an empty database: ``""`` for SQLite, which lies in the data folder."""
    return (lambda: "") if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.fixture(scope="module")
def served(tmp_path_factory, new_database):
    """One server for a module's tests."""
    folder = tmp_path_factory.mktemp("served")
    with serving(settings_for(folder, database_url=new_database(), max_upload_mb=2)) as it:
        yield it


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """``server.py`` itself, with the bundles that ship, in a process of its own."""
    process = real_server(tmp_path_factory.mktemp("real"))
    try:
        yield process.start(seconds=120).served
    finally:
        code = process.stop()
    assert code == 0


@pytest.fixture
def client(served):
    with served.client() as it:
        yield it


@pytest.fixture
def new_process(tmp_path):
    """Makes processes over one data folder, unless told otherwise; none outlives the test."""
    made = []

    def make(folder=tmp_path / "data", **more):
        folder.mkdir(exist_ok=True)
        made.append(Process(folder, **more))
        return made[-1]

    yield make
    for each in made:
        if each.process is not None and each.process.poll() is None:
            each.kill()
