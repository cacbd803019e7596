"""What follows from a visit's findings: next steps by the programme's table, and the priority that they give it.

``urgent``: a step stands for today. ``soon``: a step stands for the next days, as many as the table says, or an organ
has a high category.
``unassessed``: no organ was assessed. Everything else is ``routine``. So no visit is less pressing than its steps.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from data_specs.next_steps.rules import Facts
from data_specs.next_steps.table import Table
from data_specs.problems import Problem
from data_specs.visit.assessment import AssessedOrgan, Assessment, rounded
from data_specs.visit.context import Context
from data_specs.visit.contract import Priority
from data_specs.visit.next_step import NextStep
from data_specs.visit.opinion import Advice
from data_specs.vocabulary import LANGUAGES, is_reassuring, terms

TODAY = 0
"""A step that has to be done within so many days makes a visit urgent."""

STEPS: tuple[Advice, ...] = ("refer", "ask", "manage")
"""In the order in which steps of the same day are shown."""

RESERVES = frozenset({"uncalibrated", "paced", "information_only", "not_here", "undecided", "findings_contradict"})
"""Reserves under which no flagged finding of an organ is no sign that there is none."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What follows from a visit's findings; ``reasons`` are those of the priority, the most pressing first."""

    priority: Priority
    reasons: tuple[Problem, ...]
    next_steps: tuple[NextStep, ...]


def facts_of(found: Assessment, context: Context, fields: Mapping[int, str]) -> Facts:
    """What the rules look at in what was found: probabilities are rounded as every reader sees them.

    Parameters
    ----------
    fields
        The field in which each file was posted, by its index.
    """
    problems: dict[str, set[str]] = defaultdict(set)
    for posted in found.inputs:
        problems[fields.get(posted.index, "")].update(problem.code for problem in posted.problems)
    return Facts(
        organs={name: _as_read(organ) for name, organ in found.organs.items()},
        age_years=context.person.age_years,
        labs=context.labs,
        vitals=context.vitals,
        file_problems={field: frozenset(codes) for field, codes in problems.items()},
    )


def _as_read(organ: AssessedOrgan) -> AssessedOrgan:
    findings = [
        each if each.probability is None else each.model_copy(update={"probability": rounded(each.probability)})
        for each in organ.findings
    ]
    return organ.model_copy(update={"findings": findings})


def decide(table: Table, facts: Facts) -> Decision:
    """Next steps, the soonest first (on the same day in the order of :data:`STEPS`), and the priority.

    A rule that says nothing because of its ``unless`` still answers its findings: no ``otherwise`` rule is used for
    them. Where no rule answers, the table's ``clear`` or ``open`` rule does.
    """
    steps = _in_order(_standing(table, facts))
    if not steps:
        is_clear = facts.all_decided and _priority(table, facts, ()) == "routine"
        steps = _in_order([_otherwise(table, "clear" if is_clear else "open")])
    priority = _priority(table, facts, steps)
    return Decision(priority, _reasons(table, facts, steps, priority), steps)


def is_unremarkable(found: Assessment, context: Context) -> bool:
    """Whether nothing stands against signing a visit in a batch, if a certificate calls its film normal.

    It is routine, nothing is flagged and no step follows from anything that was found; every file was used, whatever
    was sent is assessed, and no reserve is made but that a finding is for information.
    """
    missing = {name for name, organ in found.organs.items() if organ.status == "not_assessed"}
    sent = {"kidney"} if context.labs else set()
    return (
        found.priority == "routine"
        and all(posted.accepted for posted in found.inputs)
        and not (missing & sent)
        and not any(is_flagged(organ) for organ in found.organs.values())
        and all(set(step.because) <= missing for step in found.next_steps or ())
        and {problem.code for organ in found.organs.values() if organ.status == "assessed" for problem in organ.reasons}
        <= {"information_only"}
    )


def is_flagged(organ: AssessedOrgan) -> bool:
    """Whether a finding is flagged, or the category says that there is something, as KDIGO does of the kidneys."""
    flagged = (
        each for each in organ.findings if each.positive and not each.alternative and not is_reassuring(each.name)
    )
    return organ.category in ("high", "intermediate") or any(flagged)


def _priority(table: Table, facts: Facts, steps: tuple[NextStep, ...]) -> Priority:
    soonest = min((step.within_days for step in steps if step.within_days is not None), default=None)
    if soonest is not None and soonest == TODAY:
        return "urgent"
    if (soonest is not None and soonest <= table.soon_within_days) or _with_category(facts, "high"):
        return "soon"
    return "routine" if any(organ.status == "assessed" for organ in facts.organs.values()) else "unassessed"


def _reasons(table: Table, facts: Facts, steps: tuple[NextStep, ...], priority: Priority) -> tuple[Problem, ...]:
    """Why it is as pressing as it is: what is to be done today and soon, categories, then what else is flagged."""
    today, soon, later = _because(table, steps)
    categories = {level: _with_category(facts, level) for level in ("high", "intermediate")}
    reasons = [
        *(Problem("finding_urgent", "warn", found=_with_value(name, facts)) for name in today),
        *(Problem("category_high", "warn", found=organ) for organ in categories["high"]),
        *(Problem("finding_soon", "warn", found=_with_value(name, facts)) for name in soon),
        *(Problem("category_intermediate", "warn", found=organ) for organ in categories["intermediate"]),
    ]
    assessed = [organ for organ in facts.organs.values() if organ.status == "assessed"]
    if not assessed:
        return (*reasons, Problem("nothing_assessed", "warn"))
    told = {*today, *soon}
    told.update(f.name for organ in assessed if organ.category in ("high", "intermediate") for f in organ.findings)
    flagged = [f.name for f in facts.findings.values() if f.positive and not is_reassuring(f.name)]
    flagged += [name for name in later if isinstance(facts.values.get(name), float | int)]
    if rest := [_with_value(name, facts) for name in dict.fromkeys(flagged) if name not in told]:
        reasons.append(Problem("finding_flagged", "warn", found=", ".join(rest)))
    if priority == "routine":
        reasons += [problem for organ in assessed for problem in organ.reasons if problem.code in RESERVES]
    return tuple(reasons or [Problem("nothing_found", "warn")])


def _because(table: Table, steps: tuple[NextStep, ...]) -> tuple[list[str], list[str], list[str]]:
    """What the steps of today, of the next days, and the later ones follow from; each name once."""
    found: tuple[list[str], list[str], list[str]] = ([], [], [])
    for step in steps:
        days = math.inf if step.within_days is None else step.within_days
        place = 0 if days == TODAY else 1 if days <= table.soon_within_days else 2
        found[place].extend(name for name in step.because if not any(name in names for names in found))
    return found


def _with_category(facts: Facts, category: str) -> list[str]:
    return [name for name, organ in facts.organs.items() if organ.status == "assessed" and organ.category == category]


def _with_value(name: str, facts: Facts) -> str:
    """A name, and its value where it is a number with a unit."""
    value = facts.values.get(name)
    term = terms().get(name)
    has_unit = term is not None and term.unit is not None
    return f"{name} {value:g}" if has_unit and isinstance(value, float | int) else name


def _standing(table: Table, facts: Facts) -> list[NextStep]:
    """Steps of the rules that hold, and those for what was found, or not assessed, and is answered by no rule."""
    given: dict[str, tuple[str, ...]] = {}
    answered: set[str] = set()
    for name, rule in table.rules.items():
        because = rule.matches(facts) if rule.otherwise is None and rule.is_for_age(facts.age_years) else None
        if because is None:
            continue
        answered.update(because)
        if given.keys().isdisjoint(rule.unless):
            given[name] = because
    unanswered = {
        "positive": tuple(
            name
            for name, finding in facts.findings.items()
            if finding.positive and not is_reassuring(name) and name not in answered
        ),
        "not_assessed": tuple(
            name for name, organ in facts.organs.items() if organ.status == "not_assessed" and name not in answered
        ),
    }
    steps = [_step(table, name, because) for name, because in given.items()]
    return steps + [_otherwise(table, case, names) for case, names in unanswered.items() if names]


def _otherwise(table: Table, case: str, because: tuple[str, ...] = ()) -> NextStep:
    name = next(name for name, rule in table.rules.items() if rule.otherwise == case)
    return _step(table, name, because)


def _in_order(steps: Iterable[NextStep]) -> tuple[NextStep, ...]:
    """By urgency. Two rules with the same step and sentence become one step, the sooner of the two."""
    by_sentence: dict[tuple[str, str], NextStep] = {}
    for step in sorted(steps, key=_urgency):
        sentence = step.step, step.text["en"]
        first = by_sentence.get(sentence, step)
        because = tuple(dict.fromkeys((*first.because, *step.because)))
        by_sentence[sentence] = first.model_copy(update={"because": because})
    return tuple(by_sentence.values())


def _urgency(step: NextStep) -> tuple[float, int]:
    return float("inf") if step.within_days is None else step.within_days, STEPS.index(step.step)


def _step(table: Table, name: str, because: tuple[str, ...]) -> NextStep:
    rule = table.rules[name]
    return NextStep(
        step=rule.step,
        rule=name,
        because=because,
        within_days=rule.within_days,
        text={language: getattr(rule, language) for language in LANGUAGES},
        source=rule.source,
    )
