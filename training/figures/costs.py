"""``python -m training plan --programme planning.toml``: what each threshold finds, misses and costs a programme.

All thresholds go into ``--csv`` and ``--plot``; the terminal has the bundle's operating points and a few between them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from data_specs.bundle import BundleManifest, FindingSpec
from data_specs.planning.consequences import SHARES, Consequences, Figure, Row, plan
from data_specs.planning.performance import performances
from data_specs.planning.programme import Programme
from data_specs.planning.table import a_few
from data_specs.vocabulary import is_reassuring
from training.figures.screening import PlanError

CAUTIONS = (
    "Intervals: 95 %, from the cases behind sensitivity and specificity and, where it was counted (24/8000), behind "
    "the prevalence; of what is expected of these people, at one threshold at a time.",
    "Taken for granted: sensitivity and specificity hold for the people screened, everybody who is recalled comes, and "
    "the confirmatory test is right. Milder disease lowers sensitivity, other diseases lower specificity.",
)
COLUMNS = {
    "sensitivity": "sensitivity %",
    "specificity": "specificity %",
    "recalled": "recalled",
    "found": "found",
    "missed": "missed",
    "tests": "tests",
    "ppv": "PPV %",
    "npv": "NPV %",
    "cost_per_case": "cost per case",
    "total": "cost in all",
}


def planned(programme: Programme, spec: FindingSpec) -> list[Consequences]:
    """Each population at each of its prevalences.

    Raises
    ------
    PlanError
        The finding has no figures to plan from, or a population names cases that it has none of.
    """
    figures = performances(spec)
    if not spec.roc:
        raise PlanError(f"{spec.name}: this bundle has no ROC; train it again, or recalibrate it on local cases")
    try:
        return list(plan(programme, figures))
    except KeyError as error:
        raise PlanError(f"no figures of the cases '{error.args[0]}'; there are: {', '.join(figures)}") from None


def as_text(
    found: Sequence[Consequences], programme: Programme, spec: FindingSpec, *, local: bool, said: Iterable[str] = ()
) -> str:
    """The plan for the terminal, with what limits it."""
    parts = [f"{spec.name}; money in {programme.costs.currency}; people and tests per 1,000 screened"]
    for each in found:
        with_it, without = each.performance.counts
        parts += [
            f"\n{each.population}: {each.people} people, prevalence {each.prevalence}; "
            f"cases: {each.performance.cases} ({with_it} with, {without} without)",
            "",
            table(a_few(each.rows)),
        ]
        if not each.performance.is_whole:
            parts.append(
                "These cases have figures at this threshold only; for every threshold the bundle has to be trained or "
                "recalibrated again, or local scores given (--scores, --group)."
            )
        elif each.performance.decides is None:
            parts.append("The threshold that decides is not among these.")
    parts.append("")
    if is_reassuring(spec.name):
        parts.append("Recalled is who lies below the threshold; prevalence and cases are of people without it.")
    if not local:
        parts.append(
            "The thresholds were chosen on these same cases, of other hospitals: measure on local ones (--scores)."
        )
        if not spec.roc_by_group:
            parts.append("This bundle carries no group at every threshold.")
    return "\n".join([*parts, *said, *CAUTIONS])


def table(rows: Sequence[Row]) -> str:
    """Columns as wide as their widest cell."""
    cells = [["from", "", *COLUMNS.values()]]
    for row in rows:
        name = f"{row.name} (decides)" if row.decides else row.name
        figures = [written(row.figures[figure], figure) for figure in COLUMNS]
        cells.append([f"{row.threshold:.4f}", name, *figures])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def written(figure: Figure, name: str) -> str:
    """A figure with its interval, with about three digits; an NPV, which lies near 100 %, with two decimals."""
    if np.isnan(figure.value):
        return "none"

    def number(value: float) -> str:
        shown = 100 * value if name in SHARES else value
        decimals = 2 if name == "npv" or abs(shown) < 10 else 1 if abs(shown) < 100 else 0
        return f"{shown:,.{decimals}f}"

    return f"{number(figure.value)} ({number(figure.low)} to {number(figure.high)})"


def draw(file: Path, found: Sequence[Consequences], title: str, currency: str) -> None:
    """Recalls, missed cases and cost per case at every threshold, one line with its interval for each plan."""
    # Not pyplot, which needs a display and global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure as Sheet  # noqa: PLC0415

    sheet = Sheet(figsize=(11, 3.9), dpi=100, layout="constrained")
    FigureCanvasAgg(sheet)
    panels = {
        "recalled": "recalled per 1,000",
        "missed": "missed per 1,000",
        "cost_per_case": f"cost per case found ({currency})",
    }
    for axes, (name, label) in zip(sheet.subplots(1, len(panels)), panels.items(), strict=True):
        for number, each in enumerate(found):
            shown = [row for row in each.rows if not np.isnan(row.figures[name].value)]
            x = [row.threshold for row in shown]
            value, low, high = ([getattr(row.figures[name], end) for row in shown] for end in ("value", "low", "high"))
            colour = f"C{number}"
            marker = "" if each.performance.is_whole else "o"
            axes.plot(x, value, color=colour, marker=marker, label=f"{each.population}, {each.prevalence}")
            axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
            if each.performance.decides is not None:
                axes.axvline(each.performance.decides, color="0.6", linewidth=1, linestyle=":")
        axes.set_xlabel("threshold")
        axes.set_ylabel(label)
        if name == "cost_per_case":
            axes.set_yscale("log")
    sheet.axes[0].legend(fontsize=7)
    sheet.suptitle(title, fontsize=10)
    sheet.savefig(file)


def title_of(manifest: BundleManifest, spec: FindingSpec) -> str:
    """Bundle, version and finding."""
    return f"{manifest.name} {manifest.version}, {spec.name}"
