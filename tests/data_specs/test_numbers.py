"""Numbers written as text: read where they mean one thing, refused by their name where not."""

from __future__ import annotations

import pytest

from data_specs.numbers import MAX_SHOWN, number
from data_specs.problems import Refused


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1.0),
        ("-0.5", -0.5),
        ("+2", 2.0),
        ("0,8", 0.8),
        ("-0,8", -0.8),
        ("3.", 3.0),
        ("3,", 3.0),
        (".25", 0.25),
        (",25", 0.25),
        ("1.5e3", 1500.0),
        ("1,5E+3", 1500.0),
        ("1e-300", 1e-300),
        ("5E2", 500.0),
        (" 7 ", 7.0),
        ("\t7\r\n", 7.0),
        ("7\0", 7.0),
        ("9" * 40, 1e40),
        ("0." + "3" * 40, 1 / 3),
        ("." + "3" * 40, 1 / 3),
        ("1e308", 1e308),
    ],
)
def test_a_number_is_read(text: str, value: float) -> None:
    assert number(text, "RescaleSlope") == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", "—"),
        ("   ", "—"),
        ("1.000,5", "1.000,5"),
        ("1,000.5", "1,000.5"),
        ("1,5,2", "1,5,2"),
        ("1.5.2", "1.5.2"),
        ("--1", "--1"),
        ("1-", "1-"),
        ("1 2", "1 2"),
        (".", "."),
        (",", ","),
        ("e5", "e5"),
        ("1e", "1e"),
        ("1e5.5", "1e5.5"),
        ("1e1000", "1e1000"),
        ("1e309", "1e309"),
        ("-1e309", "-1e309"),
        ("nan", "nan"),
        ("inf", "inf"),
        ("-inf", "-inf"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("1\0002", "1?2"),
        ("9" * 41, "9" * 24),
        ("0." + "3" * 41, "0." + "3" * 22),
        ("." + "3" * 41, "." + "3" * 23),
        ("abcdefghijklmnopqrstuvwx", "abcdefghijklmnopqrstuvwx"),
        ("abcdefghijklmnopqrstuvwxy", "abcdefghijklmnopqrstuvwx"),
        ("1\u00a0", "1?"),
    ],
)
def test_anything_else_is_refused_by_its_name(text: str, shown: str) -> None:
    with pytest.raises(Refused) as refused:
        number(text, "RescaleSlope")
    problem = refused.value.problem
    assert (problem.code, problem.severity) == ("unreadable", "reject")
    assert (problem.found, problem.expected) == (f"RescaleSlope {shown}", "RescaleSlope 0.5")
    assert len(problem.found) <= len("RescaleSlope ") + MAX_SHOWN
