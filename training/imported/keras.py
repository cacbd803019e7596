"""Weights out of a Keras HDF5 file by their names, without Keras: no layer is made and no code of the file is run.

References
----------
Keras 2, ``hdf5_format``: the group ``model_weights`` (or the file itself) names its layers in ``layer_names``, and each
layer its arrays in ``weight_names``, such as ``conv1d_1/kernel:0``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

SIGNATURE = b"\x89HDF\r\n\x1a\n"
MAX_VALUES = 2**28
"""Of all arrays together (1 GB in fp32)."""

_LAYER = re.compile(r"(?P<kind>[a-z][a-z0-9_]*?)(?:_(?P<number>\d+))?")


class NotKeras(ValueError):
    """The file is no Keras file of weights; the message says why."""


def read_keras(path: Path) -> dict[str, Tensor]:
    """Every array of every layer, as ``layer/array``.

    Raises
    ------
    NotKeras
        It is none, is too large, or its arrays are in another file.
    """
    import h5py  # noqa: PLC0415  needed for these files alone

    found: dict[str, Tensor] = {}
    left = MAX_VALUES
    with h5py.File(path, "r") as file:
        root = _member(file, "model_weights", h5py) if "model_weights" in file else file
        if "layer_names" not in root.attrs:
            raise NotKeras("it names no layers (a Keras HDF5 file of weights has 'layer_names')")
        for layer in map(_text, root.attrs["layer_names"]):
            group = _member(root, layer, h5py)
            for name in map(_text, group.attrs.get("weight_names", ())):
                array: Any = group
                for part in name.split("/"):
                    array = _member(array, part, h5py)
                if not isinstance(array, h5py.Dataset) or array.is_virtual or array.external:
                    raise NotKeras(f"'{name}' is no array in this file")
                left -= array.size
                if left < 0 or array.dtype.kind != "f":
                    raise NotKeras(f"'{name}': {array.size} values of {array.dtype}")
                found[f"{layer}/{name.rsplit('/', 1)[-1].split(':')[0]}"] = torch.from_numpy(np.asarray(array, "f4"))
    return found


def layers_by_kind(weights: Mapping[str, Tensor]) -> dict[str, list[dict[str, Tensor]]]:
    """Layers by kind, such as ``conv1d``, in the order in which they were made: that of their numbers."""
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in weights.items():
        layer, _, array = name.rpartition("/")
        layers.setdefault(layer, {})[array] = value
    numbered = []
    for layer, arrays in layers.items():
        match = _LAYER.fullmatch(layer)
        if match is None:
            raise NotKeras(f"a layer '{layer}'")
        numbered.append((match["kind"], int(match["number"] or 0), arrays))
    kinds: dict[str, list[dict[str, Tensor]]] = {}
    for kind, _, arrays in sorted(numbered, key=lambda each: each[:2]):
        kinds.setdefault(kind, []).append(arrays)
    return kinds


def _member(group: Any, name: str, h5py: Any) -> Any:
    """A member of a group that is in this file; a link may lead to any other."""
    link = group.get(name, getlink=True) if hasattr(group, "get") else None
    if not isinstance(link, h5py.HardLink):
        raise NotKeras(f"'{name}' is not in this file")
    return group[name]


def _text(name: object) -> str:
    return name.decode() if isinstance(name, bytes) else str(name)
