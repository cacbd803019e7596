"""The simulation against closed forms, and what must hold of any of its weeks: nobody is lost, nobody overtakes."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import capacity
from benchmarks.capacity import machines_needed, simulate_layout
from benchmarks.programme import HOUR_S, POPULATION, Programme, departures, lindley, uploaded, week

SMALL = Programme(people=2e5, clinics=60, core_ms=2000.0, cores=1)
NINE = 9 * HOUR_S


def arrivals(rate_per_s: float, n: int, seed: int = 1) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).exponential(1 / rate_per_s, n))


def erlang_c(servers: int, load: float) -> float:
    """Share of arrivals that wait in M/M/c (Erlang 1917); ``load`` in servers."""
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(load**k / math.factorial(k) for k in range(servers)) + last)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_server_waits_as_m_d_1_says(load: float) -> None:
    at = arrivals(load, 400_000)
    waits = lindley(at, np.ones(len(at))) - 1 - at
    assert waits.mean() == pytest.approx(load / (2 * (1 - load)), rel=0.06)  # Pollaczek and Khinchine


@pytest.mark.parametrize(("servers", "load"), [(1, 0.7), (2, 1.5), (4, 3.2), (8, 6.0)])
def test_servers_wait_as_m_m_c_says(servers: int, load: float) -> None:
    at = arrivals(load, 200_000, seed=2)
    work = np.random.default_rng(3).exponential(1.0, len(at))
    waits = departures(at, work, servers) - work - at
    assert (waits > 1e-6).mean() == pytest.approx(erlang_c(servers, load), rel=0.06)
    assert waits.mean() == pytest.approx(erlang_c(servers, load) / (servers - load), rel=0.12)


def test_a_single_server_is_the_same_by_both_ways() -> None:
    at, work = arrivals(0.9, 5000), np.random.default_rng(4).exponential(1.0, 5000)
    done = -math.inf
    expected = [done := max(a, done) + s for a, s in zip(at, work, strict=True)]
    np.testing.assert_allclose(lindley(at, work), expected)


def test_visits_wait_in_the_clinic_while_the_link_is_down_and_go_up_one_by_one() -> None:
    made = np.array([10.0, 100.0, 110.0, 120.0, 400.0])
    posted = uploaded(made, 5.0, [(50.0, 200.0), (207.0, 300.0)])
    np.testing.assert_allclose(posted, [15.0, 205.0, 303.0, 308.0, 405.0])


def test_a_week_has_its_visits_and_serves_them_all() -> None:
    visits = week(SMALL)
    expected = SMALL.visits_per_day * SMALL.season * 5
    assert len(visits) == pytest.approx(expected, abs=4 * math.sqrt(expected))
    assert (np.diff(visits.posted_s) >= 0).all()
    assert (visits.posted_s >= visits.made_s + SMALL.upload_s - 1e-6).all()
    told, starts = simulate_layout("centre", SMALL, visits, np.array([2]))
    apart, _ = simulate_layout("provinces", SMALL, visits, np.ones(len(POPULATION), int))
    assert told.visits == apart.visits == len(starts) == len(visits)
    assert (starts >= visits.posted_s - 1e-6).all()
    assert told.utilisation_busiest_hour <= 1 + 1e-9


def test_the_work_is_what_was_asked_for() -> None:
    assert week(SMALL).work_s.mean() == pytest.approx(2.0, rel=0.05)
    assert set(week(replace(SMALL, core_cv=0.0)).work_s) == {2.0}


def test_the_same_seed_is_the_same_week() -> None:
    one, two, other = week(SMALL), week(SMALL), week(replace(SMALL, seed=1))
    np.testing.assert_array_equal(one.posted_s, two.posted_s)
    assert len(other) != len(one) or not np.array_equal(other.posted_s, one.posted_s)


def test_provinces_have_their_share() -> None:
    visits = week(replace(SMALL, people=2e6, clinics=3321))
    share = np.bincount(visits.province, minlength=34) / len(visits)
    people = np.array(list(POPULATION.values())) / sum(POPULATION.values())
    assert len(POPULATION) == 34
    np.testing.assert_allclose(share, people, atol=4 * np.sqrt(people.max() / len(visits)))


def test_an_outage_holds_visits_and_its_backlog_drains() -> None:
    calm = replace(SMALL, link_down_share=0.0, wait_s=10.0)
    outage = (NINE, NINE + HOUR_S)
    cut = week(calm, outage)
    assert len(cut) == len(week(calm))
    assert not ((cut.posted_s > outage[0]) & (cut.posted_s < outage[1])).any()
    one, _ = simulate_layout("one", calm, cut, np.array([1]), outage)
    two, _ = simulate_layout("two", calm, cut, np.array([2]), outage)
    before, _ = simulate_layout("before", calm, week(calm), np.array([1]))
    assert one.held_by_outage > 0.1 * calm.visits_per_day
    assert one.longest_queue > before.longest_queue
    assert one.drained_after_min is not None
    assert two.drained_after_min is not None
    assert 0 < two.drained_after_min < one.drained_after_min < 10 * 60


def test_the_fewest_machines_are_enough_and_one_less_is_not() -> None:
    busy = replace(SMALL, people=2e6, wait_s=5.0)
    visits = week(busy)
    n = machines_needed(busy, visits)
    assert n > 1
    assert simulate_layout("n", busy, visits, np.array([n]))[0].wait_p99_s <= 5.0
    assert simulate_layout("n - 1", busy, visits, np.array([n - 1]))[0].wait_p99_s > 5.0


def test_core_milliseconds_come_from_the_http_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "http.json"
    path.write_text(json.dumps({"files": {"dicom": {"core_ms_per_visit": 40.5}, "wfdb": {"core_ms_per_visit": 6.0}}}))
    assert capacity.core_ms_of(path, ["dicom", "wfdb"]) == 46.5
    with pytest.raises(SystemExit, match="--core-ms"):
        capacity.core_ms_of(path, ["j2k"])


def test_the_command_prints_a_table_and_ends_with_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    few = ["--people", "200000", "--clinics", "60", "--core-ms", "500", "--machine-cost", "1000"]
    capacity.main([*few, "--out", str(tmp_path)])
    *lines, last = capsys.readouterr().out.splitlines()
    figures = json.loads(last)
    assert figures == json.loads((tmp_path / "capacity.json").read_text())
    assert [one["layout"] for one in figures["layouts"]][:2] == ["centre", "provinces"]
    assert figures["cost_per_visit"]["centre"] == figures["layouts"][0]["machines"] * 1000 / 200_000
    assert any("longest queue" in line for line in lines)
