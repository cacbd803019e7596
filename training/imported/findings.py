"""From the classes of a network to findings of the vocabulary."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from data_specs.bundle import FindingSpec
from data_specs.visit.contract import OperatingPoint
from data_specs.vocabulary import judged_findings
from training.imported.files import ImportRefused
from training.imported.spec import Spec

FILM_FINDINGS = {name.replace("_", " "): name for name in judged_findings("lung")} | {
    "hiatal hernia": "hernia",
    "pleural effusion": "effusion",
    "pulmonary edema": "edema",
    "pulmonary fibrosis": "fibrosis",
}
"""Class, in lower case and with blanks for ``_`` and ``-``, to the same finding in the vocabulary.
'Lung Opacity', 'Lung Lesion', 'Fracture', 'No Finding' and the like are not in the vocabulary and are left out."""

ECG_FINDINGS = {name.replace("_", " "): name for name in judged_findings("cardiac")} | {"norm": "normal_ecg"}
"""The same for recordings."""


def findings_of(
    classes: Sequence[str],
    thresholds: Sequence[float | None],
    spec: Spec,
    finding_of_class: Mapping[str, str] = FILM_FINDINGS,
) -> tuple[tuple[FindingSpec, ...], tuple[str, ...]]:
    """A finding for each class that is in the vocabulary and each of ``any_of``, and the names of the other classes.

    Parameters
    ----------
    thresholds
        Of each class, as published with the weights.
    finding_of_class
        Class in lower case to finding, for the organ that the network is for.
    """
    known = set(finding_of_class.values())
    for name, finding in spec.findings.items():
        if finding not in known or name not in classes:
            raise ImportRefused(
                f"findings: '{name}: {finding}' must map one of the classes ({', '.join(classes)}) "
                f"to one of {', '.join(sorted(known))}"
            )
    any_threshold = any(t is not None for t in thresholds)
    findings: dict[str, FindingSpec] = {}
    left_out = []
    for column, (name, threshold) in enumerate(zip(classes, thresholds, strict=True)):
        finding = spec.findings.get(name) or finding_of_class.get(plain(name))
        # torchxrayvision has no threshold for classes that its cohort did not have: these outputs are untrained.
        if finding is None or (any_threshold and threshold is None):
            left_out.append(name or f"output {column}")
            continue
        if finding in findings:
            raise ImportRefused(f"two classes are '{finding}'; state in the YAML which one to use (\"\" for the other)")
        findings[finding] = FindingSpec(
            name=finding,
            column=column,
            age_years=spec.age_years,
            decides_at="screening" if threshold is None else "imported",
            operating_points=() if threshold is None else (_imported_point(threshold),),
        )
    if not findings and not spec.any_of:
        raise ImportRefused(
            f"none of the classes ({', '.join(classes)}) is a finding of the vocabulary; map them in the "
            "YAML, 'findings: {\"my class\": pneumonia}'"
        )
    for number, (finding, members) in enumerate(spec.any_of.items()):
        if finding in findings or finding not in known or not members or not set(members) <= set(classes):
            raise ImportRefused(f"any_of: '{finding}' has to be a finding that no class is, of classes that there are")
        column = len(classes) + number
        findings[finding] = FindingSpec(name=finding, column=column, age_years=spec.age_years)
        left_out = [name for name in left_out if name not in members]
    return tuple(findings.values()), tuple(left_out)


def _imported_point(threshold: float) -> OperatingPoint:
    if not 0 < threshold < 1:
        raise ImportRefused(f"op_threshs: {threshold} is not a probability")
    return OperatingPoint(
        name="imported",
        threshold=threshold,
        cohort="as published with the weights; uncalibrated, sensitivity and specificity not measured here",
    )


def plain(name: str) -> str:
    """A class in lower case, with blanks for ``_`` and ``-``."""
    return re.sub(r"[_\-\s]+", " ", name).strip().lower()
