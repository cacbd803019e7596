"""``decode``: each kind of file from bytes to the network's tensor, on one thread and on all cores."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks import files
from benchmarks.report import COLOURS, Report, cores, table

SIZES_PX = (64, 224)
"""Side of a film after the conform step, for gate and network."""


def run(report: Report, *, seconds: float = 2.0) -> dict[str, Any]:
    """Milliseconds and MB/s (of the file) for each kind."""
    found: dict[str, dict[str, float]] = {}
    for name, (n_bytes, work) in decoders().items():
        one = _seconds_each(work, 1, seconds)
        all_ = _seconds_each(work, cores(), seconds)
        found[name] = {
            "bytes": n_bytes,
            "ms_one_thread": 1000 * one,
            "mb_per_s_one_thread": n_bytes / 1e6 / one,
            "per_s_all_cores": 1 / all_,
            "mb_per_s_all_cores": n_bytes / 1e6 / all_,
            "speed_up": one / all_,
        }
    table(
        f"decode and conform, one thread and {cores()}",
        ("", "MB", "ms", "MB/s", "files/s, all cores", "MB/s, all cores", "×"),
        [
            [name, f["bytes"] / 1e6, *(f[k] for k in list(f)[1:])]
            for name, f in found.items()
        ],
    )  # fmt: skip

    def draw(axes: Any) -> None:
        axes.barh(list(found), [f["ms_one_thread"] for f in found.values()], color=COLOURS[0])
        axes.set(xlabel="ms per file, one thread")
        axes.invert_yaxis()

    report.plot(draw, title="decode and conform")
    figures = {"files": found, "threads": cores()}
    report.end(figures)
    return figures


def decoders() -> dict[str, tuple[int, Callable[[], object]]]:
    """Size in bytes and the function that reads each kind of file."""
    from data_specs.bundle import EcgInput  # noqa: PLC0415
    from data_specs.cxr.files import read_image  # noqa: PLC0415
    from data_specs.cxr.image import conform  # noqa: PLC0415
    from data_specs.ecg.files import group_recordings, read_recording  # noqa: PLC0415
    from data_specs.ecg.posted import PostedFile  # noqa: PLC0415
    from data_specs.ecg.recording import LEADS  # noqa: PLC0415
    from data_specs.ecg.recording import conform as conform_recording  # noqa: PLC0415

    def film(content: bytes) -> Callable[[], object]:
        def work() -> object:
            pixels = read_image(content).pixels
            return [conform(pixels, size) for size in SIZES_PX]

        return work

    header, signal = files.recording()
    spec = EcgInput(fs_hz=100, n_samples=1000, leads=LEADS, max_windows=6)
    posted = [PostedFile(0, "E07517.hea", files.numbered(header, 0)), PostedFile(1, "E07517.mat", signal)]

    def recording() -> object:
        (group,) = group_recordings(posted)
        read = read_recording(group, ecg_unit=None)
        return conform_recording(read, fs_hz=spec.fs_hz, n_samples=spec.n_samples, max_windows=spec.max_windows)

    films = {
        "PNG 512²": files.png(),
        "JPEG 224²": (files.SAMPLES / "film-normal.jpg").read_bytes(),
        **{f"DICOM 2048² {name}": files.dicom(syntax) for name, syntax in files.SYNTAXES.items()},
    }
    made = {name: (len(content), film(files.numbered(content, 0))) for name, content in films.items()}
    return {**made, "WFDB 12 × 10 s, 500 Hz": (len(header) + len(signal), recording)}


def _seconds_each(work: Callable[[], object], threads: int, seconds: float) -> float:
    """Wall seconds per call of ``work``, called on ``threads`` threads for about ``seconds``."""
    work()
    end = time.perf_counter() + seconds

    def repeat(_: int) -> int:
        n = 0
        while n == 0 or time.perf_counter() < end:
            work()
            n += 1
        return n

    started = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        n = sum(pool.map(repeat, range(threads)))
    return (time.perf_counter() - started) / n
