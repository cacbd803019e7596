"""A site's acceptance test decides what each finding may be used for there, and nowhere else."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_specs.visit.context import Context
from inference.bundles.acceptance import at_site
from inference.bundles.loading import load_version
from inference.bundles.registry import SiteVerdict, finding_key, read_registry
from inference.engine import Engine, PostedInput
from models.registry import accept
from tests.conftest import ROOT
from tests.readers import shared_readers

BUNDLES = ROOT / "models" / "bundles"
CONTEXT = Context.model_validate({"person": {"age_years": 54, "sex": "female"}})
FILM = [PostedInput(0, "image", "f.jpg", (ROOT / "samples" / "film-abnormal.jpg").read_bytes())]


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """The shipped bundles in service, with a log of their own."""
    registry = read_registry(BUNDLES)
    for name in registry.versions:
        folder = registry.folder_of(name, registry.in_service(name) or "")
        shutil.copytree(folder, tmp_path / folder.name)
    return tmp_path


def accepted(bundles: Path, verdicts: dict[str, SiteVerdict], site: str = "north") -> None:
    version = read_registry(bundles).in_service("lung")
    assert version is not None
    accept(bundles, "lung", version, site=site, verdicts=verdicts, who="tester", why="a test", thresholds={}, cases="…")


def verdicts_for(bundles: Path, **verdicts: SiteVerdict) -> dict[str, SiteVerdict]:
    """By name, for adults; the other findings are too few to say."""
    registry = read_registry(bundles)
    manifest = load_version(bundles, "lung", registry.in_service("lung") or "").manifest
    adults = {finding_key(s): s.name for s in manifest.findings if s.age_years and s.age_years[0] >= 18}
    return {finding_key(s): verdicts.get(adults.get(finding_key(s), ""), "too few to say") for s in manifest.findings}


def test_each_verdict_changes_its_finding_at_its_site_only(bundles: Path) -> None:
    accepted(bundles, verdicts_for(bundles, abnormal="information only", edema="not here", effusion="fit for triage"))
    registry = read_registry(bundles)
    bundle = load_version(bundles, "lung", registry.in_service("lung") or "")
    there, left_out = at_site(bundle, registry, "north")
    use = {finding_key(spec): spec.use for spec in there.manifest.findings}
    assert left_out == ("edema",)
    assert use == {
        "pneumonia (1-5)": "triage",
        "abnormal (18-85)": "information",
        "effusion (18-85)": "triage",
    }
    elsewhere, nothing = at_site(bundle, registry, "south")
    assert elsewhere is bundle
    assert nothing == ()


async def test_a_visit_of_the_site_is_told_so(bundles: Path) -> None:
    accepted(bundles, verdicts_for(bundles, abnormal="fit for triage", edema="not here"))
    engine = Engine(bundles, readers=shared_readers(), coverage=None)
    try:
        north = (await engine.assess(FILM, CONTEXT, "north")).organs["lung"]
        south = (await engine.assess(FILM, CONTEXT, "south")).organs["lung"]
    finally:
        await engine.aclose()
    found = {f.name: (f.positive, f.use) for f in north.findings}
    assert found == {"abnormal": (True, "triage"), "effusion": (None, "information")}
    assert [(p.code, p.found) for p in north.reasons] == [("information_only", "effusion"), ("not_here", "edema")]
    assert {f.name: f.use for f in south.findings} == dict.fromkeys(("abnormal", "effusion", "edema"), "information")
    assert [(p.code, p.found) for p in south.reasons] == [("information_only", "abnormal, effusion, edema")]


async def test_where_no_finding_is_left_the_organ_is_not_assessed(bundles: Path) -> None:
    all_out: dict[str, SiteVerdict] = dict.fromkeys(verdicts_for(bundles), "not here")
    accepted(bundles, all_out)
    engine = Engine(bundles, readers=shared_readers())
    try:
        lung = (await engine.assess(FILM, CONTEXT, "north")).organs["lung"]
    finally:
        await engine.aclose()
    assert (lung.status, [p.code for p in lung.reasons]) == ("not_assessed", ["inputs_refused", "not_here"])


async def test_a_threshold_of_the_sites_own_decides_there(bundles: Path) -> None:
    said = verdicts_for(bundles, abnormal="fit for triage")
    version = read_registry(bundles).in_service("lung") or ""
    accept(bundles, "lung", version, "north", said, who="t", why="t", thresholds={"abnormal (18-85)": 0.999})
    engine = Engine(bundles, readers=shared_readers())
    try:
        north = (await engine.assess(FILM, CONTEXT, "north")).organs["lung"]
    finally:
        await engine.aclose()
    found = next(f for f in north.findings if f.name == "abnormal")
    assert found.operating_point is not None
    assert (found.positive, found.operating_point.name, found.operating_point.threshold) == (False, "site", 0.999)
