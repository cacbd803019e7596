"""One film: file -> gate -> lung network -> findings with heatmaps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_specs.bundle import BundleManifest, CxrInput, FindingSpec
from data_specs.cxr.lungs import WHOLE, Window, cut_to, placed, window_of
from data_specs.problems import Problem, Refused
from data_specs.visit.assessment import EvidenceMap
from data_specs.visit.context import Context
from inference.bundles.loading import Bundle
from inference.bundles.registry import finding_key
from inference.cxr.gate import Judged, judge, set_upright
from inference.cxr.reading import least_px_of, read_film
from inference.cxr.traits import finite
from inference.findings import COVERAGE, InputResult, Who, answer, nothing_offered, offered, positive_share
from inference.likeness import unlikeness
from inference.person import age_of, format_age, mismatch, sex_of
from inference.readers.files import OpenFile
from inference.readers.pool import Readers
from inference.runtime.batcher import Batcher, InferenceFailed
from inference.runtime.session import Array

MAP_SIDE = 28
"""Side of a map that is placed on the whole film."""

Floats = NDArray[np.float64]
Seen = tuple[Judged, Floats]
"""What the gate says of a film as it lies or turned, and its lung fields, ``(side, side)`` logits."""
GATE_LOGITS = ("gate_chest", "gate_inverted", "gate_cut_off", "gate_heart_on_the_right")
"""Traits by the gate's logits, in their order."""


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
        result = InputResult(indices=(index,), seen_by=self._bundles)
        upright = Upright(0, [], WHOLE)
        for_the_gate, takes = self.gate.input_as(CxrInput), self.lung.input_as(CxrInput)
        sizes_px, least_px = (for_the_gate.size_px, takes.read_px), least_px_of(for_the_gate, takes)
        try:
            read = await self.readers.run(read_film, [open_file], sizes_px, least_px, owner=owner)
            film, (for_gate, for_lung) = read.document, read.arrays
            result.format = film.stated.format
            result.traits |= {**film.traits, "saturated": film.saturated}
            result.problems += [*film.stated.problems, *mismatch(film.stated, context)]
            if result.accepted:
                upright = await self._gate(film.saturated, for_gate, result.traits)
                result.problems += upright.problems
            age = age_of(film.stated, person)
            specs = offered(self.lung.manifest, age)
            if result.accepted and not specs:
                result.problems.append(nothing_offered(self.lung.manifest, format_age(age)))
            if result.accepted:
                if age is None:
                    result.reserves.append(Problem("age_unknown", "warn", expected="≥ 18"))
                found = self.lung.named(await self.lung_batcher.infer(for_network(for_lung, upright, takes)))
                result.traits |= finite(seen_by(self.lung.manifest, found))
                result.add_unlikeness(unlikeness(self.lung.manifest.thresholds, found.get("distance")))
                # A bundle of an imported architecture may have no activation map: its findings have no heatmap.
                heatmaps = partial(_heatmaps, index, found.get("evidence"), upright, takes)
                who = Who(age, sex_of(film.stated, person), film.view, self.coverage)
                if result.accepted:
                    result.answer = answer(specs, _floats(found["logits"][0]), who=who, evidence=heatmaps)
        except Refused as refusal:
            result.problems.append(refusal.problem)
        except InferenceFailed as failure:
            result.problems.append(Problem("inference_failed", "reject", found=failure.code))
        return result

    @property
    def _bundles(self) -> str:
        return ", ".join(f"{m.name} {m.version}" for m in (self.gate.manifest, self.lung.manifest))

    async def _gate(self, saturated: float, tensor: Array, traits: dict[str, float]) -> Upright:
        as_it_lies = await self._judged(saturated, tensor, traits)
        if as_it_lies[0].is_chest:
            return upright_of(self.gate.manifest.thresholds, [as_it_lies])
        others = await asyncio.gather(*(self._judged(saturated, turned(tensor, turns), {}) for turns in (1, 2, 3)))
        return upright_of(self.gate.manifest.thresholds, [as_it_lies, *others])

    async def _judged(self, saturated: float, tensor: Array, traits: dict[str, float]) -> Seen:
        logits, distance, lungs = await self.gate_batcher.infer(tensor)
        fields = _floats(lungs[0, 0])
        traits |= finite({**dict(zip(GATE_LOGITS, logits[0], strict=False)), "gate_distance": distance})
        traits |= finite({"gate_lung_area": fields > 0})
        limits, distance_ = self.gate.manifest.thresholds, float(_floats(distance[0, 0]))
        return judge(limits, saturated, _floats(logits[0]), distance_, fields), fields


class Upright(NamedTuple):
    """How a film stands upright: quarter turns counterclockwise, its problems then, the window around its lung fields
    then."""

    turns: int
    problems: list[Problem]
    window: Window


def upright_of(limits: Mapping[str, float], seen: Sequence[Seen]) -> Upright:
    """From what the gate saw of a film as it lies and, where asked for, turned by one, two and three quarters."""
    turns, problems = set_upright(limits, seen[0][0], [judged for judged, _ in seen[1:]])
    return Upright(turns, problems, window_of(seen[turns][1] > 0))


def for_network(film: Array, upright: Upright, takes: CxrInput) -> Array:
    """``(1, 1, size_px, size_px) uint8``: the film upright, as the network takes it."""
    whole = turned(film, upright.turns)
    if takes.shows == "film":
        return whole
    return cut_to(whole[0, 0], upright.window, takes.size_px)[None, None]


def seen_by(manifest: BundleManifest, found: Mapping[str, Array]) -> dict[str, Array]:
    """Traits that the lung bundle gives a film: each logit by its finding, whatever the age, and the distance."""
    logits = {f"logit {finding_key(spec)}": found["logits"][0, spec.column] for spec in manifest.findings}
    return logits | ({"distance": found["distance"]} if "distance" in found else {})


def turned(pictures: Array, turns: int) -> Array:
    """``(n, channels, side, side)`` turned counterclockwise by quarter turns."""
    return np.ascontiguousarray(np.rot90(pictures, turns, axes=(2, 3))) if turns else pictures


def _heatmaps(
    index: int, activation: Array | None, upright: Upright, takes: CxrInput, spec: FindingSpec
) -> list[EvidenceMap]:
    """The map over the film as it lies, where there is one."""
    if activation is None:
        return []
    values = _floats(activation[0, spec.column])
    if takes.shows == "lungs":
        values = placed(values, upright.window, MAP_SIDE)
    return [EvidenceMap(kind="heatmap", input=index, values=positive_share(np.rot90(values, -upright.turns)))]


def _floats(array: Array) -> Floats:
    return np.asarray(array, dtype=np.float64)
