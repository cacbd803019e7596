"""What changes where larger films are read at a lower resolution, and a bundle that allows it.

The films that the shipped networks learnt from and are evaluated on are smaller than any that would be read so: their
figures do not change, and say nothing about it. So validation films are enlarged to the size of a detector's, with its
noise, and read as serving reads them: in full, and with their shorter side ``least_px`` long or more. Beside it stands
what one grey level of noise does to the same films.
"""

from __future__ import annotations

import argparse
import io
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID
from tqdm import tqdm

from data_specs.bundle import CxrInput, FindingSpec, MeasuredTable
from data_specs.cxr.files import read_image
from inference.bundles.loading import Bundle, BundleError, load_bundle, load_in_service
from inference.bundles.registry import read_registry
from inference.findings import calibrated
from inference.runtime.session import ONE_THREAD
from training.bundle.measure import add_tables
from training.cohorts.cohort import Cohort
from training.cohorts.gates import FilmGate, Served, bundles_folder
from training.cohorts.shipped_films import kermany, nih
from training.figures.evaluate import auroc

SIDE_PX = 1792
"""Shorter side of the enlarged films: four times what the shipped networks ask for."""
NOISE = 8.0
"""Standard deviation of a detector's noise, of 4,096 grey levels. Assumed."""
MOST = 160
"""Films of one cohort, drawn at random where it has more."""
GREY_LEVEL = 16
"""One of 256, in grey levels of 4,096."""
EXPLICIT, J2K = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.4.90"
FULL, SQUARES, LEVELS, SHAKEN = "in full", "means of squares", "JPEG 2000", "in full, one grey level of noise"
OTHER_WAYS = (SQUARES, LEVELS, SHAKEN)
COLUMNS = ("finding", "read", "n (positive)", "AUROC", "change", "mean |Δp|", "99 %", "largest", "calls changed")
GATE_COLUMNS = ("films", "read", "n", "refused", "says the same as in full")
SEED = 2026

Ways = Mapping[str, Served]
"""One film, by the way in which it was read."""


def of_network(bundle: Bundle, gate: Bundle, least_px: int, cohorts: Sequence[Cohort]) -> MeasuredTable:
    """How far the probabilities of films move, as the card shows it.

    Parameters
    ----------
    gate
        The gate of serving, which sees the films read as the network does.
    least_px
        As the bundle is to have it in its input.
    cohorts
        ``x`` ``(n,) str``: paths of the films. Their validation parts are read.
    """
    rows: list[tuple[str, ...]] = []
    n_films = 0
    for cohort in cohorts:
        chosen, read = read_in_all_ways(bundle.input_as(CxrInput), gate, least_px, cohort)
        accepted = np.array([all(served.x is not None for served in ways.values()) for ways in read])
        films = [ways for ways, whether in zip(read, accepted, strict=True) if whether]
        n_films += len(films)
        logits = {way: _logits(bundle, [ways[way] for ways in films]) for way in (FULL, *OTHER_WAYS)}
        for spec in bundle.manifest.findings:
            if spec.name in cohort.labels and spec.age_years == cohort.age_years:
                y = cohort.labels[spec.name].to_numpy(dtype=np.float64)[chosen][accepted]
                rows += _rows(spec, y, {way: each[:, spec.column] for way, each in logits.items()})
    text = f"{_described(least_px, n_films)} `p` is a probability, at the shipped calibration and deciding points."
    return MeasuredTable(title="Larger films at a lower resolution", text=text, columns=COLUMNS, rows=tuple(rows))


def of_gate(gate: Bundle, least_px: int, cohorts: Sequence[Cohort]) -> MeasuredTable:
    """Whether the gate says the same of films, as its card shows it; parameters as those of :func:`of_network`."""
    rows, n_films = [], 0
    for cohort in cohorts:
        _, read = read_in_all_ways(gate.input_as(CxrInput), gate, least_px, cohort)
        n_films += len(read)
        said = {way: [{p.code for p in ways[way].problems} for ways in read] for way in (FULL, *OTHER_WAYS)}
        for way in (FULL, *OTHER_WAYS):
            refused = sum(ways[way].x is None for ways in read)
            same = sum(one == other for one, other in zip(said[way], said[FULL], strict=True))
            rows.append((cohort.part_title("validation"), way, str(len(read)), str(refused), str(same)))
    text = _described(least_px, n_films)
    return MeasuredTable(title="Larger films at a lower resolution", text=text, columns=GATE_COLUMNS, rows=tuple(rows))


def _described(least_px: int, n_films: int) -> str:
    return (
        f"A film whose shorter side is at least {2 * least_px} px may be read at a lower resolution, with "
        f"{least_px} px of it left or more: JPEG 2000 and HTJ2K without their finest levels, other files as means of "
        f"squares of pixels. {n_films} films, enlarged to {SIDE_PX} px with a detector's noise, were read in full and "
        "so; they hold less detail than films of that size. The films of the other figures are smaller, and are read "
        "in full. For comparison: the same films in full, each pixel one grey level of 256 higher, lower or as it was."
    )


def read_in_all_ways(
    takes: CxrInput, gate: Bundle, least_px: int, cohort: Cohort
) -> tuple[NDArray[np.int64], list[Ways]]:
    """Rows of a cohort's validation films, and each of these films as serving would give it to the network."""
    rows = np.asarray(cohort.rows("validation"))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(SEED).choice(rows, MOST, replace=False))
    in_full, smaller = (
        partial(FilmGate(allowing(gate, side)).film, takes=takes.model_copy(update={"least_px": side}))
        for side in (None, least_px)
    )
    with ThreadPoolExecutor(2) as pool:
        films = pool.map(lambda path: _in_all_ways(Path(path), in_full, smaller), cohort.x[rows])
        return rows, list(tqdm(films, total=len(rows), unit="film", desc=cohort.title))


def _in_all_ways(path: Path, in_full: Callable[[bytes], Served], smaller: Callable[[bytes], Served]) -> Ways:
    chance = np.random.default_rng(zlib.crc32(path.name.encode()))
    values = enlarged(read_image(path.read_bytes()).pixels, chance)
    shaken = values.astype(np.int32) + GREY_LEVEL * chance.integers(-1, 2, values.shape)
    plain = dicom(values, EXPLICIT)
    return {
        FULL: in_full(plain),
        SQUARES: smaller(plain),
        LEVELS: smaller(dicom(values, J2K)),
        SHAKEN: in_full(dicom(np.clip(shaken, 0, 4095).astype(np.uint16), EXPLICIT)),
    }


def allowing(bundle: Bundle, least_px: int | None) -> Bundle:
    """The bundle with another ``least_px`` in its input."""
    takes = bundle.input_as(CxrInput).model_copy(update={"least_px": least_px})
    return replace(bundle, manifest=bundle.manifest.model_copy(update={"input": takes}))


def enlarged(film: NDArray[np.uint8], chance: np.random.Generator) -> NDArray[np.uint16]:
    """A film of 12 bits with its shorter side :data:`SIDE_PX` long, by Pillow's bicubic filter, with noise."""
    rows, columns = film.shape
    times = SIDE_PX / min(rows, columns)
    shape = (round(columns * times), round(rows * times))
    large = np.asarray(Image.fromarray(film.astype(np.float32)).resize(shape, Image.Resampling.BICUBIC))
    noisy = 16.0 * large + 8.0 + chance.normal(0, NOISE, large.shape)
    return np.rint(np.clip(noisy, 0, 4095)).astype(np.uint16)


def dicom(values: NDArray[np.uint16], syntax: str) -> bytes:
    """A film ``(rows, columns)`` of 12 bits as a DICOM file, uncompressed or in JPEG 2000 without loss."""
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID, ds.Modality = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.3", "DX"
    ds.PhotometricInterpretation, ds.SamplesPerPixel, ds.PixelRepresentation = "MONOCHROME2", 1, 0
    ds.Rows, ds.Columns = values.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 12, 11
    ds.WindowCenter, ds.WindowWidth = 2048, 4096
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = UID(syntax)
    if syntax == EXPLICIT:
        ds.PixelData = values.astype("<u2").tobytes()
    else:
        stream = imagecodecs.jpeg2k_encode(values, codecformat="j2k", reversible=True, bitspersample=12)
        ds.PixelData = encapsulate([bytes(stream)])
    ds["PixelData"].VR = "OW" if syntax == EXPLICIT else "OB"
    ds["PixelData"].is_undefined_length = syntax != EXPLICIT
    out = io.BytesIO()
    ds.save_as(out, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return out.getvalue()


def _logits(bundle: Bundle, films: Sequence[Served]) -> NDArray[np.float64]:
    x = np.concatenate([np.asarray(served.x) for served in films])
    return np.concatenate([bundle.session.run(x[at : at + 8])[0] for at in range(0, len(x), 8)]).astype(np.float64)


def _rows(
    spec: FindingSpec, y: NDArray[np.float64], logits: Mapping[str, NDArray[np.float64]]
) -> Iterator[tuple[str, ...]]:
    if spec.calibration is None:
        raise ValueError(f"{spec.name} has no calibration")
    known = ~np.isnan(y)
    y, p = y[known], {way: calibrated(z[known], spec.calibration) for way, z in logits.items()}
    threshold = next(point.threshold for point in spec.operating_points if point.name == spec.decides_at)
    whole = auroc(y, p[FULL])
    n = f"{len(y)} ({int(y.sum())})"
    yield (spec.name, FULL, n, f"{whole:.3f}", "", "", "", "", "")
    for way in OTHER_WAYS:
        moved = np.abs(p[way] - p[FULL])
        changed = int(((p[way] >= threshold) != (p[FULL] >= threshold)).sum())
        found = auroc(y, p[way])
        figures = (f"{moved.mean():.4f}", f"{np.quantile(moved, 0.99):.3f}", f"{moved.max():.3f}", str(changed))
        yield (spec.name, way, n, f"{found:.3f}", f"{found - whole:+.4f}", *figures)


def add_resolution(bundle: Bundle, least_px: int, cohorts: Sequence[Cohort], *, out: Path, version: str) -> Path:
    """Write ``NAME-VERSION/`` under ``out``: the bundle with ``least_px`` in its input, and the table in its card.

    Raises
    ------
    FileExistsError
        This version exists; a bundle is never replaced.
    """
    if bundle.manifest.name == "cxr_gate":
        table = of_gate(bundle, least_px, cohorts)
    else:
        gate = load_in_service(read_registry(bundles_folder()), "cxr_gate", ONE_THREAD)
        table = of_network(bundle, gate, least_px, cohorts)
    change = "larger films may be read at a lower resolution; same weights"
    return add_tables(allowing(bundle, least_px), bundle.folder, [table], out=out, version=version, change=change)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training resolution",
        description="Measure what reading larger films at a lower resolution changes, and write a new version of the "
        "bundle that allows it.",
    )
    parser.add_argument("--bundle", type=Path, required=True, help="folder of the bundle: lung or cxr_gate")
    parser.add_argument("--least-px", type=int, required=True, help="shorter side that films keep at least")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the shipped cohorts' folder")
    parser.add_argument("--out", type=Path, default=Path("models/bundles"), help="where the new version is written")
    parser.add_argument("--version", required=True, help="of the new bundle, for example 1.4.0")
    arguments = parser.parse_args(argv)
    try:
        bundle = load_bundle(arguments.bundle)
        takes = bundle.input_as(CxrInput)
        cohorts = [make(arguments.data, takes, read=paths_of) for make in (kermany, nih)]
        folder = add_resolution(bundle, arguments.least_px, cohorts, out=arguments.out, version=arguments.version)
    except (ValueError, BundleError, FileExistsError, FileNotFoundError) as error:
        print(f"cannot measure: {error}", file=sys.stderr)
        return 2
    print(f"written: {folder}")
    return 0


def paths_of(paths: Sequence[Path], takes: CxrInput) -> NDArray[np.str_]:
    """``(n,)`` the paths themselves, in place of the films."""
    del takes
    return np.array([str(path) for path in paths])
