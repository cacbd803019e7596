"""A promotion is held to the plan that a programme wrote: what may change, what has to be seen, what it may cost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inference.bundles.deciding import NotDone
from inference.bundles.registry import LOG, read_registry
from models.__main__ import main
from models.change_plan import changes, plan_file, read_plan
from models.registry import promote, read_manifest, set_shadow
from tests.conftest import ROOT
from tests.models.versions import for_triage, shifted, shipped, version
from tests.models.visits import Made, database

SIGNED = {"who": "the screening lead", "why": "a test"}
SHIPPED = (ROOT / "models" / "pccp.toml").read_text("utf-8")
BOTH, NEWLY, NO_LONGER, NEITHER = (0.9, 0.8), (0.3, 0.4), (0.6, 0.1), (0.2, 0.05)


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    folder = tmp_path / "bundles"
    folder.mkdir()
    shipped(folder, "lung", edit=for_triage)
    promote(folder, "lung", "1.0.0", **SIGNED)
    version(folder, "lung", "1.1.0", shifted(-1.0))
    set_shadow(folder, "lung", "1.1.0", **SIGNED)
    return folder


def write(bundles: Path, *changes: tuple[str, str]) -> None:
    plan = SHIPPED
    for old, new in changes:
        assert old in plan
        plan = plan.replace(old, new)
    plan_file(bundles, "lung").write_text(plan, encoding="utf-8")


def calm(n: int = 400) -> list[Made]:
    """Visits on which both versions agree."""
    return [*[Made(*BOTH)] * (n // 4), *[Made(*NEITHER)] * (n - n // 4)]


def refused(bundles: Path, address: str | None) -> tuple[str, ...]:
    with pytest.raises(NotDone) as refusal:
        promote(bundles, "lung", "1.1.0", **SIGNED, database=address)
    assert not refusal.value.final
    assert read_registry(bundles).in_service("lung") == "1.0.0"
    return refusal.value.reasons


def test_the_shipped_example_is_a_plan(bundles: Path) -> None:
    write(bundles)
    read = read_plan(bundles, "lung")
    assert read is not None
    assert read[0].protocol.visits == 300
    assert read_plan(bundles, "cardiac") is None


def test_a_promotion_within_its_plan_is_logged_with_it(tmp_path: Path, bundles: Path) -> None:
    write(bundles)
    entry, not_compared = promote(bundles, "lung", "1.1.0", **SIGNED, database=database(tmp_path, calm()))
    digest = read_plan(bundles, "lung")[1]  # type: ignore[index]
    assert entry.why == f"a test (held to the plan {digest[:12]} on 400 visits)"
    assert "pneumonia (1-5): no recent visit was decided by both versions" in not_compared
    assert json.loads((bundles / LOG).read_text().splitlines()[-1])["why"] == entry.why


def test_without_a_plan_it_is_said(bundles: Path) -> None:
    _, not_compared = promote(bundles, "lung", "1.1.0", **SIGNED)
    assert "lung has no plan of its changes (lung.pccp.toml)" in not_compared


def test_more_recalls_than_the_programme_can_bear_are_refused(tmp_path: Path, bundles: Path) -> None:
    write(bundles)
    made = [*calm(380), *[Made(*NEWLY)] * 20]
    (reason, *groups) = refused(bundles, database(tmp_path, made))
    assert reason.startswith("abnormal: newly recalled: 50.0 (")
    assert reason.endswith(" per 1,000 of 400 visits, allowed 40.0")
    assert groups == [], "no group shows that it is beyond"


def test_the_interval_has_to_lie_within_the_limit(tmp_path: Path, bundles: Path) -> None:
    write(bundles)
    # 12 of 400 are 30 per 1,000, and up to 52: not shown to be within 40.
    (reason,) = refused(bundles, database(tmp_path, [*calm(388), *[Made(*NEWLY)] * 12]))
    assert "newly recalled: 30.0 (17.2 to 51.7)" in reason


def test_a_group_that_is_harmed_refuses_what_the_whole_would_bear(tmp_path: Path, bundles: Path) -> None:
    write(bundles)
    made = [*calm(2000), *[Made(*NO_LONGER, sex="male", age=30)] * 20, *[Made(*NEITHER, sex="male", age=30)] * 40]
    reasons = refused(bundles, database(tmp_path, made))
    assert [reason.split(":")[0] for reason in reasons] == ["abnormal, sex male", "abnormal, age 18-40"]
    assert all("no longer recalled: 333.3 (" in reason for reason in reasons)


def test_a_group_with_few_visits_is_not_judged(tmp_path: Path, bundles: Path) -> None:
    write(bundles)
    made = [*calm(2000), *[Made(*NO_LONGER, sex="male")] * 20]
    promote(bundles, "lung", "1.1.0", **SIGNED, database=database(tmp_path, made))


def test_lost_cases_are_refused_where_the_plan_asks_for_known_ones(tmp_path: Path, bundles: Path) -> None:
    write(
        bundles,
        ("known_cases = 0", "known_cases = 30"),
        ("no_longer_recalled_per_1000 = 20", "no_longer_recalled_per_1000 = 900"),
    )
    address = database(tmp_path, [*calm(), *[Made(*BOTH, outcome="confirmed")] * 10])
    assert refused(bundles, address) == ("abnormal: 10 known cases; the plan asks for 30",)
    (tmp_path / "sangloc.db").unlink()
    made = [*calm(), *[Made(*BOTH, outcome="confirmed")] * 20, *[Made(*NO_LONGER, outcome="confirmed")] * 20]
    reasons = refused(bundles, database(tmp_path, made))
    assert reasons[0].startswith("abnormal: sensitivity lost: 0.500 (")


def test_limits_of_one_finding_stand_in_the_place_of_all(tmp_path: Path, bundles: Path) -> None:
    own = "[findings.abnormal]\nnewly_recalled_per_1000 = 100\nno_longer_recalled_per_1000 = 20\nsensitivity_loss = 1\n"
    write(bundles, ("# [findings.pneumonia]", f"{own}# [findings.pneumonia]"))
    promote(bundles, "lung", "1.1.0", **SIGNED, database=database(tmp_path, [*calm(380), *[Made(*NEWLY)] * 20]))


def test_limits_of_a_finding_that_nobody_offers_are_not_passed_over(tmp_path: Path, bundles: Path) -> None:
    own = "[findings.abnormall]\nnewly_recalled_per_1000 = 1\nno_longer_recalled_per_1000 = 1\nsensitivity_loss = 0\n"
    write(bundles, ("# [findings.pneumonia]", f"{own}# [findings.pneumonia]"))
    assert refused(bundles, database(tmp_path, calm())) == (
        "the plan has limits for abnormall, which neither version offers",
    )


def test_too_few_visits_and_no_database(tmp_path: Path, bundles: Path) -> None:
    write(bundles)
    (reason,) = refused(bundles, None)
    assert "the plan asks for 300 visits of the last 30 days" in reason
    (reason,) = refused(bundles, database(tmp_path, calm(299)))
    assert reason.startswith("299 visits of the last 30 days were answered by lung 1.0.0 and by 1.1.0 in the shadow")
    assert any("cannot be read" in each for each in refused(bundles, f"sqlite:///{tmp_path}/no/where.db"))


def test_what_may_not_change(tmp_path: Path, bundles: Path) -> None:
    write(bundles, ('"weights", "calibration", "thresholds"', '"weights"'))
    (reason,) = refused(bundles, database(tmp_path, calm()))
    assert reason.startswith("beyond the plan: calibration change, and may not (pneumonia (1-5), abnormal (18-85)")


def edited(**members: Any):
    def edit(manifest: dict[str, Any]) -> None:
        manifest["findings"][1] |= members

    return edit


@pytest.mark.parametrize(
    ("edit", "change"),
    [
        (edited(use="information", use_because="x"), "findings"),
        (edited(age_years=[20, 86]), "findings"),
        (edited(decides_at="balanced"), "thresholds"),
        (lambda m: m["thresholds"].update(far=99.0), "thresholds"),
        (edited(digits=1), "findings"),
        (lambda m: m.update(purpose="for something else"), "purpose"),
        (lambda m: m["findings"].pop(), "findings"),
        (lambda m: m["input"].update(least_px=None), "input"),
        (lambda m: m["weights"].update(sha256="0" * 64), "weights"),
        (lambda m: m["limits"].append("a further limit"), None),
    ],
)
def test_changes_are_named(tmp_path: Path, edit: Any, change: str | None) -> None:
    shipped(tmp_path, "lung", edit=for_triage)
    version(tmp_path, "lung", "1.1.0", edit)
    registry = read_registry(tmp_path)
    found = changes(read_manifest(registry, "lung", "1.0.0"), read_manifest(registry, "lung", "1.1.0"))
    assert list(found) == ([] if change is None else [change])


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("visits = 300", "visits = 0", "protocol.visits"),
        ("visits = 300", "visitors = 300", "protocol"),
        ('"weights", ', '"weigths", ', "may_change"),
        ("sensitivity_loss = 0.1", "sensitivity_loss = 10", "limits.sensitivity_loss"),
        ("[limits]", "[limits", "is not TOML"),
        ('name = "lung"', 'name = "cardiac"', "it is the plan of cardiac"),
    ],
)
def test_a_plan_that_cannot_be_read_stops_a_promotion(bundles: Path, old: str, new: str, said: str) -> None:
    write(bundles, (old, new))
    with pytest.raises(NotDone, match=said):
        promote(bundles, "lung", "1.1.0", **SIGNED, override="it is urgent")


def test_an_override_goes_past_the_plan_and_the_log_keeps_what_it_went_past(tmp_path: Path, bundles: Path) -> None:
    write(bundles)
    address = database(tmp_path, [*calm(380), *[Made(*NEWLY)] * 20])
    entry, _ = promote(bundles, "lung", "1.1.0", **SIGNED, database=address, override="the clinics agreed")
    assert entry.override == "the clinics agreed"
    assert entry.overridden[0].startswith("abnormal: newly recalled")


def test_the_command_shows_what_would_have_happened_and_refuses(
    tmp_path: Path, bundles: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(bundles)
    database(tmp_path, [*calm(380), *[Made(*NEWLY)] * 20])
    given = [
        "--bundles",
        str(bundles),
        "promote",
        "lung",
        "1.1.0",
        "--who",
        "w",
        "--why",
        "y",
        "--data-dir",
        str(tmp_path),
    ]
    assert main(given) == 1
    said = capsys.readouterr()
    assert "400 visits of the last 30 days" in said.out
    assert "newly, per 1,000" in said.out
    assert "at equal recalls" in said.out
    assert "abnormal: newly recalled: 50.0" in said.err
    assert main([*given, "--override", "the clinics agreed"]) == 0
    assert "Overridden: abnormal: newly recalled" in capsys.readouterr().out
