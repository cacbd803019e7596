"""What a promotion may change and what it may cost, as a programme wrote it down before: ``NAME.pccp.toml``.

The file lies beside the registry's log in the folder of the bundles. Regulators call such a plan a predetermined change
control plan: the changes that are expected, the protocol that shows they are safe, and what they may bring with them.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError
from sqlalchemy.exc import SQLAlchemyError

from data_specs.bundle import BundleManifest, FindingSpec
from data_specs.schema import Schema
from inference.bundles.deciding import NotDone
from inference.bundles.registry import Registry, finding_key
from models.recalls import ALL, Recalls, Share, recalls
from models.recent import Recent, recent

Change = Literal["weights", "calibration", "thresholds", "findings", "input", "purpose"]
MAX_BYTES, MAX_DAYS = 100_000, 3660
NAMED_OTHERWISE = {"calibration", "operating_points", "decides_at", "undecided", "column"}
ONLY_TOLD = {"use_because", "evaluation", "roc", "roc_by_group"}
"""Members of a finding that do not count as a change of what is offered."""


class Protocol(Schema):
    """What has to be seen before a promotion.

    Parameters
    ----------
    days, visits
        The last days, and the fewest visits in them that both versions answered.
    known_cases
        The fewest recorded cases of each finding on which the loss of sensitivity is judged; 0: it is not.
    group_visits
        A group with fewer visits is shown and not judged.
    """

    days: Annotated[int, Field(ge=1, le=MAX_DAYS)]
    visits: Annotated[int, Field(ge=1)]
    known_cases: Annotated[int, Field(ge=0)]
    group_visits: Annotated[int, Field(ge=1)]


class Limits(Schema):
    """What a promotion may cost, for each finding.

    Parameters
    ----------
    newly_recalled_per_1000, no_longer_recalled_per_1000
        Of the visits that both versions decided.
    sensitivity_loss
        On known cases, as a share.
    """

    newly_recalled_per_1000: Annotated[float, Field(ge=0, le=1000)]
    no_longer_recalled_per_1000: Annotated[float, Field(ge=0, le=1000)]
    sensitivity_loss: Annotated[float, Field(ge=0, le=1)]


class ChangePlan(Schema):
    """The whole document.

    Parameters
    ----------
    may_change
        What may differ between two versions; anything else is beyond the plan.
    limits
        Of every finding; ``findings`` has those of single ones in their place.
    """

    name: str
    may_change: tuple[Change, ...]
    protocol: Protocol
    limits: Limits
    findings: dict[str, Limits] = Field(default={})


@dataclass(frozen=True)
class Held:
    """What a promotion was held to.

    Parameters
    ----------
    sha256
        Of the plan's file.
    recent
        The visits; ``None`` where there is no database to read them from.
    beyond
        What is beyond the plan.
    """

    sha256: str
    recent: Recent | None
    beyond: tuple[str, ...]

    def __str__(self) -> str:
        visits = 0 if self.recent is None else self.recent.visits
        return f"held to the plan {self.sha256[:12]} on {visits} visits"

    def unseen(self, new: BundleManifest) -> list[str]:
        """Findings that decide, and that no visit showed: nothing of the plan was asked of them."""
        seen = () if self.recent is None else self.recent.findings
        return [
            f"{finding_key(spec)}: no recent visit was decided by both versions"
            for spec in new.findings
            if spec.use == "triage" and spec.kind != "measured" and spec.name not in seen
        ]


def plan_file(folder: Path, name: str) -> Path:
    return folder / f"{name}.pccp.toml"


def read_plan(folder: Path, name: str) -> tuple[ChangePlan, str] | None:
    """The plan of a bundle and its digest; ``None`` where a programme has written none.

    Raises
    ------
    NotDone
        It cannot be read: a plan that nobody can be held to stops a promotion.
    """
    path = plan_file(folder, name)
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise NotDone(f"{path.name}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise NotDone(f"{path.name}: a plan has at most {MAX_BYTES} bytes")
    try:
        plan = ChangePlan.model_validate(tomllib.loads(content.decode()))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise NotDone(f"{path.name}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise NotDone(f"{path.name}: is not TOML in UTF-8: {error}") from None
    if plan.name != name:
        raise NotDone(f"{path.name}: it is the plan of {plan.name}")
    return plan, hashlib.sha256(content).hexdigest()


def beyond(plan: ChangePlan, old: BundleManifest, new: BundleManifest, found: Recent | None) -> list[str]:
    """In what a promotion is beyond its plan; empty if in nothing."""
    offered = {spec.name for each in (old, new) for spec in each.findings}
    reasons = [
        *(
            f"the plan has limits for {name}, which neither version offers"
            for name in plan.findings
            if name not in offered
        ),
        *(
            f"beyond the plan: {change} change, and may not ({how})"
            for change, how in changes(old, new).items()
            if change not in plan.may_change
        ),
    ]
    protocol = plan.protocol
    if found is None:
        return [
            *reasons,
            f"the plan asks for {protocol.visits} visits of the last {protocol.days} days, and no database shows any",
        ]
    if found.visits < protocol.visits:
        return [
            *reasons,
            f"{found.visits} visits of the last {protocol.days} days were answered by {new.name} {old.version} and by "
            f"{new.version} in the shadow; the plan asks for {protocol.visits}",
        ]
    for finding in found.findings:
        limits = plan.findings.get(finding, plan.limits)
        whole, *groups = recalls(found, finding)
        reasons += _whole(whole, limits, protocol)
        reasons += [
            reason for each in groups if each.decided >= protocol.group_visits for reason in _group(each, limits)
        ]
    return reasons


def _whole(whole: Recalls, limits: Limits, protocol: Protocol) -> list[str]:
    """All visits have to show that a limit is kept: the interval's upper end lies within it."""
    found = [
        _over(whole, what, share, limit, share.high if share else 1.0)
        for what, share, limit in _judged(whole, limits)
        if what != LOSS
    ]
    if protocol.known_cases:
        if whole.cases < protocol.known_cases:
            found.append(f"{whole.finding}: {whole.cases} known cases; the plan asks for {protocol.known_cases}")
        else:
            loss = whole.sensitivity_loss
            found.append(_over(whole, LOSS, loss, limits.sensitivity_loss, loss.high if loss else 1.0))
    return [reason for reason in found if reason]


def _group(group: Recalls, limits: Limits) -> list[str]:
    """A group refuses where its visits show that a limit is not kept: the whole interval lies beyond it."""
    found = (
        _over(group, what, share, limit, share.low if share else 0.0) for what, share, limit in _judged(group, limits)
    )
    return [reason for reason in found if reason]


NEWLY, NO_LONGER, LOSS = "newly recalled", "no longer recalled", "sensitivity lost"


def _judged(found: Recalls, limits: Limits) -> tuple[tuple[str, Share | None, float], ...]:
    return (
        (NEWLY, found.newly_recalled, limits.newly_recalled_per_1000 / 1000),
        (NO_LONGER, found.no_longer_recalled, limits.no_longer_recalled_per_1000 / 1000),
        (LOSS, found.sensitivity_loss, limits.sensitivity_loss),
    )


def _over(found: Recalls, what: str, share: Share | None, limit: float, judged: float) -> str:
    """The refusal where ``judged`` is over the limit, else nothing."""
    if judged <= limit + 1e-12:
        return ""
    group = "" if found.group == ALL else f", {found.group}"
    n = found.cases if what == LOSS else found.decided
    of = "known cases" if what == LOSS else "visits"
    if share is None:
        return f"{found.finding}{group}: {what}: no {of}"
    factor, unit, digits = (1, "", 3) if what == LOSS else (1000, " per 1,000", 1)
    value, low, high, allowed = (f"{factor * each:.{digits}f}" for each in (share.value, share.low, share.high, limit))
    return f"{found.finding}{group}: {what}: {value} ({low} to {high}){unit} of {n} {of}, allowed {allowed}"


def held_to_plan(
    folder: Path, registry: Registry, old: BundleManifest, new: BundleManifest, database: str | None
) -> Held | None:
    """Hold a promotion to the plan of its bundle; ``None`` where a programme has written none.

    Parameters
    ----------
    database
        Address of the service's database, with the visits of the version in the shadow.

    Raises
    ------
    NotDone
        As :func:`read_plan`.
    """
    read = read_plan(folder, new.name)
    if read is None:
        return None
    plan, sha256 = read
    try:
        found = None if database is None else recent(database, registry, new, old.version, plan.protocol.days)
    except (SQLAlchemyError, LookupError) as error:
        unread = f"the visits that the plan asks for cannot be read ({type(error).__name__})"
        return Held(sha256, None, (*beyond(plan, old, new, None), unread))
    return Held(sha256, found, tuple(beyond(plan, old, new, found)))


def changes(old: BundleManifest, new: BundleManifest) -> dict[Change, str]:
    """What differs between two versions of a bundle that a visit could notice, with a word on how."""
    found: dict[Change, str] = {}
    before, after = ({finding_key(spec): spec for spec in each.findings} for each in (old, new))
    same = [key for key in before if key in after]
    if old.weights.sha256 != new.weights.sha256:
        found["weights"] = f"{old.weights.sha256[:12]} to {new.weights.sha256[:12]}"
    if named := [key for key in same if before[key].calibration != after[key].calibration]:
        found["calibration"] = ", ".join(named)
    named = [key for key in same if _thresholds(before[key]) != _thresholds(after[key])]
    named += sorted(name for name, _ in old.thresholds.items() ^ new.thresholds.items())
    if named:
        found["thresholds"] = ", ".join(dict.fromkeys(named))
    named = [key for key in same if _offer(before[key]) != _offer(after[key])]
    if named := sorted([*named, *(before.keys() ^ after.keys())]):
        found["findings"] = ", ".join(named)
    if old.input != new.input:
        found["input"] = new.input.modality
    if (old.organ, old.purpose) != (new.organ, new.purpose):
        found["purpose"] = new.purpose
    return found


def _thresholds(spec: FindingSpec) -> object:
    return [(point.name, point.threshold) for point in spec.operating_points], spec.decides_at, spec.undecided


def _offer(spec: FindingSpec) -> object:
    """All that is neither named otherwise nor only told of the finding: a member that is not thought of counts."""
    return spec.model_dump(exclude=NAMED_OTHERWISE | ONLY_TOLD)
