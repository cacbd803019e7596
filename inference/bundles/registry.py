"""Which version of a bundle is in service, and which runs in the shadow, as the folders and the log say.

``registry.jsonl`` is in the folder of the bundles and has one line for each decision; ``inference.bundles.deciding``
appends to it. The folders ``NAME-VERSION`` are the versions that exist. The last line about a name that puts a version
in service says which is; without such a line it is the highest version.

A site's acceptance of a version (``accept``) decides nothing about which version serves: it says what that site may use
each finding for. So does its certificate of normals (``certify``): which films it may sign in a batch. A server of
before these lines does not know their action, and leaves the line out as it leaves out a damaged one.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from data_specs.bundle import FindingSpec

LOG = "registry.jsonl"
SiteVerdict = Literal["fit for triage", "information only", "not here", "too few to say"]
"""What a site may use a finding for, as its acceptance cases showed."""
IN_SERVICE = ("promote", "rollback")
"""Actions that put a version in service."""
OF_ACCEPTANCES = {"site", "verdicts", "thresholds", "cases"}
"""Members of an :class:`Entry` that only an acceptance has; a certificate has some of them too."""
OF_CERTIFICATES = {"certificate"}
"""Members that only a certificate has."""
_FOLDER = re.compile(r"(?P<name>[a-z][a-z0-9_]*)-(?P<version>\d+\.\d+\.\d+)")


class Certificate(BaseModel):
    """Films that a site may sign as normal in a batch, with the bounds that its sample has proved.

    Parameters
    ----------
    finding
        Whose probability decides, by the name in the bundle.
    age_years
        For whom: lower bound included, upper bound not; ``None``: any age.
    groups
        Kinds of groups that the sample knew: ``sex``, ``age``, ``device``.
    thresholds
        By group (``all``, ``sex female``): a film is released below those of all its groups. A group of these kinds
        that is not here is not released.
    missed_at_most
        Of the persons with a finding at most this share is released, in each group.
    abnormal_at_most
        Of the persons released at most this share has a finding.
    confidence
        Of each of the two.
    persons, events
        Of the sample: how many, and how many of them with a finding.
    expires
        From then on it is over.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    finding: str
    age_years: tuple[float, float] | None = None
    groups: tuple[str, ...] = ()
    thresholds: dict[str, float]
    missed_at_most: float
    abnormal_at_most: float
    confidence: float
    persons: int
    events: int
    expires: AwareDatetime


class Entry(BaseModel):
    """One decision, one line.

    Parameters
    ----------
    from_version, to_version
        ``from`` and ``to`` on the line; ``None`` where a shadow begins or ends.
    sha256
        Of the ``screening.json`` of ``to``, which names everything else by its hash.
    override
        Why the refusals in ``overridden`` were set aside.
    site, verdicts, thresholds, cases
        ``accept`` only: for whom, what each finding may be used for there (by :func:`finding_key`), the site's own
        thresholds where it has some, and the digest of the cases that showed it.
    certificate
        ``certify`` only, with ``site`` and ``cases``; without one the site's certificate has ended.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    at: AwareDatetime
    action: Literal["promote", "rollback", "shadow", "accept", "certify"]
    name: str
    from_version: str | None = Field(alias="from")
    to_version: str | None = Field(alias="to")
    sha256: str | None = None
    who: str
    why: str
    override: str | None = None
    overridden: tuple[str, ...] = ()
    site: str | None = None
    verdicts: dict[str, SiteVerdict] = Field(default={})
    thresholds: dict[str, float] = Field(default={})
    cases: str | None = None
    certificate: Certificate | None = None

    @model_validator(mode="after")
    def _has_a_site_if_it_accepts(self) -> Self:
        if (self.action == "accept") != bool(self.site and self.verdicts and self.to_version):
            raise ValueError("an acceptance names a site, a version and its verdicts, and nothing else does")
        certifies = bool(self.site and self.to_version and not self.verdicts)
        if (self.action == "certify") != certifies or (self.certificate is not None and not certifies):
            raise ValueError("a certificate names a site and a version, and nothing else has one")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the decision, which names a certificate."""
        return hashlib.sha256(self.model_dump_json(by_alias=True).encode()).hexdigest()


@dataclass(frozen=True)
class Registry:
    """What the folders and the log said at one moment.

    Parameters
    ----------
    versions
        Name to the versions that exist, in rising order.
    entries
        The log, oldest first.
    damaged
        Numbers of the lines that cannot be read: written only in part, or changed by hand.
    """

    folder: Path
    versions: dict[str, tuple[str, ...]]
    entries: tuple[Entry, ...] = ()
    damaged: tuple[int, ...] = ()

    def in_service(self, name: str) -> str | None:
        """The version in service; ``None`` where there is none."""
        history = self._history(name)
        return history[-1] if history else None

    def previous(self, name: str) -> str | None:
        """The version that a rollback returns to."""
        history = self._history(name)
        return history[-2] if len(history) > 1 else None

    def shadow(self, name: str) -> str | None:
        """The version that runs in the shadow, until it comes into service."""
        shadow = None
        for entry in self._of(name):
            if entry.action == "shadow":
                shadow = entry.to_version
            elif entry.action in IN_SERVICE and entry.to_version == shadow:
                shadow = None
        return shadow

    def last(self, name: str) -> Entry | None:
        """The decision that put the present version in service."""
        return next((e for e in reversed(self._of(name)) if e.action in IN_SERVICE), None)

    def acceptance(self, name: str, version: str, site: str) -> Entry | None:
        """The last acceptance of this version by this site; ``None`` if it never accepted it."""
        wanted = ("accept", version, site)
        return next((e for e in reversed(self._of(name)) if (e.action, e.to_version, e.site) == wanted), None)

    def accepted(self, name: str, version: str, site: str) -> dict[str, SiteVerdict]:
        """What this site may use each finding of this version for, by :func:`finding_key`; empty without acceptance."""
        entry = self.acceptance(name, version, site)
        return dict(entry.verdicts) if entry else {}

    def certified(self, name: str, site: str, now: datetime) -> Entry | None:
        """The site's certificate for the version in service, with its :class:`Certificate`; ``None`` if none holds.

        A later acceptance of the version by the site ends it, since it may change a threshold; so does its term.
        """
        version = self.in_service(name)
        for entry in reversed(self._of(name)):
            if (entry.to_version, entry.site) == (version, site) and entry.action in ("accept", "certify"):
                return entry if entry.certificate is not None and now < entry.certificate.expires else None
        return None

    def folder_of(self, name: str, version: str) -> Path:
        return self.folder / f"{name}-{version}"

    def _history(self, name: str) -> tuple[str, ...]:
        """Versions that were in service, oldest first, without those that were rolled back.

        Before the first line of the log, the versions are taken to have been in service in rising order.
        """
        have = self.versions.get(name, ())
        changes = [entry for entry in self._of(name) if entry.action in IN_SERVICE]
        if not changes:
            return have
        first = changes[0].from_version
        walked = [v for v in have if first is not None and version_key(v) < version_key(first)] + [first] * bool(first)
        for entry in changes:
            if entry.action == "rollback":
                walked = walked[:-1]
            if walked[-1:] != [entry.to_version]:
                walked.append(entry.to_version)
        return tuple(version for version in walked if version is not None)

    def _of(self, name: str) -> list[Entry]:
        return [entry for entry in self.entries if entry.name == name]


def finding_key(spec: FindingSpec) -> str:
    """A finding in the log, with its ages, because a bundle may have one name for several: ``pneumonia (18-85)``."""
    return f"{spec.name} ({spec.age_years[0]:g}-{spec.age_years[1] - 1:g})" if spec.age_years else spec.name


def read_registry(folder: Path) -> Registry:
    """Folders and log as they are now. Opens no model.

    A line without its end is not a decision: it is still being written, or writing stopped in it.
    """
    found: dict[str, list[str]] = {}
    for path in folder.glob("*/screening.json"):
        if match := _FOLDER.fullmatch(path.parent.name):
            found.setdefault(match["name"], []).append(match["version"])
    versions = {name: tuple(sorted(numbers, key=version_key)) for name, numbers in sorted(found.items())}
    entries, damaged = read_log(folder)
    return Registry(folder, versions, entries, damaged)


def read_log(folder: Path) -> tuple[tuple[Entry, ...], tuple[int, ...]]:
    """Decisions, oldest first, and the numbers of the lines that cannot be read."""
    try:
        *lines, rest = (folder / LOG).read_bytes().split(b"\n")
    except FileNotFoundError:
        return (), ()
    entries, damaged = [], []
    for number, line in enumerate(lines, 1):
        try:
            entries.append(Entry.model_validate_json(line))
        except ValidationError:
            damaged.append(number)
    if rest:
        damaged.append(len(lines) + 1)
    return tuple(entries), tuple(damaged)


def version_key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def log_mark(folder: Path) -> tuple[int, int, int] | None:
    """Inode, size and time of the log, which change whenever it does; ``None`` without a log."""
    try:
        found = (folder / LOG).stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns
