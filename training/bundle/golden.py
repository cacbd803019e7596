"""Golden cases: small synthetic inputs that may be published, for which each copy of a bundle gives the same output."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_specs.cxr.files import read_image
from data_specs.cxr.image import conform
from training.cohorts import negatives

N_CASES = 6


def films(size_px: int) -> NDArray[np.uint8]:
    """``(6, 1, size_px, size_px) uint8``: synthetic radiographs, a photograph, noise, a blank picture."""
    rng = np.random.default_rng(2026)
    kinds = (negatives.radiograph_of_something,) * 3 + (negatives.dead_leaves, negatives.clouds, negatives.blank)
    return np.stack([kind(rng, size_px) for kind in kinds])[:, None]


def chest_films(size_px: int) -> NDArray[np.uint8]:
    """``(2, 1, size_px, size_px) uint8``: the two real films in ``samples/``; their source is stated there."""
    files = sorted((Path(__file__).parents[2] / "samples").glob("film-*.jpg"))
    return np.stack([conform(read_image(file.read_bytes()).pixels, size_px) for file in files])


def recordings(n_samples: int, fs_hz: float = 100.0) -> NDArray[np.float32]:
    """``(6, 12, n_samples) float32``: beats at six rates, with another shape in each lead, and noise."""
    rng = np.random.default_rng(2026)
    time = np.arange(n_samples) / fs_hz
    cases = np.zeros((N_CASES, 12, n_samples))
    for row, rate_per_min in enumerate((48, 60, 75, 90, 120, 150)):
        phase = (time * rate_per_min / 60) % 1.0
        for centre, width, size in ((0.2, 0.03, 0.3), (0.37, 0.01, -0.5), (0.4, 0.012, 4.0), (0.65, 0.05, 0.8)):
            cases[row] += size * rng.uniform(-1, 1, (12, 1)) * np.exp(-0.5 * ((phase - centre) / width) ** 2)
    cases += 0.05 * rng.standard_normal(cases.shape)
    return cases.astype(np.float32)
