"""The curves of a training: TensorBoard's files in the run's folder, and MLflow beside them if it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

RUN_ID = "mlflow.run"
"""File in the run's folder: a resumed run goes on in the run of MLflow that it began."""


class NoMlflow(ValueError):
    """MLflow is asked for and is not installed."""


def require_mlflow() -> None:
    """Check that MLflow can be imported; it is large, and no part of what training needs.

    Raises
    ------
    NoMlflow
        It is not installed.
    """
    if importlib.util.find_spec("mlflow") is None:
        raise NoMlflow(
            "--mlflow: the package mlflow is not installed here (pip install mlflow). Without --mlflow the curves are "
            "written for TensorBoard only, into the run's folder."
        )


class Curves:
    """Where the figures of each epoch are logged."""

    def __init__(self, tensorboard: Any, mlflow: Any | None) -> None:
        self._tensorboard, self._mlflow = tensorboard, mlflow

    def log(self, epoch: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._tensorboard.add_scalar(name, value, epoch)
            if self._mlflow is not None:
                self._mlflow.log_metric(name.replace(",", " "), value, step=epoch)
        self._tensorboard.flush()


@contextmanager
def curves(run: Path, first: int, recipe: Mapping[str, object], mlflow: str | None) -> Iterator[Curves]:
    """Open the curves of a run; those of an interrupted run from epoch ``first`` on are hidden.

    Parameters
    ----------
    mlflow
        Address or folder of MLflow's tracking; ``None``: none.
    """
    from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415

    folder = run / "tensorboard"
    # TensorBoard reads files in the order of their names, which differ only by whole seconds.
    while list(folder.glob(f"events.out.tfevents.{int(time.time())}.*")):
        time.sleep(0.05)
    with SummaryWriter(folder, purge_step=first) as tensorboard, _mlflow(run, recipe, mlflow) as tracked:
        yield Curves(tensorboard, tracked)


@contextmanager
def _mlflow(run: Path, recipe: Mapping[str, object], address: str | None) -> Iterator[Any | None]:
    if address is None:
        yield None
        return
    require_mlflow()
    tracking = importlib.import_module("mlflow")
    tracking.set_tracking_uri(address)
    kept = run / RUN_ID
    begun = kept.read_text().strip() if kept.is_file() else None
    with tracking.start_run(run_id=begun, run_name=None if begun else run.name) as opened:
        if begun is None:
            run.mkdir(parents=True, exist_ok=True)
            kept.write_text(f"{opened.info.run_id}\n")
            tracking.log_params(dict(recipe))
        yield tracking
