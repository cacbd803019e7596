"""A visit's files and context -> an assessment. No HTTP, no database, no torch."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol

from data_specs.labs import standard_labs
from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedInput, AssessedOrgan, Assessment
from data_specs.visit.context import Context
from data_specs.visit.contract import ModelUsed, Organ
from data_specs.vocabulary import judged_findings
from inference.bundles.acceptance import at_site
from inference.bundles.loading import Bundle
from inference.bundles.serving_set import POLL_S, SHADOW, RegistryFollower, ServedBundle
from inference.cxr.pipeline import FilmPipeline
from inference.ecg.pipeline import EcgFile, RecordingPipeline
from inference.findings import COVERAGE, Answer, InputResult, contradicting, merge, without_verdict
from inference.kidney import KidneyPipeline, unknown_conditions
from inference.readers.files import OpenFile
from inference.readers.pool import Readers
from inference.runtime.batcher import Batcher
from inference.runtime.session import Machine

FIELD_OF: dict[str, Literal["image", "ecg"] | None] = {"cxr": "image", "ecg": "ecg", "labs": None}
"""Modality of a bundle to the field in which its files are posted; labs come with the context."""


class Input(Protocol):
    """One file of a visit; ``index`` is its place in the visit's list of inputs.

    ``open`` may block: a thread calls it when the file is to be read, so that waiting files take no memory.
    """

    @property
    def index(self) -> int: ...

    @property
    def field(self) -> Literal["image", "ecg"]: ...

    @property
    def filename(self) -> str: ...

    def open(self) -> OpenFile: ...


@dataclass(frozen=True, slots=True)
class PostedInput:
    """An input whose content is in memory."""

    index: int
    field: Literal["image", "ecg"]
    filename: str
    content: bytes

    def open(self) -> OpenFile:
        return OpenFile.of(self.content)


@dataclass(frozen=True, slots=True)
class ShadowAnswer:
    """What a bundle in the shadow finds in a visit, to be compared with the version in service; never shown.

    ``assessment`` has only its organ (for the gate, which has none, every organ) and no evidence.
    """

    model: ModelUsed
    in_service: str
    assessment: Assessment


class Engine:
    """The bundles that the registry says are in service, and the processes that read files.

    Parameters
    ----------
    bundles
        Folder of the bundles.
    machine
        Where the bundles compute; by default on every core, or on a GPU where there is one.
    readers
        Who reads the files; by default a pool of the engine's own.
    coverage
        How sure a verdict has to be; ``None``: one is always given.

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
        readers: Readers | None = None,
        coverage: float | None = COVERAGE,
        poll_s: float = POLL_S,
    ) -> None:
        self._registry = RegistryFollower(bundles, machine or Machine(), poll_s=poll_s)
        self._readers = readers or Readers()
        self._owns_readers = readers is None
        self._coverage = coverage

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

    async def assess(self, inputs: Sequence[Input], context: Context, site: str = "") -> Assessment:
        """Assess one visit. What is wrong with an input becomes its problems and does not affect other inputs.

        ``site``: whose visit it is; it uses each finding as its acceptance test allows.
        """
        with self._registry.hold() as serving:
            bundles, left_out = {}, {}
            for name, served in serving.in_service.items():
                bundle, left_out[name] = at_site(served.bundle, serving.registry, site)
                bundles[name] = replace(served, bundle=bundle)
            assessment = await self._assess(bundles, inputs, context)
        return with_left_out(assessment, left_out)

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
                    found = await self._assess(bundles, taken, context)
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
        self, bundles: Mapping[str, ServedBundle], inputs: Sequence[Input], context: Context
    ) -> Assessment:
        gate, lung, cardiac, kidney = (bundles[name] for name in ("cxr_gate", "lung", "cardiac", "kidney"))
        film = FilmPipeline(gate.bundle, gate.batcher, lung.bundle, lung.batcher, self._readers, self._coverage)
        recording = RecordingPipeline(cardiac.bundle, cardiac.batcher, self._readers, self._coverage)
        owner = object()
        ecg_files = [EcgFile(i.index, i.filename, i.open) for i in inputs if i.field == "ecg"]
        films, recordings = await asyncio.gather(
            asyncio.gather(*(film.assess(i.index, i.open, context, owner) for i in inputs if i.field == "image")),
            recording.assess(ecg_files, context, owner),
        )
        labs, lab_problems = standard_labs(context.labs)
        lab_problems += unknown_conditions(context)
        organs: dict[Organ, AssessedOrgan] = {
            "lung": organ("lung", films, any(i.field == "image" for i in inputs)),
            "cardiac": organ("cardiac", recordings, any(i.field == "ecg" for i in inputs)),
            "kidney": await KidneyPipeline(kidney.bundle, kidney.batcher).assess(context, labs, lab_problems),
        }
        return Assessment(
            organs=organs,
            inputs=assessed_inputs(inputs, [*films, *recordings]),
            models=[
                served.bundle.used
                for served in bundles.values()
                if (name := served.bundle.manifest.organ) is not None and organs[name].status == "assessed"
            ],
        )

    async def aclose(self) -> None:
        await asyncio.to_thread(self.close)

    def close(self) -> None:
        """Finish what is queued and end the threads."""
        if self._owns_readers:
            self._readers.close()
        self._registry.close()


def with_left_out(assessment: Assessment, left_out: Mapping[str, Sequence[str]]) -> Assessment:
    """Say of each assessed organ which findings its site does not show; bundles of organs are named like them."""
    organs = dict(assessment.organs)
    for name, organ in assessment.organs.items():
        if organ.status == "assessed" and left_out.get(name):
            reserve = Problem("not_here", "warn", found=", ".join(left_out[name]))
            organs[name] = organ.model_copy(update={"reasons": [*organ.reasons, reserve]})
    return assessment.model_copy(update={"organs": organs})


NOTHING_SENT: dict[Organ, str] = {"lung": "no_image", "cardiac": "no_ecg"}


def organ(name: Organ, results: Sequence[InputResult], was_sent: bool) -> AssessedOrgan:
    """One organ from its inputs; the reasons of refused inputs are repeated where none could be used."""
    answers = [r.answer for r in results if r.answer is not None]
    if not answers:
        reasons = _distinct(p for r in results for p in r.problems if p.severity == "reject")
        if was_sent:
            return AssessedOrgan(status="not_assessed", reasons=[Problem("inputs_refused", "reject"), *reasons])
        return AssessedOrgan(status="not_assessed", reasons=[Problem(NOTHING_SENT[name], "reject")])
    merged: Answer = merge(answers)
    reserves = (*(p for r in results for p in r.reserves), *without_verdict(merged), *contradicting(merged))
    found = merged.by_name
    return AssessedOrgan(
        status="assessed",
        reasons=_distinct(reserves),
        risk=merged.risk,
        category=merged.category,
        category_basis=merged.category_basis,
        looked_for=[finding for finding in judged_findings(name) if finding in found],
        not_looked_for=[finding for finding in judged_findings(name) if finding not in found],
        findings=merged.findings,
    )


def without_evidence(organs: Mapping[Organ, AssessedOrgan]) -> dict[Organ, AssessedOrgan]:
    """The same answers without their maps."""
    return {
        name: organ.model_copy(update={"findings": [f.model_copy(update={"evidence": []}) for f in organ.findings]})
        for name, organ in organs.items()
    }


def assessed_inputs(inputs: Sequence[Input], results: Sequence[InputResult]) -> list[AssessedInput]:
    """One row a posted file. A recording's files have its problems; a zip is accepted when one recording in it is."""
    rows = []
    for posted in inputs:
        of_file = [r for r in results if posted.index in r.indices]
        problems = _distinct(p for r in of_file for p in r.problems)
        accepted = any(r.accepted for r in of_file) or not (of_file or problems)
        format_ = next((r.format for r in of_file if r.format), None)
        found = AssessedInput(index=posted.index, format=format_, accepted=accepted, problems=problems)
        for film in (r for r in of_file if r.seen_by):
            found = found.model_copy(update={"traits": film.traits, "seen_by": film.seen_by})
        rows.append(found)
    return rows


def _distinct(problems: Iterable[Problem]) -> list[Problem]:
    return list(dict.fromkeys(problems))
