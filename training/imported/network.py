"""A network that was trained elsewhere, wrapped for this project, and the checks that it still answers as it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from data_specs.bundle import CxrInput, EcgInput, FindingSpec
from data_specs.visit.contract import Organ
from inference.runtime.onnxruntime_session import ort
from training.bundle.agreement import Evaluated
from training.bundle.export import PARITY_TOLERANCE, ParityError
from training.imported.files import ImportRefused

SATURATED_LOGIT = 32.0
"""Above this logit a probability is 0 or 1 in fp32, and fp32 does not keep four decimals of the logit."""
MIN_FOR_PRECISIONS = 32
"""Real cases below which no lower precision is measured. With 16 on either side of the median, one pair that changes
places moves the AUC by 0.004, more than is allowed."""


@dataclass(frozen=True)
class Network:
    """A network, and what an import needs to know of it.

    Parameters
    ----------
    wrapped
        Takes what serving gives it; its outputs are named in ``outputs``.
    reference
        From the same input to the logits of the original.
    original, prepared
        The original, and what it takes for an input of ``wrapped``.
    golden
        Inputs that may be published.
    compared, n_real
        Further inputs; the last ``n_real`` are real cases.
    """

    wrapped: nn.Module
    outputs: tuple[str, ...]
    reference: Callable[[Tensor], Tensor]
    original: nn.Module
    prepared: Callable[[Tensor], Tensor]
    input: CxrInput | EcgInput
    organ: Organ
    purpose: str
    source: str
    architecture: str
    classes: tuple[str, ...]
    findings: tuple[FindingSpec, ...]
    left_out: tuple[str, ...]
    unused: tuple[str, ...]
    golden: NDArray[Any]
    compared: NDArray[Any]
    n_real: int
    limits: tuple[str, ...]


@torch.inference_mode()
def reference_logits(network: Network, x: NDArray[Any]) -> NDArray[np.float64]:
    """Logits of the original ``(n, n_columns)``.

    Raises
    ------
    ImportRefused
        One is not finite.
    """
    rows = [network.reference(part) for part in torch.from_numpy(x).split(4)]
    logits = torch.cat(rows).double().numpy()
    if not np.isfinite(logits).all():
        raise ImportRefused("the network gives a case a number that is not finite")
    return logits


@torch.inference_mode()
def check_wrapped(network: Network, x: NDArray[Any], expected: NDArray[np.float64]) -> None:
    """Check that the wrapped network gives the same logits as the original, at every case.

    Raises
    ------
    ParityError
        It does not.
    """
    for start in range(0, len(x), 4):
        out = network.wrapped(torch.from_numpy(x[start : start + 4]))
        logits = (out[0] if isinstance(out, tuple) else out).double().numpy()
        wanted = expected[start : start + 4]
        difference = float(np.abs(logits - wanted).max())
        if not difference <= PARITY_TOLERANCE * max(1.0, float(np.abs(wanted).max()) / SATURATED_LOGIT):
            raise ParityError(f"the wrapped network differs from the original by {difference:.1e} of a logit")


@torch.inference_mode()
def check_exported(network: nn.Module, outputs: tuple[str, ...], model: Path, x: NDArray[Any]) -> None:
    """Check that the exported graph gives the same probabilities and evidence maps as torch.

    Raises
    ------
    ParityError
        A probability differs by more than the tolerance, or a map by more than that share of its largest value.
    """
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    for start in range(0, len(x), 4):
        part = x[start : start + 4]
        out = network(torch.from_numpy(part))
        expected = out if isinstance(out, tuple) else (out,)
        found = [torch.from_numpy(array) for array in session.run(list(outputs), {"input": part})]
        difference = float((expected[0].sigmoid() - found[0].sigmoid()).abs().max())
        if not difference <= PARITY_TOLERANCE:
            raise ParityError(f"probabilities of torch and ONNX differ by {difference:.1e}")
        for torch_map, onnx_map in zip(expected[1:], found[1:], strict=True):
            difference = float((torch_map - onnx_map).abs().max() / torch_map.abs().max().clamp(min=1.0))
            if not difference <= PARITY_TOLERANCE:
                raise ParityError(f"evidence maps of torch and ONNX differ by {difference:.1e} of their largest value")


def golden_cases(network: Network) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Golden inputs whose logits fp32 keeps to the tolerance with which a bundle may be promoted, and those logits.

    Raises
    ------
    ImportRefused
        There is none: the weights and the stated input do not belong together.
    """
    logits = reference_logits(network, network.golden)
    largest = np.abs(logits).max(axis=1)
    kept = largest <= SATURATED_LOGIT
    if not kept.any():
        raise ImportRefused(
            f"every golden case has a logit of {largest.min():.0f} and more; a trained network stays below 10. Check "
            "the weights, the normalisation and the unit"
        )
    return network.golden[kept], logits[kept]


def unlabelled_cases(network: Network, expected: NDArray[np.float64]) -> Evaluated | None:
    """Real cases for the comparison of lower precisions; ``None`` where there are too few.

    Nobody labelled them, so each column is asked whether a lower precision leaves the same half of the cases above the
    median: the AUC for that falls with every pair that changes places across it.
    """
    if network.n_real < MIN_FOR_PRECISIONS:
        return None
    logits = expected[-network.n_real :]
    above = {f.column: (logits[:, f.column] > np.median(logits[:, f.column])).astype(float) for f in network.findings}
    if any(len(np.unique(y)) < 2 for y in above.values()):
        return None
    part = "cases without labels, by the network's own halves"
    return Evaluated(network.compared[-network.n_real :], above, part)
