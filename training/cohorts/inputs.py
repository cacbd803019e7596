"""Every file of a cohort as the network takes it.

A file that cannot be read is never raised: its row gets the reason, and :mod:`training.cohorts.checks` reports all
reasons together.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from data_specs.bundle import CxrInput, EcgInput
from data_specs.ecg.recording import LEADS
from data_specs.problems import Problem
from training.cohorts.cache import cached_cases
from training.cohorts.files import Case, Folders, case_of, dtype_of, shape_of
from training.cohorts.gates import Gate
from training.cohorts.table import CohortTable

FILM = CxrInput(size_px=224)
RECORDING = EcgInput(fs_hz=100, n_samples=1000, leads=LEADS, max_windows=1)
"""Inputs of the shipped ``lung`` and ``cardiac`` networks; only the first ten seconds of a recording are used."""


class Inputs(NamedTuple):
    """The inputs that were read from the files of a cohort.

    ``x`` is ``(n, 1, size_px, size_px) uint8`` (cxr), ``(n, 12, n_samples) float32`` (ecg) or
    ``(n, n_features) float32`` (labs), zeros where a file was not readable; ``readable`` ``(n,) bool``: read, and not
    refused by the gate; ``problems`` the refusals and warnings of each row; ``digests`` the sha256 of each row's file,
    empty where it cannot be read; ``further`` the windows after the first ``(n_windows - 1, ...)`` of each row, where
    they were asked for.
    """

    x: NDArray[np.generic]
    readable: NDArray[np.bool_]
    problems: list[list[Problem]]
    digests: list[str]
    further: list[NDArray[np.generic]] | None = None

    @property
    def refused(self) -> NDArray[np.bool_]:
        """``(n,)`` rows that were read and that the gate of serving refuses."""
        return ~self.readable & np.array([digest != "" for digest in self.digests], dtype=bool)


def load_inputs(
    table: CohortTable,
    progress: bool = True,
    spec: CxrInput | EcgInput | None = None,
    cache: Path | None = None,
    *,
    gate: Gate | None = None,
    every_window: bool = False,
) -> Inputs:
    """Read and conform every file of a cohort as in serving.

    Parameters
    ----------
    table
        As :func:`load_table` gives it.
    progress
        Whether to draw a progress bar.
    spec
        Input of the network; by default that of the shipped bundle of the same modality.
    cache
        Folder of the cache (about 50 kB a film or recording), so that the next run reads only the files that have
        changed; made if it is missing.
    gate
        That of serving (:func:`training.cohorts.gates.serving_gate`), which whatever trains or evaluates a bundle
        gives; ``None``: files are read and conformed only.
    every_window
        Whether to keep all windows of a recording, as serving averages them; training takes the first.

    Returns
    -------
    Refused files are zeros in ``x``, not ``readable``, and have their reason in ``problems``
    """
    n = len(table.frame)
    if table.manifest.modality == "labs":
        problems: list[list[Problem]] = [[] for _ in range(n)]
        for row, problem in table.feature_problems:
            problems[row].append(problem)
        values = table.features.to_numpy(dtype=np.float32)
        return Inputs(values, np.ones(n, dtype=bool), problems, [""] * n)
    spec = spec or (FILM if table.manifest.modality == "cxr" else RECORDING)
    if isinstance(spec, EcgInput) and not every_window:
        spec = spec.model_copy(update={"max_windows": 1})
    x = np.zeros((n, *shape_of(spec)), dtype=dtype_of(spec))
    further: list[NDArray[np.generic]] = [x[:0]] * n
    folders, unit = Folders(table.folder / table.manifest.files), table.manifest.ecg_unit
    names: list[str | None] = list(table.frame.file)

    def read_row(row: int) -> Case:
        return case_of(names[row], folders, spec, unit, gate)

    case = read_row if cache is None else cached_cases(cache, names, folders, spec, unit, read_row, gate)

    def fill(row: int) -> tuple[bool, list[Problem], str]:
        windows, found, digest = case(row)
        if windows is not None:
            x[row] = windows[0]
            further[row] = windows[1:]
        return windows is not None, found, digest

    # Threads are enough, because decoding and filtering release the GIL.
    with ThreadPoolExecutor() as pool:
        read = list(tqdm(pool.map(fill, range(n)), total=n, unit="file", disable=not progress))
    readable = np.array([r[0] for r in read], dtype=bool)
    return Inputs(x, readable, [r[1] for r in read], [r[2] for r in read], further if every_window else None)
