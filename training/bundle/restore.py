"""The weights of a bundle's ONNX graph, loaded back into the torch module that it was exported from."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from google.protobuf.message import DecodeError
from onnx import numpy_helper
from torch import nn


class CannotRestore(ValueError):
    """The weights in a bundle's file are not those of this network; the message names the differences."""


def restore(network: nn.Module, onnx_path: Path) -> None:
    """Load the weights of a bundle's graph into the module that it was exported from, bit for bit.

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
        found = {weight.name: torch.from_numpy(numpy_helper.to_array(weight).copy()) for weight in own}
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
            " Its batch norms were merged into the convolutions at export, as in all bundles of version 1.0.0: "
            "such a file can serve, but cannot be trained further."
            if normed and not found.keys() & set(normed)
            else ""
        )
        raise CannotRestore(f"{onnx_path.name} does not fit the network: {'; '.join(faults)}.{folded}")
    network.load_state_dict(found, strict=False)
