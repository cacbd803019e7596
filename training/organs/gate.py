"""``cxr_gate``: recognises frontal chest films and the lungs in them, so that other pictures are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

from data_specs.bundle import CxrInput, TrainingData
from models.networks import GateNet
from training.bundle import golden
from training.bundle.export import Draft, write_bundle
from training.cohorts.cohort import apart
from training.cohorts.shipped_films import NIH_DRAWS, kermany, nih
from training.organs.gate_batches import GateCases, batch, read_lungs
from training.organs.gate_evaluation import counted, evaluated_on, held_back

SIZE_PX = 64
INPUT = CxrInput(size_px=SIZE_PX, least_px=2 * SIZE_PX)
EPOCHS = 4
ADULT_REPEATS = 4
"""Adults' films are drawn this many times as often, because there are ten times fewer."""
BATCH_SIZE = 64
LEARNING_RATE = 2e-3

KEPT = 0.99
"""Share of the averaged weights that each step keeps: the last hundred steps count."""

THRESHOLDS = {
    "chest": 0.3,
    "chest_without_lungs": 0.5,
    "chest_turned": 0.6,
    "lung_area": 0.04,
    "distance": 12.0,
    "inverted": 0.5,
    "cut_off": 0.5,
    "heart_on_the_right": 0.95,
    "saturated": 0.4,
}
"""Chosen on validation films and made-up pictures so that at most 0.5 % of real chest films are refused. The lateral
films at hand lie below 0.1, however they are turned: they were looked at while the made-up ones were designed."""

LIMITS = (
    "Trained on one paediatric and one adult collection and on pictures made by rule; no real picture of another body "
    "part and no real lateral film was used.",
    "Films that are turned by 90, 180 or 270 degrees are set upright, and that is said. A turn by less is not noticed.",
    "A mirrored film and a heart on the right look alike: the reserve says both.",
    "The threshold of `lungs_cut_off` was chosen with the counts on these same films in view.",
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


def train_gate(cases: GateCases, *, seed: int = 7, epochs: int = EPOCHS) -> GateNet:
    """Train the gate; half of each batch are real films, some inverted or mirrored, the others are negatives."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = GateNet().to(memory_format=torch.channels_last)
    network.fit_distance(torch.cat([cases.films, cases.films.flip(3)]))
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(KEPT), use_buffers=True)
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
        average.update_parameters(network)
        if step % 20 == 0:
            bar.set_postfix(loss=f"{float(loss.detach()):.4f}")
    network.load_state_dict(average.module.state_dict())
    return network.eval()


def run(*, data: Path, out: Path, bundles: Path, version: str, epochs: int | None) -> Path:
    """Train on both train parts, count refusals once on held-out pictures, export; return the bundle."""
    children, (adults, others) = kermany(data, INPUT), apart(nih(data, INPUT), NIH_DRAWS[1])
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
    sets = held_back(data, children, adults, others, drawn)
    draft = Draft(
        name="cxr_gate",
        version=version,
        organ=None,
        purpose="Is this an upright frontal chest X-ray, its grey scale right, the lungs whole, the heart on the left?",
        input=INPUT,
        outputs=("logits", "distance", "lungs"),
        findings=counted(network, THRESHOLDS, sets),
        training_data=(children.source, adults.source, LUNG_FIELDS),
        limits=LIMITS,
        thresholds=THRESHOLDS,
    )
    parity = adults.x[adults.rows("validation")][:48]
    cases = np.concatenate([golden.films(SIZE_PX), golden.chest_films(SIZE_PX)])
    return write_bundle(network, draft, cases, parity, bundles, evaluated=evaluated_on(sets))
