"""Weights out of a checkpoint that holds whole modules, such as torchxrayvision's, without making any of its objects.

An unpickler that knows a list of classes by name. In the place of each it makes an object that keeps what was stored
and does nothing (:class:`Inert`); tensors are rebuilt from the file's own bytes. A name that is not on the list ends
the reading. It runs in a process of its own (:mod:`training.imported.disposable`).

References
----------
``torch.save``: a zip archive with ``data.pkl`` and ``data/KEY`` since torch 1.6; before, four pickles one after
another, then the keys of the storages, and each storage as its number of elements and its values.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
"""First pickle of a file of torch before 1.6 (``torch.serialization``)."""

MAX_DEPTH = 32
"""Of modules inside modules; a DenseNet has 5."""


class NotOnTheList(pickle.UnpicklingError):
    """The file wants something by a name that is not on the list; ``name`` is that name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


class Inert:
    """In the place of an object of a listed class: keeps what was stored of it, and does nothing."""

    stored: Mapping[str, Any] = {}

    def __new__(cls, *_: object, **__: object) -> Inert:
        return object.__new__(cls)

    def __init__(self, *_: object, **__: object) -> None:
        """Nothing: what it was made from is not used."""

    def __setstate__(self, state: object) -> None:
        self.stored = state if isinstance(state, dict) else {}


class Module(Inert):
    """In the place of a module."""


MODULES = {
    "torchxrayvision.models": ("DenseNet", "_DenseLayer", "_DenseBlock", "_Transition", "ResNet"),
    "torchvision.models.densenet": ("DenseNet", "_DenseLayer", "_DenseBlock", "_Transition"),
    "torchvision.models.resnet": ("ResNet", "BasicBlock", "Bottleneck"),
    "torch.nn.modules.activation": ("ReLU", "Sigmoid", "Softmax"),
    "torch.nn.modules.batchnorm": ("BatchNorm2d",),
    "torch.nn.modules.container": ("Sequential",),
    "torch.nn.modules.conv": ("Conv2d",),
    "torch.nn.modules.dropout": ("Dropout",),
    "torch.nn.modules.linear": ("Linear", "Identity"),
    "torch.nn.modules.pooling": ("AvgPool2d", "MaxPool2d", "AdaptiveAvgPool2d"),
    "torch.nn.parallel.data_parallel": ("DataParallel",),
}
"""Modules that may be in a file; none of them is imported."""

STORAGES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class Kind:
    """A kind of storage; it cannot be called."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype


def _rebuilt(storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Tensor:
    """Of ``torch._utils._rebuild_tensor`` and ``_rebuild_tensor_v2``; torch refuses what reaches out of the storage."""
    return torch.as_strided(storage, tuple(size), tuple(stride), offset)


def _parameter(data: Tensor, *_: object) -> Tensor:
    return data


NAMES: dict[str, object] = {
    **{f"{module}.{name}": Module for module, names in MODULES.items() for name in names},
    **{f"torch.{name}": Kind(dtype) for name, dtype in STORAGES.items()},
    "collections.OrderedDict": OrderedDict,
    **dict.fromkeys(("builtins.set", "__builtin__.set"), set),
    "torch.Size": tuple,
    "torch._utils._rebuild_tensor": _rebuilt,
    "torch._utils._rebuild_tensor_v2": _rebuilt,
    "torch._utils._rebuild_parameter": _parameter,
    # figures beside the weights, such as the best loss, which protocol 2 keeps as encoded text
    **dict.fromkeys(
        ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "_codecs.encode"), Inert
    ),
}
"""All that a file may name, and what stands in its place."""


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, storage: Callable[[torch.dtype, str, int], Tensor]) -> None:
        super().__init__(file, encoding="latin1")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        if f"{module}.{name}" not in NAMES:
            raise NotOnTheList(f"{module}.{name}")
        return NAMES[f"{module}.{name}"]

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and pid[0] == "module":  # torch before 1.6 kept the source of each class beside it
            return pid[1]
        if not isinstance(pid, tuple) or pid[0] != "storage" or not isinstance(pid[1], Kind):
            raise pickle.UnpicklingError("neither a storage nor a module")
        _, kind, key, _, count, *view = pid
        if view and view[0] is not None:
            raise pickle.UnpicklingError("a part of a storage")
        return self._storage(kind.dtype, str(key), int(count))


def read_modules(path: Path) -> dict[str, Any]:
    """The tensors of a file with whole modules, in nested dictionaries by their names; everything else is left out.

    Raises
    ------
    NotOnTheList
        It names something else than :data:`NAMES`.
    Exception
        Of any kind where the file is damaged.
    """
    content = _from_zip(path) if zipfile.is_zipfile(path) else _from_pickles(path)
    found = tensors_of(content)
    return found if isinstance(found, dict) else {}


def tensors_of(thing: object, depth: int = 0) -> Tensor | dict[str, Any] | None:
    """``state_dict`` of a module, dictionaries of those and of tensors; ``None`` for anything else."""
    if isinstance(thing, Tensor):
        return thing.clone()
    if depth > MAX_DEPTH:
        return None
    if isinstance(thing, Module):
        parts: dict[str, Any] = {}
        for members in ("_parameters", "_buffers", "_modules"):
            for name, member in dict(thing.stored.get(members) or {}).items():
                found = tensors_of(member, depth + 1)
                inner = found.items() if isinstance(found, dict) else [(None, found)] if found is not None else []
                parts |= {str(name) if key is None else f"{name}.{key}": tensor for key, tensor in inner}
        return parts
    if isinstance(thing, Mapping):
        held = {str(key): tensors_of(value, depth + 1) for key, value in thing.items()}
        return {key: value for key, value in held.items() if value is not None and not value == {}}  # noqa: SIM201
    return None


def _from_zip(path: Path) -> object:
    with zipfile.ZipFile(path) as archive:
        sizes = {member.filename: member.file_size for member in archive.infolist()}
        if sum(sizes.values()) > 2 * path.stat().st_size:
            raise pickle.UnpicklingError("compressed")
        (top,) = [name.removesuffix("data.pkl") for name in sizes if name.endswith("/data.pkl")]
        if f"{top}byteorder" in sizes and archive.read(f"{top}byteorder") != b"little":
            raise pickle.UnpicklingError("big-endian")
        known: dict[str, Tensor] = {}

        def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
            if key not in known:
                known[key] = _values(archive.read(f"{top}data/{key}"), dtype, count)
            return known[key]

        with archive.open(f"{top}data.pkl") as file:
            return _Unpickler(file, storage).load()  # type: ignore[arg-type]


def _from_pickles(path: Path) -> object:
    left = path.stat().st_size
    known: dict[str, Tensor] = {}

    def storage(dtype: torch.dtype, key: str, count: int) -> Tensor:
        nonlocal left
        if key not in known:
            left -= count * dtype.itemsize
            if count < 0 or left < 0:
                raise pickle.UnpicklingError("larger than the file")
            known[key] = torch.zeros(count, dtype=dtype)
        return known[key]

    with path.open("rb") as file:
        if _Unpickler(file, storage).load() != MAGIC_NUMBER:
            raise pickle.UnpicklingError("not of torch")
        for _ in ("version of the format", "sizes of this machine"):
            _Unpickler(file, storage).load()
        content = _Unpickler(file, storage).load()
        for key in _Unpickler(file, storage).load():
            values = known[str(key)]
            if int.from_bytes(file.read(8), "little") != len(values):
                raise pickle.UnpicklingError("a storage of another size")
            values.copy_(_values(file.read(len(values) * values.itemsize), values.dtype, len(values)))
    return content


def _values(content: bytes, dtype: torch.dtype, count: int) -> Tensor:
    if len(content) != count * dtype.itemsize:
        raise pickle.UnpicklingError("a storage of another size")
    if not count:
        return torch.zeros(0, dtype=dtype)
    return torch.from_numpy(np.frombuffer(bytearray(content), dtype=np.uint8)).view(dtype)
