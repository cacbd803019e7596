"""The public recordings that the shipped ``cardiac`` is trained and evaluated on, as :class:`Cohort`.

Their files are in a folder of real data that is not part of the repository (``--data``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from data_specs.bundle import EcgInput, TrainingData
from data_specs.ecg.recording import Recording
from inference.ecg.measure import measure
from training.cohorts.cohort import Cohort, with_counts
from training.cohorts.files import Folders, case_of, shape_of
from training.cohorts.gates import RecordingGate

PTBXL = TrainingData(
    name="PTB-XL, a subset of folds 1 to 10",
    citation="Wagner P, Strodthoff N, Bousseljot RD, et al. PTB-XL, a large publicly available electrocardiography "
    "dataset. Sci Data 2020;7:154. doi:10.1038/s41597-020-0495-6",
    licence="CC BY 4.0",
    n_persons=0,
    n_items=0,
)
CINC2021 = TrainingData(
    name="PhysioNet/CinC 2021 challenge, 76 recordings of other hospitals (evaluation only)",
    citation="Reyna MA, Sadr N, Perez Alday EA, et al. Will Two Do? Varying Dimensions in Electrocardiography: The "
    "PhysioNet/Computing in Cardiology Challenge 2021. CinC 2021;48:1-4. doi:10.23919/CinC53138.2021.9662687",
    licence="CC BY 4.0",
    n_persons=0,
    n_items=0,
)

PTBXL_MAIN = {
    "normal_ecg": "NORM",
    "st_t_change": "STTC",
    "conduction_disturbance": "CD",
    "myocardial_infarction": "MI",
    "hypertrophy": "HYP",
    "atrial_fibrillation": "rhythm:AFIB",
}


def ptbxl(data: Path) -> Cohort:
    """Adults, Berlin; labels: the five superclasses and atrial fibrillation.

    Every other statement that occurs at least 20 times is a further task, and so is what serving measures: intervals,
    rate and regularity are the same in every hospital, whoever reads the trace. Published folds 1 to 8 are the train
    part, 9 is validation, 10 is test. Rhythm is unknown where no rhythm was stated.
    """
    table = pd.read_csv(data / "ecg/ptbxl/labels.csv")
    with np.load(data / "ecg/ptbxl/signals_100hz.npz", allow_pickle=False) as f:
        x = f["x"].astype(np.float32) / 1000.0
    statements = [c for c in table.columns if c.startswith(("sub_class:", "rhythm:", "form:"))]
    extra = [c for c in statements if c not in PTBXL_MAIN.values() and table[c].sum() >= 20]
    labels = table[list(PTBXL_MAIN.values())].astype(float)
    labels = labels.rename(columns={column: name for name, column in PTBXL_MAIN.items()})
    person = ("ptbxl:" + table.patient_id.astype(str)).to_numpy(dtype=str)
    part = np.where(table.strat_fold == 10, "test", np.where(table.strat_fold == 9, "validation", "train"))
    return Cohort(
        name="ptbxl",
        x=x,
        labels=labels,
        person=person,
        part=part,
        subgroups=pd.DataFrame(index=table.index),
        source=with_counts(PTBXL, person[part == "train"]),
        title="PTB-XL subset",
        part_names={"validation": "PTB-XL subset, fold 9", "test": "PTB-XL subset, fold 10"},
        age_years=(18.0, 96.0),
        further=pd.concat([table[extra].astype(float), pd.DataFrame([_measured(each) for each in x])], axis=1),
    )


def _measured(samples: NDArray[np.float32]) -> dict[str, float]:
    """What serving measures in a recording, as questions of yes (1) or no (0); NaN where it cannot be measured."""
    found = measure(Recording(samples, 100.0, "ptbxl"))
    rate, qrs, pr, qtc = found.heart_rate_per_min, found.qrs_ms, found.pr_ms, found.qtc_ms
    asked = {
        "slow": rate and rate < 60,
        "fast": rate and rate > 100,
        "irregular": None if found.rhythm_regular is None else not found.rhythm_regular,
        "qrs_110_ms": qrs and qrs >= 110,
        "qrs_120_ms": qrs and qrs >= 120,
        "pr_200_ms": pr and pr > 200,
        "p_before_qrs": qrs and pr is not None,
        "qtc_450_ms": qtc and qtc > 450,
    }
    return {f"measured:{name}": np.nan if yes is None else float(bool(yes)) for name, yes in asked.items()}


SNOMED_CT = {
    "conduction_disturbance": {
        "6374002": "bundle branch block",
        "27885002": "complete atrioventricular block",
        "59118001": "right bundle branch block",
        "74390002": "Wolff-Parkinson-White pattern",
        "164909002": "left bundle branch block",
        "195042002": "second degree atrioventricular block",
        "233917008": "atrioventricular block",
        "270492004": "first degree atrioventricular block",
        "445118002": "left anterior fascicular block",
        "445211001": "left posterior fascicular block",
        "698252002": "nonspecific intraventricular conduction disorder",
        "713426002": "incomplete right bundle branch block",
        "713427006": "complete right bundle branch block",
        "733534002": "complete left bundle branch block",
    },
    "st_t_change": {
        "55930002": "ST changes",
        "59931005": "T wave inversion",
        "111975006": "prolonged QT interval",
        "164861001": "myocardial ischaemia",
        "164930006": "ST interval abnormal",
        "164931005": "ST elevation",
        "164934002": "T wave abnormal",
        "425623009": "lateral ischaemia",
        "426434006": "anterior ischaemia",
        "428750005": "nonspecific ST-T abnormality",
        "429622005": "ST depression",
    },
    "atrial_fibrillation": {"164889003": "atrial fibrillation"},
}
"""What the statements of the 2021 challenge mean in the words of :data:`PTBXL_MAIN`.

References
----------
``dx_mapping_scored.csv`` and ``dx_mapping_unscored.csv`` of the challenge's evaluation code, 2021.
"""
SINUS_RHYTHM = "426783006"
SINUS_VARIANTS = frozenset({SINUS_RHYTHM, "426177001", "427084000", "427393009"})
"""Sinus rhythm, bradycardia, tachycardia, arrhythmia: alone, the last three say neither normal nor abnormal."""


def cinc2021(data: Path, takes: EcgInput) -> Cohort:
    """Recordings of three other collections (China, United States), read as in serving; for evaluation only.

    Those of PTB-XL itself are left out, because their persons may be among those learnt from, and so are recordings
    that the gate of serving refuses.
    """
    table = pd.read_csv(data / "ecg/raw/labels.csv", dtype={"dx": str, "age": float})
    table = table[table.db != "HR"].reset_index(drop=True)
    folders, gate = Folders(data / "ecg/raw"), RecordingGate()
    cases = [case_of(name, folders, takes, gate=gate) for name in tqdm(table.record, unit="recording")]
    read = np.array([case.x is not None for case in cases])
    said = [frozenset(codes.split(",")) for codes in table.dx]
    labels = pd.DataFrame(
        {name: [float(bool(codes & meant.keys())) for codes in said] for name, meant in SNOMED_CT.items()}
    )
    normal = [1.0 if codes == {SINUS_RHYTHM} else np.nan if codes <= SINUS_VARIANTS else 0.0 for codes in said]
    labels.insert(0, "normal_ecg", normal)
    return Cohort(
        name="cinc2021",
        x=np.stack([np.zeros(shape_of(takes), np.float32) if case.x is None else case.x[0] for case in cases]),
        labels=labels,
        person=("cinc2021:" + table.record).to_numpy(dtype=str),
        part=np.where(read & (table.age >= 18).to_numpy(), "test", "unused"),
        subgroups=pd.DataFrame({"collection": table.db}),
        source=CINC2021,
        title="CinC 2021, adults of three other collections",
        age_years=(18.0, 96.0),
    )
