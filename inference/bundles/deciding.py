"""Appends decisions to the registry's log, and checks what is to serve as a server checks it at its start."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from data_specs.bundle import BundleManifest
from inference.bundles.registry import LOG, OF_ACCEPTANCES, OF_CERTIFICATES, Entry, Registry, read_registry

if TYPE_CHECKING:
    from inference.runtime.session import Machine

MAX_TOLERANCE = 1e-4
"""Largest tolerance of the golden cases: that with which bundles are exported."""
INCOMPLETE = b"#torn\n"
"""Ends a line that was not written whole, so that it can never be read as a decision."""


class NotDone(Exception):
    """The decision is refused and the registry unchanged; ``reasons`` says why.

    Parameters
    ----------
    final
        Whether no override helps: a server would refuse the version too, or the decision makes no sense.
    """

    def __init__(self, *reasons: str, final: bool = True) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons
        self.final = final


class Append(Protocol):
    """Appends decisions by one write."""

    def __call__(self, *entries: Entry) -> None: ...


@contextmanager
def deciding(folder: Path) -> Iterator[tuple[Registry, Append]]:
    """The registry, and a function that appends to its log, under a lock that other deciders wait for.

    Raises
    ------
    OSError
        The log cannot be written. A line that was written in part does not count as a decision.
    """
    with (folder / LOG).open("ab", buffering=0) as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        yield read_registry(folder), lambda *entries: _append(log, entries)


def _append(log: FileIO, entries: tuple[Entry, ...]) -> None:
    size = log.seek(0, os.SEEK_END)
    lines = b"".join(map(_line, entries))
    with Path(log.name).open("rb") as written:
        written.seek(max(0, size - 1))
        if written.read(1) not in (b"", b"\n"):
            lines = INCOMPLETE + lines
    if log.write(lines) != len(lines):
        raise OSError(f"{log.name}: the line was not written whole")
    os.fsync(log.fileno())
    if size == 0:  # the file is new: its name has to be on the disk too
        descriptor = os.open(Path(log.name).parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _line(entry: Entry) -> bytes:
    # A server of before acceptances, or certificates, refuses a line with a member that it does not know.
    left_out = {"accept": OF_CERTIFICATES, "certify": {"verdicts", "thresholds"}}
    unknown = left_out.get(entry.action, OF_ACCEPTANCES | OF_CERTIFICATES)
    return entry.model_dump_json(by_alias=True, exclude=unknown).encode() + b"\n"


def new_entry(
    registry: Registry,
    action: str,
    name: str,
    from_version: str | None,
    to_version: str | None,
    who: str,
    why: str,
    more: Mapping[str, object] | None = None,
) -> Entry:
    """A decision that is taken now.

    Raises
    ------
    NotDone
        Nobody, or no reason, is named.
    """
    if not who.strip() or not why.strip():
        raise NotDone("the log wants to know who and why")
    return Entry.model_validate(
        {
            "at": datetime.now(UTC),
            "action": action,
            "name": name,
            "from": from_version,
            "to": to_version,
            "sha256": manifest_sha256(registry, name, to_version) if to_version else None,
            "who": who.strip(),
            "why": why.strip(),
            **(more or {}),
        }
    )


def check_servable(registry: Registry, name: str, version: str, machine: Machine | None = None) -> BundleManifest:
    """Check all that a server checks (hashes, golden cases, input, outputs, terms), and that it never changed.

    Parameters
    ----------
    machine
        Where the golden cases are run, by one thread; by default on the CPU.

    Raises
    ------
    NotDone
        The version is not there, or a check fails.
    """
    from inference.bundles.loading import BundleError, load_version  # noqa: PLC0415  opens the runtime, which few commands need
    from inference.runtime.session import ONE_THREAD, DeviceError  # noqa: PLC0415  as above

    if version not in registry.versions.get(name, ()):
        raise NotDone(
            f"{name} {version} is not there; there are: {', '.join(registry.versions.get(name, ())) or 'none'}"
        )
    if changed(registry, name, version):
        raise NotDone(f"{name} {version} is no longer what it was when it was first logged; a version never changes")
    try:
        on = ONE_THREAD if machine is None else replace(machine, threads=ONE_THREAD.threads)
        manifest = load_version(registry.folder, name, version, on).manifest
    except (BundleError, DeviceError) as error:
        raise NotDone(str(error)) from error
    if not manifest.golden.tolerance <= MAX_TOLERANCE:
        raise NotDone(f"{name} {version}: golden cases may differ by {manifest.golden.tolerance:.0e}, allowed 1e-04")
    return manifest


def changed(registry: Registry, name: str, version: str) -> bool:
    """Whether the manifest, which names all other files by hash, differs from the one that was first logged."""
    logged = (entry for entry in registry.entries if (entry.name, entry.to_version) == (name, version))
    first = next((entry.sha256 for entry in logged if entry.sha256), None)
    return first is not None and first != manifest_sha256(registry, name, version)


def manifest_sha256(registry: Registry, name: str, version: str) -> str:
    """Digest of a version's ``screening.json``."""
    return hashlib.sha256((registry.folder_of(name, version) / "screening.json").read_bytes()).hexdigest()
