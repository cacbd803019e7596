"""From a trained module to a bundle on disk: ONNX, parity with torch, golden cases, plots, model card, MONAI metadata;
and from the bundle back to the module.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import nn

from data_specs.bundle import (
    Ancestor,
    BundleManifest,
    CxrInput,
    EcgInput,
    FindingSpec,
    Golden,
    Imported,
    TabularInput,
    TrainingData,
    Weights,
    Withheld,
)
from data_specs.visit.contract import Organ
from training.bundle.agreement import Evaluated, measure
from training.bundle.card import card
from training.bundle.plots import write_plot
from training.figures.offer import Offered

PARITY_TOLERANCE = 1e-4
"""Largest difference of a logit between torch and ONNX Runtime, both in fp32, that a bundle ships with."""


class ParityError(RuntimeError):
    """The exported graph does not compute what the torch module computes."""


class CannotRestore(ValueError):
    """A bundle's file does not hold the weights of this network, one for one."""


@dataclass(frozen=True)
class Draft:
    """Everything that a bundle says of itself before its weights are written."""

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
    """Export ``network``, prove parity and write ``NAME-VERSION/`` under ``bundles``: whole, or not at all.

    Parameters
    ----------
    golden
        ``(n, ...)`` tensors kept in the bundle with their outputs; small, and free to be published.
    parity
        ``(n, ...)`` further tensors, real ones, compared but not kept.
    plots
        Findings to draw, with their outcomes and probabilities by part (:func:`training.bundle.plots.write_plot`).
    evaluated
        Cases on which lower precisions are compared with fp32; without them the bundle is served in fp32.

    Raises
    ------
    ParityError
        An output differs from torch by more than :data:`PARITY_TOLERANCE`.
    FileExistsError
        This version exists; a shipped bundle is never replaced.
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
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
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

    Nothing is folded here: every runtime does that when it loads the file, and :func:`restore` reads it back.
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
    # Values are named after the operation that makes them, weights after the module: `mean` may be both.
    graph = program.model.graph
    for value in [value for node in graph.all_nodes() for value in node.outputs if value.name in graph.initializers]:
        value.name = f"{value.name}__value"
    model = program.model_proto
    strip_notes(model)
    path.write_bytes(model.SerializeToString(deterministic=True))
    onnx.checker.check_model(path)


def restore(network: nn.Module, onnx_path: Path) -> None:
    """Load the weights of a bundle's graph into the module that it was exported from, bit for bit.

    The number of batches that a batch norm has seen is in no graph and stays as it is in ``network``.

    Raises
    ------
    CannotRestore
        The file is no ONNX graph, or its weights and those of ``network`` differ in name, shape or type; ``network`` is
        then unchanged.
    """
    try:
        graph = onnx.load(onnx_path, load_external_data=False).graph
        # Weights that lie in another file are none of a bundle's.
        own = [each for each in graph.initializer if each.data_location == onnx.TensorProto.DEFAULT]
        found = {each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in own}
    except (OSError, ValueError, TypeError, DecodeError) as error:
        raise CannotRestore(f"{onnx_path.name} cannot be read as an ONNX graph: {type(error).__name__}") from error
    expected = {
        name: value for name, value in network.state_dict().items() if not name.endswith(".num_batches_tracked")
    }
    faults = [
        f"{word} {', '.join(sorted(names)[:5])}{f' and {len(names) - 5} more' if len(names) > 5 else ''}"
        for word, names in (("missing", expected.keys() - found.keys()), ("unknown", found.keys() - expected.keys()))
        if names
    ]
    faults += [
        f"{name}: {tuple(found[name].shape)} {found[name].dtype}, expected {tuple(value.shape)} {value.dtype}"
        for name, value in expected.items()
        if name in found and (found[name].shape, found[name].dtype) != (value.shape, value.dtype)
    ]
    if faults:
        normed = [name for name in expected if name.endswith(".running_var")]
        folded = (
            " Batch norms were folded into the convolutions when it was exported, as in all bundles of version 1.0.0: "
            "such a file serves, and cannot be trained further."
            if normed and not found.keys() & set(normed)
            else ""
        )
        raise CannotRestore(f"{onnx_path.name} does not fit the network: {'; '.join(faults)}.{folded}")
    network.load_state_dict(found, strict=False)


def strip_notes(message: Message) -> None:
    """Remove what the exporter noted of where it ran: stack traces and paths have no place in a published file."""
    for descriptor, value in message.ListFields():
        if descriptor.name in ("metadata_props", "doc_string"):
            message.ClearField(descriptor.name)
        elif descriptor.message_type is not None:
            for part in [value] if isinstance(value, Message) else value:
                strip_notes(part)


def worst_difference(network: nn.Module, model: Path, x: NDArray[np.generic]) -> float:
    """Largest absolute difference of the first output between torch and ONNX Runtime over ``x``; NaN equals NaN."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
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
