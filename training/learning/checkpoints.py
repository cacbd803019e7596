"""The checkpoint of a training run: to which run it belongs, how the run is resumed, how it is written."""

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
    """The checkpoint belongs to another run: another recipe, network, start or cohort."""


def fingerprint(
    network: nn.Module, recipe: Mapping[str, object], *, x: Tensor, y: Tensor, weight: NDArray[np.float64]
) -> dict[str, str]:
    """What has to be the same for a run to be resumed: recipe, shapes, first weights, cases and their labels."""
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


def resume(path: Path, parts: Mapping[str, Any], expected: Mapping[str, str]) -> int:
    """Load ``parts`` from ``path`` if it exists, and return the first epoch that is still to be trained.

    Raises
    ------
    CheckpointMismatch
        It belongs to another run; ``parts`` are then unchanged.
    """
    if not path.exists():
        return 0
    state = torch.load(path, map_location="cpu", weights_only=True)
    stored = state.get("fingerprint", {})
    differ = [
        f"{name} is {expected.get(name, 'absent')} here and {stored.get(name, 'absent')} there"
        for name in {**expected, **stored}
        if expected.get(name) != stored.get(name)
    ]
    if differ:
        more = f"; and {len(differ) - 6} more" if len(differ) > 6 else ""
        raise CheckpointMismatch(
            f"{path} is of another training: {'; '.join(differ[:6])}{more}. Give another --out, or delete it."
        )
    for name, part in parts.items():
        part.load_state_dict(state[name])
    return int(state["epoch"]) + 1


def save(path: Path, parts: Mapping[str, Any], identity: Mapping[str, str], epoch: int) -> None:
    """Write the state of ``parts`` after ``epoch``."""
    states = {name: part.state_dict() for name, part in parts.items()}
    write(path, {**states, "fingerprint": dict(identity), "epoch": epoch})


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Save ``content`` with torch, completely or not at all, even if the machine stops."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    with unfinished.open("wb") as file:
        torch.save(dict(content), file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    if os.name == "posix":  # the name is in the folder, which must be synchronised too; elsewhere it cannot be opened
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
