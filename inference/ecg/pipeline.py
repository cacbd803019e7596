"""The recordings of a visit: files -> groups -> gate -> cardiac network and measurements -> findings with traces."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Hashable, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np

from data_specs.bundle import EcgInput, FindingSpec
from data_specs.problems import Problem, Refused
from data_specs.visit.assessment import EvidenceMap, FoundFinding
from data_specs.visit.context import Context
from data_specs.vocabulary import findings_withheld_by, terms
from inference.bundles.loading import Bundle
from inference.ecg.intervals import Intervals
from inference.ecg.reading import Group, Names, RecordingRead, group_files, read_group, read_recordings
from inference.findings import COVERAGE, Answer, InputResult, Who, answer, nothing_offered, offered, positive_share
from inference.likeness import unlikeness
from inference.person import age_of, format_age, mismatch, sex_of
from inference.readers.files import OpenFile
from inference.readers.job import Job, Read
from inference.readers.pool import Readers
from inference.runtime.batcher import Batcher, InferenceFailed
from inference.runtime.session import Array

T = TypeVar("T")

LIMITS_THE_ANSWER = frozenset({"gains_inconsistent", "paced", "short"})
"""Reserves of a recording that the organ repeats."""


@dataclass(frozen=True, slots=True)
class EcgFile:
    """A posted file; ``index`` is its place among the visit's inputs."""

    index: int
    filename: str
    open: Callable[[], OpenFile]


@dataclass(frozen=True)
class RecordingPipeline:
    """Reads, gates, measures and assesses recordings with the ``cardiac`` bundle."""

    cardiac: Bundle
    batcher: Batcher
    readers: Readers
    coverage: float | None = COVERAGE

    async def assess(self, files: Sequence[EcgFile], context: Context, owner: Hashable) -> list[InputResult]:
        """A result for each recording that the files make, and for each file that cannot be grouped."""
        if not files:
            return []
        try:
            read = await self._run(files, owner, read_recordings, context.ecg_unit, self._takes)
        except Refused as refusal:
            if len(files) == 1:
                return [_refused((files[0].index,), refusal.problem)]
            return await self._assess_separately(files, context, owner)
        found = read.document
        if found.refused is not None:
            return [_refused(found.groups[0].indices, found.refused)]
        if found.recording is not None:
            recording = Read(found.recording, read.arrays)
            return [await self._answer(found.groups[0].indices, recording, context)]
        return await self._assess_groups(found.groups, files, context, owner)

    async def _assess_separately(
        self, files: Sequence[EcgFile], context: Context, owner: Hashable
    ) -> list[InputResult]:
        """Find the files that no reader survives, one by one, and assess the others without them."""
        alone = await asyncio.gather(*(self._grouped([file], owner) for file in files))
        refused = {f.index: looked for f, looked in zip(files, alone, strict=True) if isinstance(looked, Problem)}
        results = [_refused((index,), problem) for index, problem in refused.items()]
        others = [file for file in files if file.index not in refused]
        groups = await self._grouped(others, owner) if others else ()
        if isinstance(groups, Problem):
            return results + [_refused((file.index,), groups) for file in others]
        return results + await self._assess_groups(groups, others, context, owner)

    async def _grouped(self, files: Sequence[EcgFile], owner: Hashable) -> tuple[Group, ...] | Problem:
        try:
            return (await self._run(files, owner, group_files)).document
        except Refused as refusal:
            return refusal.problem

    async def _assess_groups(
        self, groups: Sequence[Group], files: Sequence[EcgFile], context: Context, owner: Hashable
    ) -> list[InputResult]:
        return await asyncio.gather(*(self._assess_group(group, files, context, owner) for group in groups))

    async def _assess_group(
        self, group: Group, files: Sequence[EcgFile], context: Context, owner: Hashable
    ) -> InputResult:
        of_group = [file for file in files if file.index in group.indices]
        try:
            read = await self._run(of_group, owner, read_group, group, context.ecg_unit, self._takes)
        except Refused as refusal:
            return _refused(group.indices, refusal.problem)
        return await self._answer(group.indices, read, context)

    async def _answer(self, indices: tuple[int, ...], read: Read[RecordingRead], context: Context) -> InputResult:
        recording, person = read.document, context.person
        result = InputResult(indices=indices, format=recording.stated.format)
        of_gate = [
            replace(p, found=", ".join(names)) if (names := self._withheld_by(p.code)) else p
            for p in recording.problems
        ]
        result.problems += [*recording.stated.problems, *of_gate, *mismatch(recording.stated, context)]
        age = age_of(recording.stated, person)
        specs = offered(self.cardiac.manifest, age)
        if result.accepted and not specs:
            result.problems.append(nothing_offered(self.cardiac.manifest, format_age(age)))
        if not result.accepted or recording.intervals is None:
            return result
        result.reserves += [problem for problem in of_gate if problem.code in LIMITS_THE_ANSWER]
        reserves = {problem.code for problem in of_gate}
        withheld = {name for code in reserves for name in self._withheld_by(code)}
        specs = tuple(spec for spec in specs if spec.name not in withheld)
        if age is None:
            result.reserves.append(Problem("age_unknown", "warn", expected="≥ 18"))
        try:
            found = self.cardiac.named(await self.batcher.infer(read.arrays[0]))
        except InferenceFailed as failure:
            result.problems.append(Problem("inference_failed", "reject", found=failure.code))
            return result
        result.add_unlikeness(unlikeness(self.cardiac.manifest.thresholds, found.get("distance")))
        if not result.accepted:
            return result
        logits = found["logits"]
        traces = partial(self._traces, indices[0], logits, found["evidence"], recording)
        who = Who(age, sex_of(recording.stated, person), coverage=self.coverage)
        result.answer = answer(specs, np.asarray(logits, dtype=np.float64).mean(axis=0), who=who, evidence=traces)
        if result.answer.risk is None and result.answer.category == "low":
            result.answer.category = None  # what decides between normal and not was withheld
        add_measured(result.answer, recording.intervals, withheld)
        if recording.intervals.unmeasured:
            result.reserves.append(Problem("not_measurable", "warn", found=", ".join(recording.intervals.unmeasured)))
        return result

    def _traces(
        self, index: int, logits: Array, activation: Array, recording: RecordingRead, of: FindingSpec
    ) -> list[EvidenceMap]:
        """Activation over the window in which the finding is strongest, as far as it was recorded."""
        spec = self._takes
        window = int(np.argmax(np.asarray(logits, dtype=np.float64)[:, of.column]))
        over_window = np.asarray(activation[window, of.column], dtype=np.float64)
        start, step_s = recording.starts_s[window], spec.n_samples / spec.fs_hz / len(over_window)
        first = math.floor(max(0.0, -start) / step_s)  # zeros may stand before the recording
        last = min(len(over_window), math.ceil((recording.duration_s - start) / step_s))
        span = (max(0.0, start + first * step_s), start + last * step_s)
        return [EvidenceMap(kind="trace", input=index, span=span, values=positive_share(over_window[first:last]))]

    @property
    def _takes(self) -> EcgInput:
        return self.cardiac.input_as(EcgInput)

    def _withheld_by(self, code: str) -> tuple[str, ...]:
        """Findings that are withheld because of a problem of the gate.

        Where gains differ from lead to lead, a network that takes voltages, not each lead in its own deviations, sees
        another heart: none of its findings holds.
        """
        if code == "gains_inconsistent" and self._takes.normalisation != "lead":
            network = dict.fromkeys(spec.name for spec in self.cardiac.manifest.findings)
            return (*network, *(name for name in findings_withheld_by(code) if name not in network))
        return findings_withheld_by(code)

    async def _run(self, files: Sequence[EcgFile], owner: Hashable, job: Job[..., T], *arguments: Any) -> Read[T]:
        return await self.readers.run(job, [file.open for file in files], _names(files), *arguments, owner=owner)


def _names(files: Sequence[EcgFile]) -> Names:
    return tuple((file.index, file.filename) for file in files)


def _refused(indices: tuple[int, ...], problem: Problem) -> InputResult:
    return InputResult(indices=indices, problems=[problem])


def add_measured(result: Answer, intervals: Intervals, withheld: Set[str] = frozenset()) -> None:
    """Append the measured findings that the recording allowed, without those that its reserves withhold."""
    for name, value in (
        ("heart_rate", intervals.heart_rate_per_min),
        ("pr_interval", intervals.pr_ms),
        ("qrs_duration", intervals.qrs_ms),
        ("qtc_interval", intervals.qtc_ms),
        ("qrs_axis", intervals.axis_degrees),
    ):
        if value is not None and name not in withheld:
            result.findings.append(FoundFinding(name=name, value=round(value), unit=terms()[name].unit))
