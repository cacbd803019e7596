"""``python -m benchmarks drift``: how soon a scanner whose films change is noticed, and how often without a cause.

Real films go the service's own way in, as they are and changed. Years of a device are then drawn from them: without a
change for the false alarms, with a change from one day on for the days until it is noticed.
``docs/how-to/watch-for-drift.md`` has the figures and what they do not say.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import chi2

from benchmarks.drift.changes import CHANGES, UNCHANGED
from benchmarks.drift.films import Seen, seen
from benchmarks.drift.years import Alarms, Scanner, as_served, false_alarms, noticed_after, only
from service.drift.checking import FULL

OUT = Path(__file__).parents[1] / "out" / "drift"
MOST_DAYS = 28
WAYS: dict[str, Alarms] = {
    "all numbers and codes, as served": as_served,
    "the distance from the training films alone": only("distance"),
    "the scores alone": only("logit "),
}
"""Ways to notice a change: the one of the service, and two with fewer numbers."""


def main(arguments: Sequence[str]) -> None:
    options = _options(arguments)
    films = seen(options.films, options.bundles, options.kept, options.most, options.changes)
    before = films[UNCHANGED]
    persons = len({each.person for each in before})
    print(
        f"{len(before)} films of {persons} persons, about {options.a_day} a day, a reference of {options.reference}\n"
    )
    result: dict[str, object] = {"films": len(before), "persons": persons}
    if options.years:
        result["false_alarms"] = _false_alarms(before, options)
    result["noticed"] = {name: _noticed(films, way, options) for name, way in WAYS.items()}
    print(json.dumps(result))


def _false_alarms(before: Sequence[Seen], options: argparse.Namespace) -> dict[str, float]:
    scanner, random = Scanner.of(before), np.random.default_rng(options.seed)
    n = sum(
        false_alarms(scanner, random, a_day=options.a_day, n_reference=options.reference) for _ in range(options.years)
    )
    low = chi2.ppf(0.025, 2 * n) / 2 / options.years if n else 0.0
    high = chi2.ppf(0.975, 2 * n + 2) / 2 / options.years
    found = {"years": options.years, "alarms": n, "a_year": n / options.years, "low": float(low), "high": float(high)}
    print(f"Without a change: {n} alarms in {options.years} years, {n / options.years:.3f} a year ", end="")
    print(f"(95 % interval {low:.3f} to {high:.3f})\n")
    return found


def _noticed(films: dict[str, list[Seen]], alarms: Alarms, options: argparse.Namespace) -> dict[str, object]:
    name = next(each for each, way in WAYS.items() if way is alarms)
    print(f"Days until a change is noticed, by {name}; {options.trials} times each\n")
    print("| change | median | 95 of 100 | within 7 days | with 20 devices | first noticed by |")
    print("|---|---|---|---|---|---|")
    found = {}
    for change in (each for each in films if each != UNCHANGED):
        scanner = Scanner.of(films[UNCHANGED], films[change])
        days, names = _trials(scanner, alarms, options, n_devices=1)
        of_many, _ = _trials(scanner, alarms, options, n_devices=20)
        week, week_of_many = (100 * float(np.mean(each <= 7)) for each in (days, of_many))
        first = ", ".join(each for each, _ in names.most_common(3)) or "none"
        middle, late = np.quantile(days, (0.5, 0.95), method="higher")
        print(
            f"| {change} | {_days(middle)} | {_days(late)} | {week:.0f} % | {week_of_many:.0f} % | {first} |",
            flush=True,
        )
        found[change] = {"median": int(middle), "p95": int(late), "week": week, "week_of_20": week_of_many}
    print()
    return found


def _trials(
    scanner: Scanner, alarms: Alarms, options: argparse.Namespace, *, n_devices: int
) -> tuple[np.ndarray, Counter[str]]:
    random, names, days = np.random.default_rng(options.seed), Counter[str](), []
    for _ in range(options.trials):
        after, by = noticed_after(
            scanner,
            random,
            a_day=options.a_day,
            n_reference=options.reference,
            n_devices=n_devices,
            most_days=MOST_DAYS,
            alarms=alarms,
        )
        days.append(after)
        names.update(by)
    return np.array(days), names


def _days(days: float) -> str:
    return f"{days:.0f}" if days <= MOST_DAYS else f"> {MOST_DAYS}"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks drift", description=__doc__)
    parser.add_argument(
        "--films",
        type=Path,
        nargs="+",
        required=True,
        help="folders of films with labels.csv (image, patient_id, age, sex)",
    )
    parser.add_argument("--most", type=int, default=320, help="films, whole persons at a time (%(default)s)")
    parser.add_argument("--bundles", type=Path, default=Path("models/bundles"))
    parser.add_argument("--kept", type=Path, default=OUT, help="where the numbers of the films are kept (%(default)s)")
    parser.add_argument("--changes", nargs="+", choices=[*CHANGES][1:], default=[*CHANGES][1:], metavar="NAME")
    parser.add_argument("--years", type=int, default=200, help="without a change (%(default)s)")
    parser.add_argument("--trials", type=int, default=100, help="of each change (%(default)s)")
    parser.add_argument("--a-day", type=int, default=50, help="films (%(default)s)")
    parser.add_argument("--reference", type=int, default=FULL, help="films, of each person one (%(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)
