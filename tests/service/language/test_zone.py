"""Times in the zone of those who read them, named beside the time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from service.language.zone import day_and_time, machine_zone, zone_named
from service.settings import BadSettings, read_settings

AT = datetime(2026, 11, 29, 18, 5, tzinfo=UTC)


def test_a_time_is_that_of_its_zone_and_names_it() -> None:
    assert day_and_time(AT, zone_named("Asia/Ho_Chi_Minh")) == "2026-11-30 01:05 Asia/Ho_Chi_Minh"
    assert day_and_time(AT) == day_and_time(AT, zone_named("UTC")) == "2026-11-29 18:05 UTC"


def test_the_machines_zone_is_found_or_it_is_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TZ", raising=False)
    assert machine_zone(tmp_path / "none") == "UTC"
    link = tmp_path / "localtime"
    link.symlink_to("/usr/share/zoneinfo/Europe/Paris")
    assert machine_zone(link) == "Europe/Paris"
    monkeypatch.setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")  # a rule, which has no name
    assert machine_zone(link) == "Europe/Paris"
    monkeypatch.setenv("TZ", "Asia/Ho_Chi_Minh")
    assert machine_zone(link) == "Asia/Ho_Chi_Minh"


@pytest.mark.parametrize("name", ["Saigon", "../etc/passwd", "UTC+7"])
def test_a_zone_that_does_not_exist_stops_the_start(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SANGLOC_TIME_ZONE", name)
    with pytest.raises(BadSettings, match="SANGLOC_TIME_ZONE"):
        read_settings()
