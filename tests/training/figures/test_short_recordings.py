"""Cut recordings beside whole ones: which parts are taken, and what the table says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from data_specs.bundle import MeasuredTable, TrainingData
from inference.bundles.loading import Bundle, load_bundle
from tests.conftest import ROOT
from tests.inference.ecg.synthesis import ecg
from training.cohorts.cohort import Cohort
from training.figures import short_recordings
from training.figures.short_recordings import cuts, logits_of, measure_cuts


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle(ROOT / "models" / "bundles" / "cardiac-1.0.1")


def made(n: int) -> np.ndarray:
    """Recordings ``(n, 12, 1000)`` of different rates, the second half with a late T wave."""
    found = [ecg(rate=55 + 2 * i, qt_ms=390 if i < n // 2 else 430, fs_hz=100.0, seed=i).samples for i in range(n)]
    x = np.stack(found)
    return ((x - x.mean(axis=2, keepdims=True)) / x.std(axis=2, keepdims=True)).astype(np.float32)


def cohort(bundle: Bundle, n: int = 16) -> Cohort:
    x = made(n)
    logits = logits_of(bundle, x)
    findings = bundle.manifest.findings
    labels = {f.name: (logits[:, f.column] > np.median(logits[:, f.column])).astype(float) for f in findings}
    labels["atrial_fibrillation"][:2] = np.nan
    return Cohort(
        name="made",
        x=x,
        labels=pd.DataFrame(labels),
        person=np.array([f"p{i // 2}" for i in range(n)]),
        part=np.full(n, "validation"),
        subgroups=pd.DataFrame(index=range(n)),
        source=TrainingData(name="made", citation="", licence="", n_persons=n, n_items=n),
        age_years=(18.0, 96.0),
    )


def test_start_middle_and_end_are_taken() -> None:
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 12)
    assert [part[0, 0].tolist() for part in cuts(x, 4)] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]


def test_the_table_has_each_finding_at_each_length(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = short_recordings.bootstrap
    monkeypatch.setattr(short_recordings, "bootstrap", lambda *a, **k: draws(*a, **k, draws=20))
    table = measure_cuts(bundle, cohort(bundle), seconds=(5.0,))
    assert [row[:2] for row in table.rows] == [
        (f.name, length) for f in bundle.manifest.findings for length in ("5 s", "10 s")
    ]
    assert "fold" not in table.text
    for cut, whole in zip(table.rows[::2], table.rows[1::2], strict=True):
        assert whole[2].startswith("1.000")  # the labels are the network's own on whole recordings
        assert whole[3] == "0.000 (0.000 to 0.000)"
        assert whole[6] == "+0.00"
        assert cut[2] <= whole[2]
        assert cut[7].split()[0] == str(3 * int(whole[7].split()[0]))
    assert table.rows[-1][7].startswith("14 ")  # two are not known


def test_a_row_without_a_cell_is_refused() -> None:
    with pytest.raises(ValueError, match="needs 2 cells"):
        MeasuredTable(title="t", text="", columns=("a", "b"), rows=(("1",),))
