"""A visit's files and context -> an assessment. No HTTP, no database, no torch."""

from __future__ import annotations

import asyncio
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
from inference.bundles.loading import Bundle
from inference.bundles.serving_set import POLL_S, SHADOW, RegistryFollower, ServedBundle
from inference.cxr.pipeline import FilmPipeline
from inference.decoding import Decoders
from inference.ecg.pipeline import RecordingPipeline
from inference.findings import Answer, InputResult, merge, operating_point
from inference.kidney import KidneyPipeline
from inference.priority import prioritise
from inference.runtime.batcher import Batcher
from inference.runtime.session import Machine

BeforeDecode = Callable[[int], Awaitable[None]]
FIELD_OF: dict[str, Literal["image", "ecg"] | None] = {"cxr": "image", "ecg": "ecg", "labs": None}
"""Modality of a bundle to the field in which its files are posted; labs come with the context."""


class Input(Protocol):
    """One file of a visit; ``index`` is its place in the visit's list of inputs.

    ``read`` gives its content and may block: a thread calls it when the file is decoded, so that waiting files take no
    memory.
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
    """An input whose content is in memory."""

    index: int
    field: Literal["image", "ecg"]
    filename: str
    content: bytes

    def read(self) -> bytes:
        return self.content


@dataclass(frozen=True, slots=True)
class ShadowAnswer:
    """What a bundle in the shadow finds in a visit, to be compared with the version in service; never shown.

    ``assessment`` has only its organ (for the gate, which has none, every organ) and no evidence.
    """

    model: ModelUsed
    in_service: str
    assessment: Assessment


class Engine:
    """The bundles that the registry says are in service, and the threads that decode.

    Parameters
    ----------
    bundles
        Folder of the bundles.
    machine
        Where the bundles compute; by default on every core, or on a GPU where there is one.
    decode_threads
        Threads for decoding and gates; by default one per core.

    Raises
    ------
    BundleError, DeviceError
        A bundle fails its checks, or the device that was asked for is not there.
    """

    def __init__(
        self,
        bundles: Path,
        machine: Machine | None = None,
        *,
        decode_threads: int | None = None,
        poll_s: float = POLL_S,
    ) -> None:
        self._registry = RegistryFollower(bundles, machine or Machine(), poll_s=poll_s)
        self._decoders = Decoders(decode_threads)
        self._shadow_decoders = Decoders(1)

    @property
    def bundles(self) -> Mapping[str, Bundle]:
        return {name: served.bundle for name, served in self._registry.current.in_service.items()}

    @property
    def batchers(self) -> Mapping[str, Batcher]:
        return {name: served.batcher for name, served in self._registry.current.in_service.items()}

    @property
    def has_shadows(self) -> bool:
        return bool(self._registry.current.shadows)

    def models(self) -> list[dict[str, Any]]:
        """What is in service, with manifest, card and active provider, its shadow, and what could not be loaded.

        ``amiss`` repeats ``problems`` for clients that know the earlier name.
        """
        serving = self._registry.current
        problems = {
            name: [problem for key, problem in serving.problems.items() if key.removesuffix(SHADOW) == name]
            for name in serving.in_service
        }
        return [
            {
                **bundle.used.model_dump(),
                "organ": bundle.manifest.organ,
                "provider": bundle.session.provider,
                "session": bundle.chosen.describe(),
                "purpose": bundle.manifest.purpose,
                "findings": [finding.model_dump() for finding in bundle.manifest.findings],
                "limits": bundle.manifest.limits,
                "card": bundle.card,
                "shadow": serving.shadows[name].bundle.manifest.version if name in serving.shadows else None,
                "problems": problems[name],
                "amiss": problems[name],
            }
            for name, bundle in ((name, served.bundle) for name, served in serving.in_service.items())
        ]

    async def assess(
        self,
        inputs: Sequence[Input],
        context: Context,
        *,
        before_decode: BeforeDecode | None = None,
        refused: Mapping[int, Problem] | None = None,
    ) -> Assessment:
        """Assess one visit. What is wrong with an input becomes its problems and does not affect other inputs.

        Parameters
        ----------
        before_decode
            Awaited with an input's index before any decoder reads its bytes. When it is given, inputs are decoded one
            after the other, so that a crash of the process was caused by the input that was named last.
        refused
            Inputs that must not be decoded, with the reason.
        """
        with self._registry.hold() as serving:
            return await self._assess(
                serving.in_service, self._decoders, inputs, context, before_decode=before_decode, refused=refused or {}
            )

    async def assess_shadows(self, inputs: Sequence[Input], context: Context) -> list[ShadowAnswer]:
        """The answer of each bundle in the shadow whose kind of input the visit has."""
        answers = []
        with self._registry.hold() as serving:
            for name, shadow in serving.shadows.items():
                manifest = shadow.bundle.manifest
                field = FIELD_OF[manifest.input.modality]
                taken = [i for i in inputs if i.field == field]
                if field is None or taken:
                    bundles = {**serving.in_service, name: shadow}
                    found = await self._assess(bundles, self._shadow_decoders, taken, context)
                    of_organ = {name: organ for name, organ in found.organs.items() if manifest.organ in (None, name)}
                    answers.append(
                        ShadowAnswer(
                            model=shadow.bundle.used,
                            in_service=serving.in_service[name].bundle.manifest.version,
                            assessment=found.model_copy(update={"organs": without_evidence(of_organ)}),
                        )
                    )
        return answers

    async def _assess(
        self,
        bundles: Mapping[str, ServedBundle],
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
        manifests = [served.bundle.manifest for served in bundles.values()]
        vitals = {name: value for name, value in context.vitals.model_dump().items() if value is not None}
        measured = {
            f.name: float(f.value) for o in organs.values() for f in o.findings if isinstance(f.value, (int, float))
        }
        priority, reasons = prioritise(organs, {**vitals, **labs, **measured}, past_rule_in(manifests, organs))
        return Assessment(
            organs=organs,
            inputs=assessed_inputs(inputs, results, refused),
            models=[
                served.bundle.used
                for served in bundles.values()
                if (name := served.bundle.manifest.organ) is not None and organs[name].status == "assessed"
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
        self._registry.close()


def _grouped(inputs: Sequence[Input]) -> list[RecordingFiles]:
    return group_recordings([PostedFile(posted.index, posted.filename, posted.read()) for posted in inputs])


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
    """Findings whose probability is past the ``rule_in`` point of the specification that gave them."""
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
        name: organ.model_copy(update={"findings": [f.model_copy(update={"evidence": []}) for f in organ.findings]})
        for name, organ in organs.items()
    }


def assessed_inputs(
    inputs: Sequence[Input], results: Sequence[InputResult], refused: Mapping[int, Problem]
) -> list[AssessedInput]:
    """One row a posted file. A recording's files have its problems; a zip is accepted when one recording in it is."""
    rows = []
    for posted in inputs:
        of_file = [r for r in results if posted.index in r.indices]
        problems = _distinct(p for r in of_file for p in r.problems)
        if posted.index in refused:
            problems = [refused[posted.index]]
        accepted = any(r.accepted for r in of_file) or not (of_file or problems)
        format_ = next((r.format for r in of_file if r.format), None)
        rows.append(AssessedInput(index=posted.index, format=format_, accepted=accepted, problems=problems))
    return rows


def _distinct(problems: Iterable[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))
