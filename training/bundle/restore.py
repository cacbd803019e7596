"""The weights of a bundle's ONNX graph, loaded back into the torch module that it was exported from."""

from __future__ import annotations

import re
from pathlib import Path

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import nn

_NO_WEIGHT = re.compile(r"val_\d+|likeness\..*")
"""Constants that an optimised export adds, as all of version 1.0 have, and the likeness, which is fitted anew."""


class CannotRestore(ValueError):
    """The weights in a bundle's file are not those of this network; the message names the differences."""


def restore(network: nn.Module, onnx_path: Path) -> None:
    """Load the weights of a bundle's graph into the module that it was exported from, bit for bit.

    A graph whose batch norms were merged into the convolutions fits the networks of :mod:`models.earlier_networks`.

    The batch counters of batch norms are not in the graph and do not change in ``network``.

    Raises
    ------
    CannotRestore
        The file is not an ONNX graph, or its weights and those of ``network`` differ in name, shape or type.
        ``network`` is then unchanged.
    """
    try:
        graph = onnx.load(onnx_path, load_external_data=False).graph
        # A bundle has no weights in other files.
        own = [weight for weight in graph.initializer if weight.data_location == onnx.TensorProto.DEFAULT]
        found = {
            _torch_name(weight.name): torch.from_numpy(numpy_helper.to_array(weight).copy())
            for weight in own
            if not _NO_WEIGHT.fullmatch(weight.name)
        }
    except (OSError, ValueError, TypeError, DecodeError) as error:
        raise CannotRestore(f"{onnx_path.name} cannot be read as an ONNX graph: {type(error).__name__}") from error
    expected = {
        name: value for name, value in network.state_dict().items() if not name.endswith(".num_batches_tracked")
    }
    faults = [
        f"{word} {', '.join(sorted(names)[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for word, names in (("missing", expected.keys() - found.keys()), ("unknown", found.keys() - expected.keys()))
        if names
    ]
    faults += [
        f"{name}: {tuple(found[name].shape)} {found[name].dtype}, expected {tuple(value.shape)} {value.dtype}"
        for name, value in expected.items()
        if name in found and (found[name].shape, found[name].dtype) != (value.shape, value.dtype)
    ]
    if faults:
        normed = [name for name in expected if name.endswith(".running_var")]
        folded = (
            " Its batch norms were merged into the convolutions at export, as in all bundles of 1.0: it holds a "
            "network of models/earlier_networks.py."
            if normed and not found.keys() & set(normed)
            else ""
        )
        raise CannotRestore(f"{onnx_path.name} does not fit the network: {'; '.join(faults)}.{folded}")
    network.load_state_dict(found, strict=False)


def weights_in(onnx_path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights of a graph, under the names of the module that it was exported from."""
    graph = onnx.load(onnx_path, load_external_data=False).graph
    return {_torch_name(w.name): tuple(w.dims) for w in graph.initializer if not _NO_WEIGHT.fullmatch(w.name)}


def _torch_name(name: str) -> str:
    """A merged batch norm gives its convolution a bias under the name of the weight: ``conv1.weight_bias``."""
    return f"{name.removesuffix('.weight_bias')}.bias" if name.endswith(".weight_bias") else name
