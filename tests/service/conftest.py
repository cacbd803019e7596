"""Real servers on loopback, over SQLite and over a real PostgreSQL."""

from __future__ import annotations

import gc
import subprocess
import warnings

import pytest

from service import wrong_keys
from tests.service.postgres import Cluster
from tests.service.s3 import S3
from tests.service.serving import Process, real_server, serving, settings_for


# ---------------------------------------------------------------- databases
@pytest.fixture(scope="session")
def postgres():
    """Gives addresses of fresh databases of a real PostgreSQL."""
    cluster = Cluster()
    yield cluster.new_database
    cluster.close()


@pytest.fixture(scope="module")
def own_postgres():
    """A real PostgreSQL for one module, whose tests stop it and start it again."""
    cluster = Cluster()
    yield cluster
    cluster.close()
    with (
        warnings.catch_warnings()
    ):  # connections that an outage has cut off say so when they are collected: here, not later
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="session")
def s3():
    """A real S3 server, with one bucket ``visits``."""
    server = S3()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def s3_environment(s3):
    """The environment in which its client is found."""
    return s3.environment


@pytest.fixture(scope="session", params=["sqlite", "postgresql"])
def new_database(request):
    """Makes the address of an empty database: ``""`` for SQLite, which lies in the data folder."""
    return (lambda: "") if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.fixture
def small_disk(tmp_path):
    """A folder on a disk of 8 MB of its own."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("only root may mount a small disk: a disk that becomes full is not tested in this run")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


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
def hardly_forgiven(monkeypatch):
    """A wrong key is forgiven after so many seconds: none is while a test gives a hundred, however slow the machine."""
    monkeypatch.setattr(wrong_keys, "WRONG_EVERY_S", 3600)
    return 3600


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
