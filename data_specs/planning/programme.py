"""What a programme states before it plans: its costs, its people, and how many of them have the finding.

Nothing here has a default price. A cost that is not stated is refused, because a plan with a forgotten cost reads like
one that is cheap.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, FiniteFloat, ValidationError
from pydantic_core import PydanticCustomError

from data_specs.schema import Schema

MAX_BYTES = 1_000_000
MAX_PREVALENCES, MAX_POPULATIONS = 10, 20
ALL_CASES = "all"
"""The figures on all cases that a finding's thresholds were chosen on."""


class BadProgramme(ValueError):
    """The table cannot be used. The message is one line: which file, which member, and why."""


@dataclass(frozen=True)
class Prevalence:
    """Share of the people screened who have the finding.

    Parameters
    ----------
    of
        People among whom it was counted; ``None``: it is taken as exact.
    """

    share: float
    of: int | None = None

    def drawn(self, rng: np.random.Generator, draws: int) -> NDArray[np.float64]:
        """``(draws,)`` shares that the count allows, by Jeffreys' posterior; all the same where it is exact."""
        if self.of is None:
            return np.full(draws, self.share)
        n = round(self.share * self.of)
        return rng.beta(n + 0.5, self.of - n + 0.5, draws)

    def __str__(self) -> str:
        return f"{self.share:.4g}" if self.of is None else f"{round(self.share * self.of)}/{self.of}"


def prevalences(written: Any) -> tuple[Prevalence, ...]:
    """Prevalences as a programme writes them: a share, a count, or a range; several in a list or between semicolons.

    ``0.003``: taken as exact. ``"24/8000"``: counted, 24 of 8,000. ``"0.002-0.02"``: a range, planned at both ends and
    at their geometric mean, for prevalences differ by factors.

    Raises
    ------
    PydanticCustomError
        It is none of these, not between 0 and 1, or there are none or too many.
    """
    if isinstance(written, tuple) and all(isinstance(each, Prevalence) for each in written):
        return written
    parts = written if isinstance(written, list) else str(written).split(";")
    found = tuple(each for part in parts if str(part).strip() for each in _prevalence(part))
    if not 0 < len(found) <= MAX_PREVALENCES:
        raise PydanticCustomError(
            "prevalences", "expected {expected} prevalences", {"expected": f"1 … {MAX_PREVALENCES}"}
        )
    return found


_NUMBER = r"(?:0?[.][0-9]{1,12})"
_SHARE = re.compile(rf"({_NUMBER})|({_NUMBER})\s*[-–]\s*({_NUMBER})|([0-9]{{1,9}})\s*/\s*([0-9]{{1,9}})", re.ASCII)
FORMS = "0.003 | 24/8000 | 0.002-0.02"


def _prevalence(written: object) -> tuple[Prevalence, ...]:
    text = f"{written:.12f}" if isinstance(written, float) else str(written).strip().replace(",", ".")
    found = _SHARE.fullmatch(text)
    wrong = PydanticCustomError("prevalence", "expected {expected}, shares between 0 and 1", {"expected": FORMS})
    if found is None:
        raise wrong
    exact, low, high, ill, of = found.groups()
    shares: tuple[float, ...]
    people: int | None
    if of is not None:
        shares, people = (int(ill) / max(int(of), 1),), int(of)
    elif exact is not None:
        shares, people = (float(exact),), None
    else:
        shares, people = (float(low), float(np.sqrt(float(low) * float(high))), float(high)), None
    if not all(0 < share < 1 for share in shares) or list(shares) != sorted(set(shares)):
        raise wrong
    return tuple(Prevalence(share, people) for share in shares)


CURRENCIES = "EUR | USD | VND | … (ISO 4217)"
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)


def _currency(written: object) -> str:
    if not isinstance(written, str) or _CURRENCY.fullmatch(written) is None:
        raise PydanticCustomError("currency", "expected {expected}", {"expected": CURRENCIES})
    return written


Amount = Annotated[FiniteFloat, Field(ge=0, le=1e12)]


class Costs(Schema):
    """What each step costs the programme, in one currency.

    Parameters
    ----------
    currency
        Its code (ISO 4217).
    screening
        For each person screened: film or recording, staff, reading.
    recall_visit
        For each person recalled: being called, travelling, being seen.
    confirmatory_test, tests_per_recall
        One test, and how many each person recalled gets.
    treatment_start
        For each case found.
    """

    currency: Annotated[str, BeforeValidator(_currency)]
    screening: Amount
    recall_visit: Amount
    confirmatory_test: Amount
    tests_per_recall: Annotated[FiniteFloat, Field(ge=0, le=20)]
    treatment_start: Amount


class Population(Schema):
    """People who are screened with one prevalence, and the cases whose figures are taken to hold for them.

    Parameters
    ----------
    people
        Screened in the time that is planned.
    prevalence
        As :func:`prevalences` reads it: the plan is made for each.
    cases
        Group of the cases that sensitivity and specificity come from; ``all``: all of them.
    """

    people: Annotated[int, Field(ge=1, le=1_000_000_000)]
    prevalence: Annotated[tuple[Prevalence, ...], BeforeValidator(prevalences)]
    cases: Annotated[str, Field(min_length=1, max_length=200)] = ALL_CASES


class Programme(Schema):
    """The whole table."""

    costs: Costs
    populations: Annotated[dict[str, Population], Field(min_length=1, max_length=MAX_POPULATIONS)]


def read_programme(path: Path) -> Programme:
    """A programme's table, TOML.

    Raises
    ------
    BadProgramme
        It cannot be read, or something in it is missing, unknown or impossible.
    """
    try:
        with path.open("rb") as opened:
            content = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise BadProgramme(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > MAX_BYTES:
        raise BadProgramme(f"{path}: a table has at most {MAX_BYTES} bytes")
    try:
        return Programme.model_validate(tomllib.loads(content.decode()))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadProgramme(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    except (ValueError, RecursionError) as error:
        raise BadProgramme(f"{path}: is not TOML in UTF-8: {error}") from None
