"""One recording: files -> millivolts -> gate -> cardiac network and measurements -> findings with traces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from data_specs.bundle import EcgInput, FindingSpec
from data_specs.ecg.files import RecordingFiles, read_recording
from data_specs.ecg.recording import Recording, conform, window_starts
from data_specs.problems import Problem, Refused
from data_specs.visit.assessment import EvidenceMap, FoundFinding
from data_specs.visit.context import Context
from data_specs.vocabulary import terms
from inference.bundles.loading import Bundle
from inference.decoding import Decoders
from inference.ecg.delineate import Examined, examine
from inference.ecg.gate import gate
from inference.ecg.measure import Intervals, measure
from inference.findings import Answer, InputResult, ages_offered, answer, offered, positive_share
from inference.person import age_of, format_age, mismatch
from inference.runtime.batcher import Batcher, InferenceFailed
from inference.runtime.session import Array


@dataclass(frozen=True)
class RecordingPipeline:
    """Reads, gates, measures and assesses recordings with the ``cardiac`` bundle."""

    cardiac: Bundle
    batcher: Batcher
    decoders: Decoders

    async def assess(self, files: RecordingFiles, context: Context) -> InputResult:
        person = context.person
        result = InputResult(indices=tuple(dict.fromkeys(f.index for f in files.files)))
        try:
            recording, examined, problems = await self.decoders.run(_read_and_gate, files, context.ecg_unit)
            result.format = recording.format
            result.problems += [*recording.problems, *problems, *mismatch(recording, context)]
            age = age_of(recording, person)
            specs = offered(self.cardiac.manifest, age)
            if result.accepted and not specs:
                offer = ages_offered(self.cardiac.manifest)
                result.problems.append(Problem("age_out_of_range", "reject", format_age(age), offer))
            if not result.accepted:
                return result
            if age is None:
                result.reserves.append(Problem("age_unknown", "warn", expected="≥ 18"))
            windows, starts_s, intervals = await self.decoders.run(self._prepare, recording, examined)
            logits, activation = await self.batcher.infer(windows)
            traces = partial(self._traces, result.indices[0], logits, activation, starts_s)
            result.answer = answer(specs, np.asarray(logits, dtype=np.float64).mean(axis=0), evidence=traces)
            add_measured(result.answer, intervals)
            if intervals.unmeasured:
                result.reserves.append(Problem("not_measurable", "warn", found=", ".join(intervals.unmeasured)))
        except Refused as refusal:
            result.problems.append(refusal.problem)
        except InferenceFailed as failure:
            result.problems.append(Problem("inference_failed", "reject", found=failure.code))
        return result

    def _prepare(self, recording: Recording, examined: Examined) -> tuple[Array, list[float], Intervals]:
        spec = self.cardiac.input_as(EcgInput)
        windows = conform(recording, fs_hz=spec.fs_hz, n_samples=spec.n_samples, max_windows=spec.max_windows)
        n_have = round(recording.duration_s * spec.fs_hz)
        starts = window_starts(n_have, spec.n_samples, spec.max_windows)
        return windows, [start / spec.fs_hz for start in starts], measure(recording, examined)

    def _traces(
        self, index: int, logits: Array, activation: Array, starts_s: list[float], of: FindingSpec
    ) -> list[EvidenceMap]:
        """Activation over the window in which the finding is strongest."""
        spec = self.cardiac.input_as(EcgInput)
        window = int(np.argmax(np.asarray(logits, dtype=np.float64)[:, of.column]))
        start = starts_s[window]
        values = positive_share(np.asarray(activation[window, of.column], dtype=np.float64))
        return [
            EvidenceMap(kind="trace", input=index, span=(start, start + spec.n_samples / spec.fs_hz), values=values)
        ]


def _read_and_gate(
    files: RecordingFiles, ecg_unit: Literal["uV", "mV"] | None
) -> tuple[Recording, Examined, list[Problem]]:
    recording = read_recording(files, ecg_unit=ecg_unit)
    examined = examine(recording)
    problems, _ = gate(recording, examined)
    return recording, examined, problems


def add_measured(result: Answer, intervals: Intervals) -> None:
    """Append the measured findings that the recording allowed."""
    for name, value in (
        ("heart_rate", intervals.heart_rate_per_min),
        ("pr_interval", intervals.pr_ms),
        ("qrs_duration", intervals.qrs_ms),
        ("qtc_interval", intervals.qtc_ms),
    ):
        if value is not None:
            result.findings.append(FoundFinding(name=name, value=round(value), unit=terms()[name].unit))
