"""Which answers are against the contract."""

from __future__ import annotations

import pytest

from benchmarks.chaos.asking import Answer

PROBLEM = {"content-type": "application/problem+json"}


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        (Answer(201, {}, b"{}"), ""),
        (Answer(503, {**PROBLEM, "retry-after": "5"}, b"{}"), ""),
        (Answer(503, PROBLEM, b"{}"), "503 without Retry-After"),
        (Answer(500, PROBLEM, b"{}"), "status 500"),
        (Answer(502, {}, b""), "status 502"),
        (Answer(404, {"content-type": "text/plain"}, b"no"), "404 as text/plain"),
        (Answer(502, {}, b"", by_proxy=True), ""),
        (Answer(503, {}, b"", by_proxy=True), ""),
        (Answer(503, PROBLEM, b"{}", by_proxy=True), "503 without Retry-After"),
        (Answer(500, {}, b"", by_proxy=True), "status 500"),
    ],
)
def test_faults(answer: Answer, fault: str) -> None:
    assert answer.fault == fault
