"""One film: file -> gate -> lung network -> findings with heatmaps."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from data_specs.bundle import CxrInput, FindingSpec
from data_specs.problems import Problem, Refused
from data_specs.visit.assessment import EvidenceMap
from data_specs.visit.context import Context
from inference.bundles.loading import Bundle
from inference.cxr.gate import judge
from inference.cxr.reading import read_film
from inference.findings import InputResult, ages_offered, answer, offered, positive_share
from inference.person import age_of, format_age, mismatch
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

    async def assess(
        self, index: int, open_file: Callable[[], OpenFile], context: Context, owner: Hashable
    ) -> InputResult:
        person = context.person
        result = InputResult(indices=(index,))
        sizes_px = (self.gate.input_as(CxrInput).size_px, self.lung.input_as(CxrInput).size_px)
        try:
            read = await self.readers.run(read_film, [open_file], sizes_px, owner=owner)
            film, (for_gate, for_lung) = read.document, read.arrays
            result.format = film.stated.format
            result.problems += [*film.stated.problems, *mismatch(film.stated, context)]
            if result.accepted:
                result.problems += await self._gate(film.saturated, for_gate)
            age = age_of(film.stated, person)
            specs = offered(self.lung.manifest, age)
            if result.accepted and not specs:
                offer = ages_offered(self.lung.manifest)
                result.problems.append(Problem("age_out_of_range", "reject", format_age(age), offer))
            if result.accepted:
                if age is None:
                    result.reserves.append(Problem("age_unknown", "warn", expected="≥ 18"))
                # A bundle of an imported architecture may have no activation map: its findings have no heatmap.
                logits, *activations = await self.lung_batcher.infer(for_lung)
                result.answer = answer(specs, _floats(logits[0]), evidence=partial(_heatmaps, index, activations))
                uncalibrated = [found.name for found in result.answer.findings if found.calibrated is False]
                if uncalibrated:
                    result.reserves.append(Problem("uncalibrated", "warn", found=", ".join(uncalibrated)))
        except Refused as refusal:
            result.problems.append(refusal.problem)
        except InferenceFailed as failure:
            result.problems.append(Problem("inference_failed", "reject", found=failure.code))
        return result

    async def _gate(self, saturated: float, tensor: Array) -> list[Problem]:
        logits, distance, lungs = await self.gate_batcher.infer(tensor)
        return judge(
            self.gate.manifest.thresholds,
            saturated,
            _floats(logits[0]),
            float(_floats(distance[0, 0])),
            _floats(lungs[0, 0]),
        )


def _heatmaps(index: int, activations: Sequence[Array], spec: FindingSpec) -> list[EvidenceMap]:
    return [
        EvidenceMap(kind="heatmap", input=index, values=positive_share(_floats(activation[0, spec.column])))
        for activation in activations
    ]


def _floats(array: Array) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(array, dtype=np.float64)
