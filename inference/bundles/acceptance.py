"""What a site may use the findings of a bundle for, after its acceptance test, in the place of what the bundle says."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from data_specs.bundle import BundleManifest, FindingSpec
from data_specs.visit.contract import OperatingPoint
from inference.bundles.registry import Entry, Registry, finding_key

if TYPE_CHECKING:
    from inference.bundles.loading import Bundle

NOT_HERE = "not here"
AT_SITE = "site"
"""Name of an operating point at a site's own threshold; no range of undecided persons was made for it."""


def at_site(bundle: Bundle, registry: Registry, site: str) -> tuple[Bundle, tuple[str, ...]]:
    """The bundle as the site may use it, and the findings that it does not show.

    A site without an acceptance of this version uses it as the bundle says.
    """
    manifest = bundle.manifest
    adapted = manifest_at_site(manifest, registry, site)
    if adapted is manifest:
        return bundle, ()
    shown = {finding_key(spec) for spec in adapted.findings}
    left_out = dict.fromkeys(spec.name for spec in manifest.findings if finding_key(spec) not in shown)
    return replace(bundle, manifest=adapted), tuple(left_out)


def manifest_at_site(manifest: BundleManifest, registry: Registry, site: str) -> BundleManifest:
    """The manifest with the findings that the site shows, each as it may use it."""
    entry = registry.acceptance(manifest.name, manifest.version, site)
    if entry is None:
        return manifest
    said = entry.verdicts
    kept = tuple(_used(spec, entry) for spec in manifest.findings if said.get(finding_key(spec)) != NOT_HERE)
    return manifest.model_copy(update={"findings": kept})


def _used(spec: FindingSpec, entry: Entry) -> FindingSpec:
    key = finding_key(spec)
    threshold = entry.thresholds.get(key)
    if threshold is not None:
        point = OperatingPoint(name=AT_SITE, threshold=threshold, cohort=f"the site's own, {entry.at:%Y-%m-%d}")
        points = (*spec.operating_points, point)
        spec = spec.model_copy(update={"operating_points": points, "decides_at": AT_SITE, "undecided": ()})
    use = {"fit for triage": "triage", "information only": "information"}.get(entry.verdicts.get(key, ""), spec.use)
    return spec.model_copy(update={"use": use})
