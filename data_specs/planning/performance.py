"""How well a recall finds: cases on either side of each threshold, of all and of groups, as a bundle carries them.

A point here is one of the *recall*: a true positive is a person with what is looked for who is recalled. For a finding
that reassures (``normal_ecg``) the persons looked for are those who do not have it, and who lies below the threshold is
recalled.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from data_specs.bundle import Evaluation, FindingSpec, RocPoint
from data_specs.planning.programme import ALL_CASES
from data_specs.vocabulary import is_reassuring


@dataclass(frozen=True)
class Performance:
    """The recall at each threshold that there are counts for.

    Parameters
    ----------
    cases
        Where they come from.
    points
        Thresholds in rising order.
    names
        Operating points of the bundle by threshold.
    decides
        The threshold at which the bundle decides; ``None`` where it is not among ``points``.
    is_whole
        ``False``: the bundle has figures of this group at single thresholds only.
    """

    cases: str
    points: tuple[RocPoint, ...]
    names: dict[float, str]
    decides: float | None
    is_whole: bool = True

    @property
    def counts(self) -> tuple[int, int]:
        """Persons with and without what is looked for."""
        first = self.points[0]
        return first.true_positives + first.false_negatives, first.true_negatives + first.false_positives


def performances(spec: FindingSpec) -> dict[str, Performance]:
    """By group of cases: ``all`` first, from the ROC; empty if the bundle carries no figures to plan from.

    Groups come with every threshold where the bundle carries their ROC (``roc_by_group``). Else they have the one
    threshold that decides, as evaluated on held-back cases (``sex F``), which are a group of their own as a whole
    (``all (COHORT)``).
    """
    points = {point.name: point.threshold for point in spec.operating_points}
    names: dict[float, str] = {}
    for name, threshold in points.items():
        names[threshold] = f"{names[threshold]}, {name}" if threshold in names else name
    decides = points.get(spec.decides_at)
    chosen_on = spec.operating_points[0].cohort if spec.operating_points else "validation"
    found: dict[str, Performance] = {}
    for group, roc in {ALL_CASES: spec.roc, **spec.roc_by_group}.items():
        if roc:
            recalls = tuple(_recall(point, spec.name) for point in roc)
            found[group] = Performance(chosen_on, recalls, names, decides)
    if decides is not None:
        for group, cohort, point in _evaluated(spec, decides):
            found.setdefault(group, Performance(cohort, (_recall(point, spec.name),), names, decides, is_whole=False))
    return found


def _recall(point: RocPoint, finding: str) -> RocPoint:
    """The point of the recall: of a finding that reassures, those without it are looked for."""
    if not is_reassuring(finding):
        return point
    return RocPoint(
        threshold=point.threshold,
        true_positives=point.true_negatives,
        false_negatives=point.false_positives,
        true_negatives=point.true_positives,
        false_positives=point.false_negatives,
    )


def _evaluated(spec: FindingSpec, threshold: float) -> list[tuple[str, str, RocPoint]]:
    """Groups of evaluated cases with enough of both classes: name, cohort, and counts at the deciding threshold."""
    shares = {
        metric: {(each.cohort, each.subgroup): each for each in spec.evaluation if each.metric == metric}
        for metric in (f"sensitivity@{spec.decides_at}", f"specificity@{spec.decides_at}")
    }
    found, cleared = shares.values()
    both = {key: (found[key], cleared[key]) for key in found if key in cleared}
    often = Counter(group for _, group in both)
    return [
        (group if group != ALL_CASES and often[group] == 1 else f"{group} ({cohort})", cohort, point)
        for (cohort, group), figures in both.items()
        if (point := _counted(*figures, threshold)) is not None
    ]


def _counted(sensitivity: Evaluation, specificity: Evaluation, threshold: float) -> RocPoint | None:
    """Whole cases behind two shares; ``None`` where a class is empty or was not counted."""
    with_it = sensitivity.estimate.n_positive or 0
    without = specificity.estimate.n - (specificity.estimate.n_positive or 0)
    if not (with_it and without):
        return None
    found, cleared = round(sensitivity.estimate.value * with_it), round(specificity.estimate.value * without)
    return RocPoint(
        threshold=threshold,
        true_positives=found,
        false_negatives=with_it - found,
        true_negatives=cleared,
        false_positives=without - cleared,
    )
