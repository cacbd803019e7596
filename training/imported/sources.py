"""The weights in a checkpoint of another program, under torchvision's names; every key is checked.

No code of a file is executed: it is read with ``weights_only=True``, and a file that needs more is refused.
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

import torch
from torch import Tensor, nn

MAX_BYTES = 4 * 2**30
"""The largest torchvision classifier (regnet_y_128gf) has 2.6 GB of weights."""

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module")
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "model_ema_state_dict", "ema", "shadow")
"""Usual names of the weights in a checkpoint, in order of preference; averaged weights come last."""

IGNORED = (
    (re.compile(r"(^|\.)num_batches_tracked$"), "counts training steps; older torch did not save it"),
    (re.compile(r"^n_averaged$"), "counts the steps of torch.optim.swa_utils.AveragedModel"),
    (re.compile(r"(^|\.)op_threshs$"), "torchxrayvision's operating points, read apart from the weights"),
)
"""Keys that may be in a checkpoint but not in the network; any other is refused by name."""

_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12])\.")
_HEAD = re.compile(
    r"(?:^|.*\.)(?:classifier|fc|heads?|last_linear|linear|output|logits?)(?:\.(?:\d+|head))?\.(weight|bias)$"
)


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
    """

    path: Path
    sha256: str
    weights: dict[str, Tensor]
    found_in: str
    others: tuple[str, ...]


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
    content = _load(path)
    found = dict(_weights_in(content))
    key = weights_key if weights_key is not None else _preferred(found)
    if key is None or key not in found:
        held = "; ".join(f"'{name}' ({len(w)} tensors)" for name, w in found.items()) or "none"
        top = f" At its top level: {_listed(map(str, content))}." if isinstance(content, Mapping) else ""
        wanted = f"under '{weights_key}'" if weights_key is not None else "that can be chosen without a name"
        raise ImportRefused(
            f"{path.name}: no weights {wanted}. Sets of weights found: {held}.{top} "
            "Give the right one as 'weights_key' in the YAML."
        )
    with path.open("rb") as f:
        digest = hashlib.file_digest(f, "sha256").hexdigest()
    return Checkpoint(path, digest, found[key], key, tuple(name for name in found if name != key))


def _load(path: Path) -> object:
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
        raise _needs_more(path, str(error)) from None
    # torch and pickle may raise almost any exception for other bytes; all mean the same here.
    except Exception as error:
        raise ImportRefused(
            f"{path.name}: not a PyTorch checkpoint, or damaged or incomplete ({type(error).__name__})"
        ) from None


def _load_python2(path: Path) -> object:
    """Read a checkpoint of torch 0.3 under Python 2, such as CheXNet's, whose strings are bytes."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, encoding="latin1")
    except pickle.UnpicklingError as error:
        raise _needs_more(path, str(error)) from None
    except Exception as error:
        raise ImportRefused(f"{path.name}: a damaged checkpoint of Python 2 ({type(error).__name__})") from None


_REMEDY = (
    "If you trust the file, load it with the program that wrote it and save the weights alone: "
    "torch.save(model.state_dict(), 'weights.pt'). That file can be imported."
)


def _needs_more(path: Path, message: str) -> ImportRefused:
    named = re.findall(r"GLOBAL ([\w.]+)|global ([\w.]+)|`([\w.]+)`? (?:was|is) not an allowed", message)
    wants = next((name for names in named for name in names if name), None)
    if wants is None and not zipfile.is_zipfile(path) and not _starts_a_pickle(path):
        return ImportRefused(f"{path.name}: not a PyTorch checkpoint (neither a zip archive nor a pickle)")
    what = f"it builds objects ('{wants}') and not only tensors" if wants else "it holds more than tensors"
    return ImportRefused(f"{path.name}: refused, {what}; unpickling it could run any program. {_REMEDY}")


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


def densenet121_marks(weights: Mapping[str, Tensor]) -> tuple[str, int, int] | None:
    """Prefix, input channels and outputs if this is a DenseNet-121 with a linear head, else ``None``."""
    stem = next((k for k in weights if k.endswith("features.conv0.weight")), None)
    ends = ("denseblock4.denselayer16.conv2.weight", "denseblock4.denselayer16.conv.2.weight")
    last = next((k for k in weights if k.endswith(ends)), None)
    head = next((v for k, v in weights.items() if _HEAD.match(k) and v.dim() == 2 and v.shape[1] == 1024), None)
    if stem is None or last is None or head is None or any("denseblock4.denselayer17" in k for k in weights):
        return None
    return stem.removesuffix("features.conv0.weight"), int(weights[stem].shape[1]), int(head.shape[0])


def input_channels(weights: Mapping[str, Tensor]) -> int | None:
    """Input channels of the first convolution in the file."""
    stem = next((v for v in weights.values() if v.dim() == 4), None)
    return None if stem is None else int(stem.shape[1])


def op_threshs(weights: Mapping[str, Tensor]) -> tuple[float, ...] | None:
    """torchxrayvision's operating points (NaN for an untrained class); ``None`` if the checkpoint has none."""
    found = next((v for k, v in weights.items() if k.split(".")[-1] == "op_threshs"), None)
    return None if found is None else tuple(float(v) for v in found.flatten())


def fill(network: nn.Module, weights: Mapping[str, Tensor], ignore: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Copy ``weights`` into ``network`` and check every key.

    Returns
    -------
    Keys of the file that were not used; all of them are in :data:`IGNORED` or ``ignore``.

    Raises
    ------
    ImportRefused
        Keys are missing or unexpected, or have another shape or numbers that are not finite; the message names all.
    """
    expected = dict(network.state_dict())
    needed = {k for k in expected if not _ignored(k)}
    named, unused = _renamed(weights, needed, ignore)
    _match_head(named, needed, network)
    missing = sorted(needed - named.keys())
    left_over = sorted(named.keys() - expected.keys())
    mismatched = [
        f"{k}: {tuple(named[k].shape)} in the file, {tuple(expected[k].shape)} in the network"
        for k in sorted(needed & named.keys())
        if named[k].shape != expected[k].shape
    ]
    odd = [k for k in sorted(needed & named.keys()) if not _same_kind(named[k], expected[k])]
    broken = [k for k in sorted(needed & named.keys() - set(odd)) if not bool(torch.isfinite(named[k].float()).all())]
    faults = [
        f"{len(keys)} {what}: {_listed(keys)}"
        for what, keys in (
            ("missing", missing),
            ("unexpected", left_over),
            ("of another shape", mismatched),
            ("of another kind (quantised, sparse, complex, without values)", odd),
            ("with numbers that are not finite", broken),
        )
        if keys
    ]
    if faults:
        raise ImportRefused(
            f"the checkpoint's keys do not fit the architecture ({type(network).__name__}, {len(needed)} keys). "
            + ". ".join(faults)
        )
    network.load_state_dict({**expected, **{k: named[k] for k in needed}}, strict=True)
    return tuple(unused)


def _renamed(
    weights: Mapping[str, Tensor], needed: set[str], ignore: tuple[str, ...]
) -> tuple[dict[str, Tensor], list[str]]:
    """Weights without the prefix by whose removal most keys fit, and the keys that are not used."""
    modern = {_OLD_DENSENET.sub(r"\1\2.", k): v for k, v in weights.items()}
    last_parts = {k.rsplit(".", 2)[-2] + "." + k.rsplit(".", 1)[-1] if k.count(".") > 1 else k for k in needed}
    prefixes = {""}
    for key in modern:
        # The prefix may end at any dot of a key.
        cuts = [i + 1 for i, c in enumerate(key) if c == "."]
        if any(key.endswith(part) for part in last_parts):
            prefixes.update(key[:cut] for cut in cuts[:6] if key[cut:] in needed)
    prefix = max(
        sorted(prefixes, key=len), key=lambda p: sum(k.removeprefix(p) in needed for k in modern if k.startswith(p))
    )
    named: dict[str, Tensor] = {}
    unused = []
    for key, value in modern.items():
        short = key.removeprefix(prefix)
        if _ignored(short) or short in ignore or key in ignore:
            unused.append(key)
        elif short in named:
            raise ImportRefused(f"the checkpoint holds '{short}' twice, with and without the prefix '{prefix}'")
        else:
            named[short] = value
    return named, unused


def _match_head(named: dict[str, Tensor], needed: set[str], network: nn.Module) -> None:
    """Rename the one unexpected linear layer to the missing one (``classifier.0`` of a ``Sequential(Linear, Sigmoid)``,
    ``fc.1`` after a dropout). The sigmoid has no weights, so it is dropped."""
    layers = [n for n, m in network.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    head = layers[-1]
    left_over = [k for k in named if k not in needed]
    if f"{head}.weight" in named or len(left_over) > 2 or not all(_HEAD.match(k) for k in left_over):
        return
    stems = {k.rsplit(".", 1)[0] for k in left_over}
    if len(stems) == 1:
        for key in left_over:
            named[f"{head}.{key.rsplit('.', 1)[1]}"] = named.pop(key)


def _same_kind(found: Tensor, expected: Tensor) -> bool:
    dense = found.layout is torch.strided and not found.is_quantized and not found.is_meta
    return dense and found.is_floating_point() == expected.is_floating_point()


def _ignored(key: str) -> bool:
    return any(pattern.search(key) for pattern, _ in IGNORED)


def _listed(names: Iterable[str], most: int = 12) -> str:
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
