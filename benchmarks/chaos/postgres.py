"""A PostgreSQL cluster of its own on a Unix socket, that can be stopped and started again."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

START_S = 60.0
DATABASE = "postgres"


def installed() -> Path | None:
    """The folder of PostgreSQL's programs; ``None`` where it, or its driver, is not installed."""
    try:
        import psycopg  # noqa: F401, PLC0415  the extra postgres
    except ImportError:
        return None
    found = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
    return Path(found).resolve().parent if found else None


class Cluster:
    """A cluster in a folder of its own.

    Parameters
    ----------
    programs
        As :func:`installed` gives it.
    folder
        It may hold a cluster already.
    settings
        Settings of the server (``postgresql.conf``) besides those that a cluster of its own needs.
    """

    def __init__(self, programs: Path, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        self._programs, self._folder, self._settings = programs, folder, settings or {}
        self._as: dict[str, Any] = {}
        if os.getuid() == 0:  # PostgreSQL refuses to run as root
            name = next((each.pw_name for each in pwd.getpwall() if each.pw_name == "postgres"), "nobody")
            shutil.chown(folder, name)
            self._as = {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []}
        if not (folder / "data").exists():
            self._call("initdb", "-U", "sangloc", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")

    @property
    def url(self) -> str:
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        return f"postgresql+psycopg://sangloc@/{database}?host={self._folder}"

    @property
    def pid(self) -> int:
        """Of the process whose children are all others of the server."""
        return int((self._folder / "data" / "postmaster.pid").read_text().split()[0])

    def start(self) -> None:
        given = {"listen_addresses": "''", "max_connections": "200", **self._settings}
        options = f"-k {self._folder} " + " ".join(f"-c {name}={value}" for name, value in given.items())
        self._call("pg_ctl", "start", "-w", "-t", str(int(START_S)), "-o", options, "-l", str(self._folder / "log"))

    def stop(self, how: Literal["fast", "immediate"]) -> None:
        """Stop it: ``fast`` ends connections in order, ``immediate`` is a crash that is recovered from at the start."""
        self._call("pg_ctl", "stop", "-w", "-m", how)

    def _call(self, program: str, *arguments: str) -> None:
        command = [self._programs / program, "-D", self._folder / "data", *arguments]
        subprocess.run(
            command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            cwd=self._folder, **self._as,
        )  # fmt: skip


@contextmanager
def cluster(
    programs: Path, settings: Mapping[str, str] | None = None, *, kept: Path | None = None
) -> Iterator[Cluster]:
    """A cluster that runs; it is removed at the end.

    Parameters
    ----------
    kept
        A folder in which it stays instead, and is found again by the next run.
    """
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
    folder = kept or Path(tempfile.mkdtemp(prefix="sangloc-pg-", dir="/tmp"))  # a socket's path must be short
    made = Cluster(programs, folder, settings)
    made.start()
    try:
        yield made
    finally:
        made.stop("fast" if kept else "immediate")
        time.sleep(0.1)
        if kept is None:
            shutil.rmtree(folder, ignore_errors=True)
