"""Tables beyond the evaluation: in the manifest and in the card of a new version with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_specs.bundle import MeasuredTable
from inference.bundles.loading import load_bundle
from tests.conftest import ROOT
from training.bundle.measure import add_tables, main

PARENT = ROOT / "models" / "bundles" / "cardiac-1.0.1"
TABLES = [
    MeasuredTable(title="Short recordings", text="What was done.", columns=("finding", "AUROC"), rows=(("a", "0.9"),)),
    MeasuredTable(title="Intervals", text="Against machines.", columns=("interval", "ms"), rows=(("PR", "4 | 5"),)),
]


def test_the_tables_are_in_the_card_and_the_weights_are_the_same(tmp_path: Path) -> None:
    parent = load_bundle(PARENT)
    folder = add_tables(parent, PARENT, TABLES, out=tmp_path, version="1.9.0")
    made = load_bundle(folder).manifest
    assert made.measured == tuple(TABLES)
    assert (made.version, made.weights, made.findings) == ("1.9.0", parent.manifest.weights, parent.manifest.findings)
    assert (made.from_bundle[-1].version, made.agreement) == ("1.0.1", parent.manifest.agreement)
    card = (folder / "docs" / "README.md").read_text(encoding="utf-8")
    assert "## Short recordings\n\nWhat was done.\n\n| finding | AUROC |\n| --- | --- |\n| a | 0.9 |\n" in card
    assert card.index("## Short recordings") < card.index("## Intervals") < card.index("## Trained on")
    assert "4 \\| 5" in card
    again = add_tables(load_bundle(folder), folder, TABLES[:1], out=tmp_path, version="1.9.1")
    assert load_bundle(again).manifest.measured == (TABLES[1], TABLES[0])
    with pytest.raises(FileExistsError):
        add_tables(parent, PARENT, TABLES, out=tmp_path, version="1.9.0")


def test_a_bundle_of_which_nothing_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kidney = ROOT / "models" / "bundles" / "kidney-1.1.0"
    assert main(["--bundle", str(kidney), "--version", "9.0.0", "--out", str(tmp_path)]) == 2
    assert "kidney: nothing is measured" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
