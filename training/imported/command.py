"""``python -m training import SOURCE``: a classifier that was trained elsewhere becomes a bundle.

SOURCE is a checkpoint file: a torchxrayvision DenseNet or ResNet, a CheXNet-style ``densenet121``, or any torchvision
classifier, as a state dict. What is not in the file stands in a small YAML (:class:`Spec`). The bundle carries no
calibration and no evaluation, and says so: nothing here knows how the network does on anybody's patients.
"""

from __future__ import annotations

import argparse
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from data_specs.bundle import CxrInput, Imported
from data_specs.cxr.files import read_image
from data_specs.cxr.image import conform
from data_specs.problems import Refused
from models.imported import ImportedNet, build
from training.bundle import golden
from training.bundle.export import PARITY_TOLERANCE, Draft, ParityError, write_bundle
from training.imported.sources import ImportRefused, fill, read_checkpoint
from training.imported.spec import Description, Spec, describe, offered, read_spec

SAMPLE_FILMS = Path(__file__).resolve().parents[2] / "samples"
SATURATED_LOGIT = 32.0
"""Past this a probability is 0 or 1 to within fp32, and fp32 itself no longer keeps four decimals of a logit."""


def main(argv: Sequence[str] | None = None) -> int:
    """Command line; 0, or 2 and one plain sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m training import", description=__doc__)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="checkpoint file (a state dict)")
    parser.add_argument("--spec", type=Path, help="YAML: " + ", ".join(Spec.model_fields))
    parser.add_argument("--out", type=Path, default=Path("models/bundles"), help="folder of bundles")
    parser.add_argument("--name", required=True, help="name of the bundle; 'lung' is the one that is served")
    parser.add_argument("--version", required=True, help="MAJOR.MINOR.PATCH; one that exists is not replaced")
    parser.add_argument("--licence", required=True, help="licence of the weights, as their authors state it")
    parser.add_argument(
        "--images", type=Path, help="folder of real films to compare on (the sample films if not given)"
    )
    arguments = parser.parse_args(argv)
    try:
        folder = import_weights(
            arguments.source,
            read_spec(arguments.spec),
            bundles=arguments.out,
            name=arguments.name,
            version=arguments.version,
            licence=arguments.licence,
            images=arguments.images,
        )
    except (ImportRefused, ParityError, FileExistsError) as refusal:
        print(f"import refused: {refusal}", file=sys.stderr)
        return 2
    print((folder / "docs" / "README.md").read_text(encoding="utf-8"))
    return 0


def import_weights(
    source: Path, spec: Spec, *, bundles: Path, name: str, version: str, licence: str, images: Path | None = None
) -> Path:
    """Read, check, wrap, export and compare; return the bundle's folder, which is there whole or not at all.

    Raises
    ------
    ImportRefused
        The file or its description cannot be used; the message says why and what to do.
    ParityError
        Checkpoint, wrapped network and exported graph do not agree.
    FileExistsError
        This version exists.
    """
    _check_names(bundles, name, version, licence)
    checkpoint = read_checkpoint(source, spec.weights_key)
    described = describe(checkpoint, spec)
    findings, left_out = offered(described, spec)
    original = _build(described)
    unused = fill(original, checkpoint.weights, spec.ignore_keys)
    network = ImportedNet(original, described.normalisation, exclusive=described.exclusive).eval()
    kept, compared = golden.films(described.size_px), films(described.size_px, images)
    largest = same_as_original(network, original, np.concatenate([kept, compared]))
    imported = Imported(
        source=described.source,
        architecture=described.architecture,
        file=source.name,
        sha256=checkpoint.sha256,
        found_in=checkpoint.found_in,
        not_taken=checkpoint.others,
        ignored_keys=tuple(k for k in unused if not k.endswith("num_batches_tracked")),
        classes=described.classes,
        left_out=left_out,
        licence=licence,
        trained_on=spec.trained_on,
        citation=spec.citation,
    )
    draft = Draft(
        name=name,
        version=version,
        organ="lung",
        purpose=f"Frontal chest X-ray: {', '.join(f.name for f in findings)}. Weights trained elsewhere, uncalibrated.",
        input=CxrInput(size_px=described.size_px),
        outputs=network.outputs,
        findings=findings,
        training_data=(),
        limits=limits(described, spec, network.gives_evidence, largest),
        thresholds={},
        licence=licence,
        imported=imported,
        tolerance=PARITY_TOLERANCE * max(1.0, largest / SATURATED_LOGIT),
    )
    with tempfile.TemporaryDirectory(prefix="import-") as workplace:
        made = write_bundle(network, draft, kept, compared, Path(workplace))
        same_answers(network, made / "models" / "model.onnx", np.concatenate([kept, compared]))
        bundles.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(made, bundles / made.name))


def limits(described: Description, spec: Spec, gives_evidence: bool, largest: float) -> tuple[str, ...]:
    """What the card must say of any import."""
    low, high = spec.age_years
    said = [
        "UNCALIBRATED. The probability of each finding is the bare sigmoid of the network's logit and does not say how "
        "many people out of a hundred have it. Not evaluated: no sensitivity, specificity or AUROC is claimed. Give a "
        "local cohort (`python -m training recalibrate`) before it is used for anybody.",
        f"Offered from {low:g} to {high - 1:g} years because the YAML or the default says so, not because it was "
        "evaluated for these ages.",
        "Films are squeezed to a square here, aspect not kept; torchxrayvision and many others cut the middle square "
        "out instead. What that costs was not measured.",
    ]
    if any(t is not None for t in described.thresholds):
        said.append(
            "The operating point `imported` holds the threshold that was published with the weights, chosen on another "
            "hospital's films; torchxrayvision's own answers are re-scaled so that it lies at 0.5, these are not."
        )
    if described.exclusive:
        said.append("The classes exclude each other: a probability is that of the class against all others.")
    elif spec.activation is None and described.source == "torchvision":
        said.append("Nobody said how the outputs are activated; each class is answered by itself (sigmoid).")
    if not gives_evidence:
        said.append("The architecture gives no class activation map: findings come without a heatmap.")
    if largest > SATURATED_LOGIT:
        said.append(
            f"Logits reach {largest:.0f} on the films compared, where a trained network stays below ten or so: check "
            "the weights and the normalisation. fp32 does not keep four decimals of such a number; torch and ONNX were "
            "held to 1e-4 of a probability instead."
        )
    return tuple(said)


def films(size_px: int, folder: Path | None) -> NDArray[np.uint8]:
    """Noise at random and real films, conformed, ``(n, 1, size_px, size_px) uint8``, to compare on."""
    where = folder or SAMPLE_FILMS
    paths = sorted(
        p for p in where.rglob("*") if p.suffix.lower() in {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".dcm"}
    )
    real = []
    for path in paths:
        try:
            real.append(conform(read_image(path.read_bytes()).pixels, size_px))
        except Refused:
            continue  # a recording, a lateral: not what is compared on
        if len(real) == 16:
            break
    if not real:
        raise ImportRefused(f"{where}: no film to compare on; name a folder of chest films with --images")
    noise = np.random.default_rng(20261122).integers(0, 256, (4, 1, size_px, size_px), dtype=np.uint8)
    return np.concatenate([noise, np.stack(real)])


@torch.inference_mode()
def same_as_original(network: ImportedNet, original: torch.nn.Module, x: NDArray[np.uint8]) -> float:
    """Largest logit; the wrapped network must give what the classifier gives by its own ``forward``.

    Raises
    ------
    ParityError
        It does not.
    """
    largest = 0.0
    for row in torch.from_numpy(x).split(4):
        expected = network.one_against_rest(original(network.normalise(row)))
        out = network(row)
        logits = out[0] if isinstance(out, tuple) else out
        if not bool(torch.isfinite(expected).all()):
            raise ImportRefused("the network answers a film with a number that is not finite")
        largest = max(largest, float(expected.abs().max()))
        difference = float((expected - logits).abs().max())
        if not difference <= PARITY_TOLERANCE * max(1.0, largest / SATURATED_LOGIT):
            raise ParityError(f"the wrapped network differs from the original by {difference:.1e} of a logit")
    return largest


@torch.inference_mode()
def same_answers(network: ImportedNet, model: Path, x: NDArray[np.uint8]) -> None:
    """Probabilities and evidence maps of the exported graph against torch's.

    Raises
    ------
    ParityError
        A probability differs by more than the tolerance, or a map by more than that share of its largest value.
    """
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for start in range(0, len(x), 4):
        part = x[start : start + 4]
        out = network(torch.from_numpy(part))
        expected = out if isinstance(out, tuple) else (out,)
        found = [torch.from_numpy(array) for array in session.run(list(network.outputs), {"input": part})]
        difference = float((expected[0].sigmoid() - found[0].sigmoid()).abs().max())
        if not difference <= PARITY_TOLERANCE:
            raise ParityError(f"probabilities of torch and ONNX differ by {difference:.1e}")
        for torch_map, onnx_map in zip(expected[1:], found[1:], strict=True):
            difference = float((torch_map - onnx_map).abs().max() / torch_map.abs().max().clamp(min=1.0))
            if not difference <= PARITY_TOLERANCE:
                raise ParityError(f"evidence maps of torch and ONNX differ by {difference:.1e} of their largest value")


def _build(described: Description) -> torch.nn.Module:
    try:
        return build(described.architecture, len(described.classes), len(described.normalisation.mean))
    except ValueError as error:
        raise ImportRefused(str(error)) from None


def _check_names(bundles: Path, name: str, version: str, licence: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ImportRefused(f"--name {name}: small letters, digits and _ only")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ImportRefused(f"--version {version}: expected MAJOR.MINOR.PATCH")
    if not licence.strip():
        raise ImportRefused("--licence: say under which licence the weights are offered")
    if (bundles / f"{name}-{version}").exists():
        raise FileExistsError(f"{bundles / f'{name}-{version}'} exists; a bundle is never replaced")
