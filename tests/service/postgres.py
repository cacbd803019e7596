"""A PostgreSQL cluster of its own, on a Unix socket in a temporary folder: it can be stopped and started again."""

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

from tests.service.serving import until

_count = itertools.count()


class Cluster:
    """A running cluster."""

    def __init__(self):
        found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
        if found is None:
            pytest.skip("PostgreSQL (initdb) is not installed: nothing is tested over it in this run")
        self._psycopg = pytest.importorskip("psycopg", reason="the extra 'postgres' is not installed")
        self._bin = Path(found).resolve().parent
        self.folder = Path(tempfile.mkdtemp(prefix="sangloc-pg-", dir="/tmp"))
        user = {}
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            name = next((each.pw_name for each in pwd.getpwall() if each.pw_name == "postgres"), "nobody")
            shutil.chown(self.folder, name)
            user = {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}
        self._quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": self.folder, **user}
        options = ["-U", "sangloc", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"]
        subprocess.run([self._bin / "initdb", "-D", self.folder / "data", *options], check=True, **self._quiet)
        self.start()

    def start(self):
        options = ["-c", "listen_addresses=", "-k", self.folder, "-c", "max_connections=200", "-c", "fsync=off"]
        self._server = subprocess.Popen([self._bin / "postgres", "-D", self.folder / "data", *options], **self._quiet)
        until(self._works, 20)

    def stop(self):
        """End all connections at once, in the middle of their transactions."""
        self._server.send_signal(signal.SIGQUIT)
        self._server.wait(20)

    def close(self):
        if self._server.poll() is None:
            self.stop()
        shutil.rmtree(self.folder)

    def new_database(self):
        """The address of an empty database."""
        name = f"visits{next(_count)}"
        self.execute(f"CREATE DATABASE {name}")
        return f"postgresql+psycopg://sangloc@/{name}?host={self.folder}"

    def execute(self, statement):
        with self._connect() as connection:
            connection.execute(statement)

    def value(self, query):
        with self._connect() as connection:
            return connection.execute(query).fetchone()[0]

    def _connect(self):
        return self._psycopg.connect(f"host={self.folder} user=sangloc dbname=postgres", autocommit=True)

    def _works(self):
        try:
            self._connect().close()
        except Exception:
            return False
        return True
