"""One film: file -> gate -> lung network -> findings with heatmaps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from data_specs.bundle import CxrInput, FindingSpec
from data_specs.problems import Problem, Refused
from data_specs.visit.assessment import EvidenceMap
from data_specs.visit.context import Context
from inference.bundles.loading import Bundle
from inference.cxr.gate import Judged, judge, set_upright
from inference.cxr.reading import read_film
from inference.findings import COVERAGE, InputResult, Who, ages_offered, answer, offered, positive_share
from inference.person import age_of, format_age, mismatch, sex_of
from inference.readers.files import OpenFile
from inference.readers.pool import Readers
from inference.runtime.batcher import Batcher, InferenceFailed
from inference.runtime.session import Array


@dataclass(frozen=True)
class FilmPipeline:
    """Reads, gates and assesses films with the two bundles ``cxr_gate`` and ``lung``."""

    gate: Bundle
    gate_batcher: Batcher
    lung: Bundle
    lung_batcher: Batcher
    readers: Readers
    coverage: float | None = COVERAGE

    async def assess(
        self, index: int, open_file: Callable[[], OpenFile], context: Context, owner: Hashable
    ) -> InputResult:
        person = context.person
        result = InputResult(indices=(index,))
        turns = 0
        sizes_px = (self.gate.input_as(CxrInput).size_px, self.lung.input_as(CxrInput).size_px)
        try:
            read = await self.readers.run(read_film, [open_file], sizes_px, owner=owner)
            film, (for_gate, for_lung) = read.document, read.arrays
            result.format = film.stated.format
            result.problems += [*film.stated.problems, *mismatch(film.stated, context)]
            if result.accepted:
                turns, problems = await self._gate(film.saturated, for_gate)
                result.problems += problems
            age = age_of(film.stated, person)
            specs = offered(self.lung.manifest, age)
            if result.accepted and not specs:
                offer = ages_offered(self.lung.manifest)
                result.problems.append(Problem("age_out_of_range", "reject", format_age(age), offer))
            if result.accepted:
                if age is None:
                    result.reserves.append(Problem("age_unknown", "warn", expected="≥ 18"))
                # A bundle of an imported architecture may have no activation map: its findings have no heatmap.
                logits, *activations = await self.lung_batcher.infer(turned(for_lung, turns))
                heatmaps = partial(_heatmaps, index, [turned(activation, -turns) for activation in activations])
                who = Who(age, sex_of(film.stated, person), film.view, self.coverage)
                result.answer = answer(specs, _floats(logits[0]), who=who, evidence=heatmaps)
        except Refused as refusal:
            result.problems.append(refusal.problem)
        except InferenceFailed as failure:
            result.problems.append(Problem("inference_failed", "reject", found=failure.code))
        return result

    async def _gate(self, saturated: float, tensor: Array) -> tuple[int, list[Problem]]:
        """Quarter turns, counterclockwise, that set the film upright, and its problems then."""
        as_it_lies = await self._judged(saturated, tensor)
        if as_it_lies.is_chest:
            return 0, as_it_lies.problems
        others = await asyncio.gather(*(self._judged(saturated, turned(tensor, turns)) for turns in (1, 2, 3)))
        return set_upright(self.gate.manifest.thresholds, as_it_lies, others)

    async def _judged(self, saturated: float, tensor: Array) -> Judged:
        logits, distance, lungs = await self.gate_batcher.infer(tensor)
        return judge(
            self.gate.manifest.thresholds,
            saturated,
            _floats(logits[0]),
            float(_floats(distance[0, 0])),
            _floats(lungs[0, 0]),
        )


def turned(pictures: Array, turns: int) -> Array:
    """``(n, channels, side, side)`` turned counterclockwise by quarter turns."""
    return np.ascontiguousarray(np.rot90(pictures, turns, axes=(2, 3))) if turns else pictures


def _heatmaps(index: int, activations: Sequence[Array], spec: FindingSpec) -> list[EvidenceMap]:
    return [
        EvidenceMap(kind="heatmap", input=index, values=positive_share(_floats(activation[0, spec.column])))
        for activation in activations
    ]


def _floats(array: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(array, dtype=np.float64)
