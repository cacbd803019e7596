"""The weights of a checkpoint under torchvision's names; every key is checked."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from training.imported.files import ImportRefused, listed

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
        f"{len(keys)} {what}: {listed(keys)}"
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
    """Rename the linear layers of the file's head to those of the network's, in their order, where they are as many
    (``classifier.0`` of a ``Sequential(Linear, Sigmoid)``, ``fc.1`` after a dropout, ``classifier.0`` and ``.3``).
    What is between them has no weights."""
    layers = [n for n, m in network.named_modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    top = layers[-1].split(".")[0]
    heads = [n for n in layers if n.split(".")[0] == top]
    left_over = [k for k in named if k not in needed]
    if not left_over or not all(_HEAD.match(k) for k in left_over):
        return
    place = left_over[0].split(".")[0]
    stems = {k.rpartition(".")[0] for k in named if k.split(".")[0] == place}
    in_file = sorted(stems, key=lambda stem: [int(part) for part in re.findall(r"\d+", stem)])
    if len(in_file) != len(heads) or (len(heads) > 1 and place != top):
        return
    moved = {
        f"{head}.{kind}": named.pop(f"{stem}.{kind}")
        for head, stem in zip(heads, in_file, strict=True)
        for kind in ("weight", "bias")
        if f"{stem}.{kind}" in named
    }
    named |= moved


def _same_kind(found: Tensor, expected: Tensor) -> bool:
    dense = found.layout is torch.strided and not found.is_quantized and not found.is_meta
    return dense and found.is_floating_point() == expected.is_floating_point()


def _ignored(key: str) -> bool:
    return any(pattern.search(key) for pattern, _ in IGNORED)
