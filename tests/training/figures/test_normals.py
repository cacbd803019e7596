"""Draws from people whose truth is known keep what they promise, and the page of both has its tables."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from data_specs.planning.normals import Case, Limits, upper
from training.bundle.normals import cases_of, page
from training.figures.normals import PREVALENCE, draw_samples, split_in_halves, watch

LIMITS = Limits(prevalence=PREVALENCE)


def people(events=400, normal=400, **groups):
    """Events over the whole range, and people without one in its lower half: the loss is the threshold itself."""
    rng = np.random.default_rng(1)
    sick = [Case(f"e{i}", p, True, groups) for i, p in enumerate(rng.random(events))]
    return sick + [Case(f"n{i}", p, False, groups) for i, p in enumerate(rng.random(normal) / 50)]


def test_certificates_break_their_bound_as_seldom_as_they_say():
    samples = 300
    every = Limits(abnormal=1, prevalence=PREVALENCE)  # none is refused, so that all that might be drawn are counted
    found = draw_samples(people(), 99, every, samples=samples, rng=np.random.default_rng(2))
    assert found.certified == samples
    expected = binom.cdf(1, 99, LIMITS.missed)
    assert binom.ppf(0.001, samples, expected) <= found.missed_too_often <= binom.ppf(0.999, samples, expected)
    assert found.abnormal_too_often <= binom.ppf(0.999, samples, 0.05)
    assert np.median(found.missed) == pytest.approx(2 / 100, abs=0.01)


def test_too_few_events_certify_nothing():
    found = draw_samples(people(), 58, LIMITS, samples=20, rng=np.random.default_rng(2))
    assert (found.certified, dict(found.refused)) == (0, {"too_few": 20})


def test_halves_of_the_persons_hold_one_in_the_other():
    found = split_in_halves(people(), LIMITS, splits=50, rng=np.random.default_rng(3))
    assert found.certified == 50
    assert found.missed_too_often <= 5
    assert 0.01 < np.mean(found.missed) < LIMITS.missed


def test_a_broken_bound_is_stopped_within_some_hundred():
    found = watch(0.08, 0.01, read=500, runs=50, rng=np.random.default_rng(4))
    assert found.stopped == 1
    assert found.median_read < 150
    assert watch(0.005, 0.01, read=500, runs=50, rng=np.random.default_rng(4)).stopped < 0.2


def test_the_page_has_a_row_for_each_number_of_events():
    def scored(parts, **more):
        rows = [
            {"person": case.person, "part": part, "probability": case.probability,
             "outcome": "confirmed" if case.abnormal else "refuted", **more}
            for part in parts for case in people(120, 120)
        ]  # fmt: skip
        return pd.DataFrame(rows)

    children = scored(("validation", "test"))
    shown = page(children, scored(("validation",), sex="F", age="41-60"), samples=2)
    assert len(cases_of(children)) == 480
    for title in ("## How many events are needed", "## Children", "## Adults, by sex and age", "how soon"):
        assert title in shown
    assert "59" in shown
    assert upper(0, 59, 0.05) < 0.05
