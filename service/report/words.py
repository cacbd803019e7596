"""What the report says in words: terms of the vocabulary in sentences of ``words.toml``, the same in all renderings."""

from __future__ import annotations

import tomllib
from datetime import datetime
from functools import cache
from pathlib import Path

from data_specs.visit.contract import Organ
from data_specs.visit.opinion import Judgement, Opinion
from data_specs.visit.report import PROBABILITY_DIGITS, NextStep, Report, ReportFinding, ReportInput
from data_specs.vocabulary import Language, display
from service.language.texts import NARROW_SPACE, measured, opening


@cache
def sentences() -> dict[str, dict[str, str]]:
    """Every sentence by key and language, read from ``words.toml``."""
    with (Path(__file__).parent / "words.toml").open("rb") as f:
        return tomllib.load(f)


def say(key: str, language: Language, **values: object) -> str:
    """The sentence of ``key`` in ``language`` with ``values`` filled in.

    Raises
    ------
    KeyError
        There is no such sentence.
    """
    return sentences()[key][language].format(**values)


def percent(share: float, language: Language) -> str:
    """A share with all the digits that the report has of it, so that every rendering says the same number."""
    written = f"{100 * share:.{PROBABILITY_DIGITS - 2}f}"
    space = NARROW_SPACE if language == "fr" else ""
    return f"{written if language == 'en' else written.replace('.', ',')}{space}%"


def day_and_time(at: datetime) -> str:
    """A moment in UTC that reads the same in all three languages (ISO 8601)."""
    return f"{at:%Y-%m-%d %H:%M} UTC"


def finding_sentence(finding: ReportFinding, language: Language) -> str:
    """One finding, with how sure it is and where the threshold stands, or its value."""
    name = opening(display(finding.name, language))
    if finding.value is not None:
        value, unit = measured(finding.value, finding.unit, language)
        return say("measured", language, finding=name, value=f"{value} {unit}".rstrip())
    if finding.probability is None:
        return name
    probability = percent(finding.probability, language)
    if finding.calibrated is False:
        return say("uncalibrated", language, finding=name, probability=probability)
    point = finding.operating_point
    if point is None or finding.positive is None:
        return say("undecided", language, finding=name, probability=probability)
    threshold = percent(point.threshold, language)
    key = "above" if finding.positive else "below"
    return say(key, language, finding=name, probability=probability, threshold=threshold, point=point.name)


def point_sentence(finding: ReportFinding, language: Language) -> str:
    """What the threshold does, and in which cohort that was seen; empty where it was not."""
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


def organ_reasons(report: Report, organ: Organ, language: Language) -> list[str]:
    """Why an organ, or a part of what is asked of it, was not assessed."""
    return [opening(problem.message(language)) for problem in report.organs[organ].reasons]


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


def input_reserves(posted: ReportInput, language: Language) -> list[str]:
    """What is to be said of a file: why it was refused, or with which reserves it was used."""
    return [opening(problem.message(language)) for problem in posted.problems]


def conclusion(report: Report, language: Language) -> str:
    """The findings that stand, in one sentence; then what was not assessed."""
    standing = [display(name, language) for name in report.conclusions]
    first = (
        say("conclusion_some", language, findings=", ".join(standing)) if standing else say("conclusion_none", language)
    )
    return " ".join([first, *not_assessed(report, language)])


def colon(language: Language) -> str:
    """French sets a space before it, at which no line breaks."""
    return "\u00a0:" if language == "fr" else ":"


def how_soon(step: NextStep, language: Language) -> str:
    """By when; empty where the table leaves it open."""
    if step.within_days is None:
        return ""
    key = {0: "today", 1: "within_one_day"}.get(step.within_days, "within_days")
    return say(key, language, days=step.within_days)


def next_step(step: NextStep, language: Language) -> str:
    """What to do, how soon, and the table's sentence."""
    soon = how_soon(step, language)
    by_when = f" ({soon})" if soon else ""
    return f"{say(f'step_{step.step}', language)}{by_when}{colon(language)} {step.text[language]}"


def judgement(given: Judgement, language: Language) -> str:
    """What a doctor says of one finding."""
    verdict = say(f"verdict_{given.verdict}", language)
    said = f"{opening(display(given.finding, language))}{colon(language)} {verdict}"
    return f"{said} ({given.note})" if given.note else said


def opinion_sentences(opinion: Opinion, language: Language) -> list[str]:
    """Who signed, what they say of each finding, their words as they wrote them, and what they advise."""
    author = opinion.author
    signed = say(
        "signed",
        language,
        name=author.name,
        role=say(f"role_{author.role}", language),
        facility=author.facility,
        when=day_and_time(opinion.signed_at),
    )
    if opinion.blind:
        signed += f" ({say('read_blind', language)})"
    said = [judgement(each, language) for each in opinion.judgements]
    if opinion.text:
        said.append(opinion.text)
    if opinion.advice:
        said.append(say(f"step_{opinion.advice}", language))
    return [signed, *(said or [say("as_found", language)])]
