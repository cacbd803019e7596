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

from data_specs.bundle import BundleManifest, Estimate, FindingSpec
from inference.bundles.registry import LOG, OF_ACCEPTANCES, Entry, Registry, SiteVerdict, finding_key, read_registry

MAX_TOLERANCE = 1e-4
"""Largest tolerance of the golden cases: that with which bundles are exported."""
MAX_SENSITIVITY_LOSS = 0.02
"""Sensitivity that a subgroup may lose at the operating point that decides the finding."""
MIN_POSITIVES = 10
"""In a subgroup with fewer positives, nobody can say whether sensitivity was lost."""
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
