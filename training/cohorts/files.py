"""A cohort's files as the network takes them, by the readers and the conform step of serving.

What cannot be read is collected, with its reason and row, never raised: :mod:`training.cohorts.checks` says all of
it at once.

A cache folder keeps what a file became. An entry is found by what it was made from: path, size and time of every file
of the case, the network's input, the stated unit, the source of the readers and the libraries that decode. So there is
nothing to clear when a file, a network or a reader changes; the folder may be deleted at any time. Entries are tensors
and texts, loaded as such (``weights_only``): a folder from elsewhere can run no code, though its inputs are believed.
Refusals are not kept.
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
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

import data_specs
from data_specs.bundle import CxrInput, EcgInput
from data_specs.cxr.files import read_image
from data_specs.cxr.image import conform as conform_film
from data_specs.ecg.files import RecordingFiles, group_recordings, read_recording
from data_specs.ecg.formats.wfdb import named_files
from data_specs.ecg.posted import PostedFile
from data_specs.ecg.recording import LEADS, VoltageUnit
from data_specs.ecg.recording import conform as conform_recording
from data_specs.problems import Problem, Refused
from training.cohorts.table import CohortTable, TableUnusable, load_table

__all__ = [
    "Case",
    "CohortTable",
    "Folders",
    "Inputs",
    "TableUnusable",
    "case_of",
    "load_inputs",
    "load_table",
    "read_case",
]

FILM = CxrInput(size_px=224)
RECORDING = EcgInput(fs_hz=100, n_samples=1000, leads=LEADS, max_windows=1)
"""Inputs of the shipped ``lung`` and ``cardiac`` networks; of a longer recording the first ten seconds train."""

MAX_FILE_BYTES = 512 << 20
DECODERS = ("imagecodecs", "numpy", "pillow", "pydicom", "scipy")
"""Distributions whose release may change what a file becomes."""


class Inputs(NamedTuple):
    """What the files of a cohort became.

    ``x`` is ``(n, 1, size_px, size_px) uint8`` (cxr), ``(n, 12, n_samples) float32`` (ecg) or
    ``(n, n_features) float32`` (labs), zeros where a file was not readable; ``readable`` ``(n,) bool``; ``problems``
    the refusals and reserves of each row; ``digests`` the sha256 of each row's file, empty where there is none.
    """

    x: NDArray[np.generic]
    readable: NDArray[np.bool_]
    problems: list[list[Problem]]
    digests: list[str]


class Case(NamedTuple):
    """What the file of one row became: the input and the reserves met, or no input and the refusal."""

    x: NDArray[np.generic] | None
    problems: list[Problem]
    digest: str


def load_inputs(
    table: CohortTable, progress: bool = True, spec: CxrInput | EcgInput | None = None, cache: Path | None = None
) -> Inputs:
    """Every file of a cohort as the network takes it, by the readers and the conform step of serving.

    Parameters
    ----------
    table
        As :func:`load_table` gives it.
    progress
        Whether to draw a progress bar.
    spec
        Input of the bundle that is to be trained; by default that of the shipped one of the same modality.
    cache
        Folder that keeps what the files became (about 50 kB a film or recording), so that the next run decodes only
        what has changed; made where it is missing.

    Returns
    -------
    Refused files are zeros in ``x``, not ``readable``, and have their reason in ``problems``; never raises for one
    """
    n = len(table.frame)
    if table.manifest.modality == "labs":
        problems: list[list[Problem]] = [[] for _ in range(n)]
        for row, problem in table.feature_problems:
            problems[row].append(problem)
        values = table.features.to_numpy(dtype=np.float32)
        return Inputs(values, np.ones(n, dtype=bool), problems, [""] * n)
    spec = spec or (FILM if table.manifest.modality == "cxr" else RECORDING)
    x = np.zeros((n, *_shape(spec)), dtype=_dtype(spec))
    folders, unit = Folders(table.folder / table.manifest.files), table.manifest.ecg_unit
    names: list[str | None] = list(table.frame.file)

    def fresh(row: int) -> Case:
        return case_of(names[row], folders, spec, unit)

    case = fresh if cache is None else _kept(cache, names, folders, spec, unit, fresh)

    def one(row: int) -> tuple[bool, list[Problem], str]:
        x_row, found, digest = case(row)
        if x_row is not None:
            x[row] = x_row
        return x_row is not None, found, digest

    # Decoding and filtering release the GIL; map keeps the rows' order.
    with ThreadPoolExecutor() as pool:
        read = list(tqdm(pool.map(one, range(n)), total=n, unit="file", disable=not progress))
    return Inputs(x, np.array([r[0] for r in read], dtype=bool), [r[1] for r in read], [r[2] for r in read])


def case_of(name: str | None, folders: Folders, spec: CxrInput | EcgInput, ecg_unit: VoltageUnit | None = None) -> Case:
    """One row's file as :func:`read_case` reads it; a refusal is returned, not raised."""
    try:
        x, reserves, digest = read_case(name, folders, spec, ecg_unit)
    except Refused as refusal:
        return Case(None, [refusal.problem], "")
    return Case(x, reserves, digest)


def _shape(spec: CxrInput | EcgInput) -> tuple[int, ...]:
    return (1, spec.size_px, spec.size_px) if isinstance(spec, CxrInput) else (len(spec.leads), spec.n_samples)


def _dtype(spec: CxrInput | EcgInput) -> type[np.generic]:
    return np.uint8 if isinstance(spec, CxrInput) else np.float32


# ---------------------------------------------------------------- the cache


def _kept(
    folder: Path,
    names: Sequence[str | None],
    folders: Folders,
    spec: CxrInput | EcgInput,
    unit: VoltageUnit | None,
    fresh: Callable[[int], Case],
) -> Callable[[int], Case]:
    """From a row to its case, through MONAI's ``PersistentDataset``; ``fresh`` reads a row without it."""
    from monai.data import PersistentDataset, json_hashing  # noqa: PLC0415 (checking alone needs no torch)
    from monai.transforms import MapTransform  # noqa: PLC0415

    class ReadCased(MapTransform):
        """From a file's name, as the table writes it, to what is kept of its case."""

        def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
            return {**data, **{str(key): _packed(case_of(data[str(key)], folders, spec, unit)) for key in self.keys}}

    made_by = {"input": spec.model_dump(mode="json"), "ecg_unit": unit, "readers": _readers(spec.modality)}
    with ThreadPoolExecutor() as pool:  # a folder on a network answers slowly
        parts = pool.map(lambda name: _parts(name, folders), names)
        items = [{"file": name, "parts": found, **made_by} for name, found in zip(names, parts, strict=True)]
    dataset = PersistentDataset(
        items, ReadCased("file"), folder, hash_func=json_hashing, track_meta=False, weights_only=True
    )

    def row(i: int) -> Case:
        if not items[i]["parts"]:
            return fresh(i)
        entry = folder / f"{json_hashing(items[i]).decode()}.pt"
        if entry.is_file():
            try:
                return _unpacked(dataset[i]["file"], spec)
            except Exception:  # loading a torn or damaged entry raises anything; it goes, and the file is read again
                with contextlib.suppress(OSError):
                    entry.unlink()
        try:
            case = _unpacked(dataset[i]["file"], spec)
        except Exception as error:  # a full disk; a fault of a reader is raised again by reading without the cache
            warnings.warn(f"not everything is kept in {folder} ({type(error).__name__})", stacklevel=1)
            return fresh(i)
        if case.x is None:
            entry.unlink(missing_ok=True)
        return case

    return row


def _parts(name: str | None, folders: Folders) -> list[list[str | int]]:
    """Path, size and time of change of every file that a case is made of; empty where it cannot be read at all."""
    try:
        paths = _files_of(folders.find(name), folders)
        stats = [(path, path.stat()) for path in paths]
    except (Refused, OSError):
        return []
    return [[str(path.absolute()), stat.st_size, stat.st_mtime_ns] for path, stat in stats]


@once
def _readers(modality: str) -> str:
    """What turns a file into an input: sha256 of the sources, and the decoders' releases."""
    readers = Path(data_specs.__file__).parent
    sources = [*sorted((readers / modality).rglob("*.py")), *sorted((readers / "dicom").glob("*.py")), Path(__file__)]
    digest = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    return " ".join([digest, *(f"{name}=={version(name)}" for name in DECODERS)])


def _packed(case: Case) -> dict[str, Any]:
    """A case in tensors and texts, sealed: torch does not look whether an entry was damaged on the disk."""
    problems = [asdict(problem) for problem in case.problems]
    x = None if case.x is None else np.array(case.x)  # torch wants it writable
    return {"x": x, "problems": problems, "digest": case.digest, "seal": _seal(case.x, problems, case.digest)}


def _unpacked(kept: Mapping[str, Any], spec: CxrInput | EcgInput) -> Case:
    """The case of an entry, or ``ValueError`` and others where it is not one."""
    x = None if kept["x"] is None else np.asarray(kept["x"])
    if x is not None and (x.shape != _shape(spec) or x.dtype != _dtype(spec)):
        raise ValueError("another input")
    if kept["seal"] != _seal(x, kept["problems"], kept["digest"]):
        raise ValueError("damaged")
    return Case(x, [Problem(**problem) for problem in kept["problems"]], kept["digest"])


def _seal(x: NDArray[np.generic] | None, problems: list[dict[str, Any]], digest: str) -> str:
    about = json.dumps([problems, digest], sort_keys=True).encode()
    return hashlib.sha256(about + (b"" if x is None else np.ascontiguousarray(x).tobytes())).hexdigest()


# ---------------------------------------------------------------- files


class Folders:
    """Files below one folder, looked up by the path that a table writes; listings are kept."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def find(self, name: str | None) -> Path:
        """The file that a row names; a WFDB record may be named without ``.hea``, as that format does.

        Raises
        ------
        Refused
            ``file_missing``: no name, no such file, or a path that leaves the folder.
        """
        parts = PurePosixPath((name or "").replace("\\", "/"))
        if not name or "\0" in name or parts.is_absolute() or ".." in parts.parts:
            raise Refused("file_missing", found=".." if name else "", expected="./…")
        path = self.root.joinpath(*parts.parts)
        for candidate in (path, path.with_name(path.name + ".hea")):
            try:
                if candidate.is_file():
                    return candidate
            except OSError:
                break
        raise Refused("file_missing", expected="./…")

    def beside(self, path: Path, names: set[str]) -> list[Path]:
        """Files of the same folder by lower-case name, and those of the same stem."""
        if path.parent not in self._listed:
            listing: dict[str, list[Path]] = {}
            for other in sorted(path.parent.iterdir()):
                listing.setdefault(other.name.lower(), []).append(other)
                listing.setdefault(f"stem:{other.stem.lower()}", []).append(other)
            self._listed[path.parent] = listing
        listed = self._listed[path.parent]
        found = [p for name in sorted(names) for p in listed.get(name, [])] + listed.get(
            f"stem:{path.stem.lower()}", []
        )
        return [p for p in dict.fromkeys(found) if p != path and p.is_file()]


def read_case(
    name: str | None, folders: Folders, spec: CxrInput | EcgInput, ecg_unit: VoltageUnit | None = None
) -> tuple[NDArray[np.generic], list[Problem], str]:
    """One row's file: the network's input, the reserves met, and the sha256 of what was read.

    Raises
    ------
    Refused
        ``file_missing``, ``too_large``, or what serving's readers refuse. Nothing else, whatever the bytes.
    """
    path = folders.find(name)
    content = _content(path)
    if isinstance(spec, CxrInput):
        film = read_image(content)
        return conform_film(film.pixels, spec.size_px), list(film.problems), hashlib.sha256(content).hexdigest()
    files = _recording_files(path, content, folders)
    recording = read_recording(files, ecg_unit=ecg_unit)
    windows = conform_recording(recording, fs_hz=spec.fs_hz, n_samples=spec.n_samples, max_windows=1)
    # A WFDB header names its record: two copies of one signal differ in it, so only the signal is compared.
    signal = [f.content for f in files.files if not f.filename.lower().endswith(".hea")] or [content]
    return windows[0], list(recording.problems), hashlib.sha256(b"".join(signal)).hexdigest()


def _recording_files(path: Path, content: bytes, folders: Folders) -> RecordingFiles:
    """The group of files that the named one belongs to, as serving puts posted files together."""
    others = [p for p in _files_of(path, folders) if p != path]
    posted = [PostedFile(0, path.name, content)]
    posted += [PostedFile(i, other.name, _content(other)) for i, other in enumerate(others, start=1)]
    groups = group_recordings(posted)
    return next(group for group in groups if group.files and any(f.index == 0 for f in group.files))


def _files_of(path: Path, folders: Folders) -> list[Path]:
    """Files that a case is made of, the named one first: for WFDB what the header and its segments name, too."""
    files = [path]
    for header in files:  # grows as segments are found
        if header.suffix.lower() == ".hea":
            named = named_files(_content(header))
            files += [
                other
                for other in folders.beside(header, named)
                if other not in files and (other.suffix.lower() != ".hea" or other.name.lower() in named)
            ]
    return files


def _content(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise Refused("too_large", f"{size >> 20} MB", f"{MAX_FILE_BYTES >> 20} MB")
        return path.read_bytes()
    except OSError as error:
        raise Refused("unreadable", type(error).__name__, "./…") from error
