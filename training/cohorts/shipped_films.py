"""The public films that the shipped ``lung`` and ``cxr_gate`` are trained and evaluated on, as :class:`Cohort`.

Their files are in a folder of real data that is not part of the repository (``--data``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from data_specs.bundle import CxrInput, TrainingData
from data_specs.cxr.files import read_image
from data_specs.cxr.image import conform
from training.cohorts.cohort import Cohort, even_weights, part_of_person, with_counts
from training.cohorts.gates import film_gate


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
TBX11K = TrainingData(
    name="TBX11K, 200 films with tuberculosis (evaluation only)",
    citation="Liu Y, Wu YH, Ban Y, Wang H, Cheng MM. Rethinking Computer-Aided Tuberculosis Diagnosis. CVPR 2020",
    licence="terms of use unclear: never trained on",
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


NIH_DRAWS = ("nih", "nih_more")
"""Folders: normals and pneumonias picked against each other; films as they come, some of which lie on their side."""
NIH_PARTS = {"validation": 0.2, "test": 0.2, "train": 0.6}
"""Shares of the persons."""


Read = Callable[[list[Path], CxrInput], NDArray[Any]]
"""Makes the array of a cohort from its files."""


def kermany(data: Path, takes: CxrInput, read: Read = read_films) -> Cohort:
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
        x=read([data / "cxr/kermany" / p for p in table.path], takes),
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


def nih(data: Path, takes: CxrInput, read: Read = read_films) -> Cohort:
    """Adults and some minors, Bethesda, in two draws (``site``); labels mined from reports: fourteen and ``abnormal``.

    ``abnormal`` is any of the fourteen. Persons are split 60/20/20, whichever draw their films are in. Films of minors
    are used for training only, because nothing is offered for minors; those of the second draw, four, not at all.
    Within a draw each pair of view and normality is drawn equally often, because the two are correlated in the first.
    Age and sex are further tasks.
    """
    draws = [pd.read_csv(data / "cxr" / draw / "labels.csv").assign(draw=draw) for draw in NIH_DRAWS]
    table = pd.concat(draws, ignore_index=True)
    person = ("nih:" + table.patient_id.astype(str)).to_numpy(dtype=str)
    part = np.array([part_of_person(p, NIH_PARTS, "nih") for p in person])
    part[(table.age < 18) & ((part != "train") | (table.draw != NIH_DRAWS[0]))] = "unused"
    labels = table[list(NIH_LABELS)].astype(float).rename(columns=str.lower)
    labels.insert(0, "abnormal", labels.max(axis=1))
    age_band = pd.cut(table.age, [17, 40, 60, 75, 120], labels=["18-40", "41-60", "61-75", "76+"]).astype(str)
    learnt = part == "train"
    n_of_draw = table.draw.map(table.draw[learnt].value_counts()).to_numpy(dtype=np.float64)
    return Cohort(
        name="nih",
        x=read([data / "cxr" / row.draw / "images" / row.image for row in table.itertuples()], takes),
        labels=labels,
        person=person,
        part=part,
        subgroups=pd.DataFrame({"view": table.view, "sex": table.sex, "age": age_band, "site": table.draw}),
        source=with_counts(NIH, person[learnt]),
        title="NIH subset, adults",
        part_names={part: f"NIH subset, adults, {part} persons" for part in ("validation", "test")},
        age_years=(18.0, 86.0),
        further=pd.DataFrame(
            {"female": table.sex == "F", "age_over_45": table.age > 45, "age_over_60": table.age > 60}
        ).astype(float),
        weight=n_of_draw * even_weights(labels.abnormal.astype(str) + table.view + table.draw, learnt),
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
