"""What serving does with a file before the network: read, gate, conform. Training and evaluation do the same.

A network answers for what its gate lets through. Trained or recalibrated on anything else it would learn, and its card
would say, what no doctor is ever shown. So a cohort's files go through the functions of serving themselves
(:mod:`inference.cxr`, :mod:`inference.ecg`), and what these refuse is left out, with its reason.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_specs.bundle import CxrInput, EcgInput
from data_specs.cxr.image import Outline
from data_specs.ecg.files import RecordingFiles
from data_specs.ecg.recording import VoltageUnit
from data_specs.problems import Problem
from inference.bundles.loading import Bundle, load_in_service
from inference.bundles.registry import read_registry
from inference.cxr.gate import judge, saturated_share
from inference.cxr.pipeline import Seen, Upright, for_network, turned, upright_of
from inference.cxr.reading import for_networks, least_px_of, read_film
from inference.ecg.reading import Group, read_group
from inference.runtime.session import ONE_THREAD, Array

BUNDLES = Path(__file__).parents[2] / "models" / "bundles"
"""The shipped bundles, unless ``SANGLOC_BUNDLES`` names another folder."""


@dataclass(frozen=True)
class Served:
    """What serving would give to the network: ``x`` is ``(n_windows, ...)``, or ``None`` where the gate refuses."""

    x: NDArray[np.generic] | None
    problems: list[Problem]

    @classmethod
    def of(cls, x: NDArray[np.generic] | None, problems: Sequence[Problem]) -> Served:
        refused = any(problem.severity == "reject" for problem in problems)
        return cls(None if refused else x, list(dict.fromkeys(problems)))


class RecordingGate:
    """The gate for recordings, which is code alone."""

    version = "code"

    def recording(self, files: RecordingFiles, spec: EcgInput, ecg_unit: VoltageUnit | None) -> Served:
        """One recording.

        Raises
        ------
        Refused
            It cannot be read.
        """
        names = tuple((file.index, file.filename) for file in files.files)
        contents = [file.content for file in files.files]
        read = read_group(contents, names, Group(files.stem, names), ecg_unit, spec)
        problems = (*read.document.stated.problems, *read.document.problems)
        return Served.of(read.arrays[0] if read.arrays else None, problems)


class FilmGate:
    """The gate for films: the bundle ``cxr_gate`` that is in service."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._limits = bundle.manifest.thresholds
        self._takes = bundle.input_as(CxrInput)
        self.version = f"{bundle.manifest.version} {bundle.manifest.weights.sha256}"

    def film(self, content: bytes, takes: CxrInput) -> Served:
        """One film as the network takes it, set upright where it lies on a side.

        Raises
        ------
        Refused
            It cannot be read.
        """
        read = read_film([content], (self._takes.size_px, takes.read_px), least_px_of(self._takes, takes))
        for_gate, film = read.arrays
        problems = list(read.document.stated.problems)
        if any(problem.severity == "reject" for problem in problems):
            return Served.of(None, problems)
        upright = self.upright(read.document.saturated, for_gate)
        return Served.of(for_network(film, upright, takes), [*problems, *upright.problems])

    def of_pixels(self, pixels: NDArray[np.uint8], takes: CxrInput) -> NDArray[np.uint8]:
        """``(1, size_px, size_px) uint8``: a film of ``(rows, columns)``, whatever the gate says of it."""
        sizes_px, least_px = (self._takes.size_px, takes.read_px), least_px_of(self._takes, takes)
        for_gate, film = for_networks(pixels, Outline.of(pixels), sizes_px, least_px)
        return np.asarray(for_network(film, self.upright(saturated_share(pixels), for_gate), takes)[0])

    def upright(self, saturated: float, for_gate: Array) -> Upright:
        """How a film stands upright; ``for_gate`` is ``(1, 1, side, side) uint8``."""
        seen = [self._seen(saturated, for_gate)]
        if not seen[0][0].is_chest:
            seen += [self._seen(saturated, turned(for_gate, quarters)) for quarters in (1, 2, 3)]
        return upright_of(self._limits, seen)

    def _seen(self, saturated: float, film: Array) -> Seen:
        logits, distance, lungs = (np.asarray(each[0], dtype=np.float64) for each in self._bundle.session.run(film))
        return judge(self._limits, saturated, logits, float(distance[0]), lungs[0]), lungs[0]


Gate = FilmGate | RecordingGate


def film_gate() -> FilmGate:
    """The gate for films of the version in service."""
    return FilmGate(load_in_service(read_registry(bundles_folder()), "cxr_gate", ONE_THREAD))


def serving_gate(modality: str) -> Gate | None:
    """The gate of the version in service; ``None`` for laboratory values, which have none."""
    if modality == "labs":
        return None
    if modality == "ecg":
        return RecordingGate()
    return film_gate()


def bundles_folder() -> Path:
    """Folder of the bundles and their log, as a server finds it."""
    return Path(os.environ.get("SANGLOC_BUNDLES") or BUNDLES)
