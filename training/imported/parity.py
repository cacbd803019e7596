"""Whether an imported network answers as the class of its own source does, in an environment that has that class."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import torch

from training.bundle.export import PARITY_TOLERANCE, ParityError
from training.imported.network import SATURATED_LOGIT, Network

OWN_CLASSES = {"torchxrayvision.models.DenseNet": {"weights": None}}
"""Classes of packages that can be made without a download, and how."""
TIMEOUT_S = 300
N_CASES = 8


def prove(network: Network, own_class: str | None, python: Path | None) -> str:
    """Hold the network against its own class; the sentence says how far they differ, or why that is not known.

    Parameters
    ----------
    python
        Interpreter of the environment that has the class.

    Raises
    ------
    ParityError
        The class answers otherwise.
    """
    if own_class is None:
        return "not proved: no package in a registry has the class of these weights"
    if own_class not in OWN_CLASSES:
        return f"not proved: {own_class} cannot be made without a download"
    if python is None:
        return f"not proved: give --parity-python, the interpreter of an environment with {own_class.split('.')[0]}"
    x = torch.from_numpy(network.compared[-N_CASES:])
    with torch.inference_mode():
        seen, expected = network.prepared(x).numpy(), network.original(network.prepared(x)).numpy()
    with tempfile.TemporaryDirectory(prefix="parity-") as folder:
        weights, given, out = (Path(folder) / name for name in ("weights.pt", "input.npy", "logits.npy"))
        torch.save(network.original.state_dict(), weights)
        np.save(given, seen)
        child = Path(__file__).with_name("own_class.py")
        command = [python, child, own_class, json.dumps(OWN_CLASSES[own_class]), weights, given, out]
        try:
            done = subprocess.run(
                list(map(str, command)), capture_output=True, text=True, timeout=TIMEOUT_S, cwd=folder, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"not proved: {python} did not run it ({type(error).__name__})"
        if done.returncode or not out.is_file():
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            return f"not proved: {python} cannot use {own_class} ({last})"
        found = np.load(out, allow_pickle=False)
    if found.shape != expected.shape:
        raise ParityError(f"{own_class} gives {found.shape}, the imported network {expected.shape}")
    difference = float(np.abs(found - expected).max())
    if not difference <= PARITY_TOLERANCE * max(1.0, float(np.abs(expected).max()) / SATURATED_LOGIT):
        raise ParityError(f"{own_class} differs from the imported network by {difference:.1e} of a logit")
    return f"{own_class} differs by at most {difference:.1e} of a logit over {len(x)} cases"
