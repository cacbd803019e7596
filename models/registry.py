"""Decisions on which version is in service: checked against its figures, and appended to the log that servers read.

This module needs no torch: it runs on the machine that serves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from data_specs.bundle import BundleManifest
from inference.bundles.deciding import NotDone, check_servable, deciding, manifest_sha256, new_entry
from inference.bundles.registry import Entry, Registry, SiteVerdict
from models.change_plan import held_to_plan, plan_file
from models.predecessors import compare_manifests, on_cases_of, uncalibrated


def promote(
    folder: Path,
    name: str,
    version: str,
    *,
    who: str,
    why: str,
    override: str | None = None,
    database: str | None = None,
) -> tuple[Entry, list[str]]:
    """Put a version in service, if it can be served, is no worse than the one before, and keeps to its plan.

    Parameters
    ----------
    override
        Reason to promote a version that is worse or beyond the plan. A version that a server would refuse is never
        promoted.
    database
        Address of the service's database, where a plan asks what would have happened to recent visits.

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
            old = on_cases_of(new, read_manifest(registry, name, before), manifest_sha256(registry, name, before))
            lost, not_compared = compare_manifests(old, new)
            worse += lost
            held = held_to_plan(folder, registry, old, new, database)
            if held is None:
                not_compared.append(f"{name} has no plan of its changes ({plan_file(folder, name).name})")
            else:
                worse += held.beyond
                not_compared += held.unseen(new)
                why = f"{why} ({held})"
        if worse and not override:
            raise NotDone(*worse, final=False)
        said = {"override": override if worse else None, "overridden": worse}
        entry = new_entry(registry, "promote", name, before, version, who, why, said)
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
        entry = new_entry(registry, "rollback", name, registry.in_service(name), to, who, why)
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
        entry = new_entry(registry, "shadow", name, shadow, version, who, why)
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
        entry = new_entry(registry, "accept", name, None, version, who, why, said)
        append(entry)
    return entry


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
