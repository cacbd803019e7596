"""What is known of a cohort's labels before anything learns from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from data_specs.bundle import TrainingData
from training.cohorts.cohort import Cohort, apart, same_question, sites_to_leave_out

NOBODY = TrainingData(name="made", citation="-", licence="-", n_persons=0, n_items=0)
HALF = [0.0] * 50 + [1.0] * 50


def with_labels(site: Sequence[str] = (), **labels: Sequence[float]) -> Cohort:
    n = len(next(iter(labels.values())))
    return Cohort(
        name="made",
        x=np.zeros((n, 1), dtype=np.uint8),
        labels=pd.DataFrame(labels),
        person=np.arange(n).astype(str),
        part=np.full(n, "train"),
        subgroups=pd.DataFrame({"site": list(site)} if site else {}, index=range(n)),
        source=NOBODY,
    )


def but(values: list[float], *changed: int) -> list[float]:
    return [1 - value if i in changed else value for i, value in enumerate(values)]


@pytest.mark.parametrize(
    ("other", "asked"),
    [
        (HALF, "abnormal"),
        ([1 - value for value in HALF], "abnormal"),
        (but(HALF, 0, 99), "abnormal"),  # correlation 0.96
        (but(HALF, 0, 1, 99), ""),  # 0.94
        ([np.nan] * 20 + HALF[20:], "abnormal"),
        ([0.0] * 100, ""),
        ([np.nan] * 100, ""),
        ([0.0, 1.0] * 50, ""),
    ],
)
def test_two_names_of_one_question_are_noticed(other: list[float], asked: str) -> None:
    cohort = with_labels(abnormal=HALF, pneumonia=other)
    assert same_question(cohort, "pneumonia", ["abnormal"]) == asked
    assert same_question(cohort, "pneumonia", []) == ""


def test_a_label_that_one_site_gives_to_all_its_ill_is_no_second_question() -> None:
    """At the first site pneumonia is what makes a film abnormal; at the second nobody wrote it down."""
    abnormal, pneumonia = HALF + HALF, HALF + [0.0] * 100
    alone = with_labels(abnormal=abnormal, pneumonia=pneumonia)
    assert same_question(alone, "pneumonia", ["abnormal"]) == ""
    of_two = with_labels(site=["a"] * 100 + ["b"] * 100, abnormal=abnormal, pneumonia=pneumonia)
    assert same_question(of_two, "pneumonia", ["abnormal"]) == "abnormal"


def of_sites(*parts: tuple[str, str, int]) -> Cohort:
    """``(site, part, n)`` each; every case is of a person of its own."""
    site = [site for site, _, n in parts for _ in range(n)]
    made = with_labels(site=site, abnormal=[float(i % 2) for i in range(len(site))])
    return replace(made, part=np.array([part for _, part, n in parts for _ in range(n)]))


def test_a_site_is_left_out_where_enough_is_left_to_learn_from_and_enough_to_evaluate_on() -> None:
    cohort = of_sites(("a", "train", 100), ("b", "train", 50), ("c", "train", 30), ("d", "train", 19), ("d", "test", 9))
    assert sites_to_leave_out(cohort) == ["b", "c"]
    assert sites_to_leave_out(of_sites(("a", "train", 50), ("b", "train", 50))) == ["a", "b"]
    assert sites_to_leave_out(of_sites(("a", "train", 50))) == []
    assert sites_to_leave_out(with_labels(abnormal=HALF)) == []


def test_persons_of_a_site_who_stand_elsewhere_too_are_neither_learnt_from_nor_evaluated() -> None:
    cohort = of_sites(
        ("a", "train", 4), ("a", "validation", 1), ("a", "test", 1), ("b", "train", 4), ("b", "unused", 1)
    )
    person = cohort.person.copy()
    person[6], person[7], person[8] = person[0], person[4], person[5]
    rest, alone = apart(replace(cohort, person=person), "b")
    assert rest.part.tolist() == ["train"] * 4 + ["validation", "test"] + ["unused"] * 5
    assert (rest.source.n_persons, rest.source.n_items) == (4, 4)
    # the person of a's test part was not learnt from, so that their film at b is a new one
    assert alone.part.tolist() == ["unused"] * 8 + ["test", "test", "unused"]
    assert alone.part_title("test").startswith("made: b, by a network that never saw it")
