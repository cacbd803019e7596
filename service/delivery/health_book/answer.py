"""What the gateway of a health book answered: its result codes, what the table says that they mean, and what follows.

A status of 200 says nothing: an answer is a success where every result code in it is one, and it holds at least one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from data_specs.visit.followup import DeliveryAnswer, DeliveryStage
from service.delivery.health_book.table import ARRIVALS, Book, Meaning
from service.delivery.message import NotDelivered

MAX_KEPT = 4000
"""Characters of an answer that are kept."""
MAX_CODES = 20
MAX_DEPTH = 20
_CODE_CHARACTERS = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_")

PROBLEMS: dict[Meaning, tuple[str, DeliveryStage, bool]] = {
    "validation": ("book_validation", "validation", True),
    "signature": ("book_signature", "signature", True),
    "refused": ("book_refused", "refused", True),
    "login": ("book_login", "login", False),
    "again": ("book_again", "refused", False),
}
"""Code of the delivery, stage, and whether sending the same again cannot help, in the order in which they count."""


def read_answer(book: Book, body: bytes) -> DeliveryAnswer | None:
    """What an answer of any status says; ``None`` where it holds no result code.

    Raises
    ------
    NotDelivered
        One of its codes is no success, or is not in the table.
    """
    text = body.decode("utf-8", "replace")
    codes = codes_in(book, text)
    if not codes:
        return None
    meanings: dict[str, Meaning] = {code: book.codes.get(code, "refused") for code in codes}
    kept = text[:MAX_KEPT]
    for meaning, (problem, stage, permanent) in PROBLEMS.items():
        if meaning in meanings.values():
            shown = codes if len(codes) <= MAX_CODES else sorted(codes, key=lambda code: meanings[code] in ARRIVALS)
            answer = DeliveryAnswer(stage=stage, codes=tuple(shown[:MAX_CODES]), body=kept)
            raise NotDelivered(problem, permanent, answer=answer)
    furthest = max((each for each in ARRIVALS if each in meanings.values()), key=ARRIVALS.index)
    return DeliveryAnswer(stage=furthest, codes=codes[:MAX_CODES], body=kept)


def expect_arrival(book: Book, answer: DeliveryAnswer | None) -> DeliveryAnswer:
    """The answer, if the check-up has come as far as the table asks.

    Raises
    ------
    NotDelivered
    """
    if answer is None:
        raise NotDelivered("answer_unreadable")
    if answer.stage not in ARRIVALS[ARRIVALS.index(book.clock.arrived) :]:
        raise NotDelivered("book_not_arrived", answer=answer)
    return answer


def member(body: bytes, path: tuple[str, ...]) -> object:
    """What stands in an answer under these names, each within the one before; ``None`` where nothing does."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def codes_in(book: Book, text: str) -> tuple[str, ...]:
    """Result codes anywhere in an answer, each once: implementers disagree about the member that holds them.

    None where the answer cannot be read to its end: what is not read may be a code that fails.
    """
    try:
        return tuple(dict.fromkeys(_codes(book, json.loads(text), 0)))
    except (ValueError, RecursionError):
        return ()


def _codes(book: Book, value: Any, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise RecursionError
    if isinstance(value, str):
        if value.startswith(book.code_prefixes) and len(value) <= 80 and _CODE_CHARACTERS.issuperset(value):
            yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _codes(book, each, depth + 1)
