"""``kidney``: published equations and a fitted model of incident CKD 3 to 5, exported as one graph.

The equations need no cohort (:mod:`training.organs.kidney_equations`). The incidence model is fitted to the published
cohort of the shipped bundle, or to a hospital's own table of modality ``labs`` with the label ``incident_ckd``
(:mod:`training.organs.kidney_at_risk` selects the persons, :mod:`training.organs.kidney_incidence` fits the model). It
is offered only if its cross-validated probabilities are calibrated; otherwise the bundle has the equations only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from data_specs.bundle import Feature, TabularInput, TrainingData, Withheld
from data_specs.cohort import VITALS
from data_specs.conditions import CONDITIONS
from data_specs.labs import ANALYTES
from training.bundle.export import Draft, write_bundle
from training.cohorts.checks import check_cohort
from training.cohorts.inputs import load_inputs
from training.cohorts.local import CohortUnusable
from training.cohorts.table import load_table
from training.cohorts.verdicts import doubts, report, unusable
from training.organs.kidney_at_risk import AtRisk, CannotTrain, at_risk
from training.organs.kidney_equations import EQUATION_LIMITS, equations, equations_alone
from training.organs.kidney_incidence import FOLDS, TARGET, Incidence, learn

FEATURES = (
    Feature(name="age_years", unit="a"),
    Feature(name="female", unit="1"),
    Feature(name="creatinine_umol_per_l", unit="umol/L"),
    Feature(name="urine_acr_mg_per_g", unit="mg/g"),
    Feature(name="hba1c_percent", unit="%"),
    Feature(name="diabetes", unit="1"),
    Feature(name="coronary_heart_disease", unit="1"),
)
"""Input of every bundle; a hospital's own bundle may have further features after these."""
UNITS = {analyte.key: analyte.unit for analyte in ANALYTES} | VITALS | dict.fromkeys(CONDITIONS, "1")


ALSHAMSI = TrainingData(
    name="Al-Shamsi 2018, adults with vascular risk at Tawam Hospital, Al Ain",
    citation="Al-Shamsi S, Regmi D, Govender RD. Chronic kidney disease in patients at high risk of cardiovascular "
    "disease in the United Arab Emirates: A population-based study. PLoS ONE 2018;13(6):e0199920. "
    "doi:10.1371/journal.pone.0199920",
    licence="CC BY 4.0",
    n_persons=0,
    n_items=0,
)

ALSHAMSI_LIMITS = (
    "`incident_ckd`: 491 adults of one hospital in the Emirates at high vascular risk, 56 events over up to nine "
    "years; a general population has a lower risk. HbA1c is missing in 15 of them, whose rows were left out. One "
    "creatinine, 6 µmol/L, is kept as published, though no visit with such a value is answered. Only for eGFR of 60 "
    "and more.",
)


@dataclass(frozen=True)
class Learnable:
    """The persons at risk, the source and the limits of a cohort."""

    rows: AtRisk
    source: TrainingData
    limits: tuple[str, ...]


def run(
    *,
    data: Path,
    out: Path,
    bundles: Path,
    version: str,
    epochs: int | None = None,
    cohorts: Sequence[Path] = (),
    repeats: int | None = None,
    folds: int = FOLDS,
    draws: int = 1000,
    progress: bool = True,
) -> Path:
    """Fit the incidence model, evaluate it by nested cross-validation, export everything; return the bundle.

    Parameters
    ----------
    data
        Folder of the published cohorts; not read if ``cohorts`` has a manifest.
    out, epochs
        Not used: there is no run to resume, and a regression has no epochs.
    cohorts
        At most one manifest of modality ``labs``; if empty, the published cohort is used.
    repeats, folds, draws
        Repeats and folds of the outer cross-validation (``None``: by the number of rows), draws of each bootstrap.

    Raises
    ------
    CannotTrain
        The cohort cannot be used for this model.
    CohortUnusable
        A check found it unusable; the message is the report.
    data_specs.cohort.ManifestInvalid, training.cohorts.table.TableUnusable
        The manifest or the table cannot be read.
    FileExistsError
        The version exists.
    """
    if (bundles / f"kidney-{version}").exists():
        raise FileExistsError(f"kidney-{version} exists in {bundles}: a version is never replaced")
    if len(cohorts) > 1:
        raise CannotTrain("kidney is trained on one cohort: join the tables, with a column for the site")
    learnable = hospital_cohort(cohorts[0], progress=progress) if cohorts else shipped(data)
    found = learn(learnable.rows, repeats=repeats, folds=folds, draws=draws, progress=progress)
    return export(learnable, found, bundles, version)


def shipped(data: Path) -> Learnable:
    """The persons of the published cohort whose HbA1c is known."""
    raw = pd.read_csv(data / "kidney/alshamsi/journal.pone.0199920.s002_EDITED.csv")
    raw.columns = raw.columns.str.strip()
    features = pd.DataFrame(
        {
            "age_years": raw.AgeBaseline,
            "female": 1 - raw.Sex,
            "creatinine_umol_per_l": raw.CreatinineBaseline,
            "hba1c_percent": raw.HgbA1C,
            "diabetes": raw.HistoryDiabetes,
            "coronary_heart_disease": raw.HistoryCHD,
        }
    )
    person = raw.index.to_numpy(dtype=str)
    event = raw.EventCKD35.to_numpy(dtype=np.float64)
    rows = at_risk(features, event, person, name="Al-Shamsi 2018", everything=False)
    source = ALSHAMSI.model_copy(update={"n_persons": len(rows.y), "n_items": len(rows.y)})
    return Learnable(rows, source, ALSHAMSI_LIMITS)


def hospital_cohort(path: Path, *, progress: bool = True) -> Learnable:
    """A hospital's own cohort, after the checks.

    Raises
    ------
    CannotTrain
        Another modality or label, no eGFR, or too few events.
    CohortUnusable
        A check found it unusable.
    """
    table = load_table(path)
    manifest = table.manifest
    if manifest.modality != "labs":
        raise CannotTrain(f"{manifest.name}: kidney needs a cohort of modality labs, not {manifest.modality}")
    if set(manifest.labels) != {TARGET}:
        raise CannotTrain(
            f"{manifest.name}: kidney needs one label, `{TARGET}` (1 if chronic kidney disease of stage 3 to 5 "
            f"developed after a start with an eGFR of 60 or more, else 0), and no other; the manifest's labels "
            f"are {', '.join(manifest.labels)}. eGFR, KDIGO stages and kidney failure risk (KFRE) are published "
            "equations and are not trained"
        )
    inputs = load_inputs(table, progress=progress)
    checks = check_cohort(table, inputs)
    if unusable(checks):
        raise CohortUnusable(report(checks, table))
    by_table = bool(table.raw["split"].notna().any())
    rows = at_risk(
        table.features,
        table.labels[TARGET].to_numpy(dtype=np.float64),
        table.person,
        name=manifest.name,
        everything=True,
        site=table.site,
        part=table.frame.part.to_numpy(dtype=str) if by_table else None,
        age_years=manifest.age_years,
    )
    inside = rows.table.index.to_numpy()[~rows.held_out]
    n_events = int(rows.y[~rows.held_out].sum())
    limit = (
        f"`{TARGET}`: fitted to {manifest.name}, {len(inside)} rows of {len(set(rows.person[~rows.held_out]))} "
        f"persons, {n_events} events, over the time that this cohort was followed; at another site, or over "
        "another time, the risk is different. Only for eGFR of 60 and more."
    )
    return Learnable(rows, table.source(inside), (limit, *rows.left_out, *doubts(checks)))


def export(learnable: Learnable, found: Incidence, bundles: Path, version: str) -> Path:
    """Write the bundle: the equations, and the incidence model if it may be offered."""
    rows, spec = learnable.rows, found.finding.spec
    shipped_names = {f.name for f in FEATURES}
    further = tuple(Feature(name=n, unit=UNITS[n]) for n in spec.requires if n not in shipped_names)
    # The equations alone need only the first four.
    features = (*FEATURES, *further) if found.verdict else FEATURES[:4]
    names = tuple(f.name for f in features)
    draft = Draft(
        name="kidney",
        version=version,
        organ="kidney",
        purpose="Adults' creatinine, albuminuria and context: eGFR, KDIGO stages and risk, kidney failure risk"
        + (", incident chronic kidney disease." if found.verdict else "."),
        input=TabularInput(features=features),
        outputs=("values",),
        findings=(*equations(), *([spec] if found.verdict else [])),
        training_data=(learnable.source,) if found.verdict else (),
        limits=(*EQUATION_LIMITS, *learnable.limits, *found.limits),
        thresholds={},
        withheld=() if found.verdict else (Withheld(name=TARGET, cohort=rows.name, reason=found.verdict.reason),),
        recipe=found.recipe if found.verdict else {},
    )
    network = found.graph(names) if found.verdict else equations_alone(names)
    # Features that are not in the cohort are NaN.
    real = rows.table.reindex(columns=list(names)).to_numpy(dtype=np.float32)
    plots = [found.finding] if found.verdict else []
    return write_bundle(network, draft, golden_rows(further, found)[:, : len(names)], real, bundles, plots=plots)


def golden_rows(further: tuple[Feature, ...] = (), found: Incidence | None = None) -> NDArray[np.float32]:
    """``(48, n_features) float32`` over the whole range of the equations, with and without albuminuria; synthetic.

    Further features are drawn around the mean in the cohort.
    """
    rng = np.random.default_rng(2026)
    n = 48
    rows = np.stack(
        [
            rng.uniform(18, 95, n),
            np.arange(n) % 2,
            np.exp(rng.uniform(np.log(30), np.log(900), n)),
            np.exp(rng.uniform(np.log(1), np.log(5000), n)),
            rng.uniform(4, 14, n),
            rng.integers(0, 2, n),
            rng.integers(0, 2, n),
            *(drawn_values(feature.name, found, n, rng) for feature in further if found is not None),
        ],
        axis=1,
    )
    rows[::4, 3] = np.nan
    rows[::6, 4] = np.nan
    return rows.astype(np.float32)


def drawn_values(name: str, found: Incidence, n: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """``(n,)`` values of a predictor with the mean and deviation of the cohort."""
    if name in CONDITIONS:
        return rng.integers(0, 2, n).astype(np.float64)
    k, scale = found.predictors.index(name), found.model["scale"]
    return rng.normal(scale.mean_[k], scale.scale_[k], n)
