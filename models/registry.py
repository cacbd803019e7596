"""Decisions on which version is in service: checked against its figures, and appended to the log that servers read.

This module needs no torch: it runs on the machine that serves.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from data_specs.bundle import BundleManifest
from inference.bundles.registry import LOG, OF_ACCEPTANCES, Entry, Registry, SiteVerdict, read_registry
from models.predecessors import compare_manifests, on_cases_of, uncalibrated

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


Append = Callable[[Entry], None]


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
        yield read_registry(folder), lambda entry: _append(log, entry)


def _append(log: FileIO, entry: Entry) -> None:
    size = log.seek(0, os.SEEK_END)
    # A server of before acceptances refuses a line with a member that it does not know.
    line = entry.model_dump_json(by_alias=True, exclude=set() if entry.action == "accept" else OF_ACCEPTANCES)
    line = line.encode() + b"\n"
    with Path(log.name).open("rb") as written:
        written.seek(max(0, size - 1))
        if written.read(1) not in (b"", b"\n"):
            line = INCOMPLETE + line
    if log.write(line) != len(line):
        raise OSError(f"{log.name}: the line was not written whole")
    os.fsync(log.fileno())
    if size == 0:  # the file is new: its name has to be on the disk too
        descriptor = os.open(Path(log.name).parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def promote(
    folder: Path, name: str, version: str, *, who: str, why: str, override: str | None = None
) -> tuple[Entry, list[str]]:
    """Put a version in service, if it can be served and is no worse than the one before.

    Parameters
    ----------
    override
        Reason to promote a version that is worse. A version that a server would refuse is never promoted.

    Returns
    -------
    The entry, and what could not be compared.

    Raises
    ------
    NotDone
        With all reasons.
    """
    with deciding(folder) as (registry, append):
        before = registry.in_service(name)
        if before == version and registry.last(name) is None:
            # It serves as the highest version, without a decision in the log: it is compared with the one below.
            before = registry.previous(name)
        if before == version:
            raise NotDone(f"{name} {version} is in service already")
        new = check_servable(registry, name, version)
        worse = uncalibrated(new)
        not_compared: list[str] = []
        if before is not None and before not in registry.versions.get(name, ()):
            worse.append(f"{name} {before}, in service, is not there to be compared with")
        elif before is not None:
            old = on_cases_of(new, read_manifest(registry, name, before), _manifest_sha256(registry, name, before))
            lost, not_compared = compare_manifests(old, new)
            worse += lost
        if worse and not override:
            raise NotDone(*worse, final=False)
        entry = _entry(registry, "promote", name, before, version, who, why, override if worse else None, worse)
        append(entry)
    return entry, not_compared


def rollback(folder: Path, name: str, *, who: str, why: str) -> Entry:
    """Return to the version that was in service before.

    Raises
    ------
    NotDone
        There was none, or it can no longer be served.
    """
    with deciding(folder) as (registry, append):
        to = registry.previous(name)
        if to is None:
            raise NotDone(f"{name}: there is no version before {registry.in_service(name) or 'the first'}")
        check_servable(registry, name, to)
        entry = _entry(registry, "rollback", name, registry.in_service(name), to, who, why)
        append(entry)
    return entry


def set_shadow(folder: Path, name: str, version: str | None, *, who: str, why: str) -> Entry:
    """Run a version in the shadow of the one in service; ``None``: run none.

    Raises
    ------
    NotDone
        It is in service, or cannot be served.
    """
    with deciding(folder) as (registry, append):
        shadow = registry.shadow(name)
        if version == shadow:
            raise NotDone(f"{name}: {version or 'nothing'} is in the shadow already")
        if version is not None:
            if version == registry.in_service(name):
                hint = "" if registry.last(name) else ", being the highest: roll back first"
                raise NotDone(f"{name} {version} is in service{hint}")
            check_servable(registry, name, version)
        entry = _entry(registry, "shadow", name, shadow, version, who, why)
        append(entry)
    return entry


def accept(
    folder: Path,
    name: str,
    version: str,
    site: str,
    verdicts: Mapping[str, SiteVerdict],
    *,
    who: str,
    why: str,
    thresholds: Mapping[str, float] | None = None,
    cases: str | None = None,
) -> Entry:
    """Log what a site may use each finding of a version for, as its own labelled cases showed.

    Parameters
    ----------
    verdicts, thresholds
        By :func:`inference.bundles.registry.finding_key`; thresholds only of findings that decide at the site's own.
    cases
        Digest of the cases.

    Raises
    ------
    NotDone
        The version cannot be served, or there is no site or no verdict.
    """
    if not site.strip() or not verdicts:
        raise NotDone("an acceptance names a site and a verdict for each finding")
    with deciding(folder) as (registry, append):
        check_servable(registry, name, version)
        said = {"site": site.strip(), "verdicts": dict(verdicts), "thresholds": dict(thresholds or {}), "cases": cases}
        entry = _entry(registry, "accept", name, None, version, who, why, more=said)
        append(entry)
    return entry


def check_servable(registry: Registry, name: str, version: str) -> BundleManifest:
    """Check all that a server checks (hashes, golden cases, input, outputs, terms), and that it never changed.

    Raises
    ------
    NotDone
        The version is not there, or a check fails.
    """
    from inference.bundles.loading import BundleError, load_version  # noqa: PLC0415  opens the runtime, which few commands need

    if version not in registry.versions.get(name, ()):
        raise NotDone(
            f"{name} {version} is not there; there are: {', '.join(registry.versions.get(name, ())) or 'none'}"
        )
    if changed(registry, name, version):
        raise NotDone(f"{name} {version} is no longer what it was when it was first logged; a version never changes")
    try:
        manifest = load_version(registry.folder, name, version).manifest
    except BundleError as error:
        raise NotDone(str(error)) from error
    if not manifest.golden.tolerance <= MAX_TOLERANCE:
        raise NotDone(f"{name} {version}: golden cases may differ by {manifest.golden.tolerance:.0e}, allowed 1e-04")
    return manifest


def read_manifest(registry: Registry, name: str, version: str) -> BundleManifest:
    """The manifest, without a check of its weights.

    Raises
    ------
    NotDone
        It cannot be read.
    """
    try:
        return BundleManifest.model_validate_json((registry.folder_of(name, version) / "screening.json").read_bytes())
    except (OSError, ValueError) as error:
        raise NotDone(f"{name} {version}: screening.json cannot be read: {type(error).__name__}") from error


def changed(registry: Registry, name: str, version: str) -> bool:
    """Whether the manifest, which names all other files by hash, differs from the one that was first logged."""
    logged = (entry for entry in registry.entries if (entry.name, entry.to_version) == (name, version))
    first = next((entry.sha256 for entry in logged if entry.sha256), None)
    return first is not None and first != _manifest_sha256(registry, name, version)


def _entry(
    registry: Registry,
    action: str,
    name: str,
    from_version: str | None,
    to_version: str | None,
    who: str,
    why: str,
    override: str | None = None,
    overridden: list[str] | None = None,
    more: Mapping[str, object] | None = None,
) -> Entry:
    if not who.strip() or not why.strip():
        raise NotDone("the log wants to know who and why")
    return Entry.model_validate(
        {
            "at": datetime.now(UTC),
            "action": action,
            "name": name,
            "from": from_version,
            "to": to_version,
            "sha256": _manifest_sha256(registry, name, to_version) if to_version else None,
            "who": who.strip(),
            "why": why.strip(),
            "override": override,
            "overridden": overridden or (),
            **(more or {}),
        }
    )


def _manifest_sha256(registry: Registry, name: str, version: str) -> str:
    return hashlib.sha256((registry.folder_of(name, version) / "screening.json").read_bytes()).hexdigest()
