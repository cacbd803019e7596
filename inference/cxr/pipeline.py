"""One film: bytes -> pixels -> gate -> lung network -> findings with heatmaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from data_specs.bundle import CxrInput, FindingSpec
from data_specs.cxr.files import read_image
from data_specs.cxr.image import ChestImage, conform
from data_specs.problems import Problem, Refused
from data_specs.visit.assessment import EvidenceMap
from data_specs.visit.context import Context
from inference.bundles.loading import Bundle
from inference.cxr.gate import judge, saturated_share
from inference.decoding import Decoders
from inference.findings import InputResult, ages_offered, answer, offered, positive_share
from inference.person import age_of, format_age, mismatch
from inference.runtime.batcher import Batcher, InferenceFailed
from inference.runtime.session import Array

_NO_PIXELS = np.empty((0, 0), np.uint8)


@dataclass(frozen=True)
class FilmPipeline:
    """Reads, gates and assesses films with the two bundles ``cxr_gate`` and ``lung``."""

    gate: Bundle
    gate_batcher: Batcher
    lung: Bundle
    lung_batcher: Batcher
    decoders: Decoders

    async def assess(self, index: int, read: Callable[[], bytes], context: Context) -> InputResult:
        person = context.person
        result = InputResult(indices=(index,))
        try:
            image, saturated, for_gate, for_lung = await self.decoders.run(self._read, read)
            result.format = image.format
            result.problems += [*image.problems, *mismatch(image, context)]
            if result.accepted:
                result.problems += await self._gate(saturated, for_gate)
            age = age_of(image, person)
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

    def _read(self, read: Callable[[], bytes]) -> tuple[ChestImage, float, Array, Array]:
        """The file's header and what is computed from its pixels, which are dropped: they would fill the memory."""
        image = read_image(read())
        sizes = (self.gate.input_as(CxrInput).size_px, self.lung.input_as(CxrInput).size_px)
        for_gate, for_lung = (conform(image.pixels, size)[None] for size in sizes)
        return replace(image, pixels=_NO_PIXELS), saturated_share(image.pixels), for_gate, for_lung

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
