"""Whoever reads visits says what they do with cases to learn from.

A query over visits leaves them out (``visible``, ``chosen``, ``IS_CASE``), asks for visits by their ids, or stands
below with the reason why cases may be among what it reads.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.conftest import ROOT

VISITS = ("VisitRow", "VISITS")
LEAVES_OUT = ("visible", "chosen", "_finished", "IS_CASE")
"""``service.visits.filters.chosen`` and ``_finished`` of DICOMweb go through ``visible``."""
READ_ALL = {
    "api/operations.py: _unfinished": "work that waits, whoever it is for",
    "audit/listing.py: list_entries": "the log has every person, those of cases under their pseudonyms",
    "export/answers.py: _signed": "opinions of one imported site; nobody can sign a case",
    "export/importing.py: _expect_own_site": "a site of cases may hold nothing else either",
    "person/found.py: _rows_with": "an erased pseudonym takes its cases along",
    "receive/commit.py: _UNFINISHED": "work that waits, whoever it is for",
    "receive/commit.py: first_visit": "visits of the site that posts; a teaching site has no key that may",
    "retention/deletion.py: _ids": "what a rule or a person's erasure chose",
    "visits/earlier.py: earlier_of": "visits of one site: those of a case are cases",
    "visits/filters.py: sites": "sites of referrals; no question is asked about a case",
    "visits/leases.py: _takeable": "cases are assessed, too",
    "visits/stored.py: _of_specialist": "visits with a referral, within visible()",
}


def queries() -> Iterator[tuple[str, ast.stmt]]:
    """Functions, methods and constants of the service that select or join visits, by where they stand."""
    for path in sorted((ROOT / "service").rglob("*.py")):
        for outer in ast.parse(path.read_text("utf-8")).body:
            for each in outer.body if isinstance(outer, ast.ClassDef) else [outer]:
                if any(is_over_visits(node) for node in ast.walk(each)):
                    yield f"{path.relative_to(ROOT / 'service').as_posix()}: {name_of(each)}", each


def is_over_visits(node: ast.AST) -> bool:
    if not isinstance(node, ast.Call):
        return False
    called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    selects = called in ("select", "select_from", "join", "outerjoin", "aliased")
    return selects and any(
        isinstance(each, ast.Name) and each.id in VISITS for of in node.args for each in ast.walk(of)
    )


def name_of(node: ast.stmt) -> str:
    return getattr(node, "name", "") or ast.unparse(getattr(node, "targets", [node])[0])


def says_which(node: ast.stmt) -> bool:
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    return not names.isdisjoint(LEAVES_OUT) or any(is_by_id(each) for each in ast.walk(node))


def is_by_id(node: ast.AST) -> bool:
    """``VisitRow.id == …``, ``VISITS.c.id.in_(…)``"""
    if isinstance(node, ast.Compare):
        compared = node.left
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "in_":
        compared = node.func.value
    else:
        return False
    return ast.unparse(compared) in ("VisitRow.id", "VISITS.c.id")


def test_every_query_over_visits_says_what_it_does_with_cases() -> None:
    silent = {where for where, node in queries() if not says_which(node)}
    assert silent == set(READ_ALL)


def test_most_queries_are_found() -> None:
    assert sum(1 for _ in queries()) > 40
