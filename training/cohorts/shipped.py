"""The public cohorts that the shipped bundles are trained on, as :class:`Cohort`.

Their files are in a folder of real data that is not part of the repository (``--data``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from data_specs.bundle import CxrInput, EcgInput, TrainingData
from data_specs.cxr.files import read_image
from data_specs.cxr.image import conform
from training.cohorts.cohort import Cohort, even_weights, part_of_person, with_counts
from training.cohorts.files import Folders, case_of, shape_of
from training.cohorts.gates import RecordingGate, film_gate


def read_films(paths: list[Path], takes: CxrInput) -> NDArray[np.uint8]:
    """``(n, 1, size_px, takes) uint8`` read and conformed as in serving; none is left out."""
    taken = as_taken(takes)
    return np.stack([taken(read_image(p.read_bytes()).pixels) for p in tqdm(paths, unit="film")])


def as_taken(takes: CxrInput) -> Callable[[NDArray[np.uint8]], NDArray[np.uint8]]:
    """A function from a film's pixels to what the network takes, ``(1, size_px, takes)``."""
    if takes.shows == "film":
        return lambda pixels: conform(pixels, takes.size_px)
    gate = film_gate()
    return lambda pixels: gate.of_pixels(pixels, takes)


KERMANY = TrainingData(
    name="Kermany 2018, paediatric chest X-rays (published train part)",
    citation="Kermany DS, Goldbaum M, Cai W, et al. Identifying Medical Diagnoses and Treatable Diseases by "
    "Image-Based Deep Learning. Cell 2018;172:1122-1131. doi:10.1016/j.cell.2018.02.010",
    licence="CC BY 4.0",
    n_persons=0,
    n_items=0,
)
NIH = TrainingData(
    name="NIH ChestX-ray14, a subset of the published train part",
    citation="Wang X, Peng Y, Lu L, Lu Z, Bagheri M, Summers RM. ChestX-ray8: Hospital-scale Chest X-ray Database "
    "and Benchmarks. CVPR 2017:3462-3471. doi:10.1109/CVPR.2017.369. Provided by the NIH Clinical Center",
    licence="free use with citation (NIH Clinical Center)",
    n_persons=0,
    n_items=0,
)
PTBXL = TrainingData(
    name="PTB-XL, a subset of folds 1 to 10",
    citation="Wagner P, Strodthoff N, Bousseljot RD, et al. PTB-XL, a large publicly available electrocardiography "
    "dataset. Sci Data 2020;7:154. doi:10.1038/s41597-020-0495-6",
    licence="CC BY 4.0",
    n_persons=0,
    n_items=0,
)

TBX11K = TrainingData(
    name="TBX11K, 200 films with tuberculosis (evaluation only)",
    citation="Liu Y, Wu YH, Ban Y, Wang H, Cheng MM. Rethinking Computer-Aided Tuberculosis Diagnosis. CVPR 2020",
    licence="terms of use unclear: never trained on",
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

NIH_LABELS = (
    "Atelectasis",
    "Cardiomegaly",
    "Effusion",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pneumonia",
    "Pneumothorax",
    "Consolidation",
    "Edema",
    "Emphysema",
    "Fibrosis",
    "Pleural_Thickening",
    "Hernia",
)


NIH_PARTS = {"validation": 0.2, "test": 0.2, "train": 0.6}
"""Shares of the persons."""


def kermany(data: Path, takes: CxrInput) -> Cohort:
    """Children of one to five years, Guangzhou; label: ``pneumonia``.

    The published test part is the test part; a tenth of the persons of the published train part are for validation.
    """
    table = pd.read_csv(data / "cxr/kermany/labels.csv")
    # One person may have a bacterial and a viral episode; both must be in the same part.
    person = ("kermany:" + table.person_no.astype(str)).to_numpy(dtype=str)
    part = np.array(
        [
            "test" if split == "test" else part_of_person(p, {"validation": 0.1, "train": 0.9}, "kermany")
            for p, split in zip(person, table.split, strict=True)
        ]
    )
    return Cohort(
        name="kermany",
        x=read_films([data / "cxr/kermany" / p for p in table.path], takes),
        labels=pd.DataFrame({"pneumonia": table.pneumonia.astype(float)}),
        person=person,
        part=part,
        subgroups=pd.DataFrame(index=table.index),
        source=with_counts(KERMANY, person[part == "train"]),
        title="Kermany 2018",
        part_names={
            "validation": "Kermany 2018, validation part of train",
            "test": "Kermany 2018, published test part",
        },
        age_years=(1.0, 6.0),
        # Films were collected by class (3:1), so their share of positives is not the prevalence of any clinic.
        prevalence=0.5,
        test_apart=True,
    )


def _nih_persons(table: pd.DataFrame) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """Person and part of each film; a person is in one part, whichever folder the film is in."""
    person = ("nih:" + table.patient_id.astype(str)).to_numpy(dtype=str)
    return person, np.array([part_of_person(p, NIH_PARTS, "nih") for p in person])


def _nih_labels(table: pd.DataFrame) -> pd.DataFrame:
    """The fourteen labels, and ``abnormal``, which is any of them."""
    labels = table[list(NIH_LABELS)].astype(float).rename(columns=str.lower)
    labels.insert(0, "abnormal", labels.max(axis=1))
    return labels


def nih(data: Path, takes: CxrInput) -> Cohort:
    """Adults and some minors, Bethesda; fourteen labels mined from reports, and ``abnormal``, which is any of them.

    Persons are split 60/20/20. Films of minors are used for training only, because nothing is offered for minors. Each
    pair of view and normality is drawn equally often, because the two are correlated in this subset. Age and sex are
    further tasks.
    """
    table = pd.read_csv(data / "cxr/nih/labels.csv")
    person, part = _nih_persons(table)
    part[(table.age < 18) & (part != "train")] = "unused"
    labels = _nih_labels(table)
    age_band = pd.cut(table.age, [17, 40, 60, 75, 120], labels=["18-40", "41-60", "61-75", "76+"]).astype(str)
    return Cohort(
        name="nih",
        x=read_films([data / "cxr/nih/images" / name for name in table.image], takes),
        labels=labels,
        person=person,
        part=part,
        subgroups=pd.DataFrame({"view": table.view, "sex": table.sex, "age": age_band}),
        source=with_counts(NIH, person[part == "train"]),
        title="NIH subset, adults",
        part_names={part: f"NIH subset, adults, {part} persons" for part in ("validation", "test")},
        age_years=(18.0, 86.0),
        further=pd.DataFrame(
            {"female": table.sex == "F", "age_over_45": table.age > 45, "age_over_60": table.age > 60}
        ).astype(float),
        weight=even_weights(labels.abnormal.astype(str) + table.view, part == "train"),
    )


def nih_more(data: Path, takes: CxrInput) -> Cohort:
    """Further films of the same hospital, drawn in another way, some of which lie on their side; for evaluation only.

    Films of persons whose films :func:`nih` trains on or chooses by are left out, and films of minors.
    """
    table = pd.read_csv(data / "cxr/nih_more/labels.csv")
    person, _ = _nih_persons(table)
    of_nih, part_of_nih = _nih_persons(pd.read_csv(data / "cxr/nih/labels.csv"))
    seen = set(of_nih[part_of_nih != "test"])
    used = ~np.isin(person, list(seen)) & (table.age >= 18).to_numpy()
    return Cohort(
        name="nih_more",
        x=read_films([data / "cxr/nih_more/images" / name for name in table.image], takes),
        labels=_nih_labels(table),
        person=person,
        part=np.where(used, "test", "unused"),
        subgroups=pd.DataFrame({"view": table.view}),
        source=NIH,
        title="NIH, another draw, adults whose films were not learnt from",
        age_years=(18.0, 86.0),
    )


def tb(data: Path, takes: CxrInput) -> Cohort:
    """Adults with tuberculosis, other scanners, positives only; for evaluation, never for training.

    The publisher resized the films to squares, so their aspect ratio is restored before the conform step.
    """
    table = pd.read_csv(data / "cxr/tb/labels.csv")
    films, taken = [], as_taken(takes)
    for row in tqdm(table.itertuples(), total=len(table), unit="film"):
        pixels = read_image((data / "cxr/tb/images" / str(row.image)).read_bytes()).pixels
        side = max(row.orig_w, row.orig_h)
        shape = round(pixels.shape[1] * row.orig_w / side), round(pixels.shape[0] * row.orig_h / side)
        films.append(taken(np.asarray(Image.fromarray(pixels).resize(shape, Image.Resampling.BILINEAR))))
    return Cohort(
        name="tb",
        x=np.stack(films),
        labels=pd.DataFrame({"abnormal": np.ones(len(table))}),
        person=np.array([f"tb:{i}" for i in range(len(table))]),
        part=np.full(len(table), "test"),
        subgroups=pd.DataFrame(index=table.index),
        source=TBX11K,
        title="TBX11K subset, adults with tuberculosis, other scanners, positives only",
        age_years=(18.0, 86.0),
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

    Every other statement that occurs at least 20 times is a further task. Published folds 1 to 8 are the train part, 9
    is validation, 10 is test. Rhythm is unknown where no rhythm was stated.
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
        further=table[extra].astype(float),
    )


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
