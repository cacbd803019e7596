"""Twelve-lead ECGs with known intervals, made from smooth pulses that start and end at stated times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from data_specs.ecg.recording import Recording

# share of each wave in I, II, V1 to V6: roughly a normal adult
P = (0.6, 1.0, 0.4, 0.5, 0.5, 0.5, 0.5, 0.4)
Q = (-0.6, -0.3, 0.0, 0.0, -0.2, -0.5, -0.8, -0.8)
R = (0.6, 1.0, 0.2, 0.4, 0.8, 1.4, 1.2, 0.9)
S = (-0.1, -0.2, -1.0, -1.4, -0.9, -0.5, -0.2, -0.1)
T = (0.6, 0.8, -0.2, 1.0, 1.2, 1.2, 0.9, 0.7)


def pulse(t: NDArray[np.float64], start: float, end: float) -> NDArray[np.float64]:
    """Raised cosine of height 1 from ``start`` to ``end``, s."""
    phase = np.clip((t - start) / (end - start), 0.0, 1.0)
    return (1.0 - np.cos(2 * np.pi * phase)) / 2


def ecg(
    *,
    rate: float = 70.0,
    pr_ms: float = 160.0,
    qrs_ms: float = 92.0,
    qt_ms: float = 390.0,
    fs_hz: float = 500.0,
    seconds: float = 10.0,
    noise_mv: float = 0.01,
    rr_s: NDArray[np.float64] | None = None,
    p_mv: float = 0.15,
    t_mv: float = 0.3,
    ectopic: tuple[int, ...] = (),
    seed: int = 0,
) -> Recording:
    """A recording with these intervals; ``rr_s`` gives irregular intervals, ``ectopic`` the beats that are wide."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * fs_hz)) / fs_hz
    onsets = np.cumsum(
        np.concatenate([[0.4], np.full(round(seconds * rate / 60) + 2, 60.0 / rate) if rr_s is None else rr_s])
    )
    waves = np.zeros((8, len(t)))
    for i, onset in enumerate(onsets[onsets < seconds + 1]):
        qrs, qt = qrs_ms / 1000, qt_ms / 1000
        if i in ectopic:
            waves += 1.6 * np.outer(S[::-1], pulse(t, onset, onset + 0.16))
            waves -= 0.5 * np.outer(S[::-1], pulse(t, onset + 0.18, onset + 0.45))
            continue
        waves += p_mv * np.outer(P, pulse(t, onset - pr_ms / 1000, onset - pr_ms / 1000 + 0.10))
        waves += 0.15 * np.outer(Q, pulse(t, onset, onset + 0.35 * qrs))
        waves += 1.1 * np.outer(R, pulse(t, onset + 0.15 * qrs, onset + 0.75 * qrs))
        waves += 0.7 * np.outer(S, pulse(t, onset + 0.5 * qrs, onset + qrs))
        waves += t_mv * np.outer(T, pulse(t, onset + qt - 0.19, onset + qt))
    waves += noise_mv * rng.standard_normal(waves.shape)
    return twelve(waves, fs_hz)


def twelve(eight: NDArray[np.float64], fs_hz: float = 500.0) -> Recording:
    """Recording from I, II, V1 to V6, the other four leads derived."""
    one, two = eight[0], eight[1]
    limb = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return Recording(np.stack([*limb, *eight[2:]]).astype(np.float32), fs_hz, "synthetic")
