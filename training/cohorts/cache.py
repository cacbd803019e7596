"""A cache of read and conformed files, so that the next run reads only what has changed.

An entry is found by what it was made from: path, size and time of every file of the case, the network's input, the
stated unit, the gate, the source code of readers and gates, and the releases of the decoders. So the cache never has to
be cleared, and its folder may be deleted at any time. Entries are loaded with ``weights_only``: a folder from elsewhere
can run no code, but its inputs are trusted. A file that cannot be read is not stored; one that the gate refuses is.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import cache as once
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import data_specs
import inference
from data_specs.bundle import CxrInput, EcgInput
from data_specs.ecg.recording import VoltageUnit
from data_specs.problems import Problem, Refused
from training.cohorts.files import Case, Folders, case_of, dtype_of, files_of, shape_of
from training.cohorts.gates import Gate

DECODERS = ("imagecodecs", "numpy", "pillow", "pydicom", "scipy")
"""Distributions whose release may change what is read from a file."""


def cached_cases(
    folder: Path,
    names: Sequence[str | None],
    folders: Folders,
    spec: CxrInput | EcgInput,
    unit: VoltageUnit | None,
    read: Callable[[int], Case],
    gate: Gate | None = None,
) -> Callable[[int], Case]:
    """A function from a row to its case, through MONAI's ``PersistentDataset``; ``read`` reads a row without it."""
    from monai.data import PersistentDataset, json_hashing  # noqa: PLC0415 (checking alone needs no torch)
    from monai.transforms import MapTransform  # noqa: PLC0415

    class ReadCased(MapTransform):
        """From a file's name, as the table has it, to the stored form of its case."""

        def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
            return {
                **data,
                **{str(key): _packed(case_of(data[str(key)], folders, spec, unit, gate)) for key in self.keys},
            }

    made_by = {"input": spec.model_dump(mode="json"), "ecg_unit": unit, "readers": readers_version(spec.modality)}
    made_by["gate"] = gate.version if gate else None
    with ThreadPoolExecutor() as pool:  # in threads, because a network folder is slow
        parts = pool.map(lambda name: _file_versions(name, folders), names)
        items = [{"file": name, "parts": found, **made_by} for name, found in zip(names, parts, strict=True)]
    dataset = PersistentDataset(
        items, ReadCased("file"), folder, hash_func=json_hashing, track_meta=False, weights_only=True
    )

    def row(i: int) -> Case:
        if not items[i]["parts"]:
            return read(i)
        entry = folder / f"{json_hashing(items[i]).decode()}.pt"
        if entry.is_file():
            try:
                return _unpacked(dataset[i]["file"], spec)
            except Exception:  # a damaged entry may raise anything; it is deleted and made again
                with contextlib.suppress(OSError):
                    entry.unlink()
        try:
            case = _unpacked(dataset[i]["file"], spec)
        except Exception as error:  # for example a full disk; an error of a reader is raised again below
            warnings.warn(f"not everything could be stored in {folder} ({type(error).__name__})", stacklevel=1)
            return read(i)
        if not case.digest:
            entry.unlink(missing_ok=True)
        return case

    return row


def _file_versions(name: str | None, folders: Folders) -> list[list[str | int]]:
    """Path, size and time of change of every file that a case is read from; empty if it cannot be found."""
    try:
        paths = files_of(folders.find(name), folders)
        stats = [(path, path.stat()) for path in paths]
    except (Refused, OSError):
        return []
    return [[str(path.absolute()), stat.st_size, stat.st_mtime_ns] for path, stat in stats]


@once
def readers_version(modality: str) -> str:
    """sha256 of all source code that turns a file into an input, and the releases of the decoders."""
    specs, gates, here = Path(data_specs.__file__).parent, Path(inference.__file__).parent, Path(__file__)
    sources = [*(specs / modality).rglob("*.py"), *(specs / "dicom").rglob("*.py"), specs / "person.py"]
    sources += (gates / modality).rglob("*.py")
    sources = sorted([*sources, here, here.with_name("files.py"), here.with_name("gates.py")])
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return " ".join([digest, *(f"{name}=={version(name)}" for name in DECODERS)])


def _packed(case: Case) -> dict[str, Any]:
    """A case as tensors and texts, with a checksum, because torch does not notice a damaged entry."""
    problems = [asdict(problem) for problem in case.problems]
    x = None if case.x is None else np.array(case.x)  # torch needs a writable array
    return {"x": x, "problems": problems, "digest": case.digest, "checksum": _checksum(case.x, problems, case.digest)}


def _unpacked(kept: Mapping[str, Any], spec: CxrInput | EcgInput) -> Case:
    """The case of an entry; ``ValueError`` and others if it is damaged or has another shape."""
    x = None if kept["x"] is None else np.asarray(kept["x"])
    if x is not None and (x.ndim == 0 or len(x) == 0 or x.shape[1:] != shape_of(spec) or x.dtype != dtype_of(spec)):
        raise ValueError("another shape or type")
    if kept["checksum"] != _checksum(x, kept["problems"], kept["digest"]):
        raise ValueError("damaged")
    return Case(x, [Problem(**problem) for problem in kept["problems"]], kept["digest"])


def _checksum(x: NDArray[np.generic] | None, problems: list[dict[str, Any]], digest: str) -> str:
    about = json.dumps([problems, digest], sort_keys=True).encode()
    return hashlib.sha256(about + (b"" if x is None else np.ascontiguousarray(x).tobytes())).hexdigest()
