"""Further versions of shipped bundles: copies under another number, with what a test changes in their manifest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from inference.bundles.loading import NAMES
from inference.bundles.registry import read_registry
from tests.conftest import ROOT

BUNDLES = ROOT / "models" / "bundles"
Edit = Callable[[dict[str, Any]], None]


def as_shipped(_manifest: dict[str, Any]) -> None:
    """Nothing but the version differs."""


def shipped(folder: Path, *names: str, edit: Edit = as_shipped) -> Path:
    """The shipped bundles of these names (all, without names) as 1.0.0 in ``folder``."""
    registry = read_registry(BUNDLES)
    for name in names or NAMES:
        source = registry.folder_of(name, registry.in_service(name) or "")
        _copy(source, folder / f"{name}-1.0.0", "1.0.0", edit)
    return folder


def version(folder: Path, name: str, number: str, edit: Edit = as_shipped, *, of: str = "1.0.0") -> Path:
    """``NAME-of`` copied to ``NAME-number``."""
    target = folder / f"{name}-{number}"
    _copy(folder / f"{name}-{of}", target, number, edit)
    return target


def _copy(source: Path, target: Path, number: str, edit: Edit) -> None:
    shutil.copytree(source, target)
    manifest = json.loads((target / "screening.json").read_text())
    manifest["version"] = number
    edit(manifest)
    (target / "screening.json").write_text(json.dumps(manifest))


def figures(name: str, *rows: tuple[str, str, str, float, float, float, int, int]) -> Edit:
    """Replace a finding's evaluation: (cohort, subgroup, metric, value, low, high, n, positives) each."""
    evaluation = [
        {"cohort": c, "subgroup": g, "metric": m,
         "estimate": {"value": v, "low": low, "high": high, "n": n, "n_positive": k}}
        for c, g, m, v, low, high, n, k in rows
    ]  # fmt: skip

    def edit(manifest: dict[str, Any]) -> None:
        for finding in manifest["findings"]:
            if finding["name"] == name:
                finding["evaluation"] = evaluation

    return edit


def for_triage(manifest: dict[str, Any]) -> None:
    """Every finding decides, and about everybody: what a bundle with better figures would do."""
    for finding in manifest["findings"]:
        finding |= {"use": "triage", "use_because": "", "undecided": []}


def shifted(by: float) -> Edit:
    """Another answer from the same graph: every Platt intercept moved by ``by`` logits."""

    def edit(manifest: dict[str, Any]) -> None:
        for finding in manifest["findings"]:
            if finding.get("calibration"):
                finding["calibration"] = {"slope": 1.0, "intercept": by}

    return edit
