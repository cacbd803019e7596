"""Keras HDF5 files as Keras 2 writes them, without Keras, and the forward pass that Keras would make of one."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILTERS, KERNEL = (64, 128, 196, 256, 320), 16
Arrays = dict[str, NDArray[np.float32]]


def residual2020(seed: int = 0) -> dict[str, Arrays]:
    """Layers of the network of Ribeiro et al. with random weights, under the names and shapes of Keras."""
    rng = np.random.default_rng(seed)
    layers: dict[str, Arrays] = {}
    number = {"conv1d": 0, "batch_normalization": 0}

    def add(kind: str, **arrays: NDArray[Any]) -> None:
        number[kind] += 1
        layers[f"{kind}_{number[kind]}"] = {k: np.asarray(v, np.float32) for k, v in arrays.items()}

    def convolution(kernel: int, before: int, after: int) -> None:
        add("conv1d", kernel=rng.normal(0, (2 / (kernel * before)) ** 0.5, (kernel, before, after)))

    def norm(channels: int) -> None:
        add(
            "batch_normalization",
            gamma=rng.uniform(0.8, 1.2, channels),
            beta=rng.normal(0, 0.1, channels),
            moving_mean=rng.normal(0, 0.1, channels),
            moving_variance=rng.uniform(0.5, 1.5, channels),
        )

    convolution(KERNEL, 12, FILTERS[0])
    norm(FILTERS[0])
    for before, after in pairwise(FILTERS):
        convolution(1, before, after)
        convolution(KERNEL, before, after)
        norm(after)
        convolution(KERNEL, after, after)
        norm(after)
    last = {"kernel": rng.normal(0, 0.01, (16 * FILTERS[-1], 6)), "bias": rng.normal(0, 0.1, 6)}
    layers["diagn"] = {k: v.astype(np.float32) for k, v in last.items()}
    return layers


def write(path: Path, layers: dict[str, Arrays]) -> Path:
    """Layers in another order than they were made in, as a graph with shortcuts names them."""
    import h5py

    with h5py.File(path, "w") as file:
        root = file.create_group("model_weights")
        names = sorted(layers, key=lambda name: name[::-1])
        root.attrs["layer_names"] = [name.encode() for name in ["input_1", *names]]
        root.create_group("input_1").attrs["weight_names"] = np.zeros(0, "S1")
        for name in names:
            group = root.create_group(name)
            group.attrs["weight_names"] = [f"{name}/{array}:0".encode() for array in layers[name]]
            for array, values in layers[name].items():
                group[f"{name}/{array}:0"] = values
    return path


def forward(layers: dict[str, Arrays], x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits ``(n, 6)`` of ``(n, 4096, 12)``, step by step as the layers of Keras compute them."""

    def convolved(x: NDArray[np.float64], number: int, stride: int = 1) -> NDArray[np.float64]:
        kernel = layers[f"conv1d_{number}"]["kernel"].astype(np.float64)
        width, n = len(kernel), x.shape[1]
        steps = -(-n // stride)
        zeros = max(0, (steps - 1) * stride + width - n)
        padded = np.pad(x, ((0, 0), (zeros // 2, zeros - zeros // 2), (0, 0)))
        views = np.lib.stride_tricks.sliding_window_view(padded, width, axis=1)[:, ::stride][:, :steps]
        return np.einsum("ntcw,wcd->ntd", views, kernel, optimize=True)

    def normed(x: NDArray[np.float64], number: int) -> NDArray[np.float64]:
        of = layers[f"batch_normalization_{number}"]
        scaled = (x - of["moving_mean"]) / np.sqrt(of["moving_variance"].astype(np.float64) + 1e-3)
        return np.maximum(scaled * of["gamma"] + of["beta"], 0)

    x = y = normed(convolved(x, 1), 1)
    for block in range(4):
        pooled = y.reshape(len(y), -1, 4, y.shape[2]).max(axis=2)
        x = normed(convolved(x, 3 * block + 3), 2 * block + 2)
        y = convolved(x, 3 * block + 4, stride=4) + convolved(pooled, 3 * block + 2)
        x = normed(y, 2 * block + 3)
    return x.reshape(len(x), -1) @ layers["diagn"]["kernel"].astype(np.float64) + layers["diagn"]["bias"]
