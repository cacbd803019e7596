"""``python -m training evaluate``: a bundle on labelled cases, as it serves, with the tables of a card.

The bundle's ONNX file is run on what serving would give it (the same reading, gate and conforming), and its findings
are judged at its own calibration and thresholds. A recalibration and an acceptance evaluate with the same functions,
so that figures of two versions on one cohort are figures of the same cases.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from data_specs.bundle import BundleManifest, Evaluation, FindingSpec, Predecessor, TrainingData
from data_specs.cohort import ManifestInvalid
from data_specs.schema import Schema
from inference.bundles.loading import Bundle, BundleError, load_bundle, load_version
from inference.bundles.registry import finding_key, read_registry
from inference.findings import UNCALIBRATED, calibrated
from training.bundle import card_tables
from training.bundle.local_cases import CannotRecalibrate, Cases, Refusal, cohort_cases, logits_of
from training.bundle.plots import write_plot
from training.cohorts.cohort import MIN_CASES, subgroup_members
from training.cohorts.table import TableUnusable
from training.figures.calibration_error import calibration_figures
from training.figures.evaluate import Floats, evaluate
from training.figures.offer import figures_elsewhere

PARTS = ("train", "validation", "test")


class EvaluatedBundle(Schema):
    """``evaluation.json``: figures of a version on cohorts, by the finding and its ages."""

    name: str
    version: str
    sha256: str
    cohorts: tuple[TrainingData, ...]
    evaluation: dict[str, tuple[Evaluation, ...]]
    refused: dict[str, int]
    """Cases that the gate refuses, by the code of the reason."""


def evaluated(manifest: BundleManifest, cases: Cases, cohort: str) -> tuple[FindingSpec, ...]:
    """The findings that these cases have labels of, each with its figures on them and no others.

    A finding with fewer than ten positives or negatives gets the figures that it has enough cases for.
    """
    found = []
    for spec in manifest.findings:
        if spec.kind == "probability" and spec.name in cases.labels.columns:
            y = cases.outcome(spec)
            if not np.isnan(y).all():
                found.append(spec.model_copy(update={"evaluation": figures_of(spec, y, cases, cohort)}))
    return tuple(found)


def figures_of(spec: FindingSpec, y: Floats, cases: Cases, cohort: str) -> tuple[Evaluation, ...]:
    """Figures of one finding with outcomes ``y`` ``(n,)``, at its own calibration and operating points."""
    known = ~np.isnan(y)
    y, person, logits = y[known], cases.person[known], cases.logits[known, spec.column]
    if min((y == outcome).sum() for outcome in (0, 1)) < MIN_CASES:
        return tuple(figures_elsewhere(spec, y, logits, person, cohort))
    p = probabilities(spec, logits)
    return (
        *evaluate(
            y,
            p,
            person,
            cohort=cohort,
            points=spec.operating_points,
            subgroups=subgroup_members(cases.subgroups, np.flatnonzero(known)),
            decides_at=spec.decides_at,
        ),
        *calibration_figures(y, p, cohort=cohort),
    )


def probabilities(spec: FindingSpec, logits: Floats) -> Floats:
    """Probabilities as the bundle serves them; of an uncalibrated finding its bare outputs."""
    return calibrated(logits, spec.calibration or UNCALIBRATED)


def predecessor(bundle: Bundle, cases: Sequence[tuple[Cases, str]]) -> Predecessor:
    """A version on cases of another one's evaluation, each under the name that the other's figures have there."""
    found: dict[str, tuple[Evaluation, ...]] = {}
    for taken, cohort in cases:
        for spec in evaluated(bundle.manifest, taken, cohort):
            found[finding_key(spec)] = (*found.get(finding_key(spec), ()), *spec.evaluation)
    manifest = bundle.manifest
    return Predecessor(name=manifest.name, version=manifest.version, sha256=sha256_of(bundle), evaluation=found)


def on_the_same(cases: Cases, bundle: Bundle, other: Bundle) -> Cases | None:
    """The cases with the logits of ``other``; ``None`` if it takes another input, or the cases are logits alone."""
    if other.manifest.weights.sha256 == bundle.manifest.weights.sha256:
        return cases
    if not cases.inputs or other.manifest.input != bundle.manifest.input:
        return None
    return Cases(**{**vars(cases), "logits": logits_of(other, cases.inputs)})


def in_service(bundles: Path, name: str) -> Bundle | None:
    """The version of ``name`` that the registry in ``bundles`` has in service; ``None`` if none can be loaded."""
    version = read_registry(bundles).in_service(name) if bundles.is_dir() else None
    if version is None:
        return None
    try:
        return load_version(bundles, name, version)
    except BundleError as error:
        print(f"not compared with {name} {version}, in service: {error}", file=sys.stderr)
        return None


def sha256_of(bundle: Bundle) -> str:
    return hashlib.sha256((bundle.folder / "screening.json").read_bytes()).hexdigest()


def tables(findings: Sequence[FindingSpec]) -> str:
    """The tables of a card for these findings and their figures."""
    parts = [card_tables.summary(findings)]
    for spec in findings:
        parts += [f"### {card_tables.title(spec)}\n"]
        parts += [t for t in (card_tables.points(spec), card_tables.figures(spec), card_tables.groups(spec)) if t]
    return "\n".join(parts)


def refusals(refused: Sequence[Refusal], n_read: int) -> str:
    """A table of what the gate refuses, by reason; empty if it refuses nothing."""
    if not refused:
        return f"The gate of serving refuses none of {n_read + len(refused)} cases.\n"
    sentences = {each.code: each.sentence for each in refused}
    counts = Counter(each.code for each in refused).most_common()
    n = n_read + len(refused)
    rows = [[code, f"{count} of {n} ({count / n:.1%})", sentences[code]] for code, count in counts]
    return card_tables.markdown(["refused by the gate", "cases", "the first of them"], rows)


def report(bundle: Bundle, taken: Sequence[Cases], findings: Sequence[FindingSpec]) -> str:
    """What ``evaluate`` prints and writes."""
    manifest = bundle.manifest
    read = sum(len(cases.person) for cases in taken)
    head = [f"# {manifest.name} {manifest.version} on {', '.join(cases.source.name for cases in taken)}\n"]
    head += [
        f"- {c.source.name}: {c.source.n_items} cases of {c.source.n_persons} persons, sha256 `{c.source.digest}`\n"
        for c in taken
    ]
    same = {data.digest for data in (*manifest.training_data, manifest.recalibrated_on) if data is not None}
    if any(cases.source.digest in same for cases in taken):
        head.append("\nThe bundle was made from these very cases: its figures on them are too good.\n")
    return "\n".join(["".join(head), refusals([r for c in taken for r in c.refused], read), tables(findings)])


def evaluate_bundle(
    folder: Path, cohorts: Sequence[Path], *, parts: Sequence[str] | None = None, out: Path | None = None
) -> EvaluatedBundle:
    """Evaluate the bundle in ``folder`` on the cohorts; print the tables, and write them into the folder ``out``.

    Raises
    ------
    CannotRecalibrate, ManifestInvalid, TableUnusable
        A cohort cannot be used.
    BundleError
        The bundle is damaged.
    """
    bundle = load_bundle(folder)
    manifest = bundle.manifest
    taken = [cohort_cases(path, bundle, parts=parts) for path in cohorts]
    by_key: dict[str, FindingSpec] = {}
    for cases in taken:
        for spec in evaluated(manifest, cases, cases.source.name):
            earlier = by_key[finding_key(spec)].evaluation if finding_key(spec) in by_key else ()
            by_key[finding_key(spec)] = spec.model_copy(update={"evaluation": (*earlier, *spec.evaluation)})
    if not by_key:
        offered = ", ".join(finding_key(spec) for spec in manifest.findings)
        raise CannotRecalibrate(f"no case has a label of a finding of the bundle for its age ({offered})")
    text = report(bundle, taken, list(by_key.values()))
    print(text)
    found = EvaluatedBundle(
        name=manifest.name,
        version=manifest.version,
        sha256=sha256_of(bundle),
        cohorts=tuple(cases.source for cases in taken),
        evaluation={key: spec.evaluation for key, spec in by_key.items()},
        refused=dict(Counter(each.code for cases in taken for each in cases.refused)),
    )
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        plots = ""
        for spec in by_key.values():
            of_cohorts = {c.source.name: outcomes(spec, c) for c in taken if spec.name in c.labels.columns}
            if (plot := write_plot(out, spec, of_cohorts)) is not None:
                plots += f"\n![{spec.name}: ROC and reliability]({plot.name})\n"
        (out / "README.md").write_text(text + plots, encoding="utf-8")
        (out / "evaluation.json").write_text(found.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return found


def outcomes(spec: FindingSpec, cases: Cases) -> tuple[Floats, Floats]:
    """Outcomes and probabilities of one finding, ``(n,)`` each."""
    return cases.outcome(spec), probabilities(spec, cases.logits[:, spec.column])


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training evaluate",
        description="Evaluate a bundle on labelled cases as it serves: the same gate, at its own thresholds.",
    )
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle")
    parser.add_argument("--cohort", type=Path, required=True, nargs="+", help="cohort manifests (YAML)")
    parser.add_argument(
        "--parts",
        help="parts to take, such as test or train,validation,test; by default validation and test where the table "
        "has a split or the bundle learnt from a cohort of this name, else all",
    )
    parser.add_argument("--out", type=Path, help="folder for the tables, the plots and evaluation.json")
    arguments = parser.parse_args(argv)
    parts = arguments.parts.split(",") if arguments.parts else None
    if parts and not set(parts) <= set(PARTS):
        parser.error(f"--parts: of {', '.join(PARTS)}")
    try:
        evaluate_bundle(arguments.bundle, arguments.cohort, parts=parts, out=arguments.out)
    except (CannotRecalibrate, ManifestInvalid, TableUnusable, BundleError, OSError) as error:
        print(f"cannot evaluate: {error}", file=sys.stderr)
        return 2
    if arguments.out:
        print(f"written: {arguments.out}")
    return 0
