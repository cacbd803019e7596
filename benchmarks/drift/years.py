"""Years of films, drawn again and again from real ones: how often an alarm is raised, and when a change is noticed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.drift.films import Seen
from benchmarks.drift.pool import Indices, Pool
from service.drift.compare import ENDS_AT, limit_of_p

DAYS, WEEK = 365, 7
Alarms = Callable[[Mapping[str, float], int], set[str]]
"""From the p of each comparison and the number of devices to the names that are an alarm."""


def as_served(found: Mapping[str, float], n_devices: int) -> set[str]:
    """As the service raises alarms."""
    limit = limit_of_p(n_devices, len(found))
    return {name for name, p in found.items() if p <= limit}


def only(beginning: str) -> Alarms:
    """Alarms of the comparisons whose names begin so, which have the whole budget."""
    return lambda found, n_devices: as_served(
        {name: p for name, p in found.items() if name.startswith(beginning)}, n_devices
    )


@dataclass(frozen=True)
class Scanner:
    """A device and its persons, whose films may be changed from a day on.

    Parameters
    ----------
    pool
        The films as they are, then the same films changed.
    persons
        Of each person, the places of the films as they are.
    n_films
        How many films there are: a film's changed one stands so much further in the pool.
    """

    pool: Pool
    persons: tuple[Indices, ...]
    n_films: int

    @classmethod
    def of(cls, seen: Sequence[Seen], changed: Sequence[Seen] = ()) -> Scanner:
        of_person: dict[str, list[int]] = {}
        for place, each in enumerate(seen):
            of_person.setdefault(each.person, []).append(place)
        persons = tuple(np.array(places) for places in of_person.values())
        return cls(Pool([*seen, *changed]), persons, len(seen))

    def day(self, random: np.random.Generator, n_films: int, *, is_changed: bool = False) -> Indices:
        """A day of about ``n_films``: persons are drawn, each with all films; the service counts one of each.

        The last person of a day may bring it beyond ``n_films``, and comes with the chance that keeps the mean right.
        """
        came, counted = 0, []
        while came < n_films:
            films = self.persons[random.integers(len(self.persons))]
            if came + len(films) > n_films and random.random() > (n_films - came) / len(films):
                break
            came += len(films)
            counted.append(films[random.integers(len(films))])
        return np.array(counted) + (self.n_films if is_changed else 0)

    def reference(self, random: np.random.Generator, n_films: int, a_day: int) -> tuple[Indices, NDArray[np.int64]]:
        """The first films of the device that are counted, and the counts of their values."""
        films = np.concatenate([self.day(random, a_day) for _ in range(1 + 3 * n_films // a_day)])[:n_films]
        return films, self.pool.counts(films)


def false_alarms(
    scanner: Scanner,
    random: np.random.Generator,
    *,
    a_day: int,
    n_reference: int,
    n_devices: int = 1,
    alarms: Alarms = as_served,
) -> int:
    """Days of one year without any change on which the device raises an alarm; one that is open is not raised again."""
    before, counts = scanner.reference(random, n_reference, a_day)
    days = [scanner.day(random, a_day) for _ in range(WEEK - 1)]
    is_open: set[str] = set()
    raised = 0
    for _ in range(DAYS):
        days = [*days[1 - WEEK :], scanner.day(random, a_day)]
        found = scanner.pool.compared(before, counts, np.concatenate(days))
        is_open = {name for name in is_open if found.get(name, 0) <= ENDS_AT}
        new = alarms(found, n_devices) - is_open
        raised += bool(new)
        is_open |= new
    return raised


def noticed_after(
    scanner: Scanner,
    random: np.random.Generator,
    *,
    a_day: int,
    n_reference: int,
    n_devices: int = 1,
    most_days: int = 28,
    alarms: Alarms = as_served,
) -> tuple[int, set[str]]:
    """Days from a change to its first alarm, and what it names; ``most_days + 1`` where there is none."""
    before, counts = scanner.reference(random, n_reference, a_day)
    days = [scanner.day(random, a_day) for _ in range(WEEK)]
    for number in range(1, most_days + 1):
        days = [*days[1:], scanner.day(random, a_day, is_changed=True)]
        if found := alarms(scanner.pool.compared(before, counts, np.concatenate(days)), n_devices):
            return number, found
    return most_days + 1, set()
