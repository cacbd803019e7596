"""A file of weights from elsewhere, in the formats that such files come in; no code of a file is executed.

torch is read with ``weights_only=True``, safetensors and Keras HDF5 by their keys, and files that hold whole modules by
an unpickler that knows a list of names. A file that needs more is refused.
"""

from __future__ import annotations

import hashlib
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from training.imported.disposable import Unreadable, read_disposably
from training.imported.keras import SIGNATURE
from training.imported.pickled import NAMES
from training.imported.safetensors import is_safetensors, read_safetensors

MAX_BYTES = 4 * 2**30
"""The largest torchvision classifier (regnet_y_128gf) has 2.6 GB of weights."""

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module")
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "model_ema_state_dict", "ema", "shadow")
"""Usual names of the weights in a checkpoint, in order of preference; averaged weights come last."""

Format = Literal["torch", "modules", "safetensors", "keras"]


class ImportRefused(ValueError):
    """The checkpoint or its description cannot be used; the message says why."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights as they are in a file.

    Parameters
    ----------
    weights
        Name to tensor, with all prefixes.
    found_in
        Key of the weights in the file, such as ``state_dict``; empty for the top level.
    others
        Keys of other sets of weights in the file.
    format
        ``torch`` (tensors alone), ``modules`` (whole modules, of which the tensors were taken), ``safetensors`` or
        ``keras`` (names are ``layer/array``).
    """

    path: Path
    sha256: str
    weights: dict[str, Tensor]
    found_in: str
    others: tuple[str, ...]
    format: Format = "torch"


def read_checkpoint(path: Path, weights_key: str | None = None) -> Checkpoint:
    """Read ``path`` without executing any code of it.

    Raises
    ------
    ImportRefused
        It is not a checkpoint, it needs unpickling, or it has no weights.
    """
    if not path.is_file():
        raise ImportRefused(f"{path}: there is no such file")
    if path.stat().st_size > MAX_BYTES:
        raise ImportRefused(f"{path.name}: {path.stat().st_size} bytes; no torchvision classifier has over {MAX_BYTES}")
    content, kind = _load(path)
    found = {"": content} if kind == "keras" else dict(_weights_in(content))
    key = weights_key if weights_key is not None else _preferred(found)
    if key is None or key not in found:
        held = "; ".join(f"'{name}' ({len(w)} tensors)" for name, w in found.items()) or "none"
        top = f" At its top level: {listed(map(str, content))}." if isinstance(content, Mapping) else ""
        wanted = f"under '{weights_key}'" if weights_key is not None else "that can be chosen without a name"
        raise ImportRefused(
            f"{path.name}: no weights {wanted}. Sets of weights found: {held}.{top} "
            "Give the right one as 'weights_key' in the YAML."
        )
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    return Checkpoint(path, digest, found[key], key, tuple(name for name in found if name != key), kind)


def _load(path: Path) -> tuple[dict[str, Any], Format]:
    with path.open("rb") as file:
        if file.read(len(SIGNATURE)) == SIGNATURE:
            return _of_keras(path), "keras"
    if is_safetensors(path):
        try:
            return read_safetensors(path), "safetensors"
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ImportRefused(f"{path.name}: a damaged safetensors file: {error}") from None
    try:
        return _of_torch(path), "torch"
    except _NeedsMore as more:
        if not more.may_be_listed:
            raise _refusal(path, more.wants) from None
        try:
            return read_disposably("pickled", path), "modules"
        except Unreadable as error:
            raise _refusal(path, error.wants, str(error)) from None


def _of_keras(path: Path) -> dict[str, Any]:
    try:
        return read_disposably("keras", path)
    except Unreadable as error:
        raise ImportRefused(f"{path.name}: no Keras file of weights: {error}") from None


def _of_torch(path: Path) -> Any:
    if _is_torchscript(path):
        raise ImportRefused(f"{path.name}: a TorchScript archive is a program, not only weights. {_REMEDY}")
    try:
        with warnings.catch_warnings():
            # torch warns while it tries several formats of a damaged file; only the final error matters.
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnicodeDecodeError:
        return _load_python2(path)
    except pickle.UnpicklingError as error:
        raise _NeedsMore(str(error)) from None
    # torch and pickle may raise almost any exception for other bytes; all mean the same here.
    except Exception as error:
        raise ImportRefused(
            f"{path.name}: not a PyTorch checkpoint, or damaged or incomplete ({type(error).__name__})"
        ) from None


def _load_python2(path: Path) -> Any:
    """Read a checkpoint of torch 0.3 under Python 2, such as CheXNet's, whose strings are bytes."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, encoding="latin1")
    except pickle.UnpicklingError as error:
        raise _NeedsMore(str(error)) from None
    except Exception as error:
        raise ImportRefused(f"{path.name}: a damaged checkpoint of Python 2 ({type(error).__name__})") from None


_REMEDY = (
    "If you trust the file, load it with the program that wrote it and save the weights alone: "
    "torch.save(model.state_dict(), 'weights.pt'). That file can be imported."
)


class _NeedsMore(Exception):
    """torch does not read the file as tensors alone; ``wants`` is what it names beside them."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        named = re.findall(r"GLOBAL ([\w.]+)|global ([\w.]+)|`([\w.]+)`? (?:was|is) not an allowed", message)
        self.wants = next((name for names in named for name in names if name), None)

    @property
    def may_be_listed(self) -> bool:
        """Whether what it names first is on the list; torch before 1.6 names its modules otherwise."""
        return self.wants in NAMES if self.wants else "persistent_load" in str(self)


def _refusal(path: Path, wants: str | None, reason: str = "") -> ImportRefused:
    if wants is None and not zipfile.is_zipfile(path) and not _starts_a_pickle(path):
        return ImportRefused(f"{path.name}: not a PyTorch checkpoint (neither a zip archive nor a pickle)")
    what = f"it builds objects ('{wants}') and not only tensors" if wants else "it holds more than tensors"
    more = f" ({reason})" if reason and reason != wants else ""
    return ImportRefused(f"{path.name}: refused, {what}{more}; unpickling it could run any program. {_REMEDY}")


def _starts_a_pickle(path: Path) -> bool:
    with path.open("rb") as f:
        return f.read(1) == b"\x80"


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except zipfile.BadZipFile:
        return False


def _weights_in(content: object, path: str = "", depth: int = 0) -> Iterable[tuple[str, dict[str, Tensor]]]:
    """Every set of weights in nested dictionaries, with its dotted key."""
    if not isinstance(content, Mapping) or depth > 3:
        return
    tensors = {str(k): v for k, v in content.items() if isinstance(v, Tensor)}
    if sum(v.dim() > 1 and "." in k for k, v in tensors.items()) >= 2:
        yield path, tensors
        return
    for key, value in content.items():
        # The moments of an optimizer have the shapes of weights, but their keys are numbers.
        yield from _weights_in(value, f"{path}.{key}" if path else str(key), depth + 1)


def _preferred(found: Mapping[str, object]) -> str | None:
    if len(found) == 1:
        return next(iter(found))
    for names in (WRAPPERS, AVERAGED):
        for wrapper in names:
            matching = [key for key in found if key.split(".")[0] == wrapper]
            if len(matching) == 1:
                return matching[0]
    return "" if "" in found else None


def listed(names: Iterable[str], most: int = 12) -> str:
    """The first of some names, and how many there are more."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
