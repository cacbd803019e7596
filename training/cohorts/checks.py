"""``python -m training check --cohort cohort.yaml``: what is wrong with a cohort, all at once, before anything trains.

Each check gives a verdict. ``unusable`` stops (exit status 2); ``doubtful`` goes on and says so in the model card.

What the look of the files may explain is thought through in :mod:`training.cohorts.confounds`.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_specs.cohort import ManifestInvalid
from inference.findings import ADULT_YEARS
from training.cohorts.cohort import MIN_CASES
from training.cohorts.confounds import label_by_look, label_by_tag
from training.cohorts.files import CohortTable, Inputs, TableUnusable, load_inputs, load_table
from training.cohorts.likeness import alike
from training.cohorts.table import part_of, sex_of
from training.cohorts.verdicts import Check, Verdict, about, doubts, few, report, unusable

FEWEST_CASES = 2
"""Fewer positives or negatives than this in validation or test: nothing can be chosen or evaluated."""
UNREADABLE_SHARE = 0.01
"""Up to this share of files may be left out for being unreadable; more is a fault of the cohort."""
MAX_AGE_YEARS = 120.0


__all__ = ["Check", "check_cohort", "doubts", "main", "report", "unusable"]


def check_cohort(table: CohortTable, inputs: Inputs) -> list[Check]:
    """Everything that can be known about a cohort before training, the gravest first."""
    steps: Sequence[Callable[[CohortTable, Inputs], Iterable[Check]]] = (
        _columns,
        _files,
        _persons,
        _splits,
        _duplicates,
        _label_values,
        _counts,
        _ages,
        _sexes,
        _dates,
        label_by_tag,
        label_by_look,
    )
    grave = {"unusable": 0, "doubtful": 1, "ok": 2}
    return sorted((check for step in steps for check in step(table, inputs)), key=lambda check: grave[check.verdict])


# ---------------------------------------------------------------- table and files


def _columns(table: CohortTable, _: Inputs) -> Iterable[Check]:
    for name, column in table.absent:
        yield Check("columns", "unusable", f"the table has no column '{column}', which the manifest names for {name}")
    if table.unnamed:
        unnamed = ", ".join(table.unnamed)
        yield Check("columns", "ok", f"not used, as the manifest does not name them: {unnamed}", names=table.unnamed)


def _files(table: CohortTable, inputs: Inputs) -> Iterable[Check]:
    """Refused files by code, with the share that is left out."""
    refused: dict[str, list[int]] = {}
    reserves: Counter[str] = Counter()
    for i, problems in enumerate(inputs.problems):
        for problem in problems:
            if problem.severity == "reject":
                refused.setdefault(problem.code, []).append(i)
            else:
                reserves[problem.code] += 1
    n, n_refused = len(table.frame), len({i for rows in refused.values() for i in rows})
    for code, rows in sorted(refused.items()):
        first = next(p for p in inputs.problems[rows[0]] if p.code == code)
        what = "missing files" if code == "file_missing" else "unreadable files"
        if table.manifest.modality == "labs":
            what = "laboratory values"
        verdict: Verdict = "unusable" if n_refused > UNREADABLE_SHARE * n else "doubtful"
        text = f"{code}: {len(rows)} of {n}. {first.message('en')}"
        yield about(table, what, verdict, text, np.array(rows), figure=len(rows) / n)
    if not refused:
        yield Check("files", "ok", f"{n} of {n} are read")
    if reserves:
        yield Check("reserves", "ok", ", ".join(f"{code} in {count}" for code, count in reserves.most_common()))
    if table.manifest.modality != "labs":
        blank = [i for i in np.flatnonzero(inputs.readable) if float(np.std(inputs.x[i])) < 1e-3]
        if blank:
            yield about(table, "blank files", "doubtful", "nothing is to be seen in these", np.array(blank))


def _persons(table: CohortTable, _: Inputs) -> Iterable[Check]:
    nobody = np.flatnonzero(table.raw.person.isna())
    if len(nobody):
        yield about(table, "persons", "unusable", "no person is named, so parts cannot be kept apart", nobody)
    said = table.frame[table.frame.sex.notna()]
    two = said.groupby("person").sex.nunique()
    mixed = np.flatnonzero(table.frame.person.isin(two.index[two > 1]))
    if len(mixed):
        yield about(table, "persons", "doubtful", "one person has two sexes: is it one person?", mixed)


def _splits(table: CohortTable, _: Inputs) -> Iterable[Check]:
    split, part = table.raw["split"], table.frame.part.to_numpy(dtype=str)
    unknown = np.array([v is not None and part_of(v, table.manifest) is None for v in split])
    if unknown.any():
        found = ", ".join(sorted({str(v) for v in split[unknown]})[:8])
        text = f"not train, validation, test or unused: {found} (translate it under values.split)"
        yield about(table, "splits", "unusable", text, np.flatnonzero(unknown))
    if split.notna().any() and split.isna().any():
        yield about(table, "splits", "doubtful", "no part is said; left out", np.flatnonzero(split.isna()))
    used = table.frame[part != "unused"]
    parts = used.groupby("person").part.nunique()
    both = np.flatnonzero(table.frame.person.isin(parts.index[parts > 1]) & (part != "unused"))
    if len(both):
        names = sorted(set(table.frame.person.iloc[both]))
        text = (
            f"{len(names)} in more than one part: {few(names)}. What is learned from a person would be tested on "
            "the same person"
        )
        rows = tuple(int(r) for r in table.frame.row.iloc[both])
        yield Check("person in two splits", "unusable", text, rows, tuple(names), figure=float(len(names)))
    counts = Counter(part)
    how = "by the table" if split.notna().any() else "by a hash of the person"
    yield Check("splits", "ok", how + ": " + ", ".join(f"{p} {counts[p]}" for p in sorted(counts)))


def _duplicates(table: CohortTable, inputs: Inputs) -> Iterable[Check]:
    """The same file or picture in two parts, under two persons, or with two labels."""
    if table.manifest.modality == "labs":
        return
    part, person = table.frame.part.to_numpy(dtype=str), table.frame.person.to_numpy(dtype=str)
    rows = np.flatnonzero(inputs.readable)
    pairs = {(i, j): r for i, j, r in alike(inputs.x, rows)}
    first: dict[str, int] = {}
    for i in rows:
        earlier = first.setdefault(inputs.digests[i], int(i))
        if earlier != i:
            pairs[earlier, int(i)] = 1.0
    used = {pair: r for pair, r in pairs.items() if "unused" not in (part[pair[0]], part[pair[1]])}
    across = [pair for pair in used if part[pair[0]] != part[pair[1]]]
    persons = [pair for pair in used if part[pair[0]] == part[pair[1]] and person[pair[0]] != person[pair[1]]]
    twice = [pair for pair in used if part[pair[0]] == part[pair[1]] and person[pair[0]] == person[pair[1]]]
    for name, verdict, found, text in (
        ("duplicate across splits", "unusable", across, "the same file or picture stands in two parts"),
        ("duplicate across persons", "doubtful", persons, "the same file or picture stands under two persons"),
        ("duplicate", "doubtful", twice, "the same file or picture stands twice under one person"),
    ):
        if found:
            index = np.array(sorted({i for pair in found for i in pair}))
            shown = few([f"{_row(table, i)} = {_row(table, j)}" for i, j in sorted(found)])
            lowest = min(used[pair] for pair in found)
            yield about(table, name, verdict, f"{text}: rows {shown}", index, figure=round(lowest, 3))  # type: ignore[arg-type]
    for finding, values in table.labels.items():
        y = values.to_numpy()
        against = [(i, j) for i, j in used if {y[i], y[j]} == {0.0, 1.0}]
        if against:
            index = np.array(sorted({i for pair in against for i in pair}))
            shown = few([f"{_row(table, i)} ≠ {_row(table, j)}" for i, j in sorted(against)])
            text = f"{finding}: one picture, labelled 0 and 1: rows {shown}"
            yield about(table, "contradictory labels", "unusable", text, index)
    if not used:
        yield Check("duplicates", "ok", f"none among {len(rows)}")


# ---------------------------------------------------------------- labels and persons


def _label_values(table: CohortTable, _: Inputs) -> Iterable[Check]:
    for finding, values in table.labels.items():
        raw, y = table.raw[f"label:{finding}"], values.to_numpy()
        wrong = raw.notna().to_numpy() & ~np.isin(y, (0.0, 1.0))
        if wrong.any():
            found = few(sorted({str(v) for v in raw[wrong]}))
            text = f"{finding}: found {found}; a label is 0, 1 or nothing (unknown)"
            yield about(table, "label values", "unusable", text, np.flatnonzero(wrong))
        known = y[np.isin(y, (0.0, 1.0))]
        if len(set(known)) < 2:
            always = f"always {known[0]:g}" if len(known) else "always unknown"
            yield Check("constant label", "unusable", f"{finding}: {always}; nothing can be learned from it")


def _counts(table: CohortTable, inputs: Inputs) -> Iterable[Check]:
    """Positives and negatives of each part among the readable rows."""
    part = table.frame.part.to_numpy(dtype=str)
    cross_validated = table.manifest.modality == "labs" and table.raw["split"].isna().all()
    parts = {"all": part != "unused"} if cross_validated else {p: part == p for p in ("train", "validation", "test")}
    for finding, values in table.labels.items():
        y = values.to_numpy()
        if len({v for v in y if v in (0.0, 1.0)}) < 2:
            continue  # said by the check of constant labels
        shown, worst, fewest = [], "ok", len(y)
        for name, member in parts.items():
            known = y[member & inputs.readable & ~outside_ages(table)]
            n_positive, n_negative = int((known == 1).sum()), int((known == 0).sum())
            shown.append(f"{name} {n_positive} positive, {n_negative} negative")
            fewest = min(fewest, n_positive, n_negative)
            if min(n_positive, n_negative) < FEWEST_CASES:
                worst = "unusable"
            elif min(n_positive, n_negative) < MIN_CASES and worst == "ok":
                worst = "doubtful"
        verdict: Verdict = worst  # type: ignore[assignment]
        text = f"{finding}: {'; '.join(shown)}"
        text += {"ok": "", "doubtful": f" (fewer than {MIN_CASES}: too few to say)", "unusable": " (too few)"}[verdict]
        yield Check("class counts", verdict, text, figure=float(fewest))


def _ages(table: CohortTable, inputs: Inputs) -> Iterable[Check]:
    age = table.frame.age_years.to_numpy()
    said = table.raw.age_years.notna().to_numpy()
    wrong = said & ~_plausible(age)
    stated = table.manifest.age_years
    if wrong.any():
        found = few(sorted({str(v) for v in table.raw.age_years[wrong]}))
        text = f"found {found}; an age is 0 to {MAX_AGE_YEARS:g} years"
        # Where ages decide for whom a finding is offered, a wrong one puts cases where they do not belong.
        yield about(table, "implausible ages", "unusable" if stated else "doubtful", text, np.flatnonzero(wrong))
    if stated:
        yield from _ages_as_stated(table, stated)
    elif table.manifest.modality != "labs":
        yield from _ages_as_found(table, inputs)


def _ages_as_stated(table: CohortTable, stated: tuple[float, float]) -> Iterable[Check]:
    age = table.frame.age_years.to_numpy()
    if table.raw.age_years.isna().all():
        yield Check("ages", "doubtful", "ages to offer are stated, but no age is known: they cannot be checked")
        return
    inside = ((age >= stated[0]) & (age < stated[1])).sum()
    text = f"{inside} of {len(age)} lie in the range to offer, {stated[0]:g} to {stated[1]:g}"
    outside = outside_ages(table).sum()
    if outside:
        text += f"; {outside} outside it are left out of validation and test"
    yield Check("ages", "ok", text)


def _ages_as_found(table: CohortTable, inputs: Inputs) -> Iterable[Check]:
    """Without stated ages a finding is offered for those of the table; without any, nobody knows for whom."""
    offered = ages_to_offer(table, inputs)
    if offered is None:
        text = (
            "no age is known, so nobody can say for whom a finding may be offered: add `age_years: [from, to]` to the "
            "manifest (to is not included), or name the column of ages (columns: {age_years: …})"
        )
        yield Check("ages", "unusable", text)
        return
    age = table.frame.age_years.to_numpy()
    used = inputs.readable & (table.frame.part != "unused").to_numpy()
    unknown, minors = int((used & ~_plausible(age)).sum()), used & (age < ADULT_YEARS)
    verdict: Verdict = "ok"
    text = f"`age_years` is not stated; offered as the ages of the table reach, {offered[0]:g} to {offered[1]:g}"
    if unknown:
        verdict = "doubtful"
        text += f"; no age is known in {unknown} of {used.sum()}"
    in_test = int((minors & (table.frame.part == "test").to_numpy()).sum())
    if offered[0] < ADULT_YEARS < offered[1] and in_test < MIN_CASES:
        verdict = "doubtful"
        text += (
            f"; {minors.sum()} are under {ADULT_YEARS:g} years, {in_test} of them in test: too few to say anything of "
            "the young. State `age_years` unless they are meant"
        )
    yield Check("ages", verdict, text)


def ages_to_offer(table: CohortTable, inputs: Inputs) -> tuple[float, float] | None:
    """Whom a finding may be offered for, lower bound included, upper bound not.

    As the manifest states it, else in whole years as far as the ages of the rows used reach; ``None``: nobody knows.
    """
    if table.manifest.age_years is not None:
        return table.manifest.age_years
    used = inputs.readable & (table.frame.part != "unused").to_numpy()
    age = table.frame.age_years.to_numpy()[used]
    age = age[_plausible(age)]
    return (float(np.floor(age.min())), float(np.floor(age.max())) + 1) if len(age) else None


def outside_ages(table: CohortTable) -> NDArray[np.bool_]:
    """``(n,)`` rows that neither validate nor test, as nothing is offered for their age; they may train."""
    if table.manifest.age_years is None or table.manifest.modality == "labs":
        return np.zeros(len(table.frame), dtype=bool)
    low, high = table.manifest.age_years
    age = table.frame.age_years.to_numpy()
    decides = table.frame.part.isin(["validation", "test"]).to_numpy()
    return np.asarray(decides & ((age < low) | (age >= high)))


def _plausible(age: NDArray[np.float64]) -> NDArray[np.bool_]:
    return (age >= 0) & (age <= MAX_AGE_YEARS)


def _sexes(table: CohortTable, _: Inputs) -> Iterable[Check]:
    understood = {"unknown", *(word for word, sex in table.manifest.values.sex.items() if sex == "unknown")}
    wrong = [
        i
        for i, value in enumerate(table.raw.sex)
        if value is not None and value not in understood and sex_of(value, table.manifest) is None
    ]
    if wrong:
        found = few(sorted({str(table.raw.sex.iloc[i]) for i in wrong}))
        text = f"found {found}; taken as unknown (translate it under values.sex)"
        yield about(table, "sexes", "doubtful", text, np.array(wrong))


def _dates(table: CohortTable, _: Inputs) -> Iterable[Check]:
    wrong = table.raw.made_on.notna() & table.frame.made_on.isna()
    if wrong.any():
        yield about(table, "dates", "doubtful", "not YYYY-MM-DD; taken as unknown", np.flatnonzero(wrong))
    future = table.frame.made_on > pd.Timestamp.now(tz="UTC") + pd.Timedelta(days=1)
    if future.any():
        yield about(table, "dates", "doubtful", "lie in the future", np.flatnonzero(future))


# ---------------------------------------------------------------- the command


def main(argv: Sequence[str] | None = None) -> int:
    """Check one cohort and print what was found; 2 where it is unusable."""
    parser = argparse.ArgumentParser(prog="python -m training check", description="Check a cohort before training.")
    parser.add_argument("--cohort", type=Path, required=True, help="the cohort's YAML document")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    arguments = parser.parse_args(argv)
    try:
        table = load_table(arguments.cohort)
    except (ManifestInvalid, TableUnusable) as fault:
        print(fault)
        return 2
    checks = check_cohort(table, load_inputs(table, progress=not arguments.quiet))
    print(report(checks, table))
    return 2 if unusable(checks) else 0


def _row(table: CohortTable, index: int) -> int:
    return int(table.frame.row.iloc[index])
