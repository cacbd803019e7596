"""What a doctor's opinion makes of the machine's results."""

from __future__ import annotations

import pytest

from data_specs.visit.opinion import Judgement
from data_specs.visit.result_assessment import assess_results
from tests.service import report_fixture


def outcomes(*judgements, text="", advice=None):
    report = report_fixture.report(2)
    made = tuple(Judgement(finding=finding, verdict=verdict) for finding, verdict in judgements)
    opinion = report.opinions[0].model_copy(update={"judgements": made, "text": text, "advice": advice})
    return assess_results(report, opinion)


@pytest.mark.parametrize(
    ("judgements", "expected"),
    [
        ([("pneumonia", "agree")], {"lung": "accepted"}),
        ([("pneumonia", "disagree")], {"lung": "rejected"}),
        ([("pneumonia", "disagree"), ("atelectasis", "add")], {"lung": "amended"}),
        ([("atelectasis", "add")], {"lung": "amended"}),
        ([("pneumonia", "agree"), ("st_t_change", "disagree")], {"lung": "accepted", "cardiac": "rejected"}),
    ],
)
def test_an_outcome_for_each_organ(judgements, expected):
    assert outcomes(*judgements) == expected


def test_an_opinion_of_nothing_is_as_the_machine_found_it():
    assert outcomes() == {"lung": "accepted", "cardiac": "accepted"}


@pytest.mark.parametrize("more", [{"text": "Xem lại."}, {"advice": "ask"}])
def test_words_alone_accept_and_reject_nothing(more):
    assert outcomes(**more) == {}


def test_where_the_machine_stated_nothing_there_is_nothing_to_assess():
    assert outcomes(("heart_rate", "agree"), ("tuberculosis", "agree")) == {}
