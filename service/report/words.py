"""The sentences of a report, the same in every format: text from ``words.toml``, terms from the vocabulary."""

from __future__ import annotations

import tomllib
from datetime import UTC, tzinfo
from functools import cache
from pathlib import Path

from data_specs.visit.assessment import PROBABILITY_DIGITS
from data_specs.visit.contract import Organ
from data_specs.visit.next_step import NextStep
from data_specs.visit.opinion import Judgement, Opinion
from data_specs.visit.report import Report, ReportFinding, ReportInput, ReportOrgan
from data_specs.visit.result_assessment import ResultAssessment
from data_specs.vocabulary import Language, display
from service.language.texts import NARROW_SPACE, opening, quantity, verdict
from service.language.zone import day_and_time

PRESSING = ("finding_urgent", "category_high", "finding_soon")
"""Reasons of a priority that stand in the conclusion where no finding does, such as a laboratory value."""

OWN_RULE = "This table"
OWN_INTERVAL = "interval: this table"
"""With these words the sources of those rules begin that the table of next steps makes itself."""


@cache
def sentences() -> dict[str, dict[str, str]]:
    """Every sentence by key and language, read from ``words.toml``."""
    with (Path(__file__).parent / "words.toml").open("rb") as f:
        return tomllib.load(f)


def say(key: str, language: Language, **values: object) -> str:
    """Return the sentence of ``key`` in ``language`` with ``values`` filled in.

    Raises
    ------
    KeyError
        There is no such sentence.
    """
    return sentences()[key][language].format(**values)


def percent(share: float, language: Language) -> str:
    """A share (0 to 1) in per cent, with all the digits that the report has, so that every format shows the same."""
    written = f"{100 * share:.{PROBABILITY_DIGITS - 2}f}"
    space = NARROW_SPACE if language == "fr" else ""
    return f"{written if language == 'en' else written.replace('.', ',')}{space}%"


def finding_sentence(finding: ReportFinding, language: Language) -> str:
    """One finding with its probability and threshold, or with its value."""
    name = opening(display(finding.name, language))
    if finding.value is not None:
        return say("measured", language, finding=name, value=quantity(finding.value, finding.unit, language))
    if finding.probability is None:
        return name
    probability = percent(finding.probability, language)
    if finding.calibrated is False:
        return say("uncalibrated", language, finding=name, probability=probability)
    point = finding.operating_point
    if point is None or finding.positive is None:
        open_ = "information" if finding.use == "information" else "undecided" if finding.strength else "probability"
        return say(open_, language, finding=name, probability=probability)
    threshold = percent(point.threshold, language)
    told = {"verdict": verdict(finding, language), "probability": probability, "threshold": threshold}
    return say("judged", language, finding=name, point=point.name, **told)


def point_sentence(finding: ReportFinding, language: Language) -> str:
    """Sensitivity and specificity at the threshold, and their cohort; empty where they are not known."""
    point = finding.operating_point
    if point is None or point.sensitivity is None or point.specificity is None:
        return ""
    return say(
        "point_known",
        language,
        cohort=point.cohort,
        sensitivity=percent(point.sensitivity, language),
        specificity=percent(point.specificity, language),
    )


def sought(organ: ReportOrgan, language: Language) -> list[str]:
    """What was looked for in an organ, and what was not; nothing for an organ that was not assessed."""
    alternatives = {finding.name for finding in organ.findings if finding.alternative}
    looked_for = [name for name in organ.looked_for if name not in alternatives]
    both = (("looked_for", looked_for), ("not_looked_for", organ.not_looked_for))
    named = [(key, ", ".join(display(name, language) for name in names)) for key, names in both if names]
    return [say(key, language, findings=names) for key, names in named]


def organ_reasons(report: Report, organ: Organ, language: Language) -> list[str]:
    """Why an organ was not assessed, or only in part."""
    return [opening(reason.message(language)) for reason in report.organs[organ].reasons]


def not_assessed(report: Report, language: Language) -> list[str]:
    """One sentence for each organ that was not assessed."""
    return [
        say(
            "not_assessed",
            language,
            organ=opening(display(name, language)),
            reasons=" ".join(organ_reasons(report, name, language)),
        )
        for name, organ in report.organs.items()
        if organ.status == "not_assessed"
    ]


def input_problems(posted: ReportInput, language: Language) -> list[str]:
    """Why a file was refused, or what limits its use."""
    return [opening(problem.message(language)) for problem in posted.problems]


def result_assessment(organ: Organ, outcome: ResultAssessment, language: Language) -> str:
    """What a doctor made of the machine's result for an organ."""
    result = say("ai_result", language)
    return f"{opening(display(organ, language))}, {result}{colon(language)} {say(f'ai_{outcome}', language)}"


def conclusion(report: Report, language: Language) -> str:
    """The findings that hold after all opinions, in one sentence; then what was not assessed."""
    return " ".join([findings_that_hold(report, language), *not_assessed(report, language)])


def findings_that_hold(report: Report, language: Language) -> str:
    """The findings that hold after all opinions, in one sentence."""
    findings = ", ".join(display(name, language) for name in report.conclusions)
    if findings:
        return say("conclusion_some", language, findings=findings)
    pressing = (reason for reason in report.priority_reasons if reason.code in PRESSING)
    reasons = " ".join(opening(reason.message(language)) for reason in pressing)
    return say("conclusion_pressing", language, reasons=reasons) if reasons else say("conclusion_none", language)


def colon(language: Language) -> str:
    """The colon, in French with a non-breaking space before it."""
    return "\u00a0:" if language == "fr" else ":"


def how_soon(step: NextStep, language: Language) -> str:
    """Within how many days, 24 hours or a year; empty where the table of next steps gives no time."""
    if step.within_days is None:
        return ""
    key = {0: "today", 1: "within_one_day", 365: "within_one_year"}.get(step.within_days, "within_days")
    return say(key, language, days=step.within_days)


def next_step(step: NextStep, language: Language) -> str:
    """What to do, how soon, and the sentence of the table of next steps."""
    soon = how_soon(step, language)
    by_when = f" ({soon})" if soon else ""
    return f"{say(f'step_{step.step}', language)}{by_when}{colon(language)} {step.text[language]}"


def source_of(step: NextStep, language: Language) -> str:
    """The publication that a step follows, as cited; what the table itself sets is said in the reader's language."""
    if step.source.startswith(OWN_RULE):
        return say("own_rule", language)
    return step.source.replace(OWN_INTERVAL, say("own_interval", language))


def judgement_sentence(judgement: Judgement, language: Language) -> str:
    """A doctor's verdict on one finding, and the note to it."""
    verdict = say(f"verdict_{judgement.verdict}", language)
    sentence = f"{opening(display(judgement.finding, language))}{colon(language)} {verdict}"
    return f"{sentence} ({judgement.note})" if judgement.note else sentence


def opinion_sentences(opinion: Opinion, language: Language, zone: tzinfo = UTC) -> list[str]:
    """Who signed and when; then the verdicts, the free text as it was written, and the advice."""
    author = opinion.author
    signed = say(
        "signed",
        language,
        name=author.name,
        role=say(f"role_{author.role}", language),
        facility=author.facility,
        when=day_and_time(opinion.signed_at, zone),
    )
    if opinion.blind:
        signed += f" ({say('read_blind', language)})"
    content = [judgement_sentence(judgement, language) for judgement in opinion.judgements]
    if opinion.text:
        content.append(opinion.text)
    if opinion.advice:
        content.append(say(f"step_{opinion.advice}", language))
    return [signed, *(content or [say("nothing_seen" if opinion.blind else "as_found", language)])]
