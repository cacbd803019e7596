"""The appearance of cases: which are copies of each other, and how well the appearance predicts a label."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn
from scipy.ndimage import gaussian_filter
from scipy.stats import chi2_contingency
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

MAX_HAMMING = 10
"""Bits of 64 in which the hashes of two candidates may differ. Films of NIH, Kermany and TBX11K saved again as JPEG
of quality 60, at half the size or 20 % darker differ by 4 at most, and by 10 at quality 30 and half the size."""
MIN_CORRELATION = 0.9
"""Least correlation of the fine detail of two copies. Copies as above have 0.95 and more; different films of those
three collections, even of one person, have 0.80 and less. The hash alone is not enough, because many chest films share
it."""
THUMBNAIL_PX = 16
MAX_ROWS = 4000
"""Rows that the linear model learns from; more would only take longer."""
MAX_PAIRS = 100_000
MAX_CELLS, MAX_KEPT = 1 << 24, 20_000
"""Limits of memory: hashes compared at a time (128 MB) and details in memory (320 MB)."""


def similar_pairs(x: NDArray[np.generic], rows: NDArray[np.intp]) -> list[tuple[int, int, float]]:
    """Pairs of rows with the same film or recording, and the correlation of their detail.

    Parameters
    ----------
    x
        ``(n, 1, s, s) uint8`` films or ``(n, 12, n_samples) float32`` recordings, conformed.
    rows
        Rows to compare, each with all others; blank ones are left out.

    Returns
    -------
    ``(i, j, correlation)`` with ``i < j``

    Notes
    -----
    All pairs of 64-bit hashes are compared (20,000 hashes in four seconds on one core), so that no pair is missed; of
    real films one pair in 500 has similar hashes, and only these are compared by detail.

    References
    ----------
    Films: the signs of low DCT coefficients against their median (Zauner, Implementation and Benchmarking of
    Perceptual Image Hash Functions, 2010). Recordings: signs of random projections (Charikar, STOC 2002).
    """
    rows = rows[[float(np.std(x[i])) > 1e-3 for i in rows]] if len(rows) else rows
    if len(rows) < 2:
        return []
    films = x.ndim == 4
    hashes = film_hashes(x[rows, 0]) if films else recording_hashes(x[rows])
    detail = film_detail if films else recording_detail
    pairs: list[tuple[int, int, float]] = []
    kept: dict[int, NDArray[np.float32]] = {}

    def detail_of(i: int) -> NDArray[np.float32]:
        if i not in kept:
            kept[i] = detail(x[rows[i]])
        return kept[i]

    step = max(1, MAX_CELLS // len(rows))
    for start in range(0, len(rows), step):
        if len(kept) > MAX_KEPT:
            kept.clear()
        near = np.bitwise_count(hashes[start : start + step, None] ^ hashes[None, start:]) <= MAX_HAMMING
        for i, j in np.argwhere(np.triu(near, k=1)):
            a, b = start + int(i), start + int(j)
            correlation = float(detail_of(a) @ detail_of(b))
            if correlation >= MIN_CORRELATION:
                pairs.append((int(rows[a]), int(rows[b]), correlation))
                if len(pairs) >= MAX_PAIRS:
                    return pairs
    return pairs


def film_hashes(films: NDArray[np.generic]) -> NDArray[np.uint64]:
    """``(n,) uint64`` of ``(n, s, s) uint8``."""
    small = np.stack([_shrink(film, 32) for film in films])
    low = dctn(small, axes=(1, 2))[:, :8, :8].reshape(len(small), 64)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    bits[:, 0] = False  # the mean is the brightness, which may differ between copies
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def film_detail(film: NDArray[np.generic]) -> NDArray[np.float32]:
    """Unit vector of the fine detail of a film ``(1, s, s)``, which differs between chests."""
    small = _shrink(film[0], 64)
    return _unit(small - gaussian_filter(small, 2.5))


def recording_hashes(recordings: NDArray[np.generic]) -> NDArray[np.uint64]:
    """``(n,) uint64`` of ``(n, 12, n_samples) float32``."""
    n_values = len(recording_detail(recordings[0]))
    planes = np.random.default_rng(64).standard_normal((n_values, 64), dtype=np.float32)
    bits = np.stack([recording_detail(recording) @ planes > 0 for recording in recordings])
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def recording_detail(recording: NDArray[np.generic]) -> NDArray[np.float32]:
    """Unit vector of a recording ``(12, n_samples)``, as means of eight samples."""
    n = recording.shape[1] // 8 * 8
    return _unit(recording[:, :n].astype(np.float64).reshape(len(recording), -1, 8).mean(axis=2))


def appearance(x: NDArray[np.generic]) -> NDArray[np.float64]:
    """``(n, n_features)``: a film's thumbnail of 16 × 16, or a recording's spectrum (12 leads × 10 bands)."""
    if x.ndim == 4:
        return np.stack([_shrink(film[0], THUMBNAIL_PX).ravel() for film in x])
    power = np.abs(np.fft.rfft(x.astype(np.float64), axis=2)) ** 2
    bands = np.array_split(power[:, :, 1:], 10, axis=2)
    return np.log(np.stack([band.mean(axis=2) for band in bands], axis=2) + 1e-6).reshape(len(x), -1)


def auc_of_appearance(look: NDArray[np.float64], y: NDArray[np.float64], person: NDArray[np.str_]) -> float | None:
    """AUC of a linear (ridge) model that predicts ``y`` from the appearance, cross-validated in five folds by person.

    ``None`` if a class has fewer than ten persons.
    """
    if min(len(set(person[y == 1])), len(set(person[y == 0]))) < 10:
        return None
    if len(y) > MAX_ROWS:
        chosen = np.sort(np.random.default_rng(1).permutation(len(y))[:MAX_ROWS])
        look, y, person = look[chosen], y[chosen], person[chosen]
    predicted = np.zeros(len(y))
    for train, held in StratifiedGroupKFold(5, shuffle=True, random_state=1).split(look, y, person):
        mean, deviation = look[train].mean(axis=0), look[train].std(axis=0) + 1e-9
        a, b = (look[train] - mean) / deviation, (look[held] - mean) / deviation
        gram = a.T @ a + 0.3 * len(train) * np.eye(a.shape[1])
        predicted[held] = b @ np.linalg.solve(gram, a.T @ (y[train] - y[train].mean()))
    return float(roc_auc_score(y, predicted))


def cramers_v(y: NDArray[np.float64], tag: NDArray[np.object_]) -> tuple[float, float]:
    """Cramér's V of a label of 0 and 1 with a tag, corrected for the number of values, and the chi-square p-value.

    References
    ----------
    Bergsma, A bias-correction for Cramér's V and Tschuprow's T, J Korean Stat Soc 2013;42:323.
    """
    if len(y) < 4:
        return 0.0, 1.0
    values, index = np.unique(tag.astype(str), return_inverse=True)
    if len(values) < 2 or len(np.unique(y)) < 2:
        return 0.0, 1.0
    table = np.stack([np.bincount(index[y == v], minlength=len(values)) for v in (0, 1)])
    chi2, p, _, _ = chi2_contingency(table, correction=False)
    n, k = len(y), len(values)
    phi2 = max(0.0, chi2 / n - (k - 1) / (n - 1))
    return float(min(1.0, np.sqrt(phi2 / (2 - 1 / (n - 1) - 1)))), float(p)


def _shrink(film: NDArray[np.generic], side: int) -> NDArray[np.float64]:
    picture = Image.fromarray(np.asarray(film, dtype=np.uint8)).resize((side, side), Image.Resampling.BOX)
    return np.asarray(picture, dtype=np.float64)


def _unit(values: NDArray[np.floating]) -> NDArray[np.float32]:
    flat = values.ravel() - values.mean()
    return np.asarray(flat / (np.linalg.norm(flat) + 1e-9), dtype=np.float32)
