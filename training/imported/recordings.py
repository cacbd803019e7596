"""A network for recordings that was trained elsewhere, as its YAML describes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_specs.bundle import EcgInput
from data_specs.ecg.recording import LEADS
from models.imported_ecg import ARCHITECTURES, Architecture, ImportedEcgNet
from training.bundle import golden
from training.cohorts.files import Folders, case_of
from training.imported.files import Checkpoint, ImportRefused
from training.imported.findings import ECG_FINDINGS, findings_of
from training.imported.keras import NotKeras, layers_by_kind
from training.imported.network import Network
from training.imported.sources import fill
from training.imported.spec import EcgContract, EcgValues, Spec

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
MAX_RECORDINGS = 64
"""Real recordings that are compared."""
SUFFIXES = {".hea", ".dcm", ".xml", ".scp", ".edf"}
UNITS = {"mV": 1.0, "uV": 1000.0, "V": 0.001}
"""Of one mV."""


def ecg_network(checkpoint: Checkpoint, spec: Spec, folder: Path | None) -> Network:
    """The network of a checkpoint, with what it is compared on; ``folder`` has real recordings.

    Raises
    ------
    ImportRefused
        The file or its description cannot be used.
    """
    architecture, contract, classes = _described(spec)
    original = architecture.build(len(classes)).eval()
    weights, unused = _weights(checkpoint, architecture)
    unused += fill(original, weights, spec.ignore_keys)
    findings, left_out = findings_of(classes, (None,) * len(classes), spec, ECG_FINDINGS)
    takes = input_of(contract)
    values = contract.normalisation if isinstance(contract.normalisation, EcgValues) else EcgValues(mean=0, std=1)
    scale = (UNITS[contract.unit] if isinstance(contract.unit, str) else contract.unit) if _is_voltage(takes) else 1.0
    network = ImportedEcgNet(
        original,
        order=[LEADS.index(lead) for lead in contract.leads],
        scale=scale,
        mean=values.mean,
        std=values.std,
        crops=contract.crops,
        any_of=[[classes.index(name) for name in members] for members in spec.any_of.values()],
        over_time=architecture.over_time,
    ).eval()
    real = recordings(takes, folder)
    made = golden.recordings(takes.n_samples, takes.fs_hz) * (0.3 if _is_voltage(takes) else 1.0)
    noise = np.random.default_rng(20261129).normal(0, 0.3, (2, 12, takes.n_samples))

    def reference(x: Tensor) -> Tensor:
        return network.with_any(_logits(original, network.prepared(x), contract, architecture))

    return Network(
        wrapped=network,
        outputs=ImportedEcgNet.outputs,
        reference=reference,
        original=original,
        prepared=network.prepared,
        input=takes,
        organ="cardiac",
        purpose=f"Twelve-lead ECG: {', '.join(f.name for f in findings)}. Weights trained elsewhere, uncalibrated.",
        source="elsewhere",
        architecture=spec.architecture or "",
        classes=classes,
        findings=findings,
        left_out=left_out,
        unused=unused,
        golden=made.astype(np.float32),
        compared=np.concatenate([noise.astype(np.float32), real]),
        n_real=len(real),
        limits=_limits(spec, contract),
    )


def input_of(contract: EcgContract) -> EcgInput:
    """What serving gives the network: unit, standardisation by numbers and order of leads are in its graph."""
    return EcgInput(
        fs_hz=contract.fs_hz,
        n_samples=contract.n_samples,
        leads=LEADS,
        max_windows=contract.max_windows,
        band_hz=contract.band_hz,
        normalisation="none" if isinstance(contract.normalisation, EcgValues) else contract.normalisation,
        filling=contract.filling,
    )


def recordings(takes: EcgInput, folder: Path | None) -> NDArray[np.float32]:
    """``(n, 12, n_samples) float32``: the first windows of real recordings, read as in serving."""
    where = folder or SAMPLES
    folders = Folders(where)
    found = []
    for path in sorted(p for p in where.rglob("*") if p.suffix.lower() in SUFFIXES):
        x = case_of(str(path.relative_to(where)), folders, takes).x
        if x is not None:
            found.append(x[0])
        if len(found) == MAX_RECORDINGS:
            break
    if not found:
        raise ImportRefused(f"{where}: no recording for the comparison; give a folder of recordings with --cases")
    return np.stack(found).astype(np.float32)


def _described(spec: Spec) -> tuple[Architecture, EcgContract, tuple[str, ...]]:
    if spec.architecture not in ARCHITECTURES:
        raise ImportRefused(f"architecture '{spec.architecture}': for recordings there are {', '.join(ARCHITECTURES)}")
    if spec.input is None or spec.classes is None:
        raise ImportRefused("a network for recordings needs 'input' and 'classes' in the YAML")
    architecture, contract = ARCHITECTURES[spec.architecture], spec.input
    if sorted(contract.leads) != sorted(LEADS):
        raise ImportRefused(f"leads: each of {', '.join(LEADS)} once, in the network's order")
    if architecture.n_samples not in {None, contract.n_samples}:
        raise ImportRefused(f"{spec.architecture} takes {architecture.n_samples} samples, not {contract.n_samples}")
    if contract.crops is not None and contract.crops[0] > contract.n_samples:
        raise ImportRefused(f"crops of {contract.crops[0]} samples out of {contract.n_samples}")
    if contract.band_hz is not None and not 0 < contract.band_hz[0] < contract.band_hz[1] < 250:
        raise ImportRefused(f"band_hz: {contract.band_hz} is no band below 250 Hz")
    return architecture, contract, spec.classes


def _weights(checkpoint: Checkpoint, architecture: Architecture) -> tuple[Mapping[str, Tensor], tuple[str, ...]]:
    """Weights under the network's names, and keys that have no part in its output."""
    if checkpoint.format == "keras":
        if architecture.keras is None:
            raise ImportRefused(f"{checkpoint.path.name}: this architecture has no checkpoints of Keras")
        try:
            return architecture.keras(layers_by_kind(checkpoint.weights)), ()
        except (NotKeras, ValueError, KeyError, RuntimeError) as error:
            raise ImportRefused(f"{checkpoint.path.name}: not the layers of this architecture: {error}") from None
    unused = tuple(k for k in checkpoint.weights if architecture.unused and architecture.unused.search(k))
    return {k: v for k, v in checkpoint.weights.items() if k not in unused}, unused


def _logits(original: torch.nn.Module, x: Tensor, contract: EcgContract, architecture: Architecture) -> Tensor:
    """The original's own logits, one crop after another."""

    def alone(part: Tensor) -> Tensor:
        out = original(part)
        return torch.as_tensor(out[0] if architecture.over_time else out)

    if contract.crops is None:
        return alone(x)
    size, step = contract.crops
    return torch.stack([alone(x[:, :, at : at + size]) for at in range(0, x.shape[2] - size + 1, step)]).amax(dim=0)


def _is_voltage(takes: EcgInput) -> bool:
    return takes.normalisation == "none"


def _limits(spec: Spec, contract: EcgContract) -> tuple[str, ...]:
    low, high = spec.age_years
    lines = [
        "UNCALIBRATED. The probability of each finding is only the sigmoid of the network's logit; it is not the "
        "share of people who have it. Not evaluated: sensitivity, specificity and AUROC are unknown. Recalibrate it on "
        "a local cohort (`python -m training recalibrate`) before it is used.",
        f"Offered from {low:g} to {high - 1:g} years because of the YAML or the default; it was not evaluated for "
        "these ages.",
        "Recordings are resampled and filtered by this project's own functions; what that changes against the "
        "authors' own was not measured.",
    ]
    if spec.any_of:
        of = "; ".join(f"`{finding}`: {', '.join(members)}" for finding, members in spec.any_of.items())
        lines.append(f"Of several classes the largest logit is taken ({of}).")
    if contract.crops is not None:
        size, step = contract.crops
        lines.append(f"The network sees crops of {size} samples, {step} apart; the largest logit is the recording's.")
    return tuple(lines)
