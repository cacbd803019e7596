"""Years of films, drawn again and again from real ones: how often an alarm is raised, and when a change is noticed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.drift.films import Seen
from service.drift.compare import compared, limit_of_p
from service.drift.samples import Sample, SeenFilm, sample_of

DAYS, WEEK = 365, 7
Compare = Callable[[Sample, Sample, int], set[str]]
"""From the reference, the last days and the number of devices to the names that are an alarm."""


def as_served(reference: Sample, now: Sample, n_devices: int) -> set[str]:
    """The comparisons of the service."""
    found = compared(reference, now)
    limit = limit_of_p(n_devices, len(found))
    return {each.name for each in found if each.p <= limit}


@dataclass(frozen=True)
class Persons:
    """Films by person; the same persons for the films before and after a change."""

    films: tuple[tuple[SeenFilm, ...], ...]

    @classmethod
    def of(cls, seen: Sequence[Seen]) -> Persons:
        by_person: dict[str, list[SeenFilm]] = {}
        for each in seen:
            film = SeenFilm(refused=not each.accepted, codes=each.codes, traits=each.traits)
            by_person.setdefault(each.person, []).append(film)
        return cls(tuple(tuple(films) for films in by_person.values()))

    def day(self, random: np.random.Generator, n_films: int) -> list[SeenFilm]:
        """A day of about ``n_films``: persons are drawn, each with all films; the service counts one of each.

        The last person of a day may bring it beyond ``n_films``, and comes with the chance that keeps the mean right.
        """
        came, counted = 0, []
        while came < n_films:
            films = self.films[random.integers(len(self.films))]
            if came + len(films) > n_films and random.random() > (n_films - came) / len(films):
                break
            came += len(films)
            counted.append(films[random.integers(len(films))])
        return counted


def reference(persons: Persons, random: np.random.Generator, n_films: int) -> Sample:
    """The first films of a device, so many that are counted."""
    films: list[SeenFilm] = []
    while len(films) < n_films:
        films += persons.day(random, 50)
    return sample_of(films[:n_films])


def false_alarms(
    persons: Persons,
    random: np.random.Generator,
    *,
    a_day: int,
    n_reference: int,
    n_devices: int = 1,
    compare: Compare = as_served,
) -> int:
    """Days of one year, without any change, on which something is an alarm that was none the day before."""
    before = reference(persons, random, n_reference)
    days = [persons.day(random, a_day) for _ in range(WEEK - 1)]
    open_: set[str] = set()
    raised = 0
    for _ in range(DAYS):
        days = [*days[1 - WEEK :], persons.day(random, a_day)]
        found = compare(before, sample_of([film for day in days for film in day]), n_devices)
        raised += bool(found - open_)
        open_ = found
    return raised


def noticed_after(
    persons: Persons,
    changed: Persons,
    random: np.random.Generator,
    *,
    a_day: int,
    n_reference: int,
    n_devices: int = 1,
    most_days: int = 28,
    compare: Compare = as_served,
) -> tuple[int, set[str]]:
    """Days from a change to its first alarm, and what it names; ``most_days + 1`` where there is none."""
    before = reference(persons, random, n_reference)
    days = [persons.day(random, a_day) for _ in range(WEEK)]
    for number in range(1, most_days + 1):
        days = [*days[1:], changed.day(random, a_day)]
        if found := compare(before, sample_of([film for day in days for film in day]), n_devices):
            return number, found
    return most_days + 1, set()
