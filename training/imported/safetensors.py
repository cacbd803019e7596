"""Weights out of a safetensors file by their names.

References
----------
safetensors, format 0.3: eight bytes with the length of a JSON header, the header with type, shape and place of each
tensor, then the values, little-endian.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
MAX_HEADER = 100_000_000
"""As the format states it."""


def is_safetensors(path: Path) -> bool:
    """Whether the file begins as one: a length that leaves room, and an opening brace."""
    with path.open("rb") as file:
        start = file.read(9)
    return len(start) == 9 and start[8:] == b"{" and int.from_bytes(start[:8], "little") <= path.stat().st_size - 8


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Every tensor by its name.

    Raises
    ------
    ValueError
        The header and the values do not belong together.
    """
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    if length > MAX_HEADER:
        raise ValueError("the header is too long")
    header = json.loads(content[8 : 8 + length])
    values = bytearray(content[8 + length :])
    found = {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        start, end = about["data_offsets"]
        dtype = TYPES.get(about["dtype"])
        shape = tuple(int(side) for side in about["shape"])
        if dtype is None:
            raise ValueError(f"'{name}' is of the type {about['dtype']}")
        size = int(np.prod(shape, dtype=object)) * dtype.itemsize
        if min(shape, default=0) < 0 or not 0 <= start <= end <= len(values) or end - start != size:
            raise ValueError(f"'{name}' is not where the header says")
        raw = torch.from_numpy(np.frombuffer(values, dtype=np.uint8)[start:end].copy())
        found[name] = (raw.view(dtype) if size else torch.zeros(0, dtype=dtype)).reshape(shape)
    return found
