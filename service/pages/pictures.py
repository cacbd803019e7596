"""Films and traces of a visit for its page: the addresses of the pictures, and of each finding's evidence."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import groupby
from pathlib import PurePosixPath

from data_specs.visit.contract import NO_COMMON_GAIN, Finding, Visit, VisitInput
from data_specs.vocabulary import Language
from service.language.texts import verdict
from service.pages.frame import by_weight

PREVIEW_PX = 768
NOT_DECODED = frozenset(
    {"unreadable", "truncated", "no_pixel_data", "unsupported_format", "unsupported_transfer_syntax", "multiframe"}
    | {"too_large", "too_costly", "no_ecg"}
)
"""Refusals after which there is nothing to look at."""


@dataclass(frozen=True, slots=True)
class EvidenceLink:
    """The evidence of one finding on a film or trace.

    Parameters
    ----------
    strength
        How far the finding is from the points that decide, in words.
    overlay, blended
        What the page draws, and the whole picture.
    outline
        Of a heatmap only.
    """

    display: str
    strength: str
    probability: float | None
    overlay: str
    blended: str
    outline: str


@dataclass(frozen=True, slots=True)
class Film:
    """A film, also a refused one.

    Parameters
    ----------
    address
        Of the posted file; below it are its pictures.
    refused
        Why it was not assessed, in sentences; empty if it was.
    shown
        Whether it can be decoded, as far as its refusal says.
    """

    filename: str
    address: str
    maps: tuple[EvidenceLink, ...] = ()
    refused: tuple[str, ...] = ()
    shown: bool = True
    awaited: bool = False

    @property
    def preview(self) -> str:
        return f"{self.address}/film.jpg?max_px={PREVIEW_PX}"

    @property
    def full(self) -> str:
        return f"{self.address}/film.png"


@dataclass(frozen=True, slots=True)
class PriorFilm:
    """A film of an earlier visit of the same person, and the day of that visit."""

    day: date
    film: Film


@dataclass(frozen=True, slots=True)
class Trace:
    """A recording, also a refused one, as :class:`Film`; ``voltage``: its leads have one gain, in a known unit."""

    filename: str
    address: str
    maps: tuple[EvidenceLink, ...]
    voltage: bool
    refused: tuple[str, ...] = ()
    shown: bool = True
    awaited: bool = False

    @property
    def plain(self) -> str:
        return f"{self.address}/trace.svg"


def films(visit: Visit, language: Language) -> list[Film]:
    """The films of a visit, those that were used first, then those that can be looked at; none before that is known."""
    found = [
        Film(
            filename=posted.filename,
            address=_address(visit, posted),
            maps=_maps(visit, "heatmap", [posted.index], language),
            refused=_refused([posted]),
            shown=_is_shown([posted]),
            awaited=posted.awaited,
        )
        for posted in visit.inputs
        if posted.field == "image" and posted.accepted is not None
    ]
    return sorted(found, key=lambda film: (bool(film.refused), not film.shown))


def traces(visit: Visit, language: Language) -> list[Trace]:
    """One trace for each recording: files with one stem are one recording (wire contract)."""
    files = [each for each in visit.inputs if each.field == "ecg" and each.accepted is not None]
    found = []
    for (used, _), group in groupby(sorted(files, key=_used_and_stem), _used_and_stem):
        members = sorted(group, key=lambda each: each.index)
        codes = {problem.code for each in members for problem in each.problems}
        trace = Trace(
            filename=", ".join(each.filename for each in members),
            address=_address(visit, members[0]),
            maps=_maps(visit, "trace", [each.index for each in members], language) if used else (),
            voltage=NO_COMMON_GAIN.isdisjoint(codes),
            refused=_refused(members),
            shown=_is_shown(members),
            awaited=any(each.awaited for each in members),
        )
        found.append((not used, members[0].index, trace))
    return [trace for *_, trace in sorted(found, key=lambda each: each[:2])]


def _address(visit: Visit, posted: VisitInput) -> str:
    return f"/v1/visits/{visit.id}/inputs/{posted.index}"


def _used_and_stem(posted: VisitInput) -> tuple[bool, str]:
    return bool(posted.accepted), _stem(posted)


def _stem(posted: VisitInput) -> str:
    return PurePosixPath(posted.filename).stem


def _refused(members: Sequence[VisitInput]) -> tuple[str, ...]:
    """Each reason once: the files of a recording have the same."""
    said = (p.message for each in members if not each.accepted for p in each.problems if p.severity == "reject")
    return tuple(dict.fromkeys(said))


def _is_shown(members: Sequence[VisitInput]) -> bool:
    return all(each.accepted or NOT_DECODED.isdisjoint(p.code for p in each.problems) for each in members)


def _maps(visit: Visit, kind: str, indices: Sequence[int], language: Language) -> tuple[EvidenceLink, ...]:
    findings: Iterable[Finding] = by_weight(f for organ in visit.organs.values() for f in organ.findings)
    return tuple(
        EvidenceLink(
            display=finding.display,
            strength=_strength(finding, language),
            probability=finding.probability,
            overlay=f"{evidence.href}?layer=overlay"
            if kind == "heatmap"
            else f"/v1/visits/{visit.id}/inputs/{evidence.input}/trace.svg?finding={finding.name}",
            blended=evidence.href,
            outline=evidence.href.removesuffix(".png") + ".svg" if kind == "heatmap" else "",
        )
        for finding in findings
        for evidence in finding.evidence
        if evidence.kind == kind and evidence.input in indices
    )


def _strength(finding: Finding, language: Language) -> str:
    return verdict(finding, language)
