"""What the gate says of films that it was not trained on, and of pictures that are none; counted for its card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from data_specs.bundle import CxrInput, Estimate, Evaluation, FindingSpec
from inference.cxr.gate import Judged, judge, saturated_share, set_upright
from models.networks import GateNet
from training.bundle.agreement import Evaluated
from training.cohorts import laterals, negatives
from training.cohorts.cohort import Cohort
from training.cohorts.shipped_films import read_films, tb

Pictures = NDArray[np.uint8]

CODES = ("not_a_chest_image", "turned", "inverted", "lungs_cut_off", "heart_on_the_right")

LATERAL = "covid-chestxray-dataset, lateral films (licence: tests only)"
INVERTED, MIRRORED = "the films of the test parts, inverted", "the films of the test parts, mirrored"
DETAILS, MADE_UP = "details and shuffled pieces of these films", "made-up pictures"
MADE_LATERAL = "made-up lateral films"
CUT = "Kermany 2018, validation films cut through the lungs"
QUARTER = "the films of the test parts, turned by {}°"
LATERAL_QUARTER = "the lateral films, turned by {}°"


def held_back(data: Path, children: Cohort, adults: Cohort, others: Cohort, drawn: Tensor) -> dict[str, Pictures]:
    """Held-out pictures by kind: real films, what was made of them, lateral films, and made-up pictures."""
    rng = np.random.default_rng(11)
    takes = CxrInput(size_px=children.x.shape[-1])
    tuberculosis = tb(data, takes)
    films = {
        "Kermany 2018, published test part": children.x[children.rows("test")],
        "NIH subset, adults, test persons": adults.x[adults.rows("test")],
        others.part_title("test"): others.x[others.rows("test")],
        tuberculosis.part_title("test"): tuberculosis.x,
    }
    upright = np.concatenate([x for name, x in films.items() if name != others.part_title("test")])
    names = pd.read_csv(data / "cxr/lateral/origin.csv").image.unique()  # one film stands for two persons
    sideways = read_films([data / "cxr/lateral" / name for name in names], takes)
    return {
        **films,
        MIRRORED: upright[..., ::-1],
        **{QUARTER.format(90 * turns): np.rot90(upright, turns, axes=(2, 3)) for turns in (1, 2, 3)},
        INVERTED: 255 - upright,
        CUT: cut_off(children, drawn, rng),
        LATERAL: sideways,
        "the lateral films, mirrored": sideways[..., ::-1],
        **{LATERAL_QUARTER.format(90 * turns): np.rot90(sideways, turns, axes=(2, 3)) for turns in (1, 2, 3)},
        MADE_LATERAL: np.stack([laterals.draw(film[0], rng)[None] for film in upright[::2]]),
        DETAILS: np.stack([negatives.piece(film[0], rng)[None] for film in upright]),
        MADE_UP: np.stack([negatives.draw(rng, takes.size_px) for _ in range(600)])[:, None],
    }


def evaluated_on(sets: Mapping[str, Pictures]) -> Evaluated:
    """The same pictures for the comparison of precisions: chest, inverted, cut off, heart on the right."""
    nan = np.nan
    answers = dict.fromkeys(list(sets)[:4], (1, 0, 0, 0))
    answers |= {INVERTED: (1, 1, nan, nan), CUT: (1, 0, 1, nan), MIRRORED: (1, 0, 0, 1)}
    no_chest = (0, nan, nan, nan)
    outcomes = np.concatenate([np.tile(answers.get(name, no_chest), (len(x), 1)) for name, x in sets.items()])
    return Evaluated(
        np.concatenate(list(sets.values())),
        {column: outcomes[:, column] for column in range(4)},
        "what was held back, and what was made from it",
    )


def counted(network: GateNet, limit: Mapping[str, float], sets: Mapping[str, Pictures]) -> tuple[FindingSpec, ...]:
    """How often each problem is raised for each kind of picture."""
    raised = {name: problems(network, limit, x) for name, x in sets.items()}
    return tuple(
        FindingSpec(
            name=code,
            column=0,
            kind="measured",
            evaluation=tuple(
                Evaluation(
                    cohort=name, metric=f"share with {code}", estimate=wilson_share([code in p for p in per_film])
                )
                for name, per_film in raised.items()
            ),
        )
        for code in CODES
    )


def problems(network: GateNet, limit: Mapping[str, float], films: Pictures) -> list[set[str]]:
    """Codes of the problems that the gate raises for each film, by the functions of serving."""
    as_they_lie = judged(network, limit, films)
    found = [each.problems for each in as_they_lie]
    refused = [row for row, each in enumerate(as_they_lie) if not each.is_chest]
    if refused:
        turned = (judged(network, limit, np.rot90(films[refused], turns, axes=(2, 3))) for turns in (1, 2, 3))
        for row, *others in zip(refused, *turned, strict=True):
            found[row] = set_upright(limit, as_they_lie[row], others)[1]
    return [{problem.code for problem in of_film} for of_film in found]


def judged(network: GateNet, limit: Mapping[str, float], films: Pictures) -> list[Judged]:
    """What the gate says of each film as it lies."""
    found = []
    for part in np.array_split(films, max(1, len(films) // 256)):
        with torch.inference_mode():
            outputs = [output.numpy() for output in network(torch.from_numpy(part.copy()))]
        for film, logits, distance, lungs in zip(part, *outputs, strict=True):
            found.append(judge(limit, saturated_share(film[0]), logits, float(distance[0]), lungs[0]))
    return found


def cut_off(cohort: Cohort, drawn: Tensor, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Validation films with lung fields, cropped at one side so that a fifth to a third of the lungs is outside."""
    cropped = []
    for row in cohort.rows("validation"):
        field = drawn[row, 0].numpy() > 0.5
        if torch.isnan(drawn[row, 0, 0, 0]) or not field.any():
            continue
        turns = int(rng.integers(4))
        film, field = np.rot90(cohort.x[row, 0], turns), np.rot90(field, turns)
        lost = np.cumsum(field.sum(axis=1)) / field.sum()
        top = int(np.searchsorted(lost, rng.uniform(0.2, 0.33))) + 1
        kept = Image.fromarray(np.ascontiguousarray(np.rot90(film[top:], -turns)))
        cropped.append(np.asarray(kept.resize(cohort.x.shape[2:], Image.Resampling.BILINEAR))[None])
    return np.stack(cropped)


def wilson_share(found: list[bool]) -> Estimate:
    """Share with its 95 % interval (Wilson, JASA 1927;22:209)."""
    n, k, z = len(found), sum(found), 1.96
    centre = (k / n + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
    return Estimate(value=k / n, low=max(0.0, centre - half), high=min(1.0, centre + half), n=n)
