"""The model card, written from the manifest only, so that both always agree."""

from __future__ import annotations

from pathlib import Path

from data_specs.bundle import BundleManifest, FindingSpec, Imported
from training.bundle.card_tables import (
    figures,
    groups,
    markdown,
    points,
    prevalence,
    summary,
    tells_apart,
    title,
    undecided,
)
from training.bundle.plots import plot_name
from training.figures import planner
from training.figures.use import home_of


def card(manifest: BundleManifest, *, parity_difference: float | None, docs: Path | None = None) -> str:
    """``docs/README.md`` of a bundle (after Mitchell et al., Model Cards for Model Reporting, FAccT 2019).

    Parameters
    ----------
    parity_difference
        Largest difference between torch and ONNX Runtime; ``None`` if the weights are an ancestor's, whose card has it.
    docs
        Folder of the card: plots in it are linked.
    """
    parts = [
        f"# {manifest.name} {manifest.version}\n",
        manifest.purpose + "\n",
        "Decision support for a referring doctor. Never a diagnosis; a doctor signs.\n",
        "## What it offers, and for whom\n",
        summary(manifest.findings),
        *_reading_the_summary(manifest),
        *_withheld(manifest),
        "## Limits\n",
        "".join(f"- {limit}\n" for limit in manifest.limits),
        "## Evaluation\n",
        *(_evaluation(f, docs) for f in manifest.findings if f.evaluation or f.operating_points),
        _reading(manifest),
        *_planning(manifest),
        *_measured(manifest),
        *_training(manifest),
        *_origin(manifest.imported),
        "## Trained on\n",
        "".join(
            f"- {d.name}: {d.n_items} items of {d.n_persons} persons. {d.citation}. Licence: {d.licence}\n"
            for d in manifest.training_data
        )
        + (f"- elsewhere, as stated by the importer: {manifest.imported.trained_on}\n" if manifest.imported else ""),
        *_ancestry(manifest),
        "## File\n",
        f"`{manifest.weights.path}`, sha256 `{manifest.weights.sha256}`. {_parity(parity_difference)}\n",
        *(
            f"In {a.precision} by {a.runtime}, on {a.n} cases ({a.part}): AUC differs from fp32 by at most "
            f"{a.auc_difference:.4f}, a probability by at most {a.probability_difference:.4f}.\n"
            for a in manifest.agreement
        ),
    ]
    return "\n".join(parts)


def _reading_the_summary(manifest: BundleManifest) -> list[str]:
    sentences = []
    if tells_apart(manifest.findings):
        sentences.append(
            "Figures of the test part (95 % interval), and AUROC on cases of other places that were not learnt from; "
            "sensitivity and specificity at the deciding operating point. A finding for `information` has a number and "
            "no verdict. ECE: mean difference between a probability and the observed frequency."
        )
    if any(f.calibration and f.calibration.prevalence for f in manifest.findings):
        sentences.append(
            "A probability assumes a prevalence (column `assumed prevalence`): where the finding is rarer "
            "the probability is too high, and where it is more frequent the probability is too low."
        )
    return [" ".join(sentences) + "\n"] if sentences else []


def _withheld(manifest: BundleManifest) -> list[str]:
    if not manifest.withheld:
        return []
    return [
        "## Not offered, and why\n",
        "".join(f"- {w.name} ({w.cohort}): {w.reason}.\n" for w in manifest.withheld),
    ]


def _evaluation(finding: FindingSpec, docs: Path | None) -> str:
    plot = plot_name(finding)
    linked = docs is not None and (docs / plot).is_file()
    cohort = home_of(finding)
    return "\n".join(
        [
            f"### {title(finding)}\n",
            *([f"On {cohort}.\n"] if cohort else []),
            *([f"![{finding.name}: ROC and reliability]({plot})\n"] if linked else []),
            *_calibration(finding),
            *([f"For information only, not for triage: {finding.use_because}.\n"] if finding.use_because else []),
            *(table for table in (points(finding), undecided(finding), figures(finding), groups(finding)) if table),
        ]
    )


def _calibration(finding: FindingSpec) -> list[str]:
    """How a logit becomes a probability, and which prevalence the probability assumes."""
    c = finding.calibration
    if c is None:
        return []
    how = (
        f"isotonic regression, {len(c.knots)} knots" if c.kind == "isotonic" else f"Platt scaling, slope {c.slope:.3f}"
    )
    if not c.prevalence:
        return [f"Probability from the logit by {how}.\n"]
    text = f"Probability from the logit by {how}; it assumes a prevalence of {prevalence(finding)}"
    first = finding.roc[0] if finding.roc else None
    if first is None:
        return [text + ".\n"]
    n_positive, n_negative = (
        first.true_positives + first.false_negatives,
        first.true_negatives + first.false_positives,
    )
    among = n_positive / (n_positive + n_negative)
    return [
        f"{text}; among the {n_positive + n_negative} cases that its thresholds were chosen on it was {among:.1%}.\n"
    ]


def _reading(manifest: BundleManifest) -> str:
    """How to read the figures."""
    metrics = {e.metric for f in manifest.findings for e in f.evaluation}
    if manifest.imported and not metrics:
        return "Not evaluated: there are no figures.\n"
    text = (
        "Intervals: 95 %, percentile bootstrap over persons (shares: Wilson). The bootstrap adds noise, "
        "and noise only raises `ece`, so its interval may be above its value if that is near 0"
    )
    if "ece_debiased" in metrics:
        text += (
            "; `ece_by_chance` is the ECE of a perfectly calibrated model with these cases (95 % of draws), "
            "`ece_debiased` is `ece` less chance (as squares; its interval: values that chance explains). A finding is "
            "withheld if the interval of `ece`, less chance, is above 0.05: with few cases this shows little, so look "
            "at `ece` itself and at n"
        )
    shown = "have only their counts" if "prevalence" in metrics else "are not shown: too few to say"
    return f"{text}. Groups with fewer than 10 positives or negatives {shown}.\n"


def _planning(manifest: BundleManifest) -> list[str]:
    """Recalls and missed cases at several prevalences, and for chest films the worked example."""
    body = planner.card_section(manifest.findings)
    if not body:
        return []
    return ["## Planning\n", body, *([planner.worked_example() + "\n"] if manifest.organ == "lung" else [])]


def _measured(manifest: BundleManifest) -> list[str]:
    return [
        part
        for table in manifest.measured
        for part in (f"## {table.title}\n", table.text + "\n", markdown(table.columns, table.rows))
    ]


def _training(manifest: BundleManifest) -> list[str]:
    if not manifest.recipe:
        return []
    rows = "".join(f"| {name.replace('_', ' ')} | {_cell(value)} |\n" for name, value in manifest.recipe.items())
    return ["## How it was trained\n", f"| | |\n|---|---|\n{rows}"]


def _cell(value: str | int | float) -> str:
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")


def _origin(imported: Imported | None) -> list[str]:
    if imported is None:
        return []
    return [
        "## Where the weights come from\n",
        f"Trained elsewhere and imported; not trained here. File `{imported.file}`, sha256 `{imported.sha256}`, "
        f"weights at `{imported.found_in or 'its top level'}`"
        + (f" (not taken: {', '.join(imported.not_taken)})" if imported.not_taken else "")
        + f". Conventions of {imported.source}, architecture {imported.architecture}. "
        f"Licence, as stated by the importer: {imported.licence}. Citation: {imported.citation}.\n",
        f"Classes in the checkpoint's order: {', '.join(c or '(untrained)' for c in imported.classes)}. "
        f"Not offered: {', '.join(imported.left_out) or 'none'}. "
        f"Keys of the file that are no part of the network: {', '.join(imported.ignored_keys) or 'none'}.\n",
    ]


def _parity(difference: float | None) -> str:
    if difference is None:
        return "The same file as in the bundle it was made from, whose card gives the difference from torch."
    return f"Largest difference of an output between torch and ONNX Runtime in fp32: {difference:.1e}."


def _ancestry(manifest: BundleManifest) -> list[str]:
    parts = []
    if manifest.recalibrated_on is not None:
        d = manifest.recalibrated_on
        parts += [
            "## Recalibrated on\n",
            f"- {d.name}: {d.n_items} cases of {d.n_persons} persons. {d.citation}. Licence: {d.licence}\n",
        ]
    if manifest.from_bundle:
        chain = "".join(
            f"- {a.name} {a.version}: screening.json sha256 `{a.sha256}`, weights sha256 `{a.weights_sha256}`\n"
            for a in manifest.from_bundle
        )
        parts += ["## Made from\n", chain]
    return parts
