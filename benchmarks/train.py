"""``train``: cases per second of the training loop for both networks, on random tensors."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from benchmarks.report import Cell, Report, cores, table

if TYPE_CHECKING:
    from training.learning.task import Task

Precision = Literal["bf16", "fp32"]
N_COLUMNS = 6


def run(
    report: Report, *, steps: int = 4, precisions: Sequence[Precision] = ("bf16", "fp32"), threads: Sequence[int] = ()
) -> dict[str, Any]:
    """Cases per second by network, precision and number of threads."""
    try:
        import torch  # noqa: PLC0415
    except ImportError:
        raise SystemExit("train: torch is not installed (the extra 'train')") from None
    had = torch.get_num_threads()
    wanted = list(threads) or sorted({min(2**k, cores()) for k in range(cores().bit_length() + 1)})
    rates: dict[str, dict[str, dict[int, float]]] = {}
    try:
        for name in ("lung", "cardiac"):
            for precision in precisions:
                for n in wanted:
                    torch.set_num_threads(n)
                    rates.setdefault(name, {}).setdefault(precision, {})[n] = cases_per_s(name, precision, steps)
    finally:
        torch.set_num_threads(had)
    rows: list[list[Cell]] = [
        [f"{name} {precision}", *(found[n] for n in wanted)]
        for name, of in rates.items()
        for precision, found in of.items()
    ]
    table("training, cases per second", ("", *(f"{n} thread{'s' if n > 1 else ''}" for n in wanted)), rows)
    figures = {"cases_per_s": rates, "steps": steps}
    report.end(figures)
    return figures


def _task(name: str) -> Task:
    from training.organs import cardiac, lung  # noqa: PLC0415

    return (lung.task if name == "lung" else cardiac.task)([], Path())


def cases_per_s(name: str, precision: Precision, steps: int) -> float:
    """Rate of the second epoch, because the first one also allocates memory and loads kernels.

    Timed from the first augmented batch to the end of the epoch, with augmentation, without the checkpoint.
    """
    import torch  # noqa: PLC0415

    from data_specs.bundle import CxrInput, EcgInput  # noqa: PLC0415
    from training.learning.batches import CHUNK, Cases  # noqa: PLC0415
    from training.learning.fit import fit  # noqa: PLC0415

    task = _task(name)
    batch = task.recipe.batch_size
    recipe = replace(task.recipe, epochs=2, precision=precision)
    chance = torch.Generator().manual_seed(2026)
    n = steps * batch
    contract = task.input
    if isinstance(contract, CxrInput):
        x = torch.randint(0, 256, (n, 1, contract.size_px, contract.size_px), dtype=torch.uint8, generator=chance)
    elif isinstance(contract, EcgInput):
        x = torch.randn((n, len(contract.leads), contract.n_samples), generator=chance)
    y = torch.randint(0, 2, (n, N_COLUMNS), generator=chance).float()
    began: list[float] = []
    ended: list[float] = []

    def augment(chunk: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        began.append(time.perf_counter())
        return task.augment(chunk, generator)

    def watch(_: object) -> Mapping[str, float]:
        ended.append(time.perf_counter())
        return {}

    torch.manual_seed(2026)
    with tempfile.TemporaryDirectory() as folder:
        cases = Cases(x, y, torch.ones(n, dtype=torch.float64).numpy())
        fit(task.network(N_COLUMNS), cases, augment, recipe, Path(folder), device="cpu", watch=watch)
    first_of_second = began[math.ceil(batch / CHUNK) * steps]
    return n / (ended[1] - first_of_second)
