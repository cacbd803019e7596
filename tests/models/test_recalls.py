"""What would have happened to recent visits: counted by hand, by group, from a real database."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inference.bundles.registry import Registry, SiteVerdict, read_registry
from models.__main__ import main
from models.recalls import paired_difference, recalls, rows, scores, thresholds, wilson
from models.recent import Recent, recent
from models.registry import accept, promote, read_manifest, set_shadow
from tests.models.versions import for_triage, shifted, shipped, version
from tests.models.visits import Made, database

SIGNED = {"who": "the screening lead", "why": "a test"}


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    folder = tmp_path / "bundles"
    folder.mkdir()
    shipped(folder, "lung", edit=for_triage)
    promote(folder, "lung", "1.0.0", **SIGNED)
    version(folder, "lung", "1.1.0", shifted(-1.0))
    set_shadow(folder, "lung", "1.1.0", **SIGNED)
    return folder


def read(address: str, bundles: Path, days: int = 30, site: str | None = None, new: str = "1.1.0") -> Recent:
    registry: Registry = read_registry(bundles)
    manifest = read_manifest(registry, "lung", new)
    return recent(address, registry, manifest, "1.0.0", days, site=site)


# By probability: 0.5 and more is recalled by the version in service, 0.2 and more by the one in the shadow.
BOTH, NEWLY, NO_LONGER, NEITHER = (0.9, 0.8), (0.3, 0.4), (0.6, 0.1), (0.2, 0.05)


def test_who_would_newly_be_recalled_and_who_no_longer(tmp_path: Path, bundles: Path) -> None:
    address = database(
        tmp_path,
        [
            *[Made(*BOTH, outcome="confirmed")] * 4,
            *[Made(*NEWLY, outcome="confirmed", sex="male")] * 2,
            Made(*NEWLY, outcome="refuted"),
            *[Made(*NO_LONGER, outcome="confirmed", site="xã Hai", age=70)] * 1,
            *[Made(*NEITHER, sex=None, age=None)] * 10,
            Made(*NEITHER, is_open=True),
            Made(*BOTH, days_ago=31),
        ],
    )
    found = read(address, bundles)
    assert (found.visits, found.findings) == (19, ("abnormal",))
    whole, *groups = recalls(found, "abnormal")
    assert (whole.both, whole.newly, whole.no_longer, whole.neither, whole.open) == (4, 3, 1, 10, 1)
    assert (whole.cases_both, whole.cases_newly, whole.cases_no_longer, whole.cases_neither) == (4, 2, 1, 0)
    assert whole.newly_recalled == wilson(3, 18)
    loss = whole.sensitivity_loss
    assert loss is not None
    assert loss.value == pytest.approx(5 / 7 - 6 / 7)
    by_name = {each.group: each for each in groups}
    assert set(by_name) == {"site xã Một", "site xã Hai", "sex female", "sex male", "age 41-60", "age 61-75"}
    assert (by_name["sex male"].newly, by_name["sex male"].decided) == (2, 2)
    assert (by_name["age 61-75"].no_longer, by_name["site xã Hai"].decided) == (1, 1)
    assert groups[0].decided == max(each.decided for each in groups)
    assert read(address, bundles, days=60).visits == 20
    assert read(address, bundles, site="xã Hai").visits == 1


def test_visits_that_another_version_assessed_are_left_out(tmp_path: Path, bundles: Path) -> None:
    assert read(database(tmp_path, [Made(*BOTH)] * 3, served="0.9.0"), bundles).visits == 0


def test_of_a_finding_that_reassures_those_who_are_not_normal_are_the_cases(tmp_path: Path, bundles: Path) -> None:
    normal = [
        Made(*BOTH, finding="normal_ecg", outcome="confirmed"),
        Made(*NEITHER, finding="normal_ecg", outcome="refuted"),
    ]

    def of_normal(manifest: dict[str, Any]) -> None:
        manifest["findings"][1]["name"] = "normal_ecg"

    version(bundles, "lung", "1.2.0", of_normal)
    address = database(tmp_path, normal, shadow="1.2.0")
    whole = recalls(read(address, bundles, new="1.2.0"), "normal_ecg")[0]
    assert (whole.both, whole.neither, whole.cases_both, whole.cases) == (1, 1, 1, 1)


def test_a_sites_own_threshold_counts_for_its_visits(tmp_path: Path, bundles: Path) -> None:
    address = database(tmp_path, [Made(*BOTH), Made(*BOTH, site="xã Hai"), Made(*NEWLY, site="xã Hai")])
    verdicts: dict[str, SiteVerdict] = {"abnormal (18-85)": "fit for triage"}
    accept(bundles, "lung", "1.1.0", "xã Hai", verdicts, thresholds={"abnormal (18-85)": 0.5}, **SIGNED)
    by_name = {each.group: each for each in recalls(read(address, bundles), "abnormal")}
    assert (by_name["site xã Hai"].both, by_name["site xã Hai"].neither) == (1, 1), "0.4 is below the site's 0.5"
    assert by_name["site xã Một"].both == 1


@pytest.mark.parametrize("verdict", ["information only", "not here"])
def test_where_a_site_will_not_decide_by_the_new_version_its_visits_say_nothing(
    tmp_path: Path, bundles: Path, verdict: SiteVerdict
) -> None:
    address = database(tmp_path, [Made(*BOTH), Made(*NO_LONGER, site="xã Hai")])
    accept(bundles, "lung", "1.1.0", "xã Hai", {"abnormal (18-85)": verdict}, **SIGNED)
    found = read(address, bundles)
    assert found.visits == 2
    assert [each.groups[0] for each in found.answers] == ["site xã Một"]


def test_the_command_shows_and_writes_no_identifier(
    tmp_path: Path, bundles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = np.random.default_rng(1)
    made = [
        Made(float(p), float(p) / 2, outcome="confirmed" if p > 0.6 else None, person=f"CCCD-{i // 2}")
        for i, p in enumerate(rng.random(80))
    ]
    address, out = database(tmp_path, made), tmp_path / "scores.csv"
    given = ["--bundles", str(bundles), "recalls", "lung", "--database", address, "--scores", str(out)]
    assert main(given) == 0
    said = capsys.readouterr().out
    assert "lung 1.0.0 in service, 1.1.0 in the shadow: 80 visits of the last 30 days" in said
    assert "threshold at equal recalls" in said
    read_back = list(csv.DictReader(out.read_text().splitlines()))
    assert len(read_back) == 80
    assert len({row["person"] for row in read_back}) == 40
    assert {row["outcome"] for row in read_back} == {"confirmed", ""}
    assert "CCCD" not in out.read_text() + said
    assert main([*given[:4], "--database", f"sqlite:///{tmp_path}/none.db"]) == 2


def test_thresholds_follow_probabilities_that_mean_something_else(tmp_path: Path, bundles: Path) -> None:
    made = [Made(i / 100, (i / 100) ** 2) for i in range(100)]
    ((finding, n, equal_recalls, equal_sensitivity),) = thresholds(read(database(tmp_path, made), bundles))
    assert (finding, n, equal_sensitivity) == ("abnormal", "100", "too few to say")
    assert equal_recalls.startswith(f"{(0.49**2 + 0.5**2) / 2:.6f} (")
    assert equal_recalls.endswith("; 50 of 100)")


def test_what_if_it_decided_at_another_threshold(
    tmp_path: Path, bundles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = [Made(i / 100, (i / 100) ** 2) for i in range(100)]
    given = ["--bundles", str(bundles), "recalls", "lung", "--database", database(tmp_path, made)]

    def whole(*more: str) -> list[str]:
        assert main([*given, *more]) == 0
        return next(line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("abnormal  all"))

    # From 0.2, its own threshold, 0.45 and more are recalled: five more than from 0.5 by the version in service.
    assert whole()[2:5] == ["100", "50", "55"]
    assert whole("--threshold", "abnormal=0.245")[2:5] == ["100", "50", "50"]
    for wrong in (["--threshold", "abnormal=1.5"], ["--days", "0"], ["--days", "9999999999"], ["--days", "x"]):
        with pytest.raises(SystemExit):
            main([*given, *wrong])
    assert main(["--bundles", str(bundles), "recalls", "lung", "9.9.9", "--data-dir", str(tmp_path)]) == 2


def test_no_answer_no_rows(tmp_path: Path, bundles: Path) -> None:
    found = read(database(tmp_path, []), bundles)
    assert (found.visits, rows(found), thresholds(found)) == (0, [], [])
    assert list(csv.DictReader(io.StringIO(scores(found)))) == []


def test_a_paired_difference_computed_step_by_step() -> None:
    # 48 and 38 of 50. Wilson: 0.8654 to 0.9890 and 0.6259 to 0.8570; phi = (0 - 24) / sqrt(48 * 2 * 38 * 12).
    found = paired_difference(36, 12, 2, 0)
    assert (found.value, found.low, found.high) == pytest.approx((0.20, 0.0569, 0.3404), abs=5e-4)


def test_a_paired_difference_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    cells = np.array([0.75, 0.1, 0.05, 0.1])
    drawn = rng.multinomial(60, cells, 500)
    found = [paired_difference(*map(int, each)) for each in drawn]
    covered = np.mean([each.low <= 0.05 <= each.high for each in found])
    assert 0.92 <= covered <= 0.985, covered
