"""A site's acceptance in the log: it is kept, decides nothing about service, and an earlier server passes over it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import pytest
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from data_specs.bundle import BundleManifest
from inference.bundles.deciding import NotDone
from inference.bundles.registry import LOG, SiteVerdict, finding_key, read_registry
from models.__main__ import main
from models.registry import accept, promote, rollback, set_shadow
from tests.models.versions import BUNDLES, shipped, version

SIGNED = {"who": "the screening lead", "why": "a test"}
VERDICTS: dict[str, SiteVerdict] = {"incident_ckd": "fit for triage", "egfr": "too few to say"}


class EarlierEntry(BaseModel):
    """A line of the log as servers of before acceptances read it."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    at: AwareDatetime
    action: Literal["promote", "rollback", "shadow"]
    name: str
    from_version: str | None = Field(alias="from")
    to_version: str | None = Field(alias="to")
    sha256: str | None = None
    who: str
    why: str
    override: str | None = None
    overridden: tuple[str, ...] = ()


@pytest.fixture
def kidney(tmp_path: Path) -> Path:
    shipped(tmp_path, "kidney")
    version(tmp_path, "kidney", "1.1.0")
    return tmp_path


def test_what_a_site_accepts_holds_for_that_version_and_that_site(kidney: Path) -> None:
    accept(kidney, "kidney", "1.1.0", "Bac Ninh", VERDICTS, thresholds={"incident_ckd": 0.3}, cases="ab", **SIGNED)
    registry = read_registry(kidney)
    assert registry.accepted("kidney", "1.1.0", "Bac Ninh") == VERDICTS
    assert registry.accepted("kidney", "1.0.0", "Bac Ninh") == {}
    assert registry.accepted("kidney", "1.1.0", "Hue") == {}
    assert registry.damaged == ()
    entry = registry.acceptance("kidney", "1.1.0", "Bac Ninh")
    assert entry is not None
    assert (entry.thresholds, entry.cases) == ({"incident_ckd": 0.3}, "ab")
    accept(kidney, "kidney", "1.1.0", "Bac Ninh", {"incident_ckd": "not here"}, **SIGNED)
    assert read_registry(kidney).accepted("kidney", "1.1.0", "Bac Ninh") == {"incident_ckd": "not here"}


def test_an_acceptance_puts_nothing_in_service_and_ends_no_shadow(kidney: Path) -> None:
    accept(kidney, "kidney", "1.0.0", "Hue", VERDICTS, **SIGNED)
    registry = read_registry(kidney)
    assert (registry.in_service("kidney"), registry.last("kidney")) == ("1.1.0", None)
    rollback(kidney, "kidney", **SIGNED)
    set_shadow(kidney, "kidney", "1.1.0", **SIGNED)
    accept(kidney, "kidney", "1.1.0", "Hue", VERDICTS, **SIGNED)
    registry = read_registry(kidney)
    assert (registry.in_service("kidney"), registry.shadow("kidney")) == ("1.0.0", "1.1.0")
    assert registry.last("kidney").action == "rollback"  # type: ignore[union-attr]


def test_a_server_of_before_reads_all_other_lines_and_none_of_these(kidney: Path) -> None:
    promote(kidney, "kidney", "1.0.0", **SIGNED)
    accept(kidney, "kidney", "1.0.0", "Hue", VERDICTS, **SIGNED)
    promote(kidney, "kidney", "1.1.0", **SIGNED)
    lines = (kidney / LOG).read_text().splitlines()
    read = []
    for line in lines:
        try:
            read.append(EarlierEntry.model_validate_json(line).to_version)
        except ValidationError:
            read.append("left out")
    assert read == ["1.0.0", "left out", "1.1.0"]


@pytest.mark.parametrize(
    ("changed", "value"), [("site", None), ("verdicts", {}), ("verdicts", {"egfr": "perhaps"}), ("to", None)]
)
def test_half_an_acceptance_is_none(kidney: Path, changed: str, value: object) -> None:
    accept(kidney, "kidney", "1.0.0", "Hue", VERDICTS, **SIGNED)
    line = json.loads((kidney / LOG).read_text())
    (kidney / LOG).write_text(json.dumps(line | {changed: value}) + "\n")
    registry = read_registry(kidney)
    assert registry.damaged == (1,)
    assert registry.accepted("kidney", "1.0.0", "Hue") == {}


def test_what_cannot_be_served_or_names_no_site_is_not_accepted(kidney: Path) -> None:
    for site, verdicts, number, said in (
        (" ", VERDICTS, "1.0.0", "names a site"),
        ("Hue", {}, "1.0.0", "names a site"),
        ("Hue", VERDICTS, "9.0.0", "is not there"),
    ):
        with pytest.raises(NotDone, match=said):
            accept(kidney, "kidney", number, site, verdicts, **SIGNED)  # type: ignore[arg-type]
    assert not read_registry(kidney).entries


def test_the_history_of_a_name_shows_who_accepted_it_where(kidney: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accept(kidney, "kidney", "1.1.0", "Hue", VERDICTS, **SIGNED)
    assert main(["--bundles", str(kidney), "show", "kidney"]) == 0
    shown = capsys.readouterr().out
    assert "accept by Hue" in shown
    assert "incident_ckd: fit for triage" in shown


def test_two_findings_of_one_name_have_two_keys() -> None:
    manifest = BundleManifest.model_validate_json((BUNDLES / "lung-1.2.0" / "screening.json").read_bytes())
    keys = [finding_key(spec) for spec in manifest.findings]
    assert len(set(keys)) == len(keys)
    assert {"pneumonia (1-5)", "pneumonia (18-85)"} <= set(keys)
