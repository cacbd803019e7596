"""What a doctor's opinion makes of the machine's result for an organ: accepted, amended or rejected.

These are the three outcomes of IHE's profile for the assessment of AI results (AIRAI, also AIRA). Its text was not at
hand: the outcomes are as published summaries give them, and the rule below is this project's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from data_specs.visit.contract import Organ
from data_specs.visit.opinion import Opinion, Verdict
from data_specs.visit.report import Report
from data_specs.vocabulary import term_of

ResultAssessment = Literal["accepted", "amended", "rejected"]


def assess_results(report: Report, opinion: Opinion) -> Mapping[Organ, ResultAssessment]:
    """The outcome for each organ of whose result an opinion says something.

    ``accepted``: every statement of the machine that the doctor speaks of is agreed with. ``rejected``: none of them
    is. ``amended``: some are, or the doctor adds a finding. An opinion without judgements, text and advice says 'as the
    machine found it' and accepts every result. Where the machine stated nothing, there is nothing to accept or to
    reject.
    """
    stated: dict[Organ, set[str]] = {
        name: {each.name for each in organ.findings if each.positive is not None and not each.alternative}
        for name, organ in report.organs.items()
        if organ.status == "assessed"
    }
    if not opinion.judgements and not opinion.text and opinion.advice is None:
        return {organ: "accepted" for organ, names in stated.items() if names}
    outcomes: dict[Organ, ResultAssessment] = {}
    for organ, names in stated.items():
        about = [each for each in opinion.judgements if term_of(each.finding).organ == organ]
        if said := {each.verdict for each in about if each.verdict == "add" or each.finding in names}:
            outcomes[organ] = _outcome(said)
    return outcomes


def _outcome(verdicts: set[Verdict]) -> ResultAssessment:
    if verdicts == {"agree"}:
        return "accepted"
    return "rejected" if verdicts == {"disagree"} else "amended"
