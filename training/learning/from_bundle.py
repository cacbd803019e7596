"""First weights of a network from a bundle, so that training continues from it.

The bundle is verified first. The backbone is taken completely, and of the classifier the rows of findings that the
bundle offers for the same ages.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from google.protobuf.message import DecodeError
from torch import nn

from data_specs.bundle import Ancestor, BundleManifest, CxrInput, EcgInput, FindingSpec, TrainingData
from data_specs.person import MAX_AGE_YEARS
from inference.bundles.loading import BundleError, load_bundle
from training.bundle.derive import ancestor
from training.bundle.restore import CannotRestore, restore, weights_in
from training.learning.start import CannotStart, backbone_of

Ages = tuple[float, float] | None
T = TypeVar("T", CxrInput, EcgInput)


@dataclass(frozen=True)
class Inherited:
    """What a network inherits from the bundle that it starts from.

    Parameters
    ----------
    ancestors
        The chain of bundles, oldest first; the bundle itself is last.
    training_data
        The training data of the bundle.
    sentence
        Where the weights come from, for the card.
    """

    ancestors: tuple[Ancestor, ...]
    training_data: tuple[TrainingData, ...]
    sentence: str


def from_bundle(
    network: nn.Module,
    columns: Sequence[str],
    bundle: Path,
    ages: Sequence[Ages] | None = None,
    takes: CxrInput | EcgInput | None = None,
) -> Inherited:
    """Fill ``network`` in place from the bundle in folder ``bundle``; other rows of its classifier do not change.

    Parameters
    ----------
    columns
        Name of the finding of each column of ``network``; empty for a further task.
    ages
        Ages of each column; if the bundle has several findings of one name, the one with the most common years is
        taken, and none without a common year.
    takes
        The input contract of ``network``.

    Raises
    ------
    CannotStart
        The bundle is damaged, or has another input or another network.
    """
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
    taken = [_finding_for(manifest.findings, name, years) for name, years in zip(columns, ages, strict=True)]
    _take_rows(classifier, _classifier(parent), taken)
    return Inherited(
        ancestors=(*manifest.from_bundle, ancestor(bundle, manifest)),
        training_data=manifest.training_data,
        sentence=_sentence(manifest, columns, taken),
    )


def network_of(bundle: Path, networks: Sequence[Callable[[int], nn.Module]]) -> Callable[[int], nn.Module]:
    """The first of ``networks`` whose weights are named and shaped as those in the bundle; else the first of all,
    which then says what differs."""
    try:
        found = weights_in(bundle / load_manifest(bundle).weights.path)
    except (OSError, ValueError, DecodeError):
        return networks[0]
    heads = [name for name in found if name == "classifier.weight" or name.endswith(".classifier.weight")]
    if len(heads) == 1:
        prefix = heads[0].removesuffix("classifier.weight")
        shapes = {name.removeprefix(prefix): shape for name, shape in found.items()}
        for network in networks:
            own = network(found[heads[0]][0]).state_dict()
            if all(shapes.get(n) == tuple(v.shape) for n, v in own.items() if not n.endswith("num_batches_tracked")):
                return network
    return networks[0]


def input_of(bundle: Path | None, otherwise: T) -> T:
    """What a network takes that starts from ``bundle``: what that bundle takes, where it is of the same modality.

    A bundle that cannot be read, or takes something else, is refused later, with its reason.
    """
    try:
        found = load_manifest(bundle).input if bundle else otherwise
    except (OSError, ValueError):
        return otherwise
    return found if isinstance(found, type(otherwise)) else otherwise


def load_manifest(bundle: Path) -> BundleManifest:
    return BundleManifest.model_validate_json((bundle / "screening.json").read_bytes())


def _empty_parent(network: nn.Module, model: Path) -> tuple[nn.Module, nn.Module]:
    """A copy of ``network`` with the file's number of columns, and a module that contains it under the prefix of the
    file's names (the copy itself if there is no prefix)."""
    shapes = weights_in(model)
    named = [name for name in shapes if name == "classifier.weight" or name.endswith(".classifier.weight")]
    own = _classifier(network)
    if len(named) != 1 or shapes[named[0]][1:] != tuple(own.weight.shape[1:]):
        found = ", ".join(str(shapes[name]) for name in named) or "none"
        raise CannotStart(
            f"{model.parent.parent.name} has another network than {type(network).__name__}: "
            f"classifier {found}, expected (columns, {', '.join(map(str, own.weight.shape[1:]))})"
        )
    parent = copy.deepcopy(network)
    rows = shapes[named[0]][0]
    parent.classifier = type(own)(own.in_channels, rows, kernel_size=1)  # type: ignore[arg-type]
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
    # The number of windows in serving does not depend on the weights.
    one, other = (i.model_dump(exclude={"max_windows"}) for i in (manifest.input, takes or manifest.input))
    if one != other:
        differs = ", ".join(f"{k} {one[k]} in the bundle, {other[k]} here" for k in one if one[k] != other[k])
        raise CannotStart(f"--from-bundle: {manifest.name} {manifest.version} takes another input: {differs}")


def _finding_for(findings: Sequence[FindingSpec], name: str, ages: Ages) -> FindingSpec | None:
    """The bundle's finding ``name`` with the most years in common with ``ages``; ``None`` if there is none."""
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
    for own, theirs in zip(classifier.parameters(), parent.parameters(), strict=True):
        for row, finding in enumerate(taken):
            if finding is not None:
                own[row] = theirs[finding.column]


def _classifier(network: nn.Module) -> nn.Conv1d | nn.Conv2d:
    classifier = network.classifier
    if not isinstance(classifier, nn.Conv1d | nn.Conv2d):
        raise TypeError(f"{type(network).__name__}.classifier is not a 1 x 1 convolution")
    return classifier


def _sentence(manifest: BundleManifest, columns: Sequence[str], taken: Sequence[FindingSpec | None]) -> str:
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
