"""Films of one device as they are compared: numbers and shares by name, from which no film can be told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

Kind = Literal["comes_in", "sees", "says", "agrees"]
"""What comes in, what the networks see in it, what they say of it, and whether doctors agree."""
REFUSED, DISAGREED = "refused", "disagreed"
CODE, LOGIT = "code ", "logit "
SEES = ("gate_", "distance")
DIGITS = 5


class SeenFilm(BaseModel):
    """A film as the service keeps it for this: no pixels, no identifiers.

    Parameters
    ----------
    codes
        Of its problems.
    traits
        As :mod:`inference.cxr.traits` names them.
    disagreed
        Whether a doctor who signed says anything else of a finding than the machine; ``None``: nobody has signed.
    """

    model_config = ConfigDict(frozen=True)

    refused: bool
    codes: tuple[str, ...]
    traits: dict[str, float]
    disagreed: bool | None = None


class Sample(BaseModel):
    """Films of a device in a time.

    Parameters
    ----------
    films
        How many; of each person one.
    numbers
        By trait, the values of the films that have it, in rising order: which belong to one film cannot be told.
    counts
        By what is counted: how many, of how many.
    """

    model_config = ConfigDict(frozen=True)

    films: int
    numbers: dict[str, tuple[float, ...]]
    counts: dict[str, tuple[int, int]]


def sample_of(films: Sequence[SeenFilm]) -> Sample:
    """The sample of some films."""
    names = dict.fromkeys(name for film in films for name in film.traits)
    codes = dict.fromkeys(code for film in films for code in film.codes)
    signed = [film.disagreed for film in films if film.disagreed is not None]
    counts = {REFUSED: _count((film.refused for film in films), len(films))}
    counts |= {CODE + code: _count((code in film.codes for film in films), len(films)) for code in codes}
    if signed:
        counts[DISAGREED] = _count(signed, len(signed))
    return Sample(
        films=len(films),
        numbers={
            name: tuple(sorted(round(film.traits[name], DIGITS) for film in films if name in film.traits))
            for name in names
        },
        counts=counts,
    )


def kind_of(name: str) -> Kind:
    """What a name is about."""
    if name.startswith(LOGIT):
        return "says"
    if name == DISAGREED:
        return "agrees"
    return "sees" if name.startswith(SEES) else "comes_in"


def quantiles(values: Sequence[float], shares: Sequence[float]) -> list[float]:
    """Quantiles of some values, to :data:`DIGITS` decimals."""
    return [round(float(each), DIGITS) for each in np.quantile(values, shares)]


def _count(true: Iterable[bool], of: int) -> tuple[int, int]:
    return sum(true), of
