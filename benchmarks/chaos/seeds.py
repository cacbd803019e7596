"""Small files of every format, which the campaign damages: by the tests' writers, and real ones where there are any.

The films are the sample film, 232 px square, in every transfer syntax; the recordings have two seconds, so that most of
the time goes into reading them, and a few have ten, so that what comes after the reading is tried too.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image

from benchmarks.chaos.mutations import Material
from benchmarks.files import ROOT, SAMPLES, film, recording
from data_specs.bundle import EcgInput
from data_specs.ecg.recording import LEADS
from inference.cxr.reading import FilmRead, read_film
from inference.ecg.reading import RecordingsRead, read_recordings
from inference.readers.header import read_dicom_reference
from inference.readers.job import Job
from tests.data_specs import cxr_made, ecg_made

FILM_PX = 232
SIZES_PX = (64, 224)
TAKES = EcgInput(fs_hz=100, n_samples=1000, leads=LEADS, max_windows=6)
"""What the shipped bundles ask for."""
MAX_SEED_BYTES = 300_000
HEADER_BYTES = 64_000
SYNTAXES = (
    *(
        "EXPLICIT",
        "IMPLICIT",
        "BIG",
        "DEFLATED",
        "UNCOMPRESSED",
        "DEFLATED_FRAME",
        "RLE",
        "JPEG",
        "JPEG_12",
        "JPEG_LOSSLESS",
    ),
    *(
        "JPEG_LOSSLESS_SV1",
        "JPEG_LS",
        "JPEG_LS_NEAR",
        "J2K",
        "J2K_LOSSY",
        "J2K_PART2",
        "HTJ2K",
        "HTJ2K_RPCL",
        "HTJ2K_LOSSY",
    ),
)
EIGHT_BITS = ("JPEG",)
MAT_HEAD = b"MATLAB 5.0 MAT-file".ljust(116)
"""The text at the beginning of a MAT file (MAT-File Format, version 5), without today's date."""
OFTEN, SELDOM = 1.0, 0.03


@dataclass(frozen=True)
class Seed:
    """The files of one call of a reader.

    Parameters
    ----------
    files
        Name and content of each.
    weight
        How often it is chosen, compared with the others.
    """

    name: str
    job: Job[..., Any]
    files: tuple[tuple[str, bytes], ...]
    weight: float = OFTEN

    @cached_property
    def materials(self) -> tuple[Material, ...]:
        return tuple(Material.of(content) for _, content in self.files)


def arguments_of(job: Job[..., Any], names: tuple[str, ...]) -> tuple[Any, ...]:
    """What a job is given beside the files."""
    if job is read_film:
        return (SIZES_PX,)
    return (tuple(enumerate(names)), None, TAKES) if job is read_recordings else ()


def is_result(job: Job[..., Any], document: object) -> bool:
    """Whether a reader's answer is of the job's type."""
    if job is read_film:
        return isinstance(document, FilmRead)
    if job is read_recordings:
        return isinstance(document, RecordingsRead)
    return document is None or type(document).__name__ == "DicomReference"


JOBS: dict[str, Job[..., Any]] = {each.name: each for each in (read_film, read_recordings, read_dicom_reference)}


# ---------------------------------------------------------------- made
def made_seeds() -> list[Seed]:
    """Films, recordings and headers from the tests' writers and the samples."""
    films = [Seed(f"film {name}", read_film, ((name, content),)) for name, content in _films()]
    headers = [
        Seed(f"header {seed.name}", read_dicom_reference, ((name, content[:HEADER_BYTES]),))
        for seed in films
        for name, content in seed.files
        if content[128:132] == b"DICM"
    ]
    return [*films, *headers, *_recordings()]


def _films() -> Iterator[tuple[str, bytes]]:
    eight = film(FILM_PX)
    twelve = (eight.astype(np.uint16) << 4) | 7
    for name in SYNTAXES:
        values, bits = (eight, 8) if name in EIGHT_BITS else (twelve, 12)
        yield name, cxr_made.dicom(values, getattr(cxr_made, name), bits=bits)
    yield "EXPLICIT inverted", cxr_made.dicom(twelve, PhotometricInterpretation="MONOCHROME1")
    yield (
        "EXPLICIT colour",
        cxr_made.dicom(np.dstack([eight] * 3), bits=8, PhotometricInterpretation="RGB", PlanarConfiguration=0),
    )
    for kind, values in (("L", eight), ("I;16", twelve), ("RGB", np.dstack([eight] * 3))):
        yield f"PNG {kind}", _saved(values, "PNG")
    yield "JPEG", _saved(eight, "JPEG")
    yield "JPEG progressive", _saved(eight, "JPEG", progressive=True)
    yield "JPEG colour", _saved(np.dstack([eight] * 3), "JPEG")
    for compression in (None, "lzw", "deflate", "packbits", "jpeg", "zstd"):
        yield f"TIFF {compression}", _tiff(eight, compression=compression)
    yield "TIFF 16 tiled", _tiff(twelve, tile=(64, 64), compression="deflate", predictor=True)
    yield "TIFF big", _tiff(eight, bigtiff=True, byteorder=">")
    yield "TIFF colour", _tiff(np.dstack([eight] * 3), photometric="rgb", compression="lzw")


def _saved(values: np.ndarray[Any, Any], kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind, **options)
    return stream.getvalue()


def _tiff(values: np.ndarray[Any, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    tifffile.imwrite(stream, values, **options)
    return stream.getvalue()


def _recordings() -> list[Seed]:
    short = ecg_made.counts(seconds=2.0)
    found = [
        _recording(f"{name} 10 s", files, SELDOM) for name, files in ecg_made.every_format().items() if name != "mat"
    ]
    by_name = {
        "wfdb": ecg_made.wfdb16(short),
        "dicom": {"a.dcm": ecg_made.dicom(short)},
        "dicom big": {"a.dcm": ecg_made.dicom(short, big=True, split=True)},
        "mat": {"a.mat": MAT_HEAD + ecg_made.cpsc2018(short)[len(MAT_HEAD) :]},
        "csv": {"a.csv": ecg_made.csv(short[:, :300])},
        "csv decimal comma": {"a.csv": ecg_made.csv(short[:, :300], delimiter=";", head="# made\n")},
        "edf": {"a.edf": ecg_made.edf(short)},
        "scp": {"a.scp": ecg_made.scp(short)},
        "scp huffman": {"a.scp": ecg_made.scp(short, differences=2, huffman=True)},
        "scp beats": {"a.scp": ecg_made.scp(short, beats=(300, 700))},
        "aecg": {"a.xml": ecg_made.aecg(short)},
        "muse": {"a.xml": ecg_made.muse(short)},
        "cardiosoft": {"a.xml": ecg_made.cardiosoft(short)},
        "philips": {"a.xml": ecg_made.philips(short)},
        "philips plain": {"a.xml": ecg_made.philips(short, plain=True)},
    }
    found += [_recording(name, files) for name, files in by_name.items()]
    for name in ("wfdb", "csv", "scp"):
        for how, compression in (("stored", zipfile.ZIP_STORED), ("deflated", zipfile.ZIP_DEFLATED)):
            found.append(_recording(f"zip {name} {how}", {"a.zip": zipped(by_name[name], compression)}))
    header, signal = recording()
    found.append(_recording("sample wfdb", {"E07517.hea": header, "E07517.mat": signal}, SELDOM))
    found.append(_recording("sample dicom", {"a.dcm": (SAMPLES / "recording.dcm").read_bytes()}, SELDOM))
    return found


def _recording(name: str, files: dict[str, bytes], weight: float = OFTEN) -> Seed:
    return Seed(f"recording {name}", read_recordings, tuple(files.items()), weight)


def zipped(files: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name), content, compression)  # without today's date
    return stream.getvalue()


# ---------------------------------------------------------------- real
def data_folder() -> Path | None:
    """The folder of real films and recordings, where there is one: ``SANGLOC_TEST_DATA``, as for the tests."""
    folder = Path(os.environ.get("SANGLOC_TEST_DATA", ROOT.parent / "shared" / "data"))
    return folder if folder.is_dir() else None


def real_seeds(data: Path) -> list[Seed]:
    """Small real files; a recording that has several files keeps them together."""
    found = []
    for path in sorted((data / "cxr" / "dicom").rglob("*.dcm")):
        if path.stat().st_size <= MAX_SEED_BYTES:
            content = path.read_bytes()
            found.append(Seed(f"real {path.name}", read_film, ((path.name, content),), 0.1))
            found.append(Seed(f"header {path.name}", read_dicom_reference, ((path.name, content[:HEADER_BYTES]),), 0.2))
    by_stem: dict[Path, dict[str, bytes]] = {}
    for path in sorted((data / "ecg" / "formats").rglob("*")):
        if path.is_file() and path.stat().st_size <= MAX_SEED_BYTES:
            by_stem.setdefault(path.with_suffix(""), {})[path.name] = path.read_bytes()
    return found + [_recording(f"real {stem.name}", files, SELDOM) for stem, files in by_stem.items()]


def hostile_seeds(data: Path) -> list[Seed]:
    """Files that once did harm. They are read as they are, each by every reader that could get it."""
    found = []
    for path in sorted((data.parent / "cases").rglob("*")):
        if path.is_file() and not path.name.startswith("README") and path.suffix != ".hl7":
            files = ((path.name, path.read_bytes()),)
            seed = Seed(f"{path.parent.name}/{path.name}", read_film, files)
            found += [seed, replace(seed, job=read_recordings), replace(seed, job=read_dicom_reference)]
    return found
