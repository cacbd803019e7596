"""``python -m training import SOURCE``: make a bundle from a network that was trained elsewhere.

SOURCE is a file of weights: for films a torchxrayvision DenseNet or ResNet, a CheXNet-style ``densenet121``, or any
torchvision classifier; for recordings one of the networks that are built here. It may be a checkpoint of torch, whole
modules included, safetensors, or Keras HDF5. What is not in the file is given by a YAML (:class:`Spec`). The bundle has
no calibration and no evaluation, and its card says so.
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

from data_specs.bundle import Imported
from inference.bundles.loading import NEEDED
from training.bundle.export import PARITY_TOLERANCE, Draft, ParityError, write_bundle
from training.imported.files import ImportRefused, read_checkpoint
from training.imported.films import film_network
from training.imported.network import (
    MIN_FOR_PRECISIONS,
    SATURATED_LOGIT,
    check_exported,
    check_wrapped,
    golden_cases,
    reference_logits,
    unlabelled_cases,
)
from training.imported.parity import prove
from training.imported.recordings import ecg_network
from training.imported.spec import Spec, read_spec


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns 0, or 2 after an error message on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m training import", description="Make a bundle from a network that was trained elsewhere."
    )
    parser.add_argument("source", type=Path, metavar="SOURCE", help="file of weights")
    parser.add_argument("--spec", type=Path, help="YAML: " + ", ".join(Spec.model_fields))
    parser.add_argument("--out", type=Path, default=Path("models/bundles"), help="folder of bundles")
    parser.add_argument("--name", required=True, help="name of the bundle; 'lung' and 'cardiac' are served")
    parser.add_argument("--version", required=True, help="MAJOR.MINOR.PATCH; one that exists is not replaced")
    parser.add_argument("--licence", required=True, help="licence of the weights, as their authors state it")
    parser.add_argument(
        "--cases",
        "--images",
        type=Path,
        help="folder of real films or recordings for the comparisons (default: the samples); from "
        f"{MIN_FOR_PRECISIONS} on, lower precisions are measured",
    )
    parser.add_argument("--parity-python", type=Path, help="interpreter of an environment with the source's own class")
    arguments = parser.parse_args(argv)
    try:
        folder = import_weights(
            arguments.source,
            read_spec(arguments.spec),
            bundles=arguments.out,
            name=arguments.name,
            version=arguments.version,
            licence=arguments.licence,
            cases=arguments.cases,
            parity_python=arguments.parity_python,
        )
    except (ImportRefused, ParityError, FileExistsError) as refusal:
        print(f"import refused: {refusal}", file=sys.stderr)
        return 2
    print((folder / "docs" / "README.md").read_text(encoding="utf-8"))
    return 0


def import_weights(
    source: Path,
    spec: Spec,
    *,
    bundles: Path,
    name: str,
    version: str,
    licence: str,
    cases: Path | None = None,
    parity_python: Path | None = None,
) -> Path:
    """Read, check, wrap, export and compare; return the bundle's folder, which is written completely or not at all.

    Raises
    ------
    ImportRefused
        The file or its description cannot be used.
    ParityError
        Checkpoint, wrapped network, exported graph or the source's own class give different results.
    FileExistsError
        This version exists.
    """
    _check_names(bundles, name, version, licence, spec)
    checkpoint = read_checkpoint(source, spec.weights_key)
    network = (ecg_network if spec.modality == "ecg" else film_network)(checkpoint, spec, cases)
    golden, of_golden = golden_cases(network)
    expected = reference_logits(network, network.compared)
    check_wrapped(network, np.concatenate([golden, network.compared]), np.concatenate([of_golden, expected]))
    own_class = prove(network, spec.own_class, parity_python)
    print(f"parity with the source's own class: {own_class}", file=sys.stderr)
    evaluated = unlabelled_cases(network, expected)
    imported = Imported(
        source=network.source,
        architecture=network.architecture,
        file=source.name,
        sha256=checkpoint.sha256,
        found_in=checkpoint.found_in,
        not_taken=checkpoint.others,
        ignored_keys=tuple(k for k in network.unused if not k.endswith("num_batches_tracked")),
        classes=network.classes,
        left_out=network.left_out,
        licence=licence,
        trained_on=spec.trained_on,
        citation=spec.citation,
    )
    draft = Draft(
        name=name,
        version=version,
        organ=network.organ,
        purpose=network.purpose,
        input=network.input,
        outputs=network.outputs,
        findings=network.findings,
        training_data=(),
        limits=(*network.limits, *spec.limits, *_limits(expected, own_class, evaluated is None)),
        thresholds={},
        licence=licence,
        imported=imported,
        tolerance=PARITY_TOLERANCE,
    )
    with tempfile.TemporaryDirectory(prefix="import-") as folder:
        made = write_bundle(network.wrapped, draft, golden, golden[:1], Path(folder), evaluated=evaluated)
        check_exported(network.wrapped, network.outputs, made / "models" / "model.onnx", network.compared)
        bundles.mkdir(parents=True, exist_ok=True)
        return Path(shutil.move(made, bundles / made.name))


def _limits(expected: np.ndarray, own_class: str, fp32_only: bool) -> tuple[str, ...]:
    """What the comparisons found, for the card."""
    lines = [f"Parity with the source's own class: {own_class}."]
    if fp32_only:
        lines.append(
            f"Lower precisions were not measured: fewer than {MIN_FOR_PRECISIONS} real cases were given (--cases). It "
            "is served in fp32; `python -m training agree` measures them on a labelled cohort."
        )
    largest = float(np.abs(expected).max())
    if largest > SATURATED_LOGIT:
        lines.append(
            f"Logits reach {largest:.0f} on the compared cases, but are usually below 10 in a trained network: check "
            "the weights and the normalisation. fp32 does not keep four decimals of such a number, so torch and ONNX "
            "were compared by their probabilities, within 1e-4."
        )
    return tuple(lines)


def _check_names(bundles: Path, name: str, version: str, licence: str, spec: Spec) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        raise ImportRefused(f"--name {name}: small letters, digits and _ only")
    organ = "cardiac" if spec.modality == "ecg" else "lung"
    if name in NEEDED and name != organ:
        raise ImportRefused(f"--name {name}: that is the bundle of another organ; these weights are for '{organ}'")
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        raise ImportRefused(f"--version {version}: expected MAJOR.MINOR.PATCH")
    if not licence.strip():
        raise ImportRefused("--licence: give the licence of the weights")
    if (bundles / f"{name}-{version}").exists():
        raise FileExistsError(f"{bundles / f'{name}-{version}'} exists; a bundle is never replaced")
