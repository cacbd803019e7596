"""A table of next steps, read from a TOML file.

The head of ``next_steps.toml`` explains how a table is written. Every table has four ``otherwise`` rules, so that no
visit stays without an answer: for a positive finding and for an organ that was not assessed, where no other rule
answers them, and for a visit that no rule answers, clear or not.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from pydantic import ValidationError

from data_specs.next_steps.rules import Otherwise, Rule

SHIPPED_TABLE = Path(__file__).parent / "next_steps.toml"
MAX_RULES = 500
MAX_BYTES = 1_000_000
SOON_WITHIN_DAYS = 3
"""Where a table says nothing: a step that has to be done within so many days makes a visit one that is seen soon."""

MAX_SOON_WITHIN_DAYS = 30

RULE_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")


class BadTable(Exception):
    """The table cannot be used. The message is one line: which file, which rule, which member, and why."""


@dataclass(frozen=True)
class Table:
    """Rules by name, in the order of the file, and the days within which a step makes the visit ``soon``."""

    rules: dict[str, Rule]
    soon_within_days: int = SOON_WITHIN_DAYS


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
    except OSError as error:
        raise BadTable(f"{path}: cannot be read: {error.strerror}") from None
    return table_of(content, str(path))


def table_of(content: bytes, path: str) -> Table:
    """The table in a file's content; ``path`` is what an error calls the file.

    Raises
    ------
    BadTable
        As :func:`read_table`.
    """
    if len(content) > MAX_BYTES:
        raise BadTable(f"{path}: a table has at most {MAX_BYTES} bytes")
    try:
        rows = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise BadTable(f"{path}: is not TOML in UTF-8: {error}") from None
    soon = rows.pop("soon_within_days", SOON_WITHIN_DAYS)
    if type(soon) is not int or not 1 <= soon <= MAX_SOON_WITHIN_DAYS:
        raise BadTable(f"{path}: soon_within_days: a whole number from 1 to {MAX_SOON_WITHIN_DAYS}")
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
    return Table(rules, soon)


def _rule(path: str, name: str, row: object) -> Rule:
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
