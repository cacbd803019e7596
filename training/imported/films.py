"""A classifier of films that was trained elsewhere, as its keys, its YAML and the conventions of its source say."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from data_specs.bundle import CxrInput
from data_specs.cxr.files import read_image
from data_specs.cxr.image import conform
from data_specs.problems import Refused
from models.imported import ImportedNet, Normalisation, build
from training.bundle import golden
from training.cohorts.shipped_films import NIH_LABELS
from training.imported.files import Checkpoint, ImportRefused
from training.imported.findings import findings_of, plain
from training.imported.network import Network
from training.imported.sources import densenet121_marks, fill, input_channels, op_threshs
from training.imported.spec import Pixels, Source, Spec

SAMPLE_FILMS = Path(__file__).resolve().parents[2] / "samples"
MAX_FILMS = 64
"""Real films that are compared."""

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation of ImageNet's channels, pixels 0 to 1 (torchvision, "Models and pre-trained weights")."""

XRV_CLASSES = (
    *("Atelectasis", "Consolidation", "Infiltration", "Pneumothorax", "Edema", "Emphysema", "Fibrosis", "Effusion"),
    *("Pneumonia", "Pleural_Thickening", "Cardiomegaly", "Nodule", "Mass", "Hernia", "Lung Lesion", "Fracture"),
    *("Lung Opacity", "Enlarged Cardiomediastinum"),
)
"""``targets`` of ``torchxrayvision.models.DenseNet`` 1.5 (Cohen et al., TorchXRayVision, MIDL 2022)."""


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


def film_network(checkpoint: Checkpoint, spec: Spec, folder: Path | None) -> Network:
    """The network of a checkpoint, with what it is compared on; ``folder`` has real films.

    Raises
    ------
    ImportRefused
        The file or its description cannot be used.
    """
    described = describe(checkpoint, spec)
    findings, left_out = findings_of(described.classes, described.thresholds, spec)
    original = _build(described, spec)
    unused = fill(original, checkpoint.weights, spec.ignore_keys)
    network = ImportedNet(original, described.normalisation, exclusive=described.exclusive).eval()
    compared, n_real = films(described.size_px, folder)

    def reference(x: torch.Tensor) -> torch.Tensor:
        return network.one_against_rest(original(network.normalise(x)))

    return Network(
        wrapped=network,
        outputs=network.outputs,
        reference=reference,
        original=original,
        prepared=network.normalise,
        input=CxrInput(size_px=described.size_px),
        organ="lung",
        purpose=f"Frontal chest X-ray: {', '.join(f.name for f in findings)}. Weights trained elsewhere, uncalibrated.",
        source=described.source,
        architecture=described.architecture,
        classes=described.classes,
        findings=findings,
        left_out=left_out,
        unused=unused,
        golden=np.concatenate([golden.films(described.size_px), golden.chest_films(described.size_px)]),
        compared=compared,
        n_real=n_real,
        limits=limits(described, spec, network.gives_evidence),
    )


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
    normal = any(plain(c) in {"normal", "no finding", "healthy", "negative"} for c in classes)
    if spec.activation is None and normal and len(classes) <= 3:
        raise ImportRefused(
            f"classes {', '.join(classes)}: state in the YAML whether they exclude each other ('activation: softmax') "
            "or are independent ('activation: sigmoid')"
        )
    if spec.activation == "softmax" and len(classes) < 2:
        raise ImportRefused("activation: softmax needs two classes or more")
    return spec.activation == "softmax"


def limits(described: Description, spec: Spec, gives_evidence: bool) -> tuple[str, ...]:
    """Limits of an imported bundle, for the card."""
    low, high = spec.age_years
    lines = [
        "UNCALIBRATED. The probability of each finding is only the sigmoid of the network's logit; it is not the "
        "share of people who have it. Not evaluated: sensitivity, specificity and AUROC are unknown. Recalibrate it on "
        "a local cohort (`python -m training recalibrate`) before it is used.",
        f"Offered from {low:g} to {high - 1:g} years because of the YAML or the default; it was not evaluated for "
        "these ages.",
        "Films are resized to a square here, without keeping the aspect ratio; torchxrayvision and many others crop "
        "the middle square instead. The effect was not measured.",
    ]
    if any(t is not None for t in described.thresholds):
        lines.append(
            "The operating point `imported` has the threshold that was published with the weights, chosen on films of "
            "another hospital. torchxrayvision rescales its outputs so that the threshold is 0.5; here they are not "
            "rescaled."
        )
    if described.exclusive:
        lines.append("The classes exclude each other: a probability is that of the class against all others.")
    elif spec.activation is None and described.source == "torchvision":
        lines.append("The activation of the outputs is not stated; each class is computed independently (sigmoid).")
    if not gives_evidence:
        lines.append("The architecture has no class activation map, so findings have no heatmap.")
    return tuple(lines)


def films(size_px: int, folder: Path | None) -> tuple[NDArray[np.uint8], int]:
    """Random noise and real films, conformed, ``(n, 1, size_px, size_px) uint8``, and how many of them are real."""
    where = folder or SAMPLE_FILMS
    paths = sorted(
        p for p in where.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".dcm"}
    )
    real = []
    for path in paths:
        try:
            real.append(conform(read_image(path.read_bytes()).pixels, size_px))
        except Refused:
            continue  # for example a recording or a lateral film
        if len(real) == MAX_FILMS:
            break
    if not real:
        raise ImportRefused(f"{where}: no film for the comparison; give a folder of chest films with --cases")
    noise = np.random.default_rng(20261122).integers(0, 256, (4, 1, size_px, size_px), dtype=np.uint8)
    return np.concatenate([noise, np.stack(real)]), len(real)


def _build(described: Description, spec: Spec) -> torch.nn.Module:
    head = spec.head
    try:
        return build(
            described.architecture,
            len(described.classes),
            len(described.normalisation.mean),
            hidden=None if head is None else head.hidden,
            activation="relu" if head is None else head.activation,
        )
    except ValueError as error:
        raise ImportRefused(str(error)) from None
