"""A visit's files and context -> an assessment. No HTTP, no database, no torch."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Protocol

from data_specs.bundle import BundleManifest
from data_specs.ecg.files import RecordingFiles, group_recordings
from data_specs.ecg.posted import PostedFile
from data_specs.labs import standard_labs
from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedInput, AssessedOrgan, Assessment
from data_specs.visit.context import Context
from data_specs.visit.contract import ModelUsed, Organ
from inference.bundles.lineup import POLL_S, SHADOW, LineupFollower, Loaded
from inference.bundles.loading import Bundle
from inference.cxr.pipeline import FilmPipeline, InputResult
from inference.decoding import Decoders
from inference.ecg.pipeline import RecordingPipeline
from inference.findings import Answer, merge, operating_point
from inference.kidney import KidneyPipeline
from inference.priority import prioritise
from inference.runtime.batcher import Batcher
from inference.runtime.choice import FIXED

BeforeDecode = Callable[[int], Awaitable[None]]
FIELD_OF: dict[str, Literal["image", "ecg"] | None] = {"cxr": "image", "ecg": "ecg", "labs": None}
"""What a bundle takes to where it is posted; labs come with the context."""


class Input(Protocol):
    """One file of a visit; ``index`` is its place in the visit's list of inputs.

    ``read`` gives its content and may block: a thread calls it when the file's turn has come, so that files that wait
    take no memory.
    """

    @property
    def index(self) -> int: ...

    @property
    def field(self) -> Literal["image", "ecg"]: ...

    @property
    def filename(self) -> str: ...

    def read(self) -> bytes: ...


@dataclass(frozen=True, slots=True)
class PostedInput:
    """An input whose content is at hand."""

    index: int
    field: Literal["image", "ecg"]
    filename: str
    content: bytes

    def read(self) -> bytes:
        return self.content


@dataclass(frozen=True, slots=True)
class ShadowAnswer:
    """What a bundle in the shadow says of a visit, next to the version in service; for comparison, never shown.

    ``assessment`` holds its organ alone (every organ for the gate, which has none of its own), and no evidence.
    """

    model: ModelUsed
    in_service: str
    assessment: Assessment


class Engine:
    """Bundles in service, kept to the registry, and the threads that decode.

    Parameters
    ----------
    bundles
        Folder of the bundles.
    device
        ``cpu``, ``cuda`` or ``auto``.
    decode_threads
        Threads for decoding and gates; by default one per core.
    session, cache
        How each session is chosen, and where that is remembered: see :func:`inference.runtime.choice.choose`.

    Raises
    ------
    BundleError, DeviceError
        A bundle fails its checks, or the device that was asked for is not there.
    """

    def __init__(
        self,
        bundles: Path,
        *,
        device: str = "auto",
        decode_threads: int | None = None,
        poll_s: float = POLL_S,
        session: str = FIXED,
        cache: Path | None = None,
    ) -> None:
        self._lineups = LineupFollower(
            bundles, device=device, threads=os.cpu_count() or 1, poll_s=poll_s, session=session, cache=cache
        )
        self._decoders = Decoders(decode_threads)
        self._shadow_decoders = Decoders(1)

    @property
    def ready(self) -> bool:
        return True

    @property
    def bundles(self) -> Mapping[str, Bundle]:
        return {name: loaded.bundle for name, loaded in self._lineups.current.in_service.items()}

    @property
    def batchers(self) -> Mapping[str, Batcher]:
        return {name: loaded.batcher for name, loaded in self._lineups.current.in_service.items()}

    @property
    def has_shadows(self) -> bool:
        return bool(self._lineups.current.shadows)

    def models(self) -> list[dict[str, Any]]:
        """What is in service, with manifest, card and active provider, and what the registry asks for beside it."""
        lineup = self._lineups.current
        return [
            {
                **bundle.used.model_dump(),
                "organ": bundle.manifest.organ,
                "provider": bundle.session.provider,
                "session": bundle.choice.describe(),
                "purpose": bundle.manifest.purpose,
                "findings": [finding.model_dump() for finding in bundle.manifest.findings],
                "limits": bundle.manifest.limits,
                "card": bundle.card,
                "shadow": lineup.shadows[name].bundle.manifest.version if name in lineup.shadows else None,
                "amiss": [said for key, said in lineup.amiss.items() if key.removesuffix(SHADOW) == name],
            }
            for name, bundle in ((name, loaded.bundle) for name, loaded in lineup.in_service.items())
        ]

    async def assess(
        self,
        inputs: Sequence[Input],
        context: Context,
        *,
        before_decode: BeforeDecode | None = None,
        refused: Mapping[int, Problem] | None = None,
    ) -> Assessment:
        """Assess one visit. What is wrong with an input becomes its problems; neighbours are not concerned.

        Parameters
        ----------
        before_decode
            Awaited with an input's index before any decoder touches its bytes. When it is given, inputs are taken one
            after the other, so that a process that dies has died of the input that was named last.
        refused
            Inputs that must not be decoded, with the reason.
        """
        with self._lineups.hold() as lineup:
            return await self._assess(
                lineup.in_service, self._decoders, inputs, context, before_decode=before_decode, refused=refused or {}
            )

    async def assess_shadows(self, inputs: Sequence[Input], context: Context) -> list[ShadowAnswer]:
        """What each bundle in the shadow says of a visit that has something for it."""
        answers = []
        with self._lineups.hold() as lineup:
            for name, shadow in lineup.shadows.items():
                manifest = shadow.bundle.manifest
                field = FIELD_OF[manifest.input.modality]
                mine = [i for i in inputs if i.field == field]
                if field is None or mine:
                    bundles = {**lineup.in_service, name: shadow}
                    found = await self._assess(bundles, self._shadow_decoders, mine, context)
                    of_organ = {o: a for o, a in found.organs.items() if manifest.organ in (None, o)}
                    answers.append(
                        ShadowAnswer(
                            model=shadow.bundle.used,
                            in_service=lineup.in_service[name].bundle.manifest.version,
                            assessment=found.model_copy(update={"organs": without_evidence(of_organ)}),
                        )
                    )
        return answers

    async def _assess(
        self,
        bundles: Mapping[str, Loaded],
        decoders: Decoders,
        inputs: Sequence[Input],
        context: Context,
        *,
        before_decode: BeforeDecode | None = None,
        refused: Mapping[int, Problem] = MappingProxyType({}),
    ) -> Assessment:
        gate, lung, cardiac, kidney = (bundles[name] for name in ("cxr_gate", "lung", "cardiac", "kidney"))
        film = FilmPipeline(gate.bundle, gate.batcher, lung.bundle, lung.batcher, decoders)
        recording = RecordingPipeline(cardiac.bundle, cardiac.batcher, decoders)
        open_inputs = [i for i in inputs if i.index not in refused]
        films = [i for i in open_inputs if i.field == "image"]
        posted = [i for i in open_inputs if i.field == "ecg"]
        recordings = await decoders.run(_grouped, posted) if posted else []
        jobs = [
            *(_Job((i.index,), partial(film.assess, i.index, i.read, context)) for i in films),
            *(_Job(tuple(f.index for f in r.files), partial(recording.assess, r, context)) for r in recordings),
        ]
        results = await _run(jobs, before_decode)
        labs, lab_problems = standard_labs(context.labs)
        organs: dict[Organ, AssessedOrgan] = {
            "lung": organ(results[: len(films)], "no_image", any(i.field == "image" for i in inputs)),
            "cardiac": organ(results[len(films) :], "no_ecg", any(i.field == "ecg" for i in inputs)),
            "kidney": await KidneyPipeline(kidney.bundle, kidney.batcher).assess(context, labs, lab_problems),
        }
        manifests = [loaded.bundle.manifest for loaded in bundles.values()]
        vitals = {name: value for name, value in context.vitals.model_dump().items() if value is not None}
        measured = {
            f.name: float(f.value) for o in organs.values() for f in o.findings if isinstance(f.value, (int, float))
        }
        priority, reasons = prioritise(organs, {**vitals, **labs, **measured}, past_rule_in(manifests, organs))
        return Assessment(
            organs=organs,
            inputs=assessed_inputs(inputs, results, refused),
            models=[
                loaded.bundle.used
                for loaded in bundles.values()
                if (mine := loaded.bundle.manifest.organ) is not None and organs[mine].status == "assessed"
            ],
            priority=priority,
            priority_reasons=reasons,
        )

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Finish what is queued and end the threads."""
        self._decoders.close()
        self._shadow_decoders.close()
        self._lineups.close()


def _grouped(inputs: Sequence[Input]) -> list[RecordingFiles]:
    return group_recordings([PostedFile(each.index, each.filename, each.read()) for each in inputs])


@dataclass(frozen=True)
class _Job:
    indices: tuple[int, ...]
    work: Callable[[], Awaitable[InputResult]]


async def _run(jobs: Sequence[_Job], before_decode: BeforeDecode | None) -> list[InputResult]:
    if before_decode is None:
        return list(await asyncio.gather(*(job.work() for job in jobs)))
    results = []
    for job in jobs:
        for index in job.indices:
            await before_decode(index)
        results.append(await job.work())
    return results


def organ(results: Sequence[InputResult], nothing_sent: str, was_sent: bool) -> AssessedOrgan:
    """One organ from its inputs; the reasons of refused inputs are repeated where none could be used."""
    answers = [r.answer for r in results if r.answer is not None]
    if not answers:
        reasons = _distinct(p for r in results for p in r.problems if p.severity == "reject")
        if was_sent:
            return AssessedOrgan(status="not_assessed", reasons=[Problem("inputs_refused", "reject"), *reasons])
        return AssessedOrgan(status="not_assessed", reasons=[Problem(nothing_sent, "reject")])
    merged: Answer = merge(answers)
    return AssessedOrgan(
        status="assessed",
        reasons=_distinct(p for r in results for p in r.reserves),
        risk=merged.risk,
        category=merged.category,
        findings=merged.findings,
    )


def past_rule_in(manifests: Iterable[BundleManifest], organs: Mapping[Organ, AssessedOrgan]) -> frozenset[str]:
    """Findings whose probability is past the ``rule_in`` point of the specification they were read with."""
    past = set()
    for manifest in manifests:
        if manifest.organ is None:
            continue
        for found in organs[manifest.organ].findings:
            for spec in manifest.findings:
                point = operating_point(spec, "rule_in")
                same = spec.name == found.name and operating_point(spec, spec.decides_at) == found.operating_point
                if same and point and found.probability is not None and found.probability >= point.threshold:
                    past.add(found.name)
    return frozenset(past)


def without_evidence(organs: Mapping[Organ, AssessedOrgan]) -> dict[Organ, AssessedOrgan]:
    """The same answers without their maps."""
    return {
        name: each.model_copy(update={"findings": [f.model_copy(update={"evidence": []}) for f in each.findings]})
        for name, each in organs.items()
    }


def assessed_inputs(
    inputs: Sequence[Input], results: Sequence[InputResult], refused: Mapping[int, Problem]
) -> list[AssessedInput]:
    """One line per posted file: a recording's files share its fate; a zip is accepted when one recording in it is."""
    rows = []
    for posted in inputs:
        mine = [r for r in results if posted.index in r.indices]
        problems = _distinct(p for r in mine for p in r.problems)
        if posted.index in refused:
            problems = [refused[posted.index]]
        accepted = any(r.accepted for r in mine) or not (mine or problems)
        format_ = next((r.format for r in mine if r.format), None)
        rows.append(AssessedInput(index=posted.index, format=format_, accepted=accepted, problems=problems))
    return rows


def _distinct(problems: Iterable[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))
