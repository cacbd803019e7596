"""DenseNet-121 instead of the lung bundle, with random weights and the same input: a well-known network."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_specs.bundle import BundleManifest, CxrInput

VERSION = "1.0.0"
N_PICTURES = 96


def densenet_bundles(shipped: Path, folder: Path) -> Path:
    """A folder of bundles under ``folder`` in which ``lung`` is DenseNet-121, exported as every bundle is.

    The findings mean nothing, because only the speed is measured.

    Raises
    ------
    ImportError
        torch and torchvision are not installed (the extra ``train``).
    """
    import torch  # noqa: PLC0415

    from inference.bundles.registry import read_registry  # noqa: PLC0415
    from models.imported import ImportedNet, Normalisation, build  # noqa: PLC0415
    from training.bundle.agreement import Evaluated  # noqa: PLC0415
    from training.bundle.export import Draft, write_bundle  # noqa: PLC0415
    from training.bundle.golden import films  # noqa: PLC0415

    bundles = folder / "densenet-bundles"
    bundles.mkdir()
    registry = read_registry(shipped)
    for name in ("cxr_gate", "cardiac", "kidney"):
        version = registry.in_service(name)
        shutil.copytree(shipped / f"{name}-{version}", bundles / f"{name}-{version}")
    lung = shipped / f"lung-{registry.in_service('lung')}"
    manifest = BundleManifest.model_validate_json((lung / "screening.json").read_bytes())
    if not isinstance(manifest.input, CxrInput):
        raise TypeError(f"{lung.name} has no film input")
    torch.manual_seed(2026)
    n_columns = 1 + max(finding.column for finding in manifest.findings)
    imagenet = Normalisation(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375))
    network = ImportedNet(build("densenet121", n_columns, 3), imagenet).eval()
    golden = films(manifest.input.size_px)
    draft = Draft(
        name="lung",
        version=VERSION,
        organ="lung",
        purpose="DenseNet-121 with random weights, for measuring speed only.",
        input=manifest.input,
        outputs=network.outputs,
        findings=manifest.findings,
        training_data=manifest.training_data,
        limits=("Random weights: its findings mean nothing.",),
        thresholds=manifest.thresholds,
    )
    pictures = made_up(manifest.input.size_px)
    with torch.inference_mode():
        logits = network(torch.from_numpy(pictures))[0].numpy()
    # There are no labels, so lower precisions are compared with the order of fp32.
    above = {
        column: (logits[:, column] > np.median(logits[:, column])).astype(np.float64) for column in range(n_columns)
    }
    evaluated = Evaluated(pictures, above, "synthetic pictures; outcome: fp32 above its median")
    write_bundle(network, draft, golden, golden[::-1].copy(), bundles, evaluated=evaluated)
    return bundles


def made_up(size_px: int) -> NDArray[np.uint8]:
    """``(n, 1, size_px, size_px)``: pictures of every kind that the gate learns to refuse."""
    from training.cohorts import negatives  # noqa: PLC0415

    rng = np.random.default_rng(7)
    return np.stack([negatives.draw(rng, size_px) for _ in range(N_PICTURES)])[:, None]
