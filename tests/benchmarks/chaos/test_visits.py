"""What is posted has a place for its number, and its outcome is recognised."""

from __future__ import annotations

from benchmarks.chaos.visits import Outcome, kinds
from benchmarks.files import numbered


def test_outcomes_agree_but_for_the_last_digits() -> None:
    def visit(probability: float, *, positive: bool = True) -> Outcome:
        finding = {"name": "pneumonia", "positive": positive, "probability": probability}
        organ = {"status": "assessed", "category": "high", "reasons": [], "findings": [finding]}
        inputs = [{"accepted": True, "problems": []}]
        return Outcome.of({"status": "complete", "priority": "urgent", "organs": {"lung": organ}, "inputs": inputs})

    assert visit(0.831).agrees(visit(0.832))
    assert not visit(0.831).agrees(visit(0.9))
    assert not visit(0.831).agrees(visit(0.831, positive=False))


def test_every_kind_has_a_place_for_its_number() -> None:
    for name, body in kinds().items():
        assert numbered(body.content, 1) != numbered(body.content, 2), name
