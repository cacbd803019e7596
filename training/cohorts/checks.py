"""All faults of a cohort at once, before anything is trained, recalibrated or evaluated on it.

Each check gives a verdict. ``unusable`` stops all of these; ``doubtful`` goes on and is written into the model card.
Checks of what else than the disease may predict a label are in :mod:`training.cohorts.confounds`; the command and what
can be offered with these counts in :mod:`training.figures.prospects`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.cohorts.ages import check_ages, outside_ages
from training.cohorts.cohort import MIN_CASES
from training.cohorts.confounds import label_by_look, label_by_tag
from training.cohorts.inputs import Inputs
from training.cohorts.likeness import similar_pairs
from training.cohorts.table import CohortTable, part_named, sex_of
from training.cohorts.verdicts import Check, Verdict, check_of_rows, listed

FEWEST_CASES = 2
"""With fewer positives or negatives than this in a part, nothing can be chosen or evaluated."""
UNREADABLE_SHARE = 0.01
"""Up to this share of unreadable files is left out; with more the cohort is unusable."""
REFUSED_SHARE = 0.01
"""With more files than this share refused by the gate of serving, the cases are not those that a doctor is shown."""

OF_TRAINING = ("class counts", "constant label")
"""Checks of what a training can learn and choose from. An evaluation gives what its counts allow."""


def check_cohort(table: CohortTable, inputs: Inputs) -> list[Check]:
    """All checks, the most severe verdicts first."""
    steps: Sequence[Callable[[CohortTable, Inputs], Iterable[Check]]] = (
        _columns,
        _files,
        _persons,
        _splits,
        _duplicates,
        _label_values,
        _counts,
        check_ages,
        _sexes,
        _dates,
        label_by_tag,
        label_by_look,
    )
    order = {"unusable": 0, "doubtful": 1, "ok": 2}
    return sorted((check for step in steps for check in step(table, inputs)), key=lambda check: order[check.verdict])


def _columns(table: CohortTable, _: Inputs) -> Iterable[Check]:
    for name, column in table.absent:
        yield Check("columns", "unusable", f"the table has no column '{column}', which the manifest names for {name}")
    if table.unnamed:
        unnamed = ", ".join(table.unnamed)
        yield Check("columns", "ok", f"not used, as the manifest does not name them: {unnamed}", names=table.unnamed)


def _files(table: CohortTable, inputs: Inputs) -> Iterable[Check]:
    """Unreadable files by code with their share, those that the gate refuses, warnings by code, and blank files."""
    refused: dict[str, list[int]] = {}
    by_gate: dict[str, list[int]] = {}
    warnings: Counter[str] = Counter()
    for i, problems in enumerate(inputs.problems):
        for problem in problems:
            if problem.severity == "reject":
                (by_gate if inputs.refused[i] else refused).setdefault(problem.code, []).append(i)
            else:
                warnings[problem.code] += 1
    n, n_refused = len(table.frame), len({i for rows in refused.values() for i in rows})
    for code, rows in sorted(refused.items()):
        first = next(p for p in inputs.problems[rows[0]] if p.code == code)
        what = "missing files" if code == "file_missing" else "unreadable files"
        if table.manifest.modality == "labs":
            what = "laboratory values"
        verdict: Verdict = "unusable" if n_refused > UNREADABLE_SHARE * n else "doubtful"
        text = f"{code}: {len(rows)} of {n}. {first.message('en')}"
        yield check_of_rows(table, what, verdict, text, np.array(rows), figure=len(rows) / n)
    if not refused:
        yield Check("files", "ok", f"{n} of {n} are read")
    yield from _refused_by_the_gate(table, inputs, by_gate)
    if warnings:
        yield Check("warnings", "ok", ", ".join(f"{code} in {count}" for code, count in warnings.most_common()))
    if table.manifest.modality != "labs":
        blank = [i for i in np.flatnonzero(inputs.readable) if float(np.std(inputs.x[i])) < 1e-3]
        if blank:
            yield check_of_rows(table, "blank files", "doubtful", "these show nothing", np.array(blank))


def _refused_by_the_gate(table: CohortTable, inputs: Inputs, by_code: dict[str, list[int]]) -> Iterable[Check]:
    """Files that are read and that serving refuses to assess, by reason: they neither train nor evaluate anything."""
    n, n_refused = len(table.frame), int(inputs.refused.sum())
    for code, rows in sorted(by_code.items(), key=lambda item: -len(item[1])):
        first = next(p for p in inputs.problems[rows[0]] if p.code == code)
        text = f"{code}: {len(rows)} of {n} are refused as in serving, and left out. {first.message('en')}"
        verdict: Verdict = "doubtful" if n_refused > REFUSED_SHARE * n else "ok"
        yield check_of_rows(table, "refused by the gate", verdict, text, np.array(rows), figure=len(rows) / n)


def _persons(table: CohortTable, _: Inputs) -> Iterable[Check]:
    unnamed = np.flatnonzero(table.raw.person.isna())
    if len(unnamed):
        yield check_of_rows(table, "persons", "unusable", "no person is named, so parts cannot be kept apart", unnamed)
    known = table.frame[table.frame.sex.notna()]
    two = known.groupby("person").sex.nunique()
    mixed = np.flatnonzero(table.frame.person.isin(two.index[two > 1]))
    if len(mixed):
        yield check_of_rows(table, "persons", "doubtful", "one person has two sexes: is it really one person?", mixed)


def _splits(table: CohortTable, _: Inputs) -> Iterable[Check]:
    split, part = table.raw["split"], table.frame.part.to_numpy(dtype=str)
    unknown = np.array([v is not None and part_named(v, table.manifest) is None for v in split])
    if unknown.any():
        found = ", ".join(sorted({str(v) for v in split[unknown]})[:8])
        text = f"not train, validation, test or unused: {found} (translate it under values.split)"
        yield check_of_rows(table, "splits", "unusable", text, np.flatnonzero(unknown))
    if split.notna().any() and split.isna().any():
        yield check_of_rows(table, "splits", "doubtful", "no part is given; left out", np.flatnonzero(split.isna()))
    used = table.frame[part != "unused"]
    parts = used.groupby("person").part.nunique()
    both = np.flatnonzero(table.frame.person.isin(parts.index[parts > 1]) & (part != "unused"))
    if len(both):
        names = sorted(set(table.frame.person.iloc[both]))
        text = (
            f"{len(names)} in more than one part: {listed(names)}. A network would be tested on persons "
            "that it has learnt from"
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
    pairs = {(i, j): r for i, j, r in similar_pairs(inputs.x, rows)}
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
        ("duplicate across splits", "unusable", across, "the same file or picture is in two parts"),
        ("duplicate across persons", "doubtful", persons, "two persons have the same file or picture"),
        ("duplicate", "doubtful", twice, "one person has the same file or picture twice"),
    ):
        if found:
            index = np.array(sorted({i for pair in found for i in pair}))
            shown = listed([f"{_row(table, i)} = {_row(table, j)}" for i, j in sorted(found)])
            lowest = min(used[pair] for pair in found)
            yield check_of_rows(table, name, verdict, f"{text}: rows {shown}", index, figure=round(lowest, 3))  # type: ignore[arg-type]
    for finding, values in table.labels.items():
        y = values.to_numpy()
        against = [(i, j) for i, j in used if {y[i], y[j]} == {0.0, 1.0}]
        if against:
            index = np.array(sorted({i for pair in against for i in pair}))
            shown = listed([f"{_row(table, i)} ≠ {_row(table, j)}" for i, j in sorted(against)])
            text = f"{finding}: one picture, labelled 0 and 1: rows {shown}"
            yield check_of_rows(table, "contradictory labels", "unusable", text, index)
    if not used:
        yield Check("duplicates", "ok", f"none among {len(rows)}")


def _label_values(table: CohortTable, _: Inputs) -> Iterable[Check]:
    for finding, values in table.labels.items():
        raw, y = table.raw[f"label:{finding}"], values.to_numpy()
        wrong = raw.notna().to_numpy() & ~np.isin(y, (0.0, 1.0))
        if wrong.any():
            found = listed(sorted({str(v) for v in raw[wrong]}))
            text = f"{finding}: found {found}; a label is 0, 1 or nothing (unknown)"
            yield check_of_rows(table, "label values", "unusable", text, np.flatnonzero(wrong))


def _counts(table: CohortTable, inputs: Inputs) -> Iterable[Check]:
    """Positives and negatives of each part among the rows that serving takes.

    A label with too few cases is too few to say, and the others go on; with none left the cohort is unusable.
    """
    checks = [_count(table, inputs, finding) for finding in table.labels]
    none_left = all(check.verdict == "unusable" for check in checks)
    for check in checks:
        if check.verdict == "unusable" and not none_left:
            yield replace(check, verdict="doubtful", message=f"{check.message}: too few to say; it will not be offered")
        else:
            yield check


def _count(table: CohortTable, inputs: Inputs, finding: str) -> Check:
    """The counts of one label; ``unusable`` where nothing can be learned or chosen from it."""
    y = table.labels[finding].to_numpy()
    known = y[np.isin(y, (0.0, 1.0))]
    if len(set(known)) < 2:
        always = f"always {known[0]:g}" if len(known) else "always unknown"
        return Check("constant label", "unusable", f"{finding}: {always}; nothing can be learned from it")
    shown, fewest = [], len(y)
    for name, member in counted_parts(table, inputs).items():
        n_positive, n_negative = int((y[member] == 1).sum()), int((y[member] == 0).sum())
        shown.append(f"{name} {n_positive} positive, {n_negative} negative")
        fewest = min(fewest, n_positive, n_negative)
    verdict: Verdict = "unusable" if fewest < FEWEST_CASES else "doubtful" if fewest < MIN_CASES else "ok"
    text = f"{finding}: {'; '.join(shown)}"
    text += {"ok": "", "doubtful": f" (fewer than {MIN_CASES}: too few to say)", "unusable": " (too few)"}[verdict]
    return Check("class counts", verdict, text, figure=float(fewest))


def counted_parts(table: CohortTable, inputs: Inputs) -> dict[str, NDArray[np.bool_]]:
    """``(n,)`` rows of each part that count; one part ``all`` where everything is cross-validated."""
    part = table.frame.part.to_numpy(dtype=str)
    used = inputs.readable & ~outside_ages(table)
    if table.manifest.modality == "labs" and table.raw["split"].isna().all():
        return {"all": used & (part != "unused")}
    return {name: used & (part == name) for name in ("train", "validation", "test")}


def _sexes(table: CohortTable, _: Inputs) -> Iterable[Check]:
    understood = {"unknown", *(word for word, sex in table.manifest.values.sex.items() if sex == "unknown")}
    wrong = [
        i
        for i, value in enumerate(table.raw.sex)
        if value is not None and value not in understood and sex_of(value, table.manifest) is None
    ]
    if wrong:
        found = listed(sorted({str(table.raw.sex.iloc[i]) for i in wrong}))
        text = f"found {found}; treated as unknown (translate it under values.sex)"
        yield check_of_rows(table, "sexes", "doubtful", text, np.array(wrong))


def _dates(table: CohortTable, _: Inputs) -> Iterable[Check]:
    wrong = table.raw.made_on.notna() & table.frame.made_on.isna()
    if wrong.any():
        yield check_of_rows(table, "dates", "doubtful", "not YYYY-MM-DD; treated as unknown", np.flatnonzero(wrong))
    future = table.frame.made_on > pd.Timestamp.now(tz="UTC") + pd.Timedelta(days=1)
    if future.any():
        yield check_of_rows(table, "dates", "doubtful", "in the future", np.flatnonzero(future))


def _row(table: CohortTable, index: int) -> int:
    return int(table.frame.row.iloc[index])
