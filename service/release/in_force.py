"""Puts a checked release in force at a node: all of it, whenever the process or the machine stops.

``decided.json`` is the decision. Before it is there nothing has changed. From then on the release is carried out: now,
or by the next start before anything is loaded. Each step may have been done already.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from inference.bundles.deciding import deciding, new_entry
from inference.bundles.registry import Registry, read_registry
from service.release.incoming import INCOMING, working
from service.release.kept import RELEASES, file_of, numbers, read_kept, write_durably
from service.release.signed import Release, ReleasedBundle, SignedRelease, read_signed
from service.storage.store import fsync_folder

DECIDED, REMOVED = "decided.json", "removed"
KEPT_RELEASES = 2
"""The one in force, and the one before it, so that going back needs no link."""


def put_in_force(bundles: Path, signed: SignedRelease) -> None:
    """Decide for a release that has passed every check, and carry it out; :func:`working` has to be entered."""
    write_durably(bundles / INCOMING / DECIDED, signed.model_dump_json().encode())
    _carry_out(bundles)


def finish_what_was_decided(bundles: Path) -> None:
    """Carry out what a process before this one decided; nothing where there is nothing.

    Raises
    ------
    OSError, NotTaken
        It cannot be done. What was in service is, or the part of the release that was carried out.
    """
    if (bundles / INCOMING / DECIDED).exists():
        with working(bundles, wait=True):
            _carry_out(bundles)


def _carry_out(bundles: Path) -> None:
    decided = bundles / INCOMING / DECIDED
    if not decided.exists():  # another process was faster
        return
    release = read_signed(decided.read_bytes()).release()
    for bundle in release.bundles:
        staged, target = bundles / INCOMING / bundle.folder, bundles / bundle.folder
        if not target.exists():
            staged.replace(target)
    fsync_folder(bundles)
    _log_promotions(bundles, release)
    (bundles / RELEASES).mkdir(exist_ok=True)
    decided.replace(file_of(bundles, release.number))  # the tables are in it: they change with this
    fsync_folder(bundles / RELEASES)
    _remove_older(bundles)


def _log_promotions(bundles: Path, release: Release) -> None:
    """Say in the registry's log, by one write, what is in service from now on."""
    with deciding(bundles) as (registry, append):
        why = f"release {release.number}: {release.why}"
        changes = []
        for bundle in release.bundles:
            before = registry.in_service(bundle.name)
            if before == bundle.version and registry.last(bundle.name) is None:
                # it would serve as the highest version, without a decision in the log
                before = registry.previous(bundle.name)
            if before != bundle.version:
                said = (bundle.name, before, bundle.version, release.who, why)
                changes.append(new_entry(registry, "promote", *said))
        if changes:
            append(*changes)


def _remove_older(bundles: Path) -> None:
    """Remove the versions that only older releases named, and these releases."""
    all_ = numbers(bundles)
    kept = {bundle.folder for number in all_[-KEPT_RELEASES:] for bundle in _bundles_of(bundles, number)}
    registry = read_registry(bundles)
    for number in all_[:-KEPT_RELEASES]:
        for bundle in _bundles_of(bundles, number):
            if bundle.folder not in kept and bundle.version not in _in_use(registry, bundle.name):
                _remove(bundles, bundle.folder)
        file_of(bundles, number).unlink(missing_ok=True)


def _bundles_of(bundles: Path, number: int) -> tuple[ReleasedBundle, ...]:
    kept = read_kept(bundles, number)
    return kept.release.bundles if kept else ()


def _in_use(registry: Registry, name: str) -> set[str | None]:
    """Versions that serve, run in the shadow, or would serve after a rollback."""
    return {registry.in_service(name), registry.shadow(name), registry.previous(name)}


def _remove(bundles: Path, folder: str) -> None:
    """Remove a version; by one rename first, so that it is there whole or not at all."""
    removed = bundles / INCOMING / REMOVED
    shutil.rmtree(removed, ignore_errors=True)
    if (bundles / folder).is_dir():
        (bundles / folder).replace(removed)
    shutil.rmtree(removed, ignore_errors=True)
