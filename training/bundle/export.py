"""From a trained module to a bundle: ONNX, parity with torch, golden cases, plots, model card, MONAI metadata."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import Message
from numpy.typing import NDArray
from torch import nn

from data_specs.bundle import (
    Ancestor,
    BundleManifest,
    CxrInput,
    EcgInput,
    FindingSpec,
    Golden,
    Imported,
    MeasuredTable,
    Predecessor,
    TabularInput,
    TrainingData,
    Weights,
    Withheld,
)
from data_specs.visit.contract import Organ
from inference.runtime.onnxruntime_session import ort
from training.bundle.agreement import Evaluated, measure
from training.bundle.card import card
from training.bundle.plots import write_plot
from training.figures.offer import Offered

PARITY_TOLERANCE = 1e-4
"""Largest allowed difference of a logit between torch and ONNX Runtime, both in fp32."""


class ParityError(RuntimeError):
    """The exported graph and the torch module give different results."""


@dataclass(frozen=True)
class Draft:
    """Everything in a bundle's manifest that does not depend on the exported file."""

    name: str
    version: str
    organ: Organ | None
    purpose: str
    input: CxrInput | EcgInput | TabularInput
    outputs: tuple[str, ...]
    findings: tuple[FindingSpec, ...]
    training_data: tuple[TrainingData, ...]
    limits: tuple[str, ...]
    thresholds: dict[str, float]
    licence: str = "CC BY 4.0"
    imported: Imported | None = None
    tolerance: float = PARITY_TOLERANCE
    withheld: tuple[Withheld, ...] = ()
    from_bundle: tuple[Ancestor, ...] = ()
    recipe: Mapping[str, str | int | float] = field(default_factory=dict)
    predecessors: tuple[Predecessor, ...] = ()
    measured: tuple[MeasuredTable, ...] = ()


def write_bundle(
    network: nn.Module,
    draft: Draft,
    golden: NDArray[np.generic],
    parity: NDArray[np.generic],
    bundles: Path,
    *,
    plots: Sequence[Offered] = (),
    evaluated: Evaluated | None = None,
) -> Path:
    """Export ``network``, check parity and write ``NAME-VERSION/`` under ``bundles``, completely or not at all.

    Parameters
    ----------
    golden
        ``(n, ...)`` inputs stored in the bundle with their outputs; small, and such that may be published.
    parity
        ``(n, ...)`` further, real inputs, compared but not stored.
    plots
        Findings to draw, with their outcomes and probabilities by part (:func:`training.bundle.plots.write_plot`).
    evaluated
        Cases for the comparison of lower precisions with fp32; without them the bundle is served in fp32 only.

    Raises
    ------
    ParityError
        An output differs from torch by more than :data:`PARITY_TOLERANCE`.
    FileExistsError
        This version exists; a bundle is never replaced.
    """
    target = bundles / f"{draft.name}-{draft.version}"
    if target.exists():
        raise FileExistsError(f"{target.name} exists; a bundle is never replaced")
    bundles.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bundles, prefix=".partial-") as partial:
        folder = Path(partial) / target.name
        _write(network, draft, golden, parity, folder, plots, evaluated)
        folder.rename(target)
    return target


def _write(
    network: nn.Module,
    draft: Draft,
    golden: NDArray[np.generic],
    parity: NDArray[np.generic],
    folder: Path,
    plots: Sequence[Offered],
    evaluated: Evaluated | None,
) -> None:
    (folder / "models").mkdir(parents=True)
    (folder / "configs").mkdir()
    (folder / "docs").mkdir()
    model = folder / "models" / "model.onnx"
    export_onnx(network, golden[:2], draft.outputs, model)
    difference = max(worst_difference(network, model, golden), worst_difference(network, model, parity))
    if not difference <= draft.tolerance:
        raise ParityError(f"{draft.name}: torch and ONNX differ by {difference:.2e}, allowed {draft.tolerance:.0e}")
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    outputs = dict(zip(draft.outputs, session.run(None, {"input": golden}), strict=True))
    np.savez_compressed(folder / "golden.npz", input=golden, **outputs)
    manifest = BundleManifest(
        name=draft.name,
        version=draft.version,
        organ=draft.organ,
        purpose=draft.purpose,
        weights=Weights(sha256=_sha256(model)),
        input=draft.input,
        outputs=draft.outputs,
        findings=draft.findings,
        thresholds=draft.thresholds,
        training_data=draft.training_data,
        golden=Golden(sha256=_sha256(folder / "golden.npz"), tolerance=draft.tolerance),
        limits=draft.limits,
        imported=draft.imported,
        from_bundle=draft.from_bundle,
        withheld=draft.withheld,
        recipe=dict(draft.recipe),
        predecessors=draft.predecessors,
        measured=draft.measured,
        agreement=()
        if evaluated is None
        else measure(model, draft.outputs, evaluated.x, evaluated.outcomes, draft.findings, part=evaluated.part),
    )
    docs = folder / "docs"
    for offered in plots:
        write_plot(docs, offered.spec, offered.parts)
    (folder / "screening.json").write_text(manifest.model_dump_json(indent=1, exclude_defaults=False) + "\n")
    (folder / "configs" / "metadata.json").write_text(json.dumps(_monai_metadata(manifest, golden), indent=1) + "\n")
    (docs / "README.md").write_text(card(manifest, parity_difference=difference, docs=docs))
    (folder / "LICENSE").write_text(
        f"The weights in this bundle are offered under {draft.licence}; they were trained on:\n\n"
        + "".join(f"- {d.name}. {d.citation}. {d.licence}\n" for d in draft.training_data)
        + (f"- (elsewhere) {draft.imported.trained_on}. {draft.imported.citation}.\n" if draft.imported else "")
    )


def export_onnx(network: nn.Module, example: NDArray[np.generic], outputs: tuple[str, ...], path: Path) -> None:
    """Write ``network`` as one ONNX file with a free batch dimension and every weight under its torch name.

    The graph is not optimised: each runtime does that when it loads the file, and
    :func:`training.bundle.restore.restore` needs the weights as they are.
    """
    network.eval()
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.onnx.export(
        network,
        (torch.from_numpy(example),),
        input_names=["input"],
        output_names=list(outputs),
        dynamic_shapes=({0: batch},),
        opset_version=20,
        dynamo=True,
        external_data=False,
        verbose=False,
        optimize=False,
    )
    if program is None:
        raise ParityError("torch.onnx.export gave no program")
    # A value named after its operation may have the name of a weight, such as `mean`.
    graph = program.model.graph
    for value in [value for node in graph.all_nodes() for value in node.outputs if value.name in graph.initializers]:
        value.name = f"{value.name}__value"
    model = program.model_proto
    strip_notes(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(path)


def strip_notes(message: Message) -> None:
    """Remove the exporter's stack traces and paths, which must not be published."""
    for descriptor, value in message.ListFields():
        if descriptor.name in ("metadata_props", "doc_string"):
            message.ClearField(descriptor.name)
        elif descriptor.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                strip_notes(part)


def worst_difference(network: nn.Module, model: Path, x: NDArray[np.generic]) -> float:
    """Largest absolute difference of the first output between torch and ONNX Runtime over ``x``; two NaN are equal."""
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    with torch.inference_mode():
        expected = network(torch.from_numpy(x))
    first = (expected[0] if isinstance(expected, tuple) else expected).numpy()
    found = session.run(None, {"input": x})[0]
    if not np.array_equal(np.isnan(first), np.isnan(found)):
        return float("inf")
    return float(np.nanmax(np.abs(first - found)))


def _monai_metadata(manifest: BundleManifest, golden: NDArray[np.generic]) -> dict[str, object]:
    """``configs/metadata.json`` of the MONAI Bundle specification 0.1.x."""
    shape = ["*", *golden.shape[1:]]
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json",
        "version": manifest.version,
        "changelog": {manifest.version: _change(manifest)},
        "monai_version": "1.6.1",
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {},
        "task": manifest.purpose,
        "description": manifest.purpose,
        "authors": "Sàng Lọc",
        "copyright": "see LICENSE",
        "network_data_format": {
            "inputs": {
                "input": {
                    "type": "image" if manifest.input.modality == "cxr" else "tabular",
                    "format": manifest.input.modality,
                    "num_channels": int(golden.shape[1]),
                    "spatial_shape": shape[2:],
                    "dtype": str(golden.dtype),
                    "value_range": [],
                    "is_patch_data": False,
                    "channel_def": {},
                }
            },
            "outputs": {name: {"type": "array", "format": name, "dtype": "float32"} for name in manifest.outputs},
        },
    }


def _change(manifest: BundleManifest) -> str:
    if manifest.imported:
        return "imported"
    if manifest.from_bundle:
        parent = manifest.from_bundle[-1]
        return f"trained further from {parent.name} {parent.version}"
    return "trained by this project's pipeline"


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
