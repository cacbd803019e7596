"""The checkpoint of a training: what it is of, how it goes on, how it is written."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn


class CheckpointMismatch(ValueError):
    """The checkpoint belongs to another training: another recipe, network, start or cohort."""


def fingerprint(
    network: nn.Module, recipe: Mapping[str, object], *, x: Tensor, y: Tensor, weight: NDArray[np.float64]
) -> dict[str, str]:
    """What must be the same for a run to go on: recipe, shapes, weights at the start, cases and their labels."""
    state = network.state_dict()
    start = sum(float(value.double().square().sum()) for value in state.values())
    return {
        **{name: str(value) for name, value in recipe.items()},
        "input": f"{tuple(x.shape)} {x.dtype}",
        "known labels": str(int((~torch.isnan(y)).sum())),
        "sum of labels": f"{float(y.double().nansum()):.9g}",
        "draws": f"{float(weight @ np.arange(1, len(weight) + 1) / weight.sum()):.9g}",
        **{f"shape of {name}": str(tuple(value.shape)) for name, value in state.items()},
        "weights at the start": f"{start:.9g}",
    }


def resume(path: Path, parts: Mapping[str, Any], is_of: Mapping[str, str]) -> int:
    """Load ``parts`` from ``path``, if it is there, and return the first epoch that is still to be trained.

    Raises
    ------
    CheckpointMismatch
        It is of another training; ``parts`` are then unchanged.
    """
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    there = state.get("fingerprint", {})
    differ = [
        f"{name} is {is_of.get(name, 'absent')} here and {there.get(name, 'absent')} there"
        for name in {**is_of, **there}
        if is_of.get(name) != there.get(name)
    ]
    if differ:
        more = f"; and {len(differ) - 6} more" if len(differ) > 6 else ""
        raise CheckpointMismatch(
            f"{path} is of another training: {'; '.join(differ[:6])}{more}. Take another --out, or delete it."
        )
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["epoch"]) + 1


def save(path: Path, parts: Mapping[str, Any], is_of: Mapping[str, str], epoch: int) -> None:
    """Write the checkpoint whole or not at all, also when the machine stops."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        states = {name: part.state_dict() for name, part in parts.items()}
        torch.save({**states, "fingerprint": dict(is_of), "epoch": epoch}, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    if os.name == "posix":  # The folder holds the name; elsewhere it cannot be opened.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
