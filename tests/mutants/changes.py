"""The changes that are tried on a module: operators of Cosmic Ray, and five of our own for what it leaves alone.

Annotations, docstrings, imports and decorators stay as they are: no test can hold them.
"""

from __future__ import annotations

import difflib
from ast import literal_eval
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.operators.operator import Example, Operator
from cosmic_ray.operators.provider import OperatorProvider
from parso.python.tree import Number, PythonLeaf
from parso.tree import NodeOrLeaf

Position = tuple[tuple[int, int], tuple[int, int]]

_COMPARISONS = ("Lt_LtE", "Lt_GtE", "LtE_Lt", "LtE_Gt", "Gt_GtE", "Gt_LtE", "GtE_Gt", "GtE_Lt", "Eq_NotEq", "NotEq_Eq")
_SIGNS = ("Add_Sub", "Sub_Add", "Mul_Div", "Div_Mul", "FloorDiv_Div", "Mod_Mul", "Pow_Mul")
_BITS = ("BitOr_BitAnd", "BitAnd_BitOr", "BitXor_BitAnd", "LShift_RShift", "RShift_LShift")

OF_COSMIC_RAY = (
    "NumberReplacer",
    "AddNot",
    "ReplaceTrueWithFalse",
    "ReplaceFalseWithTrue",
    "ReplaceAndWithOr",
    "ReplaceOrWithAnd",
    "ReplaceBreakWithContinue",
    "ReplaceContinueWithBreak",
    "ZeroIterationForLoop",
    *(f"ReplaceUnaryOperator_{change}" for change in ("Delete_Not", "Delete_Invert", "USub_UAdd")),
    *(f"ReplaceComparisonOperator_{change}" for change in (*_COMPARISONS, "Is_IsNot", "IsNot_Is")),
    *(f"ReplaceBinaryOperator_{change}" for change in (*_SIGNS, *_BITS)),
)


class _Own(Operator):
    @classmethod
    def examples(cls) -> tuple[Example, ...]:
        return ()

    def mutation_positions(self, node: NodeOrLeaf) -> Iterator[Position]:
        if self.applies(node):
            yield node.start_pos, node.end_pos

    def applies(self, node: NodeOrLeaf) -> bool:
        raise NotImplementedError


class ATwentiethMore(_Own):
    """A number with a fraction, 5 % larger: 6.0 becomes 6.3. Cosmic Ray adds and subtracts 1."""

    def applies(self, node: NodeOrLeaf) -> bool:
        return isinstance(node, Number) and isinstance(value := literal_eval(node.value), float) and value != 0

    def mutate(self, node: Number, index: int) -> NodeOrLeaf:
        node.value = f"{1.05 * float(node.value):.12g}"
        return node


class OtherText(_Own):
    """Two more letters at the start of a text: a unit, a name or a keyword that is not found again."""

    def applies(self, node: NodeOrLeaf) -> bool:
        return node.type == "string" and node.parent.type != "simple_stmt"

    def mutate(self, node: PythonLeaf, index: int) -> NodeOrLeaf:
        quotes = 3 if node.value.endswith(('"""', "'''")) else 1
        start = node.value.index(node.value[-1]) + quotes
        node.value = f"{node.value[:start]}xx{node.value[start:]}"
        return node


class OtherWord(_Own):
    """The smallest for the largest, ``all`` for ``any``, one category or severity for its neighbour, ``in`` negated."""

    NAMES: ClassVar = {
        "min": "max",
        "max": "min",
        "minimum": "maximum",
        "maximum": "minimum",
        "any": "all",
        "all": "any",
    }
    TEXTS: ClassVar = {'"low"': '"intermediate"', '"intermediate"': '"high"', '"high"': '"intermediate"'}
    TEXTS |= {'"warn"': '"reject"', '"reject"': '"warn"', '"direct"': '"complement"', '"complement"': '"direct"'}

    def applies(self, node: NodeOrLeaf) -> bool:
        return self._other(node) is not None

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        leaf = node.get_first_leaf()
        if node.type == "comp_op":
            leaf.value, node.children[1].prefix = "", ""
        else:
            leaf.value = self._other(node)
        return node

    def _other(self, node: NodeOrLeaf) -> str | None:
        if node.type == "comp_op":
            return "in" if node.get_code().split() == ["not", "in"] else None
        if node.type == "keyword" and node.value == "in" and node.parent.type == "comparison":
            return "not in"
        if node.type == "name" and node.parent.type in ("trailer", "atom_expr", "power"):
            return self.NAMES.get(node.value)
        return self.TEXTS.get(node.value) if node.type == "string" else None


class OtherCondition(_Own):
    """The condition of a comprehension, negated; Cosmic Ray negates those of statements."""

    def applies(self, node: NodeOrLeaf) -> bool:
        return node.type == "comp_if"

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        node.children[1] = get_ast(f" not ({node.children[1].get_code().strip()})")
        return node


class LeftOut(_Own):
    """A statement that changes an object, adds to a number, refuses or goes on is left out."""

    def applies(self, node: NodeOrLeaf) -> bool:
        if node.type != "simple_stmt":
            return False
        statement = node.children[0]
        if statement.type == "expr_stmt":
            target, by = statement.children[0], statement.children[1]
            return target.type in ("atom_expr", "power") or (by.type == "operator" and by.value != "=")
        return statement.type in ("raise_stmt", "atom_expr", "power") or statement.get_code().strip() == "continue"

    def mutate(self, node: NodeOrLeaf, index: int) -> NodeOrLeaf:
        node.children[0] = get_ast(f"{node.get_first_leaf().prefix}pass")
        return node


OWN = (ATwentiethMore, OtherText, OtherWord, OtherCondition, LeftOut)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A module with one change.

    Parameters
    ----------
    line
        Of the first line that differs, from 1.
    within
        Name of the function or class that has it; empty at the module's level.
    was, becomes
        The lines that differ, without their indentation.
    source
        The whole module.
    """

    module: str
    line: int
    within: str
    was: str
    becomes: str
    source: str


def mutants(module: str, root: Path) -> list[Mutant]:
    """Every change of one module, in the order of its lines; each changed source once."""
    source = (root / module).read_text("utf-8")
    tree = get_ast(source)
    found: dict[str, Mutant] = {}
    for operator in operators():
        places = (node for node in ast_nodes(tree) for _ in operator.mutation_positions(node))
        for occurrence, node in enumerate(list(places)):
            changed = None if _left_alone(node) else mutate_code(source, operator, occurrence)
            if changed is not None and changed != source:
                found.setdefault(changed, _mutant(module, source, changed, node))
    return sorted(found.values(), key=lambda mutant: (mutant.line, mutant.becomes))


def operators() -> list[Operator]:
    provider = OperatorProvider()
    return [provider[name]() for name in OF_COSMIC_RAY] + [own() for own in OWN]


def _left_alone(node: NodeOrLeaf) -> bool:
    """Inside an import, a decorator, an annotation or a literal type; a star that multiplies nothing."""
    if node.type == "operator" and node.parent.type in ("parameters", "arglist"):
        return True
    inner, outer = node, node.parent
    while outer is not None:
        if inner is _annotation(outer) or inner.type in ("import_from", "import_name", "decorator"):
            return True
        if outer.type in ("atom_expr", "power") and outer.children[0].get_code().strip() == "Literal":
            return True
        inner, outer = outer, outer.parent
    return False


def _annotation(node: NodeOrLeaf) -> NodeOrLeaf | None:
    """Of a variable, a parameter or a result."""
    if node.type in ("annassign", "tfpdef"):
        return node.children[1 if node.type == "annassign" else 2]
    return node.annotation if node.type == "funcdef" else None


def _mutant(module: str, source: str, changed: str, node: NodeOrLeaf) -> Mutant:
    before, after = source.splitlines(), changed.splitlines()
    blocks = difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes()
    (_, first, end, new_first, new_end), *_ = (block for block in blocks if block[0] != "equal")
    scope = node.search_ancestor("funcdef", "classdef")
    return Mutant(
        module=module,
        line=first + 1,
        within=scope.name.value if scope else "",
        was=" ".join(line.strip() for line in before[first:end]),
        becomes=" ".join(line.strip() for line in after[new_first:new_end]),
        source=changed,
    )
