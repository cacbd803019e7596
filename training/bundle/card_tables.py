"""The tables of a model card: what is offered, its operating points, its figures, its groups."""

from __future__ import annotations

from collections.abc import Sequence

from data_specs.bundle import Estimate, FindingSpec, Undecided
from training.figures.use import home_of

TOO_FEW = "too few to say"
SHARES = ("sensitivity", "specificity")
_AT = tuple(f"{share}@" for share in SHARES)
_VERDICTS = ("right_with@", "right_without@", "undecided@")


def title(finding: FindingSpec) -> str:
    """Name and ages, because two findings may have one name for different ages."""
    return f"{finding.name}, {_ages(finding)} years" if finding.age_years else finding.name


def prevalence(finding: FindingSpec) -> str:
    """The prevalence that its probability assumes."""
    assumed = finding.calibration.prevalence if finding.calibration else None
    return f"{100 * assumed:.3g} %" if assumed else "not recorded"


def summary(findings: Sequence[FindingSpec]) -> str:
    """One row for each finding: ages, required values and main figures."""
    evaluated = tells_apart(findings)
    head = ["finding", "for ages", "for", "needs"]
    if evaluated:
        head += ["AUROC", "AUROC elsewhere", "sensitivity", "specificity", "ECE (by chance)"]
        head += ["assumed prevalence", "n (positive)"]
    rows = [
        [
            f.name,
            _ages(f),
            "" if f.kind == "measured" else f.use,
            ", ".join(f.requires) or "the input alone",
            *(_main_figures(f) if evaluated else ()),
        ]
        for f in findings
    ]
    return markdown(head, rows)


def tells_apart(findings: Sequence[FindingSpec]) -> bool:
    """Whether any finding has an AUROC; a gate and equations have values and counts instead."""
    return any(e.metric == "auroc" for f in findings for e in f.evaluation)


def _main_figures(finding: FindingSpec) -> list[str]:
    cohort = home_of(finding)
    found = {(e.cohort, e.metric): e.estimate for e in finding.evaluation if e.subgroup == "all"}
    of = {metric: estimate for (where, metric), estimate in found.items() if where == cohort}
    if "auroc" not in of:
        text = "a value" if finding.kind == "measured" else "not evaluated here"
        return [text, *[""] * 6]
    ece = f"{of['ece'].value:.3f}" if "ece" in of else ""
    if "ece_by_chance" in of:
        ece += f" ({of['ece_by_chance'].value:.3f})"
    return [
        _interval(of["auroc"]),
        "; ".join(f"{_interval(estimate)} ({where})" for where, estimate in elsewhere(finding).items()) or "not known",
        *(_interval(of.get(f"{share}@{finding.decides_at}")) for share in SHARES),
        ece,
        prevalence(finding),
        _counts(of["auroc"]),
    ]


def elsewhere(finding: FindingSpec) -> dict[str, Estimate]:
    """AUROC by cohort, of those that neither chose anything about the finding nor are its test part."""
    chosen_on = tuple(point.cohort for point in finding.operating_points)
    main = home_of(finding)
    return {
        e.cohort: e.estimate
        for e in finding.evaluation
        if (e.metric, e.subgroup) == ("auroc", "all")
        and e.cohort != main
        and not any(chosen.startswith(e.cohort) for chosen in chosen_on)
    }


def undecided(finding: FindingSpec) -> str:
    """How often no verdict is given, and how seldom the opposite one, at each coverage; then the bounds by group."""
    found = {(e.cohort, e.metric): e.estimate for e in finding.evaluation if e.metric.startswith("undecided@")}
    by_metric = {(e.cohort, e.metric): e.estimate for e in finding.evaluation}
    rows = []
    for (cohort, metric), share in found.items():
        coverage = metric.partition("@")[2]
        right = [_interval(by_metric.get((cohort, f"right_{of}@{coverage}"))) for of in ("with", "without")]
        rows.append([f"{float(coverage):.0%}", _interval(share), *right, cohort])
    if not rows:
        return ""
    head = ["coverage", "undecided", "with the finding, not called negative", "without it, not called positive", "on"]
    bounds = [
        [_group(one), f"{one.coverage:.0%}", f"{one.low:.3g} to {one.high:.3g}", f"{one.n_positive}, {one.n_negative}"]
        for one in finding.undecided
    ]
    whose = ["for", "coverage", "undecided between", "cases with, without"]
    return f"{markdown(head, rows)}\n{markdown(whose, bounds)}"


def _group(one: Undecided) -> str:
    ages = f"{one.age_years[0]:g} to {one.age_years[1] - 1:g} years" if one.age_years else None
    return next((text for text in (one.sex, one.view, ages) if text), "everybody")


def points(finding: FindingSpec) -> str:
    """Each operating point: threshold, sensitivity and specificity where it was chosen and where it was evaluated."""
    if not finding.operating_points:
        return "No operating point: an uncalibrated number.\n" if finding.kind == "probability" else ""
    found = {(e.cohort, e.metric): e.estimate for e in finding.evaluation if e.subgroup == "all"}
    with_shares = dict.fromkeys(cohort for cohort, metric in found if metric.startswith(_AT))
    chosen_on = next((c for c in with_shares if finding.operating_points[0].cohort.startswith(c)), None)
    main = home_of(finding)
    measured = sorted((c for c in with_shares if c != chosen_on), key=lambda c: c != main)
    head = ["operating point", "threshold", "chosen on", *(f"{share} there" for share in SHARES)]
    head += [f"{share}, {cohort}" for cohort in measured for share in SHARES]
    rows = []
    for p in finding.operating_points:
        there = [
            _interval(found.get((chosen_on or "", f"{share}@{p.name}"))) or ("" if value is None else f"{value:.3f}")
            for share, value in zip(SHARES, (p.sensitivity, p.specificity), strict=True)
        ]
        evaluated = [_interval(found.get((cohort, f"{share}@{p.name}"))) for cohort in measured for share in SHARES]
        name = f"**{p.name}** (decides)" if p.name == finding.decides_at else p.name
        rows.append([name, f"{p.threshold:.3g}", p.cohort, *there, *evaluated])
    return markdown(head, rows)


def figures(finding: FindingSpec) -> str:
    """All other figures of whole parts, and figures over several findings."""
    rows = [
        [
            e.metric if e.subgroup == "all" else f"{e.metric} ({e.subgroup})",
            f"{e.estimate.value:.3f}",
            f"{e.estimate.low:.3f} to {e.estimate.high:.3f}",
            _counts(e.estimate),
            e.cohort,
        ]
        for e in finding.evaluation
        if not _is_of_a_group(e.subgroup, e.metric) and not e.metric.startswith((*_AT, *_VERDICTS))
    ]
    return markdown(["figure", "value", "95 %", "n (positive)", "on"], rows) if rows else ""


def groups(finding: FindingSpec) -> str:
    """A row for each group: its counts, and AUROC, sensitivity and specificity if it has enough cases."""
    found: dict[tuple[str, str], dict[str, Estimate]] = {}
    for e in finding.evaluation:
        if _is_of_a_group(e.subgroup, e.metric):
            found.setdefault((e.cohort, e.subgroup), {})[e.metric] = e.estimate
    wanted = ("auroc", *(f"{share}@{finding.decides_at}" for share in SHARES))
    head = ["group", "n (positive)", "AUROC", *(f"{share} at {finding.decides_at}" for share in SHARES), "on"]
    rows = []
    for (cohort, group), of in found.items():
        cells = [_interval(of.get(metric)) or TOO_FEW for metric in wanted]
        rows.append([group, _counts(next(iter(of.values()))), *cells, cohort])
    return markdown(head, rows) if rows else ""


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _is_of_a_group(subgroup: str, metric: str) -> bool:
    return subgroup != "all" and (metric in ("auroc", "prevalence") or metric.startswith(_AT))


def _ages(finding: FindingSpec) -> str:
    return f"{finding.age_years[0]:g} to {finding.age_years[1] - 1:g}" if finding.age_years else "any"


def _interval(estimate: Estimate | None) -> str:
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})" if estimate else ""


def _counts(estimate: Estimate) -> str:
    return f"{estimate.n}" + ("" if estimate.n_positive is None else f" ({estimate.n_positive})")
