"""The description of a checkpoint: from its YAML, its keys, and the conventions of its source."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from data_specs.bundle import FindingSpec
from data_specs.visit.contract import OperatingPoint
from data_specs.vocabulary import judged_findings
from models.imported import Normalisation
from training.cohorts.shipped import NIH_LABELS
from training.imported.sources import Checkpoint, ImportRefused, densenet121_marks, input_channels, op_threshs

Source = Literal["torchxrayvision", "chexnet", "torchvision"]

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of ImageNet's channels, pixels 0 to 1 (torchvision, "Models and pre-trained weights")."""

XRV_CLASSES = (
    *("Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion"),
    *("Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture"),
    *("Lung Opacity", "Enlarged Cardiomediastinum"),
)
"""``targets`` of ``torchxrayvision.models.DenseNet`` 1.5 (Cohen et al., TorchXRayVision, MIDL 2022)."""

FINDING_OF_CLASS = {name.replace("_", " "): name for name in judged_findings("lung")} | {
    "hiatal hernia": "hernia",
    "pleural effusion": "effusion",
    "pulmonary edema": "edema",
    "pulmonary fibrosis": "fibrosis",
}
"""Class, in lower case and with blanks for ``_`` and ``-``, to the same finding in the vocabulary.
'Lung Opacity', 'Lung Lesion', 'Fracture', 'No Finding' and the like are not in the vocabulary and are left out."""

ADULT_YEARS = (18.0, 121.0)


class Pixels(BaseModel):
    """Mean and deviation for pixels of 0 to 1, one value for all channels or one for each."""

    model_config = ConfigDict(extra="forbid")
    mean: tuple[float, ...] | float
    std: tuple[float, ...] | float


class Spec(BaseModel):
    """The YAML that describes a checkpoint.

    Parameters
    ----------
    source
        ``torchxrayvision``, ``chexnet`` (NIH's fourteen classes) or ``torchvision``; if left out, it is recognised by
        the keys where they are clear. The first two have known classes, input size and normalisation.
    architecture
        Name of a torchvision classifier, such as ``resnet50``.
    classes
        Names of the outputs in their order; ``""`` for an untrained output.
    input_size
        Side of the square input, px.
    normalisation
        ``imagenet``; ``torchxrayvision`` (-1024 to 1024); ``unit`` (0 to 1); or ``{mean: [...], std: [...]}``.
    channels
        1 or 3; if left out, that of the first convolution.
    activation
        ``sigmoid`` (each class independently) or ``softmax`` (classes exclude each other).
    findings
        Class to finding of the vocabulary, for classes with other names.
    op_threshs
        Threshold of each class on its sigmoid, ``null`` for none.
    age_years
        Ages that the findings are offered for, upper bound not included; adults if left out.
    weights_key, ignore_keys
        The set of weights to use if a file has several; keys that are not part of the network.
    trained_on, citation
        For the card, as stated by the authors.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    source: Source | None = None
    architecture: str | None = None
    classes: tuple[str, ...] | None = None
    input_size: int | None = Field(None, ge=32, le=1024, validation_alias=AliasChoices("input_size", "size", "size_px"))
    normalisation: Literal["imagenet", "torchxrayvision", "unit"] | Pixels | None = Field(
        None, validation_alias=AliasChoices("normalisation", "normalization")
    )
    channels: Literal[1, 3] | None = None
    activation: Literal["sigmoid", "softmax"] | None = None
    findings: dict[str, str] = {}
    op_threshs: tuple[float | None, ...] | None = None
    age_years: tuple[float, float] = ADULT_YEARS
    weights_key: str | None = None
    ignore_keys: tuple[str, ...] = ()
    trained_on: str = "not stated"
    citation: str = "not stated"


@dataclass(frozen=True)
class Description:
    """The complete description of a checkpoint, from its file and its YAML."""

    source: Source
    architecture: str
    classes: tuple[str, ...]
    size_px: int
    normalisation: Normalisation
    exclusive: bool
    thresholds: tuple[float | None, ...]


def read_spec(path: Path | None) -> Spec:
    if path is None:
        return Spec()
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ImportRefused(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(content, dict):
        raise ImportRefused(f"{path}: expected entries such as 'architecture: resnet50'")
    try:
        return Spec.model_validate(content)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ImportRefused(f"{path}: {faults}. Entries are: {', '.join(Spec.model_fields)}") from None


def describe(checkpoint: Checkpoint, spec: Spec) -> Description:
    """Combine what the keys and the YAML say.

    Raises
    ------
    ImportRefused
        Something is missing, or the two contradict each other.
    """
    marks = densenet121_marks(checkpoint.weights)
    thresholds = spec.op_threshs or op_threshs(checkpoint.weights)
    source = spec.source or _recognise(marks, thresholds, spec)
    architecture = spec.architecture or ("densenet121" if source != "torchvision" and marks else None)
    channels = input_channels(checkpoint.weights)
    classes, size_px, normalisation = spec.classes, spec.input_size, spec.normalisation
    if source == "torchxrayvision":
        classes = classes or (XRV_CLASSES if not marks or marks[2] == len(XRV_CLASSES) else None)
        size_px = size_px or {"densenet121": 224, "resnet50": 512}.get(architecture or "")
        normalisation = normalisation or "torchxrayvision"
    elif source == "chexnet":
        # CheXpert has fourteen other classes and the same layer names, so the source must be stated.
        classes = classes or (NIH_LABELS if spec.source == "chexnet" else None)
        size_px, normalisation = size_px or 224, normalisation or "imagenet"
    needed = {"architecture": architecture, "classes": classes, "input_size": size_px, "normalisation": normalisation}
    absent = [entry for entry, value in needed.items() if value is None]
    if architecture is None or classes is None or size_px is None or normalisation is None:
        raise ImportRefused(
            f"{checkpoint.path.name}: {', '.join(absent)} cannot be found in the weights; give it in the YAML of --spec"
            + (". Fourteen outputs may be NIH's ('source: chexnet') or CheXpert's" if source == "chexnet" else "")
        )
    if not 0 <= spec.age_years[0] < spec.age_years[1]:
        raise ImportRefused(f"age_years: {spec.age_years[0]:g} to {spec.age_years[1]:g} is not a range of ages")
    if channels not in {1, 3}:
        raise ImportRefused(f"{checkpoint.path.name}: the first convolution takes {channels} channels, expected 1 or 3")
    if spec.channels not in {None, channels}:
        raise ImportRefused(f"the YAML says {spec.channels} channels, the first convolution takes {channels}")
    if marks and architecture == "densenet121" and marks[2] != len(classes):
        raise ImportRefused(f"the network has {marks[2]} outputs, and {len(classes)} classes are named")
    if thresholds is not None and len(thresholds) != len(classes):
        raise ImportRefused(f"{len(thresholds)} op_threshs for {len(classes)} classes")
    return Description(
        source=source,
        architecture=architecture,
        classes=classes,
        size_px=size_px,
        normalisation=_normalisation(normalisation, channels),
        exclusive=_exclusive(classes, spec),
        thresholds=tuple(None if t is None or math.isnan(t) else t for t in thresholds or (None,) * len(classes)),
    )


def _recognise(marks: tuple[str, int, int] | None, thresholds: object, spec: Spec) -> Source:
    described = spec.architecture or spec.classes or spec.normalisation
    if marks and marks[1] == 1 and (thresholds is not None or (marks[2] == len(XRV_CLASSES) and not described)):
        return "torchxrayvision"
    if marks and marks[1] == 3 and marks[2] == len(NIH_LABELS) and (marks[0].endswith("densenet121.") or not described):
        return "chexnet"
    return "torchvision"


def _normalisation(stated: str | Pixels, channels: int) -> Normalisation:
    if stated == "torchxrayvision":
        # (2 x / 255 - 1) 1024, torchxrayvision.utils.normalize
        return Normalisation((127.5,) * channels, (127.5 / 1024,) * channels)
    if stated == "unit":
        mean, std = (0.0,) * channels, (1.0,) * channels
    elif stated == "imagenet":
        if channels == 1:
            raise ImportRefused(
                "normalisation 'imagenet' has three channels and the network takes one: give its own mean and std, "
                "'normalisation: {mean: 0.5, std: 0.25}'"
            )
        mean, std = IMAGENET
    elif isinstance(stated, Pixels):
        mean, std = (v if isinstance(v, tuple) else (v,) * channels for v in (stated.mean, stated.std))
    if len(mean) != channels or len(std) != channels:
        raise ImportRefused(f"normalisation: {len(mean)} means and {len(std)} deviations for {channels} channels")
    if not all(math.isfinite(v) for v in (*mean, *std)) or min(std) <= 0 or max(*mean, *std) > 10:
        raise ImportRefused("normalisation: mean and std are for pixels of 0 to 1, std above 0")
    return Normalisation(tuple(255 * m for m in mean), tuple(255 * s for s in std))


def _exclusive(classes: tuple[str, ...], spec: Spec) -> bool:
    normal = any(_plain(c) in {"normal", "no finding", "healthy", "negative"} for c in classes)
    if spec.activation is None and normal and len(classes) <= 3:
        raise ImportRefused(
            f"classes {', '.join(classes)}: state in the YAML whether they exclude each other ('activation: softmax') "
            "or are independent ('activation: sigmoid')"
        )
    if spec.activation == "softmax" and len(classes) < 2:
        raise ImportRefused("activation: softmax needs two classes or more")
    return spec.activation == "softmax"


def findings_of(described: Description, spec: Spec) -> tuple[tuple[FindingSpec, ...], tuple[str, ...]]:
    """A finding for each class that is in the vocabulary, and the names of the other classes."""
    known = set(FINDING_OF_CLASS.values())
    for name, finding in spec.findings.items():
        if finding not in known or name not in described.classes:
            raise ImportRefused(
                f"findings: '{name}: {finding}' must map one of the classes ({', '.join(described.classes)}) "
                f"to one of {', '.join(sorted(known))}"
            )
    any_threshold = any(t is not None for t in described.thresholds)
    findings: dict[str, FindingSpec] = {}
    left_out = []
    for column, (name, threshold) in enumerate(zip(described.classes, described.thresholds, strict=True)):
        finding = spec.findings.get(name) or FINDING_OF_CLASS.get(_plain(name))
        # torchxrayvision has no threshold for classes that its cohort did not have: these outputs are untrained.
        if finding is None or (any_threshold and threshold is None):
            left_out.append(name or f"output {column}")
            continue
        if finding in findings:
            raise ImportRefused(f"two classes are '{finding}'; state in the YAML which one to use (\"\" for the other)")
        findings[finding] = FindingSpec(
            name=finding,
            column=column,
            age_years=spec.age_years,
            decides_at="screening" if threshold is None else "imported",
            operating_points=() if threshold is None else (_imported_point(threshold),),
        )
    if not findings:
        raise ImportRefused(
            f"none of the classes ({', '.join(described.classes)}) is a finding of the vocabulary; map them in the "
            "YAML, 'findings: {\"my class\": pneumonia}'"
        )
    return tuple(findings.values()), tuple(left_out)


def _imported_point(threshold: float) -> OperatingPoint:
    if not 0 < threshold < 1:
        raise ImportRefused(f"op_threshs: {threshold} is not a probability")
    return OperatingPoint(
        name="imported",
        threshold=threshold,
        cohort="as published with the weights; uncalibrated, sensitivity and specificity not measured here",
    )


def _plain(name: str) -> str:
    return re.sub(r"[_\-\s]+", " ", name).strip().lower()
