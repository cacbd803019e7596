"""The table of a programme: how prevalences are written, and that nothing has a default price."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic_core import PydanticCustomError

from data_specs.planning.programme import BadProgramme, Prevalence, prevalences, read_programme

TABLE = """
[costs]
currency = "VND"
screening = 60_000
recall_visit = 150_000
confirmatory_test = 350_000
tests_per_recall = 1
treatment_start = 900_000

[populations.villages]
people = 8000
prevalence = [0.003, "24/8000", "0.002-0.02"]

[populations."over 60"]
people = 2000
prevalence = "0.01"
cases = "age 61-75"
"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    return tmp_path / "planning.toml"


def test_a_table_is_read(table: Path) -> None:
    table.write_text(TABLE)
    read = read_programme(table)
    assert read.costs.treatment_start == 900_000
    villages = read.populations["villages"]
    assert villages.prevalence[:2] == (Prevalence(0.003), Prevalence(0.003, of=8000))
    assert [each.share for each in villages.prevalence[2:]] == pytest.approx([0.002, np.sqrt(0.002 * 0.02), 0.02])
    assert read.populations["over 60"].cases == "age 61-75"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("screening = 60_000\n", "", "costs.screening: Field required"),
        ("treatment_start = 900_000\n", "", "costs.treatment_start"),
        ('currency = "VND"\n', "", "costs.currency"),
        ('"VND"', '"dong"', "costs.currency"),
        ("60_000", "-1", "costs.screening"),
        ("60_000", "nan", "costs.screening"),
        ("60_000", "inf", "costs.screening"),
        ("people = 8000", "people = 0", "populations.villages.people"),
        ("people = 8000", "persons = 8000", "populations.villages"),
        ("0.003,", "0,", "populations.villages.prevalence"),
        ("0.003,", "3,", "populations.villages.prevalence"),
        ("0.003,", '"0.3 %",', "populations.villages.prevalence"),
        ("24/8000", "0/8000", "populations.villages.prevalence"),
        ("24/8000", "9000/8000", "populations.villages.prevalence"),
        ("24/8000", "1/0", "populations.villages.prevalence"),
        ("0.002-0.02", "0.02-0.002", "populations.villages.prevalence"),
        ('[0.003, "24/8000", "0.002-0.02"]', "[]", "populations.villages.prevalence"),
        ('"0.01"', '"' + ";".join(["0.01"] * 11) + '"', "prevalence"),
        ("[costs]", "[costs", "is not TOML"),
        ("[populations.villages]\npeople", "[other]\npeople", "other"),
    ],
)
def test_what_cannot_be_planned_with_is_refused_with_its_place(table: Path, old: str, new: str, said: str) -> None:
    assert old in TABLE
    table.write_text(TABLE.replace(old, new, 1))
    with pytest.raises(BadProgramme) as refusal:
        read_programme(table)
    assert said in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_file_that_is_not_there_or_too_large(table: Path) -> None:
    with pytest.raises(BadProgramme, match="cannot be read"):
        read_programme(table)
    table.write_text(TABLE + "#" * 1_000_001)
    with pytest.raises(BadProgramme, match="at most"):
        read_programme(table)


def test_a_prevalence_is_written_with_a_point_or_a_comma() -> None:
    assert prevalences("0,003; 24/8000") == (Prevalence(0.003), Prevalence(0.003, of=8000))
    assert prevalences(" .5 ") == (Prevalence(0.5),)
    for wrong in ("", ";", "x", "٠.٣", "1e-3", "0.1/0.2", "0.1-0.2-0.3"):
        with pytest.raises(PydanticCustomError):
            prevalences(wrong)


def test_a_counted_prevalence_is_drawn_around_its_share() -> None:
    rng = np.random.default_rng(1)
    drawn = Prevalence(0.03, of=1000).drawn(rng, 20_000)
    assert drawn.mean() == pytest.approx(0.03, abs=0.001)
    assert drawn.std() == pytest.approx(np.sqrt(0.03 * 0.97 / 1000), rel=0.05)
    assert set(Prevalence(0.03).drawn(rng, 5)) == {0.03}
