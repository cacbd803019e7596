"""Wrong keys: counted by network, bounded, and to be seen in the metrics and the log while an attack lasts."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from service import wrong_keys
from service.metrics import Metrics
from service.wrong_keys import ADDRESSES_REMEMBERED, TELL_EVERY_S, WRONG_AT_ONCE, WRONG_EVERY_S, WrongKeys


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(wrong_keys.time, "monotonic", lambda: Clock.now)
    return Clock


def test_so_many_wrong_keys_at_once_then_one_in_a_while(clock):
    wrong = WrongKeys(Metrics())
    assert [wrong.count("a") for _ in range(WRONG_AT_ONCE)] == [None] * WRONG_AT_ONCE
    assert wrong.count("a") == wrong.count("a") == WRONG_EVERY_S
    assert wrong.count("b") is None
    clock.now += WRONG_EVERY_S
    assert wrong.count("a") is None
    assert wrong.count("a") is not None
    clock.now += WRONG_AT_ONCE * WRONG_EVERY_S
    assert [wrong.count("a") for _ in range(WRONG_AT_ONCE)] == [None] * WRONG_AT_ONCE


def test_the_table_of_addresses_is_bounded():
    wrong = WrongKeys(Metrics())
    for i in range(ADDRESSES_REMEMBERED + 50):
        wrong.count(str(i))
    assert len(wrong._forgiven_at) == ADDRESSES_REMEMBERED


def test_a_lasting_attack_is_counted_and_logged_once_a_minute_without_an_address(clock):
    metrics = Metrics()
    wrong = WrongKeys(metrics)
    with capture_logs() as logged:
        for _ in range(WRONG_AT_ONCE + 5):
            wrong.count("198.51.100.77")
        clock.now += TELL_EVERY_S / 2
        for _ in range(WRONG_AT_ONCE):
            wrong.count("198.51.100.77")
        assert len(logged) == 1
        clock.now += TELL_EVERY_S / 2
        for _ in range(WRONG_AT_ONCE):
            wrong.count("198.51.100.77")
    assert [(each["event"], each["network"]) for each in logged] == [("too_many_wrong_keys", "198.51.100.0/24")] * 2
    assert [each["limited"] for each in logged] == [1, 4 + 90 + 1], "those since the line before, the last one included"
    assert "198.51.100.77" not in str(logged)
    told = metrics.exposition().decode()
    assert f'sangloc_wrong_keys_total{{outcome="refused"}} {WRONG_AT_ONCE + 20}.0' in told
    assert 'sangloc_wrong_keys_total{outcome="limited"} 185.0' in told
