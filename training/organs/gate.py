"""``cxr_gate``: recognises frontal chest films and the lungs in them, so that other pictures are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits
from tqdm import tqdm

from data_specs.bundle import CxrInput, Estimate, Evaluation, FindingSpec, TrainingData
from inference.cxr.gate import judge, saturated_share
from models.networks import GateNet
from training.bundle import golden
from training.bundle.agreement import Evaluated
from training.bundle.export import Draft, write_bundle
from training.cohorts import negatives
from training.cohorts.cohort import Cohort
from training.cohorts.shipped import kermany, nih
from training.learning import augment

SIZE_PX = 64
EPOCHS = 6
ADULT_REPEATS = 4
"""Adults' films are drawn this many times as often, because there are ten times fewer."""
BATCH_SIZE = 64
LEARNING_RATE = 2e-3

CUT_FROM, WHOLE_TO = 0.12, 0.04
"""Share of the lungs outside the film above which they are labelled cut off, and below which they are not."""

THRESHOLDS = {
    "chest": 0.35,
    "chest_without_lungs": 0.6,
    "lung_area": 0.04,
    "distance": 12.0,
    "inverted": 0.5,
    "cut_off": 0.7,
    "saturated": 0.4,
}
"""Chosen on validation films and synthetic pictures so that at most 1 % of real chest films are refused."""

LIMITS = (
    "Trained on one paediatric and one adult collection and on pictures made by rule; no real picture of another body "
    "part was used. A lateral film that does not say so is refused only where it does not look frontal.",
    "Films that are turned by 90 degrees or upside down are refused, not turned.",
    "The threshold of `lungs_cut_off` was chosen with the counts on these same films in view; the others were not.",
    "The lung fields were drawn on children's films only; on adults they are used for two coarse questions (is there "
    "any lung, does it run out of the film).",
)


LUNG_FIELDS = TrainingData(
    name="Lung fields of 1,073 of the Kermany train films",
    citation="V7 Labs, covid-19-xray-dataset",
    licence="CC BY 4.0",
    n_persons=1073,
    n_items=1073,
)


@dataclass(frozen=True)
class GateCases:
    """Real films ``(n, 1, side, side) uint8`` and lung fields ``(n, 1, side, side) float32``, NaN where unknown."""

    films: Tensor
    lungs: Tensor


def train_gate(cases: GateCases, *, seed: int = 7, epochs: int = EPOCHS) -> GateNet:
    """Train the gate; half of each batch are real films, some of them inverted, the others are negatives."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = GateNet().to(memory_format=torch.channels_last)
    network.fit_distance(cases.films)
    steps = epochs * (2 * len(cases.films) // BATCH_SIZE)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    drawn = np.flatnonzero(~torch.isnan(cases.lungs[:, 0, 0, 0]).numpy())
    everything = np.arange(len(cases.films))
    bar = tqdm(range(steps), unit="step", mininterval=5)
    for step in bar:
        # Half of the real films have lung fields, so that these are learnt as fast as the rest.
        rows = np.concatenate([rng.choice(drawn, BATCH_SIZE // 4), rng.choice(everything, BATCH_SIZE // 4)])
        x, lungs, target = batch(cases, rows, rng, generator)
        network.train()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits, _, found = network(x)
        known, known_lungs = ~torch.isnan(target), ~torch.isnan(lungs)
        loss = binary_cross_entropy_with_logits(logits.float()[known], target[known])
        loss = loss + binary_cross_entropy_with_logits(found.float()[known_lungs], lungs[known_lungs])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{float(loss.detach()):.4f}")
    return network.eval()


def batch(
    cases: GateCases, rows: NDArray[np.intp], rng: np.random.Generator, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Films of ``rows`` and as many negatives: ``x``, lungs, ``(chest, inverted, cut_off)`` targets."""
    films, lungs, lost = transform_together(cases.films[rows], cases.lungs[rows], generator)
    films = augment.grey_values(films, generator)
    side = films.shape[-1]
    others = np.stack(
        [
            negatives.draw(rng, side) if rng.random() < 0.6 else negatives.spoil(cases.films[row, 0].numpy(), rng)
            for row in rng.choice(len(cases.films), len(rows))
        ]
    )
    other_films = augment.grey_values(torch.from_numpy(others)[:, None].float(), generator)
    nan = torch.tensor(torch.nan)
    chest = torch.cat([torch.where(lost > 0.4, nan, 1.0), torch.zeros(len(others))])
    cut = torch.where(lost > CUT_FROM, 1.0, torch.where(lost < WHOLE_TO, 0.0, nan))
    inverted = torch.from_numpy((rng.random(len(rows)) < 0.35).astype(np.float32))
    films = torch.where(inverted.view(-1, 1, 1, 1) > 0.5, 255 - films, films)
    unknown = torch.full((len(others),), torch.nan)
    target = torch.stack([chest, torch.cat([inverted, unknown]), torch.cat([cut, unknown])], dim=1)
    return torch.cat([films, other_films]), torch.cat([lungs, torch.zeros_like(lungs)]), target


def transform_together(films: Tensor, lungs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Transform each film and its lung fields alike; also the share of the lungs that is then outside.

    Half of the films are rotated and scaled a little, half are cropped; without lung fields the share is NaN.
    """
    n = len(films)
    gentle = augment.affine(n, generator, scale=(0.9, 1.25), shift=0.05, degrees=10, aspect=(0.88, 1.13))
    crop = torch.rand(n, 1, 1, generator=generator) < 0.5
    theta = torch.where(crop, augment.crops(n, generator, smallest=0.6), gentle)
    area = torch.linalg.det(theta[:, :, :2]).abs()
    after = augment.warp(lungs, theta, "nearest")
    lost = 1 - after.mean(dim=(1, 2, 3)) * area / lungs.mean(dim=(1, 2, 3)).clamp_min(1e-6)
    return augment.warp(films.float(), theta, "bilinear"), after, lost


def read_lungs(paths: list[Path | None], side: int) -> Tensor:
    """Lung fields at ``side`` pixels, ``(n, 1, side, side) float32`` of 0 and 1; NaN for ``None``."""
    fields = torch.full((len(paths), 1, side, side), torch.nan)
    for row, path in enumerate(paths):
        if path is not None:
            drawn = Image.open(path).convert("L").resize((side, side), Image.Resampling.BOX)
            fields[row, 0] = torch.from_numpy(np.asarray(drawn) > 127).float()
    return fields


def run(*, data: Path, out: Path, bundles: Path, version: str, epochs: int | None) -> Path:
    """Train on both train parts, count refusals once on held-out pictures, export; return the bundle."""
    children, adults = kermany(data, SIZE_PX), nih(data, SIZE_PX)
    table = pd.read_csv(data / "cxr/kermany/labels.csv")
    masks = pd.read_csv(data / "cxr/kermany/lung_masks.csv").set_index("path").lung_mask
    paths = [data / "cxr/kermany" / masks[p] if p in masks.index else None for p in table.path]
    drawn = read_lungs(paths, SIZE_PX)
    c, a = children.rows("train"), np.repeat(adults.rows("train"), ADULT_REPEATS)
    films = torch.from_numpy(np.concatenate([children.x[c], adults.x[a]]))
    lungs = torch.cat([drawn[c], torch.full((len(a), 1, SIZE_PX, SIZE_PX), torch.nan)])
    state = out / "network.pt"
    if state.exists():
        network = GateNet()
        network.load_state_dict(torch.load(state, weights_only=True))
        network.eval()
    else:
        network = train_gate(GateCases(films, lungs), epochs=epochs or EPOCHS)
        out.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), state)
    sets = held_back(children, adults, drawn)
    draft = Draft(
        name="cxr_gate",
        version=version,
        organ=None,
        purpose="Is this a frontal chest X-ray, is its grey scale right, are the lungs whole?",
        input=CxrInput(size_px=SIZE_PX),
        outputs=("logits", "distance", "lungs"),
        findings=counted_refusals(network, sets),
        training_data=(children.source, adults.source, LUNG_FIELDS),
        limits=LIMITS,
        thresholds=THRESHOLDS,
    )
    parity = adults.x[adults.rows("validation")][:48]
    cases = np.concatenate([golden.films(SIZE_PX), golden.chest_films(SIZE_PX)])
    return write_bundle(network, draft, cases, parity, bundles, evaluated=evaluated_on(sets))


INVERTED, SPOILED, MADE_UP, CUT = (
    "the same films, inverted",
    "the same films, turned, mirrored top to bottom, zoomed to a detail or shuffled",
    "made-up pictures",
    "Kermany 2018, validation films cut through the lungs",
)


def held_back(children: Cohort, adults: Cohort, drawn: Tensor) -> dict[str, NDArray[np.uint8]]:
    """Held-out pictures by kind: real films, inverted, cropped and spoiled ones, and synthetic pictures."""
    rng = np.random.default_rng(11)
    films = {
        "Kermany 2018, published test part": children.x[children.rows("test")],
        "NIH subset, adults, test persons": adults.x[adults.rows("test")],
    }
    real = np.concatenate(list(films.values()))
    cropped = cut_off(children, drawn, rng)
    return {
        **films,
        INVERTED: 255 - real,
        SPOILED: np.stack([negatives.spoil(film[0], rng)[None] for film in real]),
        MADE_UP: np.stack([negatives.draw(rng, SIZE_PX) for _ in range(600)])[:, None],
        CUT: cropped,
    }


def evaluated_on(sets: Mapping[str, NDArray[np.uint8]]) -> Evaluated:
    """The same pictures for the comparison of precisions, with the outcomes chest, inverted and cut off."""
    answers = {INVERTED: (1, 1, np.nan), SPOILED: (0, np.nan, np.nan), MADE_UP: (0, np.nan, np.nan), CUT: (1, 0, 1)}
    outcomes = np.concatenate([np.tile(answers.get(name, (1, 0, 0)), (len(x), 1)) for name, x in sets.items()])
    return Evaluated(
        np.concatenate(list(sets.values())),
        {column: outcomes[:, column] for column in range(3)},
        "what was held back, and what was made from it",
    )


def counted_refusals(network: GateNet, sets: Mapping[str, NDArray[np.uint8]]) -> tuple[FindingSpec, ...]:
    """How often each problem is raised for each kind of picture."""
    raised = {name: problems(network, x) for name, x in sets.items()}
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
        for code in ("not_a_chest_image", "inverted", "lungs_cut_off")
    )


def problems(network: GateNet, films: NDArray[np.uint8]) -> list[set[str]]:
    """Codes of the problems that the gate raises for each film, by the function of serving."""
    with torch.inference_mode():
        logits, distance, lungs = (output.numpy() for output in network(torch.from_numpy(films.copy())))
    return [
        {p.code for p in judge(THRESHOLDS, saturated_share(film[0]), row, float(d[0]), field[0])}
        for film, row, d, field in zip(films, logits, distance, lungs, strict=True)
    ]


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
        cropped.append(np.asarray(kept.resize((SIZE_PX, SIZE_PX), Image.Resampling.BILINEAR))[None])
    return np.stack(cropped)


def wilson_share(found: list[bool]) -> Estimate:
    """Share with its 95 % interval (Wilson, JASA 1927;22:209)."""
    n, k, z = len(found), sum(found), 1.96
    centre = (k / n + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
    return Estimate(value=k / n, low=max(0.0, centre - half), high=min(1.0, centre + half), n=n)
