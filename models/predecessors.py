"""What a new version of a bundle loses against the one before it, by the figures in their manifests.

This module needs no torch: it runs on the machine that serves.
"""

from __future__ import annotations

from data_specs.bundle import BundleManifest, Estimate, FindingSpec
from inference.bundles.registry import finding_key

MAX_SENSITIVITY_LOSS = 0.02
"""Sensitivity that a subgroup may lose at the operating point that decides the finding."""

MIN_POSITIVES = 10
"""In a subgroup with fewer positives, nobody can say whether sensitivity was lost."""


def uncalibrated(manifest: BundleManifest) -> list[str]:
    """Why imported weights are not to be served: none of their outputs was calibrated on cases."""
    if manifest.imported is None or any(spec.calibration for spec in manifest.findings):
        return []
    return [
        f"{manifest.name} {manifest.version} was imported and is uncalibrated: none of its findings has a probability "
        "or an operating point that was fitted to cases; recalibrate it on local cases first"
    ]


def on_cases_of(new: BundleManifest, old: BundleManifest, old_sha256: str) -> BundleManifest:
    """``old`` with its figures on the cases that ``new`` was evaluated on, where ``new`` carries them."""
    found = next((each.evaluation for each in new.predecessors if each.sha256 == old_sha256), {})
    findings = [
        spec.model_copy(update={"evaluation": (*spec.evaluation, *found.get(finding_key(spec), ()))})
        for spec in old.findings
    ]
    return old.model_copy(update={"findings": tuple(findings)})


def compare_manifests(old: BundleManifest, new: BundleManifest) -> tuple[list[str], list[str]]:
    """In what ``new`` is worse than ``old``, and what could not be compared."""
    worse: list[str] = []
    not_compared: list[str] = []
    for spec in old.findings:
        title = finding_key(spec)
        other = _counterpart(spec, new)
        if other is None:
            withheld = (finding for finding in new.withheld if finding.name == spec.name)
            why = "; ".join(f"{finding.cohort}: {finding.reason}" for finding in withheld)
            worse.append(f"{title}: no longer offered" + (f" ({why})" if why else ""))
            continue
        if not spec.evaluation:
            continue
        worse += _worse_overall(title, spec, other)
        lost, missing = _lost_sensitivity(title, spec, other)
        worse += lost
        not_compared += missing
    return worse, not_compared


def _worse_overall(title: str, old: FindingSpec, new: FindingSpec) -> list[str]:
    """AUROC below the old interval; for a gate, the share beyond the old interval, on the side where it is worse."""
    before, after = _figures(old, "auroc"), _figures(new, "auroc")
    metric = "auroc"
    if not before:
        metric = f"share with {old.name}"
        before, after = _figures(old, metric), _figures(new, metric)
    whole = [(cohort, group) for cohort, group in before if group == "all" and (cohort, group) in after]
    if not whole:
        cohorts = "; ".join(sorted({cohort for cohort, _ in before})) or "none"
        new_cohorts = "; ".join(sorted({cohort for cohort, _ in after})) or "none"
        return [f"{title}: no cohort in common: evaluated on {cohorts}; now on {new_cohorts}"]
    worse = []
    for key in whole:
        was, now = before[key], after[key]
        higher_is_better = metric == "auroc" or was.value >= 0.5
        if not (now.value >= was.low if higher_is_better else now.value <= was.high):
            interval = f"{was.value:.3f} ({was.low:.3f} to {was.high:.3f})"
            worse.append(f"{title}: {metric} {now.value:.3f}, beyond the interval of {interval}, on {key[0]}")
    return worse


def _lost_sensitivity(title: str, old: FindingSpec, new: FindingSpec) -> tuple[list[str], list[str]]:
    """Subgroups that lost too much sensitivity or are no longer shown, and what could not be compared."""
    before = _figures(old, f"sensitivity@{old.decides_at}")
    after = _figures(new, f"sensitivity@{new.decides_at}")
    cohorts = {cohort for cohort, _ in after} | {cohort for cohort, _ in _figures(new, "auroc")}
    lost = []
    for (cohort, group), was in before.items():
        if cohort not in cohorts or (was.n_positive is not None and was.n_positive < MIN_POSITIVES):
            continue
        where = f"{title}: sensitivity at {new.decides_at} on {cohort}, {group}"
        now = after.get((cohort, group))
        if now is None:
            lost.append(f"{where}: {was.value:.3f} before, not shown now")
        elif not now.value >= was.value - MAX_SENSITIVITY_LOSS - 1e-9:
            points = 100 * (was.value - now.value)
            lost.append(f"{where}: {was.value:.3f} before, {now.value:.3f} now, {points:.1f} points lost (2 allowed)")
    groups = {group for _, group in _figures(old, "auroc")} - {"all"} - {group for _, group in before}
    if not groups:
        return lost, []
    return lost, [f"{title}: no sensitivity by subgroup in the version before ({', '.join(sorted(groups))})"]


def _figures(spec: FindingSpec, metric: str) -> dict[tuple[str, str], Estimate]:
    """Estimates of one metric by cohort and subgroup."""
    return {(shown.cohort, shown.subgroup): shown.estimate for shown in spec.evaluation if shown.metric == metric}


def _counterpart(spec: FindingSpec, new: BundleManifest) -> FindingSpec | None:
    """The finding of the same name for the same ages, or else for ages that overlap with them."""
    same_name = [other for other in new.findings if other.name == spec.name]
    same_ages = [other for other in same_name if other.age_years == spec.age_years]
    return next(iter([*same_ages, *(other for other in same_name if _overlap(other.age_years, spec.age_years))]), None)


def _overlap(a: tuple[float, float] | None, b: tuple[float, float] | None) -> bool:
    return a is None or b is None or (a[0] < b[1] and b[0] < a[1])
