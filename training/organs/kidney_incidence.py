"""A model of incident chronic kidney disease (stages 3 to 5), fitted to and evaluated on one cohort.

The model is a penalised logistic regression. Cohorts with an outcome after years are small, so no part is held out: in
a repeated nested cross-validation the inner folds choose predictors and penalty, and the outer folds evaluate. All rows
of a person are in one fold. If the table has a test part, it is used only once, to evaluate the final model.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from tqdm import tqdm

from data_specs.bundle import Calibration, Evaluation, FindingSpec
from data_specs.visit.contract import OperatingPoint
from models.equations import LOG_ACR, KidneyGraph
from training.cohorts.cohort import MIN_CASES
from training.figures.calibration_error import Verdict, calibration_figures, judge_calibration
from training.figures.evaluate import evaluate, operating_points, prevalence_among
from training.figures.offer import Offered
from training.figures.roc import roc_points
from training.organs.kidney_at_risk import AT_RISK_EGFR, AtRisk, Flags, Floats

TARGET = "incident_ckd"
DECIDES_AT = "balanced"
PENALTIES = (0.03, 0.1, 0.3, 1.0)

REPEATS, FOLDS, INNER_FOLDS = 10, 10, 5
ROWS_ENOUGH = 20_000
"""Rows of all repeats together: a small cohort needs more repeats for stable figures than a large one."""
MIN_AUROC = 0.65
"""The lower bound of the AUROC has to be above this, as with films: a model that gives every person the same
probability is calibrated too."""


@dataclass(frozen=True)
class Incidence:
    """The model of the whole cohort, and cross-validated figures.

    Parameters
    ----------
    finding
        The finding with its figures, and the cases of its plot: outcomes ``(n,)`` and probabilities,
        ``(n, n_repeats)`` of the cross-validation, ``(n,)`` of the test part.
    model
        Fitted to all rows that are not held out.
    verdict
        Whether it may be offered, and why.
    recipe
        How it was fitted, for the card.
    """

    finding: Offered
    predictors: tuple[str, ...]
    model: Pipeline
    verdict: Verdict
    limits: tuple[str, ...]
    recipe: dict[str, str | int | float]

    def graph(self, features: tuple[str, ...]) -> KidneyGraph:
        scale, model = self.model["scale"], self.model["model"]
        return KidneyGraph(
            features,
            self.predictors,
            mean=torch.tensor(scale.mean_, dtype=torch.float32),
            deviation=torch.tensor(scale.scale_, dtype=torch.float32),
            weight=torch.tensor(model.coef_[0], dtype=torch.float32),
            bias=float(model.intercept_[0]),
        ).eval()


def learn(
    rows: AtRisk, *, repeats: int | None = None, folds: int = FOLDS, draws: int = 1000, progress: bool = True
) -> Incidence:
    """Fit the model, evaluate it by nested cross-validation, and once on the held-out part.

    Parameters
    ----------
    repeats, folds
        Of the outer cross-validation; ``None``: by the number of rows.
    draws
        Number of draws of each bootstrap.
    """
    inside = ~rows.held_out
    table, y, person = rows.table[inside], rows.y[inside], rows.person[inside]
    repeats = repeats or max(1, min(REPEATS, ROWS_ENOUGH // len(y)))
    p = nested_predictions(table, y, person, rows.candidates, repeats, folds, progress=progress)
    cohort, held_out = f"{rows.name}, repeated nested cross-validation", f"{rows.name}, test"
    points = operating_points(y, p.mean(axis=1), cohort)
    evaluation = measure(rows, inside, p, cohort, points, draws)
    parts, limits = {"cross-validated": (y, p)}, []
    fitted = search(table, y, person, rows.candidates)
    if rows.held_out.any():
        outcome, probability = rows.y[rows.held_out], probabilities(fitted, rows.table[rows.held_out])
        if min(outcome.sum(), (1 - outcome).sum()) >= MIN_CASES:
            evaluation += measure(rows, rows.held_out, probability, held_out, points, draws)
            parts["test"] = outcome, probability
        else:
            limits.append(f"{held_out}: too few to say, {int(outcome.sum())} events among {len(outcome)}.")
    predictors = fitted.best_params_["take"].kw_args["columns"]
    age = table.age_years
    ages = (float(np.floor(age.min())), float(np.floor(age.max())) + 1)
    spec = FindingSpec(
        name=TARGET,
        column=KidneyGraph.columns.index(TARGET),
        age_years=ages,
        requires=requires(predictors),
        applies_when={"egfr": (AT_RISK_EGFR, 1e9), "age_years": ages},
        # A logistic regression is calibrated by itself; the cross-validation decides whether it is offered.
        calibration=Calibration(slope=1.0, intercept=0.0, prevalence=prevalence_among(y)),
        decides_at=DECIDES_AT,
        operating_points=points,
        evaluation=evaluation,
        roc=roc_points(y, p.mean(axis=1), points),
    )
    offered = Offered(spec, parts, "a logistic regression, which needs no further calibration")
    recipe: dict[str, str | int | float] = {
        "model": "logistic regression, standardised predictors, L2 penalty",
        "predictors": ", ".join(predictors),
        "inverse_penalty": float(fitted.best_params_["model__C"]),
        "chosen_among": "; ".join(", ".join(names) for names in rows.candidates),
        "chosen_by": f"log loss of {INNER_FOLDS} inner folds",
        "measured_by": f"{repeats} repeats of {folds} outer folds",
    }
    return Incidence(offered, predictors, fitted.best_estimator_, verdict(evaluation), tuple(limits), recipe)


def measure(
    rows: AtRisk, member: Flags, p: Floats, cohort: str, points: tuple[OperatingPoint, ...], draws: int
) -> tuple[Evaluation, ...]:
    """Every figure of one part."""
    y, person, groups = rows.y[member], rows.person[member], subgroups(rows.groups[member])
    figures = evaluate(y, p, person, cohort=cohort, points=points, subgroups=groups, decides_at=DECIDES_AT, draws=draws)
    return (*figures, *calibration_figures(y, p, cohort=cohort))


def verdict(evaluation: tuple[Evaluation, ...]) -> Verdict:
    """Whether the calibration error is small enough and the AUROC high enough to offer the finding."""
    calibrated = judge_calibration(evaluation)
    auroc = [e for e in evaluation if e.metric == "auroc" and e.subgroup == "all"]
    auroc_reason = "; ".join(
        f"{e.cohort}: AUROC {e.estimate.value:.3f} ({e.estimate.low:.3f} to {e.estimate.high:.3f}), lower bound above "
        f"{MIN_AUROC:g} needed"
        for e in auroc
    )
    return Verdict(
        calibrated.offered and all(e.estimate.low > MIN_AUROC for e in auroc), f"{auroc_reason}; {calibrated.reason}"
    )


def subgroups(groups: pd.DataFrame) -> dict[str, Flags]:
    """Members of each value of each column, named like ``sex female``; unknown values are in none."""
    return {
        f"{column} {value}": (values == value).to_numpy()
        for column, values in groups.items()
        for value in sorted(values.dropna().unique())
    }


def requires(predictors: tuple[str, ...]) -> tuple[str, ...]:
    """Features that the model needs, in the bundle's input."""
    given = (p for p in predictors if p not in ("egfr", LOG_ACR))
    ratio = ("urine_acr_mg_per_g",) if LOG_ACR in predictors else ()
    return tuple(dict.fromkeys(["creatinine_umol_per_l", "female", "age_years", *given, *ratio]))


def search(
    table: pd.DataFrame, y: Floats, person: NDArray[np.str_], candidates: tuple[tuple[str, ...], ...]
) -> GridSearchCV:
    """Standardised, penalised logistic regression, fitted; predictors and penalty chosen by five inner folds."""
    choices = [FunctionTransformer(_take, kw_args={"columns": names}) for names in candidates]
    pipeline = Pipeline(
        [("take", choices[0]), ("scale", StandardScaler()), ("model", LogisticRegression(max_iter=1000))]
    )
    grid = {"take": choices, "model__C": list(PENALTIES)}
    inner = splits(y, person, INNER_FOLDS, seed=1)
    chosen = GridSearchCV(pipeline, grid, scoring="neg_log_loss", cv=inner, error_score="raise")
    # Products of float32 matrices may set the CPU's flag for invalid values although every result is correct; a real
    # NaN is refused by the log loss, and below.
    with np.errstate(invalid="ignore"):
        chosen.fit(table, y)
    if not np.isfinite(chosen.best_estimator_["model"].coef_).all():
        raise FloatingPointError("a weight of the regression is not finite")
    return chosen


def probabilities(fitted: GridSearchCV | Pipeline, table: pd.DataFrame) -> Floats:
    """``(n,)`` probabilities of the event.

    Raises
    ------
    FloatingPointError
        One is not finite.
    """
    with np.errstate(invalid="ignore"):  # as in search
        p = np.asarray(fitted.predict_proba(table)[:, 1], dtype=np.float64)
    if not np.isfinite(p).all():
        raise FloatingPointError("a probability of the regression is not finite")
    return p


def nested_predictions(
    table: pd.DataFrame,
    y: Floats,
    person: NDArray[np.str_],
    candidates: tuple[tuple[str, ...], ...],
    repeats: int,
    folds: int,
    *,
    progress: bool = True,
) -> Floats:
    """Probability of each row by models that were fitted without its person, ``(n, repeats)``."""
    p = np.zeros((len(y), repeats))
    with tqdm(total=repeats * folds, unit="fold", disable=not progress) as bar:
        for repeat in range(repeats):
            for train, test in splits(y, person, folds, seed=repeat):
                fitted = search(table.iloc[train], y[train], person[train], candidates)
                p[test, repeat] = probabilities(fitted, table.iloc[test])
                bar.update()
    return p


def splits(
    y: Floats, person: NDArray[np.str_], folds: int, *, seed: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows to fit and rows left out; all rows of a person in one fold, events spread evenly."""
    if len(set(person)) == len(person):
        return list(StratifiedKFold(folds, shuffle=True, random_state=seed).split(y, y))
    return list(StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(y, y, person))


def _take(table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    return table[list(columns)]
