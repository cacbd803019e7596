"""What is known of a cohort's labels before anything learns from them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pytest

from data_specs.bundle import TrainingData
from training.cohorts.cohort import Cohort, same_question

NOBODY = TrainingData(name="made", citation="-", licence="-", n_persons=0, n_items=0)
HALF = [0.0] * 50 + [1.0] * 50


def with_labels(**labels: Sequence[float]) -> Cohort:
    n = len(next(iter(labels.values())))
    return Cohort(
        name="made",
        x=np.zeros((n, 1), dtype=np.uint8),
        labels=pd.DataFrame(labels),
        person=np.arange(n).astype(str),
        part=np.full(n, "train"),
        subgroups=pd.DataFrame(index=range(n)),
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
