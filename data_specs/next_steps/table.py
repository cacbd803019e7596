"""What to do next: a programme's table of rules over what a visit found, read strictly and applied without a guess.

A rule says *when* it holds (``all`` and ``any`` of its conditions, ``ages``), *what* to do (``step``, ``within_days``),
*how it is said* (``vi``, ``fr``, ``en``) and *who says so* (``source``). ``unless`` names rules further up that say it
better. Four rules are ``otherwise`` rules, one for each thing that would go unanswered without it: a positive finding,
an organ that was not assessed, a visit that is not clear for another reason, and a visit in which all is clear. A
table without all four is refused, so that no table can leave a visit without an answer.
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

SHIPPED = Path(__file__).parent / "next_steps.toml"
MOST_RULES = 500
MOST_BYTES = 1_000_000

REASSURING = frozenset({"normal_ecg"})
"""Findings that are good news where they are positive."""

RULE = re.compile(r"[a-z][a-z0-9_]{0,59}")
ORDER: tuple[Advice, ...] = ("refer", "ask", "manage")


class BadTable(Exception):
    """The table cannot be used; one line that says which file, which rule, which member, and why."""


@dataclass(frozen=True)
class Table:
    """Rules by name, in the order of the file."""

    rules: dict[str, Rule]


def read_table(path: Path | None = None) -> Table:
    """A programme's table, or the shipped one.

    Raises
    ------
    BadTable
        Something in it is not known or cannot be; nothing of a table that is wrong in one place is used.
    """
    path = path or SHIPPED
    try:
        content = path.read_bytes()
        if len(content) > MOST_BYTES:
            raise BadTable(f"{path}: a table has at most {MOST_BYTES} bytes")
        rows = tomllib.loads(content.decode())
    except OSError as error:
        raise BadTable(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise BadTable(f"{path}: is not TOML in UTF-8: {error}") from None
    if len(rows) > MOST_RULES:
        raise BadTable(f"{path}: a table has at most {MOST_RULES} rules")
    rules: dict[str, Rule] = {}
    for name, row in rows.items():
        rules[name] = _rule(path, name, row)
        if unknown := [other for other in rules[name].unless if other == name or other not in rules]:
            raise BadTable(f"{path}: rule {name}: unless: '{unknown[0]}' is not the name of a rule further up")
    for what in get_args(Otherwise):
        told = [name for name, rule in rules.items() if rule.otherwise == what]
        if len(told) != 1:
            raise BadTable(f'{path}: one rule has to say otherwise = "{what}", and {", ".join(told) or "none"} does')
    return Table(rules)


def next_steps(table: Table, facts: Facts) -> tuple[NextStep, ...]:
    """What the table says of a visit, the soonest first, and of what is equally soon whom to refer.

    A rule that another one silences still answers for its findings: ``otherwise`` is for what no rule speaks of.
    """
    fired: dict[str, tuple[str, ...]] = {}
    answered: set[str] = set()
    for name, rule in table.rules.items():
        because = rule.because(facts) if rule.otherwise is None and rule.for_age(facts.age_years) else None
        if because is None:
            continue
        answered.update(because)
        if fired.keys().isdisjoint(rule.unless):
            fired[name] = because
    left = {
        "positive": tuple(
            name for name, f in facts.findings.items() if f.positive and name not in REASSURING | answered
        ),
        "not_assessed": tuple(
            name for name, organ in facts.organs.items() if organ.status == "not_assessed" and name not in answered
        ),
    }
    silent = not fired and not any(left.values())
    for name, rule in table.rules.items():
        if rule.otherwise in ("positive", "not_assessed"):
            if left[rule.otherwise]:
                fired[name] = left[rule.otherwise]
        elif rule.otherwise is not None and silent and facts.clear == (rule.otherwise == "clear"):
            fired[name] = ()
    return _ordered(_step(name, table.rules[name], because) for name, because in fired.items())


def _ordered(steps: Iterable[NextStep]) -> tuple[NextStep, ...]:
    """By urgency; two rules that say the same thing are one step, the sooner of the two."""
    once: dict[tuple[str, str], NextStep] = {}
    for step in sorted(steps, key=_urgency):
        same = step.step, step.text["en"]
        first = once.get(same)
        because = dict.fromkeys((*first.because, *step.because)) if first else step.because
        once[same] = (first or step).model_copy(update={"because": tuple(because)})
    return tuple(once.values())


def _urgency(step: NextStep) -> tuple[float, int]:
    return float("inf") if step.within_days is None else step.within_days, ORDER.index(step.step)


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
    if not RULE.fullmatch(name):
        raise BadTable(f"{path}: rule {name!r}: the name of a rule has small letters, digits and _ only")
    if not isinstance(row, dict):
        raise BadTable(f"{path}: {name}: a table holds rules only, each under its [name]")
    try:
        return Rule.model_validate(row)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        parts = list(map(str, first["loc"]))
        shown = ".".join(part for at, part in enumerate(parts) if at == 0 or part != parts[at - 1])
        why = first["msg"].removeprefix("Value error, ")
        raise BadTable(f"{path}: rule {name}: {shown + ': ' if shown else ''}{why}") from None
