"""Which case a trainee reads next: a new one by finding and difficulty, or one where they erred before.

References
----------
Leitner S., So lernt man lernen, Herder, Freiburg 1972 (boxes: up by one where it was right, back to the first where it
was wrong).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from data_specs.visit.teaching import Case
from service.learning.records import Signed, StoredCase, wrong

Difficulty = Literal["easy", "medium", "hard"]
DIFFICULTIES: tuple[Difficulty, ...] = ("easy", "medium", "hard")
EASY_BELOW, HARD_ABOVE = 0.2, 0.5
UNKNOWN = 0.5
"""How hard a case is of which neither machine nor specialist has spoken, before it was read: neither easy nor hard."""
BOX_DAYS = (1, 2, 4, 8, 16)
"""After how many days a case of each box comes again; right in the last box, it comes no more."""
SHARE_WITHOUT = 0.5
"""Of new cases, how many have no finding: each is drawn alone, so that one says nothing of the next."""
PRIOR_READERS = 4
"""Readers that the machine and the specialists count for, before anybody has read a case."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a trainee wants to read; ``None``: anything."""

    finding: str | None = None
    difficulty: Difficulty | None = None


def difficulty(case: Case, errors: Sequence[frozenset[str]], finding: str | None = None) -> float:
    """How hard a case is, 0 to 1, for one finding or as a whole: the share of first readings that erred.

    It begins with what machine and specialists say, counted as :data:`PRIOR_READERS`. As a whole a case is as hard as
    the hardest of its findings.
    """
    asked = [case.known[finding]] if finding else case.known.values()
    start = max((each.difficulty for each in asked if each.difficulty is not None), default=UNKNOWN)
    n_wrong = sum(finding in each if finding else bool(each) for each in errors)
    return (PRIOR_READERS * start + n_wrong) / (PRIOR_READERS + len(errors))


def band(value: float) -> Difficulty:
    if value < EASY_BELOW:
        return "easy"
    return "hard" if value > HARD_ABOVE else "medium"


def due(cases: Mapping[str, StoredCase], own: Sequence[Signed]) -> dict[str, datetime]:
    """When each case comes again where the trainee erred; ``own`` in order. A case never read wrongly does not.

    What was right at the first time never enters a box.
    """
    boxes: dict[str, int] = {}
    at: dict[str, datetime] = {}
    for each in own:
        if wrong(cases[each.visit].case, each.reading):
            boxes[each.visit] = 0
        elif each.visit in boxes:
            boxes[each.visit] += 1
        at[each.visit] = each.at
    return {visit: at[visit] + timedelta(days=BOX_DAYS[box]) for visit, box in boxes.items() if box < len(BOX_DAYS)}


def choose(
    cases: Mapping[str, StoredCase],
    errors: Mapping[str, Sequence[frozenset[str]]],
    own: Sequence[Signed],
    wish: Wish,
    now: datetime,
    seed: str,
) -> str | None:
    """The visit of the next case; ``None`` where there is none now.

    Parameters
    ----------
    errors
        As :func:`service.learning.records.errors_of`.
    own
        The trainee's readings, in order.
    seed
        Of the draw: the same gives the same case.
    """
    draw = random.Random(seed)  # noqa: S311  no secret: the mix of cases
    last = own[-1] if own else None
    fitting = [each for each in cases.values() if wish.finding is None or wish.finding in each.case.known]
    again = due(cases, own)
    waiting = sorted(
        (again[each.visit], each.visit)
        for each in fitting
        if each.visit in again and again[each.visit] <= now and (last is None or each.visit != last.visit)
    )
    new = _new(fitting, errors, own, wish)
    was_again = last is not None and last.number > 1
    if waiting and not (new and was_again):
        return waiting[0][1]
    if not new:
        return None
    without = draw.random() < SHARE_WITHOUT
    mixed = [each for each in new if _has(each.case, wish.finding) is not without]
    return draw.choice(mixed or new).visit


def _new(
    fitting: Sequence[StoredCase],
    errors: Mapping[str, Sequence[frozenset[str]]],
    own: Sequence[Signed],
    wish: Wish,
) -> list[StoredCase]:
    """The cases that the trainee has not read, of the difficulty that they wish."""
    read = {each.visit for each in own}
    return [
        each
        for each in fitting
        if each.visit not in read
        and (
            wish.difficulty is None
            or band(difficulty(each.case, errors.get(each.visit, ()), wish.finding)) == wish.difficulty
        )
    ]


def _has(case: Case, finding: str | None) -> bool:
    return case.known[finding].there if finding else case.has_finding
