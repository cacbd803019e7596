"""A network is given a recording in the form that its bundle states, and withholds what that form does not allow."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from data_specs.bundle import EcgInput, FindingSpec
from data_specs.ecg.files import group_recordings, read_recording
from data_specs.ecg.posted import PostedFile
from data_specs.ecg.recording import LEADS
from data_specs.visit.context import Context
from inference.ecg.pipeline import EcgFile, RecordingPipeline
from inference.readers.files import OpenFile
from tests.conftest import ROOT
from tests.readers import shared_readers

MV = EcgInput(
    fs_hz=400, n_samples=4096, leads=LEADS, max_windows=2, band_hz=None, normalisation="none", filling="zeros"
)
SHIPPED = EcgInput(fs_hz=100, n_samples=1000, leads=LEADS, max_windows=6)
FILES = [ROOT / "samples" / name for name in ("E07517.hea", "E07517.mat")]


class Batcher:
    """Keeps what the network would be given, and answers with the same for every window."""

    def __init__(self, distance: float) -> None:
        self.given: list[np.ndarray] = []
        self.distance = distance

    async def infer(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        self.given.append(x)
        evidence = np.tile(np.arange(16.0, dtype=np.float32), (len(x), 2, 1))
        return np.full((len(x), 2), 3.0, np.float32), evidence, np.full((len(x), 1), self.distance, np.float32)


def pipeline(takes: EcgInput, distance: float = 2.0) -> tuple[RecordingPipeline, Batcher]:
    findings = tuple(FindingSpec(name=n, column=i) for i, n in enumerate(("atrial_fibrillation", "hypertrophy")))
    manifest: Any = SimpleNamespace(findings=findings, thresholds={"unlike": 4.0, "far": 16.0})
    outputs = ("logits", "evidence", "distance")
    bundle: Any = SimpleNamespace(
        manifest=manifest, input_as=lambda _: takes, named=lambda found: dict(zip(outputs, found, strict=True))
    )
    batcher: Any = Batcher(distance)
    return RecordingPipeline(bundle, batcher, shared_readers()), batcher


def posted(paths: list[Path]) -> list[EcgFile]:
    return [EcgFile(i, p.name, lambda p=p: OpenFile.of(p.read_bytes())) for i, p in enumerate(paths)]  # type: ignore[misc]


@pytest.mark.parametrize("takes", [MV, SHIPPED], ids=["millivolts", "shipped"])
async def test_a_network_is_given_what_its_bundle_states(takes: EcgInput) -> None:
    served, batcher = pipeline(takes)
    (result,) = await served.assess(posted(FILES), Context.model_validate({"person": {"age_years": 42}}), None)
    assert result.accepted, result.problems
    files = [PostedFile(i, p.name, p.read_bytes()) for i, p in enumerate(FILES)]
    recording = read_recording(group_recordings(files)[0], ecg_unit=None)
    assert np.array_equal(batcher.given[0], takes.conform(recording))


@pytest.mark.parametrize(
    ("distance", "said"),
    [
        (4.0, None),
        (4.5, "unlike_training"),
        (16.0, "unlike_training"),
        (16.5, "far_from_training"),
        (np.nan, "far_from_training"),
    ],
)
async def test_a_recording_unlike_those_learnt_from_has_a_reserve_and_a_far_one_no_answer(
    distance: float, said: str | None
) -> None:
    served, _ = pipeline(SHIPPED, distance)
    (result,) = await served.assess(posted(FILES), Context.model_validate({"person": {"age_years": 42}}), None)
    codes = [each.code for each in result.problems if each.code.endswith("_training")]
    assert codes == ([said] if said else [])
    assert (result.answer is None) == (codes == ["far_from_training"])
    assert [each.code for each in result.reserves if each.code in codes] == (codes if result.answer else [])


def test_the_evidence_of_a_window_with_zeros_lies_on_what_was_recorded() -> None:
    served, _ = pipeline(MV)
    seven_s: Any = SimpleNamespace(starts_s=(-1.62,), duration_s=7.0)
    (of,) = served._traces(
        0, np.zeros((1, 2)), np.tile(np.arange(16.0), (1, 2, 1)), seven_s, FindingSpec(name="x", column=0)
    )
    assert of.span == (pytest.approx(0.0), pytest.approx(-1.62 + 14 * 0.64))
    assert of.values == [[round(255 * v / 13) for v in range(2, 14)]]


@pytest.mark.parametrize(
    ("takes", "names"),
    [(MV, ("atrial_fibrillation", "hypertrophy", "qrs_axis")), (SHIPPED, ("hypertrophy", "qrs_axis"))],
)
def test_gains_of_their_own_take_all_findings_of_a_network_that_needs_voltage(
    takes: EcgInput, names: tuple[str, ...]
) -> None:
    served, _ = pipeline(takes)
    assert served._withheld_by("gains_inconsistent") == names
    assert served._withheld_by("short") == ()
