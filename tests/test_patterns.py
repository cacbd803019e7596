"""No regular expression takes more than linear time, whatever text a stranger sends.

The patterns are collected from the sources, so that a new one is tried too. Each gets 100 kB: long runs of what it
repeats, with an end that does not match.
"""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from re import _constants as codes  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from types import ModuleType
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.slowness import slowness

PACKAGES = ("data_specs", "inference", "service")
METHODS = ("match", "fullmatch", "search", "split", "sub", "subn", "findall", "finditer")
EXAMPLES = {
    "escape": re.escape("\\"),
    "delimiter": ";",
    "wanted": "a*b?c*" * 20,
    "words": ["7", *(f"{number:012}" for number in range(99))],
    "point": r"[0-9.]+",
    "form": b"Nguyen Van A",
    "names": ("pneumonia", "pleural effusion"),
    "with_ae_title": True,
}
"""Values of parameters that stand in patterns."""
SIZES = (25, 500, 5_000, 20_000, 100_000)
"""Small first: exponential time shows at once, and a test that hangs says nothing."""
MAX_CPU_S = 0.15
"""Linear patterns take up to 0.02 s for 100 kB, quadratic ones 20 s and more."""
MAX_UNITS = 12


@dataclass(frozen=True)
class Use:
    """A pattern, and a function of ``re`` or method with which it is used."""

    place: str
    pattern: str | bytes
    flags: int
    method: str


def sources() -> Iterator[tuple[str, ast.Module]]:
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if "import re\n" in (text := path.read_text("utf-8")):
                yield ".".join(path.relative_to(ROOT).with_suffix("").parts), ast.parse(text)


def value(node: ast.expr, names: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(node), "<pattern>", "eval"), names)


def names_around(call: ast.Call, tree: ast.Module, module: ModuleType) -> dict[str, Any]:
    """What the names in a pattern mean: those of the module, and what the function around it assigns before."""
    names = {**EXAMPLES, **vars(module)}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and any(node is call for node in ast.walk(function)):
            for node in ast.walk(function):
                if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.lineno < call.lineno:
                    try:
                        names[node.targets[0].id] = value(node.value, names)
                    except Exception:
                        continue
    return names


def methods_of(name: str, tree: ast.Module) -> set[str]:
    """Methods that a module calls on a compiled pattern by its name; search where it calls none itself."""
    called = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name
    }
    return called & set(METHODS) or {"search"}


def uses_in(name: str, tree: ast.Module) -> Iterator[Use]:
    module = importlib.import_module(name)
    assigned = {
        id(node.value): node.targets[0].id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    for call in ast.walk(tree):
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
            continue
        function = call.func
        if not (isinstance(function.value, ast.Name) and function.value.id == "re"):
            continue
        if function.attr not in (*METHODS, "compile"):
            continue
        names = names_around(call, tree, module)
        n_before_flags = 1 if function.attr == "compile" else 2
        given = [keyword.value for keyword in call.keywords if keyword.arg == "flags"]
        flags = given or (call.args[n_before_flags : n_before_flags + 1] if function.attr != "sub" else [])
        methods = {function.attr} if function.attr != "compile" else methods_of(assigned.get(id(call), ""), tree)
        for method in sorted(methods):
            place = f"{name}:{call.lineno}:{method}"
            yield Use(place, value(call.args[0], names), int(value(flags[0], names)) if flags else 0, method)


@cache
def all_uses() -> list[Use]:
    return [use for name, tree in sources() for use in uses_in(name, tree)]


# ---------------------------------------------------------------- attacks


def example(op: Any, argument: Any) -> str:  # noqa: PLR0911
    """A short text that one element of a parsed pattern matches."""
    if op is codes.LITERAL:
        return chr(argument)
    if op is codes.NOT_LITERAL:
        return "x" if argument != ord("x") else "y"
    if op is codes.ANY:
        return "x"
    if op is codes.IN:
        return member(argument)
    if op in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
        return examples(argument[2]) * min(argument[0], 3)
    if op is codes.SUBPATTERN:
        return examples(argument[3])
    if op is codes.BRANCH:
        return examples(argument[1][0])
    return ""


def member(classes: list[tuple[Any, Any]]) -> str:
    """A character of a class."""
    return next((chr(c) for c in (*range(32, 127), 9, 10, 0, 0xE9) if is_member(chr(c), classes)), "x")


def is_member(c: str, classes: list[tuple[Any, Any]]) -> bool:
    negated = bool(classes) and classes[0][0] is codes.NEGATE
    categories = {
        codes.CATEGORY_DIGIT: str.isdigit,
        codes.CATEGORY_SPACE: str.isspace,
        codes.CATEGORY_WORD: lambda x: x.isalnum() or x == "_",
        codes.CATEGORY_NOT_DIGIT: lambda x: not x.isdigit(),
        codes.CATEGORY_NOT_SPACE: lambda x: not x.isspace(),
        codes.CATEGORY_NOT_WORD: lambda x: not (x.isalnum() or x == "_"),
    }
    inside = any(
        (op is codes.LITERAL and ord(c) == argument)
        or (op is codes.RANGE and argument[0] <= ord(c) <= argument[1])
        or (op is codes.CATEGORY and categories[argument](c))
        for op, argument in classes
    )
    return inside is not negated


def examples(tree: Any) -> str:
    return "".join(example(op, argument) for op, argument in tree)


def repeats(tree: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """For each repeated part of a pattern a text that leads to it, and what it repeats."""
    for op, argument in tree:
        if op in (codes.MAX_REPEAT, codes.MIN_REPEAT, codes.POSSESSIVE_REPEAT):
            yield before, examples(argument[2]) or "x"
            yield from repeats(argument[2], before)
        elif op is codes.SUBPATTERN:
            yield from repeats(argument[3], before)
        elif op is codes.BRANCH:
            for branch in argument[1]:
                yield from repeats(branch, before)
        elif op in (codes.ASSERT, codes.ASSERT_NOT):
            yield from repeats(argument[1], before)
        before += example(op, argument)


def attacks(use: Use, size: int) -> Iterator[str]:
    text = use.pattern.decode("latin-1") if isinstance(use.pattern, bytes) else use.pattern
    parsed = parser.parse(text, use.flags)
    found = list(dict.fromkeys(repeats(parsed)))[:MAX_UNITS]
    for before, unit in [*found, ("", " "), ("", "1"), ("", "a"), ("", examples(parsed) or "x")]:
        yield before + unit * (size // len(unit)) + "\0"
        yield (before + unit) * (size // len(before + unit)) + "\0"
    for (_, one), (_, two) in itertools.pairwise(found):
        yield (one * 50 + two * 50) * (size // (50 * len(one + two))) + "\0"


def cpu_s(use: Use, text: str) -> float:
    pattern = re.compile(use.pattern, use.flags)
    subject: Any = text.encode("utf-8") if isinstance(use.pattern, bytes) else text
    arguments = ("", subject) if use.method in ("sub", "subn") else (subject,)
    arguments = (b"", subject) if use.method in ("sub", "subn") and isinstance(subject, bytes) else arguments
    start = time.process_time()
    result = getattr(pattern, use.method)(*arguments)
    if use.method == "finditer":
        list(result)
    return time.process_time() - start


def test_the_patterns_are_found() -> None:
    assert len(all_uses()) > 60
    assert any("wfdb" in use.place for use in all_uses())


@pytest.mark.parametrize("use", all_uses(), ids=lambda use: use.place)
def test_a_pattern_takes_linear_time(use: Use) -> None:
    for size in SIZES:
        for text in attacks(use, size):
            spent = cpu_s(use, text)
            if spent > MAX_CPU_S:  # once more: the machine may have been busy
                spent = min(spent, cpu_s(use, text)) / slowness()
            assert spent <= MAX_CPU_S, f"{use.pattern!r}: {spent:.2f} s for {len(text)} of {text[:40]!r}"


def test_a_quadratic_pattern_would_be_found() -> None:
    slow = Use("", r"\d+\.?\d*x", 0, "fullmatch")
    assert any(cpu_s(slow, text) > MAX_CPU_S for size in SIZES[:4] for text in attacks(slow, size))
