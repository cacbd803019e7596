"""``python -m training normals``: what a certificate of normals needs and holds, tried on real films.

The shipped lung bundle scores films of the shipped cohorts that its network did not learn from: children (Kermany, the
validation part of the published train part, and once the published test part) and adults (NIH, validation and test
persons). What is drawn from them then, and why, is in :mod:`training.figures.normals`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from data_specs.bundle import CxrInput, FindingSpec
from data_specs.cxr.files import read_image
from data_specs.planning.normals import (
    Case,
    Limits,
    events_in_expectation,
    events_needed,
    is_below,
    one_case_each,
    prove,
)
from inference.bundles.loading import Bundle, load_in_service
from inference.bundles.registry import read_registry
from inference.findings import calibrated
from inference.runtime.session import ONE_THREAD
from training.bundle.card_tables import markdown
from training.bundle.local_cases import logits_of
from training.cohorts.cohort import Cohort
from training.cohorts.gates import bundles_folder
from training.cohorts.shipped_films import as_taken, kermany, nih
from training.figures.normals import PREVALENCE, Drawn, draw_samples, split_in_halves, watch

EVENTS = (19, 50, 59, 72, 99, 150, 300, 600)
SEED = 2026
READ = 1000
BATCH = 32
DRAWN = (
    "events in the sample", "certified", "too few", "too often abnormal or none released",
    "breaks the bound on missed", "breaks the bound on abnormal", "missed in truth", "released of those without",
)  # fmt: skip


def score(bundle: Bundle, spec: FindingSpec, cohort: Cohort, parts: Sequence[str]) -> pd.DataFrame:
    """Probability of each film of these parts of a cohort whose ``x`` are paths, as serving would give it."""
    taken = as_taken(bundle.input_as(CxrInput))
    rows = np.flatnonzero(np.isin(cohort.part, parts))
    logits = []
    for start in tqdm(range(0, len(rows), BATCH), unit="batch", disable=None):
        films = [taken(read_image(Path(cohort.x[i]).read_bytes()).pixels)[None] for i in rows[start : start + BATCH]]
        logits.append(logits_of(bundle, films)[:, spec.column])
    if spec.calibration is None:
        raise ValueError(f"{spec.name} is not calibrated")
    scored = pd.DataFrame(
        {
            "person": cohort.person[rows],
            "part": cohort.part[rows],
            "probability": calibrated(np.concatenate(logits), spec.calibration),
            "outcome": np.where(cohort.labels[spec.name].to_numpy()[rows] == 1, "confirmed", "refuted"),
        }
    )
    groups = cohort.subgroups.iloc[rows][[name for name in ("sex", "age") if name in cohort.subgroups.columns]]
    return pd.concat([scored, groups.reset_index(drop=True)], axis=1)


def cases_of(scored: pd.DataFrame, kinds: Sequence[str] = ()) -> list[Case]:
    return [
        Case(
            str(row["person"]),
            float(row["probability"]),
            row["outcome"] == "confirmed",
            {kind: str(row[kind]) for kind in kinds},
        )
        for row in scored.to_dict("records")
    ]


def page(children: pd.DataFrame, adults: pd.DataFrame, *, samples: int) -> str:
    """All tables, Markdown."""
    rng = np.random.default_rng(SEED)
    limits = Limits(prevalence=PREVALENCE)
    at_home = cases_of(children[children.part == "validation"])
    parts = [
        "## How many events are needed\n",
        _needed(),
        f"## Children\n\n{_counts(at_home)}\n",
        _table(at_home, limits, samples, rng),
        _halves(at_home, limits, samples, rng),
        _elsewhere(at_home, cases_of(children[children.part == "test"]), limits),
    ]
    for title, kinds in (("Adults", ()), ("Adults, by sex", ("sex",)), ("Adults, by sex and age", ("sex", "age"))):
        cases = cases_of(adults, kinds)
        parts += [f"## {title}\n\n{_counts(cases)}\n", _table(cases, limits, samples, rng)]
    # without a limit on those released, to see what the bound on missed alone would let through
    loose = Limits(abnormal=1.0, prevalence=PREVALENCE)
    parts += [
        "## Adults, whatever share of those released has a finding\n",
        _table(cases_of(adults), loose, samples, rng),
    ]
    parts += ["## After a certificate: how soon the random tenth stops it\n", _watched(samples, rng)]
    return "\n".join(parts)


def _needed() -> str:
    rows = [
        [
            f"{missed:.0%}",
            str(events_in_expectation(missed)),
            *(str(events_needed(missed, 0.05 / n)) for n in (1, 3, 8)),
        ]
        for missed in (0.1, 0.05, 0.02, 0.01)
    ]
    head = [
        "missed at most",
        "in expectation",
        "95 %, no groups",
        "sex: in each",
        "sex, four ages, one device: in each",
    ]
    return markdown(head, rows)


def _counts(cases: Sequence[Case]) -> str:
    people = one_case_each(cases)
    events = sum(case.abnormal for case in people)
    return f"{len(cases)} films of {len(people)} persons, {events} of them with a finding."


def _table(cases: Sequence[Case], limits: Limits, samples: int, rng: np.random.Generator) -> str:
    rows = []
    for events in EVENTS:
        found = draw_samples(cases, events, limits, samples=samples, rng=rng)
        too_few = found.refused["too_few"]
        rows.append(
            [
                str(events),
                _of(found.certified, samples),
                _of(too_few, samples),
                _of(samples - found.certified - too_few, samples),
                _of(found.missed_too_often, samples),
                _of(found.abnormal_too_often, samples),
                _median(found.missed),
                _median(found.released),
            ]
        )
    return markdown(list(DRAWN), rows)


def _halves(cases: Sequence[Case], limits: Limits, samples: int, rng: np.random.Generator) -> str:
    found: Drawn = split_in_halves(cases, limits, splits=samples, rng=rng)
    missed = np.array(found.missed) if found.missed else np.zeros(1)
    return (
        f"Random halves by person, {samples} times: certified {_of(found.certified, samples)}; in the other half "
        f"{missed.mean():.1%} of the persons with a finding are released (95 % of the splits: at most "
        f"{np.quantile(missed, 0.95):.1%}), and {_of(found.missed_too_often, samples)} of the splits show a "
        "broken bound.\n"
    )


def _elsewhere(at_home: Sequence[Case], test: Sequence[Case], limits: Limits) -> str:
    proved = prove(at_home, limits)
    if proved.refused:
        return f"The whole validation part: {proved.refused}.\n"
    people = one_case_each(test)
    below = [case for case in people if is_below(case.released_from, case.groups, proved.thresholds)]
    sick = sum(case.abnormal for case in people)
    return (
        f"Certified on the whole validation part (below {proved.thresholds['all']:.3f}), looked at once on the "
        f"published test part: {sum(case.abnormal for case in below)} of {sick} persons with pneumonia and "
        f"{sum(not case.abnormal for case in below)} of {len(people) - sick} without it would be released.\n"
    )


def _watched(runs: int, rng: np.random.Generator) -> str:
    rows = []
    for bound in (0.005, 0.01):
        for factor in (0.5, 1, 2, 4, 8):
            found = watch(factor * bound, bound, read=READ, runs=runs, rng=rng)
            rows.append([f"{bound:.1%}", f"{found.share:.2%}", f"{found.stopped:.1%}", f"{found.median_read:.0f}"])
    head = ["bound", "in truth", f"stopped within {READ:,} read", "median read at the stop"]
    return markdown(head, rows)


def _of(n: int, of: int) -> str:
    return f"{n / of:.1%}"


def _median(shares: Sequence[float]) -> str:
    return f"{np.median(shares):.1%}" if shares else "-"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m training normals", description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the shipped cohorts' folder")
    parser.add_argument("--bundles", type=Path, default=bundles_folder(), help="folder of the bundles")
    parser.add_argument("--out", type=Path, default=Path("runs/normals"), help="folder of the scores and of the page")
    parser.add_argument("--samples", type=int, default=500, help="samples drawn for each row")
    given = parser.parse_args(argv)
    given.out.mkdir(parents=True, exist_ok=True)
    scored: dict[str, pd.DataFrame] = {}
    for name, cohort, finding in (("children", kermany, "pneumonia"), ("adults", nih, "abnormal")):
        kept = given.out / f"{name}.csv"
        if not kept.exists():
            bundle = load_in_service(read_registry(given.bundles), "lung", ONE_THREAD)
            spec = next(each for each in bundle.manifest.findings if each.name == finding)
            films = cohort(given.data, bundle.input_as(CxrInput), lambda paths, _: np.array(list(map(str, paths))))
            score(bundle, spec, films, ("validation", "test")).to_csv(kept, index=False)
        scored[name] = pd.read_csv(kept)
    text = page(scored["children"], scored["adults"], samples=given.samples)
    (given.out / "README.md").write_text(text, encoding="utf-8")
    print(text)
    return 0
