"""The file of one row of a cohort, read and conformed as in serving."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from data_specs.bundle import CxrInput, EcgInput
from data_specs.cxr.files import read_image
from data_specs.cxr.image import conform as conform_film
from data_specs.ecg.files import RecordingFiles, group_recordings, read_recording
from data_specs.ecg.formats.wfdb import named_files
from data_specs.ecg.posted import PostedFile
from data_specs.ecg.recording import VoltageUnit
from data_specs.problems import Problem, Refused
from training.cohorts.gates import FilmGate, Gate, RecordingGate

MAX_FILE_BYTES = 512 << 20


class Case(NamedTuple):
    """What was read from the file of one row: the input and its warnings, or no input and the refusal.

    ``x`` is ``(n_windows, ...)``, one window for a film. ``digest`` is empty where the file could not be read; with a
    digest and without an input, the gate refused it.
    """

    x: NDArray[np.generic] | None
    problems: list[Problem]
    digest: str


def case_of(
    name: str | None,
    folders: Folders,
    spec: CxrInput | EcgInput,
    ecg_unit: VoltageUnit | None = None,
    gate: Gate | None = None,
) -> Case:
    """As :func:`read_case`, but a refusal is returned, not raised."""
    try:
        x, problems, digest = read_case(name, folders, spec, ecg_unit, gate)
    except Refused as refusal:
        return Case(None, [refusal.problem], "")
    return Case(x, problems, digest)


def shape_of(spec: CxrInput | EcgInput) -> tuple[int, ...]:
    """Shape of one case as the network takes it."""
    return (1, spec.size_px, spec.size_px) if isinstance(spec, CxrInput) else (len(spec.leads), spec.n_samples)


def dtype_of(spec: CxrInput | EcgInput) -> type[np.generic]:
    """Type of the values of one case."""
    return np.uint8 if isinstance(spec, CxrInput) else np.float32


class Folders:
    """Files in one folder and its subfolders, found by the path in a table; each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._listed: dict[Path, dict[str, list[Path]]] = {}

    def find(self, name: str | None) -> Path:
        """The file that a row names; the suffix ``.hea`` of a WFDB record may be left out.

        Raises
        ------
        Refused
            ``file_missing``: no name, no such file, or a path out of the folder.
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

    def companions(self, path: Path, names: set[str]) -> list[Path]:
        """Other files in the folder of ``path``: those with one of the lower-case ``names``, or with its stem."""
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
    name: str | None,
    folders: Folders,
    spec: CxrInput | EcgInput,
    ecg_unit: VoltageUnit | None = None,
    gate: Gate | None = None,
) -> tuple[NDArray[np.generic] | None, list[Problem], str]:
    """Read one row's file: the network's input, the problems, and the sha256 of the content.

    Parameters
    ----------
    gate
        That of serving; the input is ``None`` where it refuses. ``None``: the file is read and conformed only.

    Raises
    ------
    Refused
        ``file_missing``, ``too_large``, or a refusal of the readers. Nothing else is raised for any bytes.
    """
    path = folders.find(name)
    content = _content(path)
    if isinstance(spec, CxrInput):
        digest = hashlib.sha256(content).hexdigest()
        if isinstance(gate, FilmGate):
            served = gate.film(content, spec)
            return served.x, served.problems, digest
        if spec.shows == "lungs":
            raise ValueError("without a gate nobody knows where the lungs of a film are")
        film = read_image(content)
        return conform_film(film.pixels, spec.size_px)[None], list(film.problems), digest
    files = _recording_files(path, content, folders)
    # Copies of one WFDB record may have different names in their headers, so the digest is of the signal only.
    signal = [f.content for f in files.files if not f.filename.lower().endswith(".hea")] or [content]
    digest = hashlib.sha256(b"".join(signal)).hexdigest()
    if isinstance(gate, RecordingGate):
        served = gate.recording(files, spec, ecg_unit)
        return served.x, served.problems, digest
    recording = read_recording(files, ecg_unit=ecg_unit)
    return spec.conform(recording), list(recording.problems), digest


def _recording_files(path: Path, content: bytes, folders: Folders) -> RecordingFiles:
    """The named file and those that belong to its recording, grouped as in serving."""
    others = [p for p in files_of(path, folders) if p != path]
    posted = [PostedFile(0, path.name, content)]
    posted += [PostedFile(i, other.name, _content(other)) for i, other in enumerate(others, start=1)]
    groups = group_recordings(posted)
    return next(group for group in groups if group.files and any(f.index == 0 for f in group.files))


def files_of(path: Path, folders: Folders) -> list[Path]:
    """Files that a case is read from, the named one first; for WFDB also those that its headers name."""
    files = [path]
    for header in files:  # the list grows while segments are found
        if header.suffix.lower() == ".hea":
            named = named_files(_content(header))
            files += [
                other
                for other in folders.companions(header, named)
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
