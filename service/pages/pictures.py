"""Films and traces of a visit for its page: the addresses of the pictures, and of each finding's evidence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import PurePosixPath

from data_specs.visit.contract import Visit, VisitInput
from service.pages.frame import by_weight

PREVIEW_PX = 768


@dataclass(frozen=True, slots=True)
class EvidenceLink:
    """The evidence of one finding on a film or trace: the overlay that the page draws, and the blended picture."""

    display: str
    probability: float | None
    overlay: str
    blended: str


@dataclass(frozen=True, slots=True)
class Film:
    filename: str
    preview: str
    full: str
    maps: tuple[EvidenceLink, ...]


@dataclass(frozen=True, slots=True)
class Trace:
    """A recording; ``voltage``: its leads have one gain, so that millimetres are millivolts."""

    filename: str
    plain: str
    maps: tuple[EvidenceLink, ...]
    voltage: bool


def films(visit: Visit) -> list[Film]:
    return [
        Film(
            filename=posted.filename,
            preview=f"/v1/visits/{visit.id}/inputs/{posted.index}/film.png?max_px={PREVIEW_PX}",
            full=f"/v1/visits/{visit.id}/inputs/{posted.index}/film.png",
            maps=_maps(visit, "heatmap", [posted.index], "{href}?layer=overlay"),
        )
        for posted in visit.inputs
        if posted.field == "image" and posted.accepted
    ]


def traces(visit: Visit) -> list[Trace]:
    """One trace for each recording: files with one stem are one recording (wire contract)."""
    files = sorted((each for each in visit.inputs if each.field == "ecg" and each.accepted), key=_stem)
    found = []
    for _, group in groupby(files, key=_stem):
        members = sorted(group, key=lambda each: each.index)
        first = members[0].index
        address = "/v1/visits/{id}/inputs/{input}/trace.svg?finding={finding}"
        maps = _maps(visit, "trace", [each.index for each in members], address)
        plain = f"/v1/visits/{visit.id}/inputs/{first}/trace.svg"
        voltage = all(problem.code != "gains_inconsistent" for each in members for problem in each.problems)
        found.append((first, Trace(", ".join(each.filename for each in members), plain, maps, voltage)))
    return [each for _, each in sorted(found, key=lambda pair: pair[0])]


def _stem(posted: VisitInput) -> str:
    return PurePosixPath(posted.filename).stem


def _maps(visit: Visit, kind: str, indices: Sequence[int], address: str) -> tuple[EvidenceLink, ...]:
    findings = by_weight(finding for organ in visit.organs.values() for finding in organ.findings)
    return tuple(
        EvidenceLink(
            finding.display,
            finding.probability,
            address.format(id=visit.id, finding=finding.name, input=evidence.input, href=evidence.href),
            evidence.href,
        )
        for finding in findings
        for evidence in finding.evidence
        if evidence.kind == kind and evidence.input in indices
    )
