"""``python -m training import SOURCE``: make a bundle from a classifier that was trained elsewhere.

SOURCE is a checkpoint file: a torchxrayvision DenseNet or ResNet, a CheXNet-style ``densenet121``, or any torchvision
classifier, as a state dict. What is not in the file is given by a YAML (:class:`Spec`). The bundle has no calibration
and no evaluation, and its card says so.
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
from training.imported.spec import Description, Spec, describe, findings_of, read_spec

SAMPLE_FILMS = Path(__file__).resolve().parents[2] / "samples"
SATURATED_LOGIT = 32.0
"""Above this logit a probability is 0 or 1 in fp32, and fp32 does not keep four decimals of the logit."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 after an error message on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m training import", description="Make a bundle from a classifier that was trained elsewhere."
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="checkpoint file (a state dict)")
    parser.add_argument("--spec", type=Path, help="YAML: " + ", ".join(Spec.model_fields))
    parser.add_argument("--out", type=Path, default=Path("models/bundles"), help="folder of bundles")
    parser.add_argument("--name", required=True, help="name of the bundle; 'lung' is served")
    parser.add_argument("--version", required=True, help="MAJOR.MINOR.PATCH; one that exists is not replaced")
    parser.add_argument("--licence", required=True, help="licence of the weights, as their authors state it")
    parser.add_argument(
        "--images", type=Path, help="folder of real films for the comparison (default: the sample films)"
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
    """Read, check, wrap, export and compare; return the bundle's folder, which is written completely or not at all.

    Raises
    ------
    ImportRefused
        The file or its description cannot be used.
    ParityError
        Checkpoint, wrapped network and exported graph give different results.
    FileExistsError
        This version exists.
    """
    _check_names(bundles, name, version, licence)
    checkpoint = read_checkpoint(source, spec.weights_key)
    described = describe(checkpoint, spec)
    findings, left_out = findings_of(described, spec)
    original = _build(described)
    unused = fill(original, checkpoint.weights, spec.ignore_keys)
    network = ImportedNet(original, described.normalisation, exclusive=described.exclusive).eval()
    kept, compared = golden.films(described.size_px), films(described.size_px, images)
    largest = check_wrapped(network, original, np.concatenate([kept, compared]))
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
    with tempfile.TemporaryDirectory(prefix="import-") as folder:
        made = write_bundle(network, draft, kept, compared, Path(folder))
        check_exported(network, made / "models" / "model.onnx", np.concatenate([kept, compared]))
        bundles.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(made, bundles / made.name))


def limits(described: Description, spec: Spec, gives_evidence: bool, largest: float) -> tuple[str, ...]:
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
    if largest > SATURATED_LOGIT:
        lines.append(
            f"Logits reach {largest:.0f} on the compared films, but are usually below 10 in a trained network: check "
            "the weights and the normalisation. fp32 does not keep four decimals of such a number, so torch and ONNX "
            "were compared by their probabilities, within 1e-4."
        )
    return tuple(lines)


def films(size_px: int, folder: Path | None) -> NDArray[np.uint8]:
    """Random noise and real films, conformed, ``(n, 1, size_px, size_px) uint8``, for comparisons."""
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
        if len(real) == 16:
            break
    if not real:
        raise ImportRefused(f"{where}: no film for the comparison; give a folder of chest films with --images")
    noise = np.random.default_rng(20261122).integers(0, 256, (4, 1, size_px, size_px), dtype=np.uint8)
    return np.concatenate([noise, np.stack(real)])


@torch.inference_mode()
def check_wrapped(network: ImportedNet, original: torch.nn.Module, x: NDArray[np.uint8]) -> float:
    """Check that the wrapped network gives the same logits as the original; returns the largest logit.

    Raises
    ------
    ParityError
        It does not.
    ImportRefused
        A logit is not finite.
    """
    largest = 0.0
    for row in torch.from_numpy(x).split(4):
        expected = network.one_against_rest(original(network.normalise(row)))
        out = network(row)
        logits = out[0] if isinstance(out, tuple) else out
        if not bool(torch.isfinite(expected).all()):
            raise ImportRefused("the network gives a film a number that is not finite")
        largest = max(largest, float(expected.abs().max()))
        difference = float((expected - logits).abs().max())
        if not difference <= PARITY_TOLERANCE * max(1.0, largest / SATURATED_LOGIT):
            raise ParityError(f"the wrapped network differs from the original by {difference:.1e} of a logit")
    return largest


@torch.inference_mode()
def check_exported(network: ImportedNet, model: Path, x: NDArray[np.uint8]) -> None:
    """Check that the exported graph gives the same probabilities and evidence maps as torch.

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
        raise ImportRefused("--licence: give the licence of the weights")
    if (bundles / f"{name}-{version}").exists():
        raise FileExistsError(f"{bundles / f'{name}-{version}'} exists; a bundle is never replaced")
