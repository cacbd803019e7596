"""The simulation of drift: the p of the service, no more false alarms than the budget, changes that are noticed."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drift.changes import CHANGES, UNCHANGED
from benchmarks.drift.films import Seen
from benchmarks.drift.years import Scanner, false_alarms, noticed_after, only
from service.drift.compare import FALSE_ALARMS_A_YEAR, compared
from service.drift.samples import SeenFilm, sample_of


def made(n_persons: int, seed: int, shift: float = 0.0) -> list[Seen]:
    """Made films of persons with one to three each, which are alike."""
    random = np.random.default_rng(seed)
    found = []
    for person in range(n_persons):
        own = random.normal(0, 1, 4)
        for _ in range(random.integers(1, 4)):
            values = own + random.normal(0, 0.4, 4) + [shift, 0, 0, 0]
            traits = {f"t{i}": round(float(value), 2) for i, value in enumerate(values)}
            traits["size"] = float(random.choice([320, 256, 400], p=[0.9, 0.06, 0.04]))
            if random.random() < 0.1:
                del traits["t3"]
            codes = ("turned",) if random.random() < 0.05 else ()
            found.append(Seen(f"P-{person}", bool(random.random() > 0.03), codes, traits))
    return found


@pytest.fixture(scope="module")
def seen() -> list[Seen]:
    return made(150, seed=1)


def test_the_p_are_those_of_the_service(seen: list[Seen]) -> None:
    scanner, random = Scanner.of(seen), np.random.default_rng(2)
    films = [SeenFilm(refused=not each.accepted, codes=each.codes, traits=each.traits) for each in seen]
    for _ in range(5):
        before, counts = scanner.reference(random, 200, 50)
        now = np.concatenate([scanner.day(random, 50) for _ in range(3)])
        fast = scanner.pool.compared(before, counts, now)
        slow = {
            each.name: each.p
            for each in compared(sample_of([films[i] for i in before]), sample_of([films[i] for i in now]))
        }
        assert fast == pytest.approx(slow, rel=1e-9)


def test_a_day_has_as_many_films_as_asked_for_on_average(seen: list[Seen]) -> None:
    scanner, random = Scanner.of(seen), np.random.default_rng(3)
    of_person = {tuple(places): len(places) for places in scanner.persons}
    size_of = {place: n for places, n in of_person.items() for place in places}
    came = [sum(size_of[place] for place in scanner.day(random, 50)) for _ in range(400)]
    assert np.mean(came) == pytest.approx(50, abs=0.5)


def test_without_a_change_alarms_are_rarer_than_the_budget(seen: list[Seen]) -> None:
    scanner, random = Scanner.of(seen), np.random.default_rng(4)
    years = 20
    found = sum(false_alarms(scanner, random, a_day=20, n_reference=150) for _ in range(years))
    assert found <= 2 * FALSE_ALARMS_A_YEAR * years


def test_a_change_is_noticed_and_named(seen: list[Seen]) -> None:
    changed = made(150, seed=1, shift=1.0)
    scanner, random = Scanner.of(seen, changed), np.random.default_rng(5)
    days, names = zip(*(noticed_after(scanner, random, a_day=50, n_reference=300) for _ in range(10)), strict=True)
    assert max(days) <= 7
    assert all("t0" in each for each in names)
    after, _ = noticed_after(scanner, random, a_day=50, n_reference=300, alarms=only("t1"))
    assert after > 7


def test_changes_change_films_and_keep_them_films() -> None:
    film = np.random.default_rng(6).integers(0, 256, (320, 300)).astype(np.uint8)
    for name, change in CHANGES.items():
        changed = change(film)
        assert changed.dtype == np.uint8
        assert (name == UNCHANGED) == (changed.shape == film.shape and bool((changed == film).all())), name
        assert changed.shape == ((288, 270) if name.startswith("size") else film.shape)
