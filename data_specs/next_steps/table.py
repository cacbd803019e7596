"""A table of next steps: read from a TOML file, and applied to the facts of a visit.

The head of ``next_steps.toml`` explains how a table is written. Every table has four ``otherwise`` rules, so that no
visit stays without an answer: for a positive finding and for an organ that was not assessed, where no other rule
answers them, and for a visit that no rule answers, clear or not.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from data_specs.next_steps.rules import Facts, Otherwise, Rule
from data_specs.visit.opinion import Advice
from data_specs.visit.report import NextStep
from data_specs.vocabulary import LANGUAGES

SHIPPED_TABLE = Path(__file__).parent / "next_steps.toml"
MAX_RULES = 500
MAX_BYTES = 1_000_000

REASSURING = frozenset({"normal_ecg"})
"""Findings that are a good sign where they are positive: no step follows from them."""

RULE_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
STEPS: tuple[Advice, ...] = ("refer", "ask", "manage")
"""In the order in which steps of the same day are shown."""


class BadTable(Exception):
    """The table cannot be used. The message is one line: which file, which rule, which member, and why."""


@dataclass(frozen=True)
class Table:
    """Rules by name, in the order of the file."""

    rules: dict[str, Rule]


def read_table(path: Path | None = None) -> Table:
    """A programme's table, or the shipped one.

    Raises
    ------
    BadTable
        The file cannot be read, or something in it is unknown or impossible: the whole table is then refused.
    """
    path = path or SHIPPED_TABLE
    try:
        content = path.read_bytes()
        if len(content) > MAX_BYTES:
            raise BadTable(f"{path}: a table has at most {MAX_BYTES} bytes")
        rows = tomllib.loads(content.decode())
    except OSError as error:
        raise BadTable(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadTable(f"{path}: is not TOML in UTF-8: {error}") from None
    if len(rows) > MAX_RULES:
        raise BadTable(f"{path}: a table has at most {MAX_RULES} rules")
    rules: dict[str, Rule] = {}
    for name, row in rows.items():
        rules[name] = _rule(path, name, row)
        if unknown := [other for other in rules[name].unless if other == name or other not in rules]:
            raise BadTable(f"{path}: rule {name}: unless: '{unknown[0]}' is not the name of a rule further up")
    for case in get_args(Otherwise):
        names = [name for name, rule in rules.items() if rule.otherwise == case]
        if len(names) != 1:
            raise BadTable(f'{path}: one rule has to say otherwise = "{case}", and {", ".join(names) or "none"} does')
    return Table(rules)


def next_steps(table: Table, facts: Facts) -> tuple[NextStep, ...]:
    """Steps that the table gives for a visit, the soonest first; on the same day in the order of :data:`STEPS`.

    A rule that says nothing because of its ``unless`` still answers its findings: no ``otherwise`` rule is used for
    them.
    """
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
            if finding.positive and name not in REASSURING and name not in answered
        ),
        "not_assessed": tuple(
            name for name, organ in facts.organs.items() if organ.status == "not_assessed" and name not in answered
        ),
    }
    nothing_given = not given and not any(unanswered.values())
    for name, rule in table.rules.items():
        if rule.otherwise in ("positive", "not_assessed"):
            if unanswered[rule.otherwise]:
                given[name] = unanswered[rule.otherwise]
        elif rule.otherwise is not None and nothing_given and facts.clear == (rule.otherwise == "clear"):
            given[name] = ()
    return _in_order(_step(name, table.rules[name], because) for name, because in given.items())


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


def _step(name: str, rule: Rule, because: tuple[str, ...]) -> NextStep:
    return NextStep(
        step=rule.step,
        rule=name,
        because=because,
        within_days=rule.within_days,
        text={language: getattr(rule, language) for language in LANGUAGES},
        source=rule.source,
    )


def _rule(path: Path, name: str, row: object) -> Rule:
    if not RULE_NAME.fullmatch(name):
        raise BadTable(f"{path}: rule {name!r}: the name of a rule has small letters, digits and _ only")
    if not isinstance(row, dict):
        raise BadTable(f"{path}: {name}: a table holds rules only, each under its [name]")
    try:
        return Rule.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        steps = list(map(str, first["loc"]))
        # pydantic names a condition twice, by its kind and by its member.
        member = ".".join(step for at, step in enumerate(steps) if at == 0 or step != steps[at - 1])
        why = first["msg"].removeprefix("Value error, ")
        raise BadTable(f"{path}: rule {name}: {member + ': ' if member else ''}{why}") from None
