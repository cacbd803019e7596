"""What a reader process does where somebody wants to see what was measured: the median beats with their boundaries.

The serving process names the job and does not run it. What takes it long to load is imported where it is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from data_specs.ecg.recording import VoltageUnit
from data_specs.problems import Refused
from inference.ecg.intervals import Intervals
from inference.readers.job import Read, large_job
from inference.render.paper import Boundary, lay_out_beat
from inference.render.pictures import paper_svg
from inference.render.reading import picture, recording_of

if TYPE_CHECKING:
    from inference.ecg.delineate import Examined


@large_job
def draw_beats(
    files: Sequence[bytes],
    names: Sequence[tuple[int, str]],
    index: int,
    ecg_unit: VoltageUnit | None,
    voltage: bool = True,
) -> Read[None]:
    """SVG of the median beat of each lead of the recording to which file ``index`` belongs.

    Raises
    ------
    Refused
        It cannot be decoded, or has no beat (``no_heartbeat``).
    """
    from inference.ecg.beats import FS_HZ  # noqa: PLC0415
    from inference.ecg.delineate import examine  # noqa: PLC0415
    from inference.ecg.measure import measure  # noqa: PLC0415

    recording = recording_of(files, names, index, ecg_unit)
    examined = examine(recording)
    if examined.beat is None:
        raise Refused("no_heartbeat")
    found = boundaries(examined, measure(recording, examined), FS_HZ)
    return picture(paper_svg(lay_out_beat(examined.beat.samples, FS_HZ, found, voltage=voltage)).encode())


def boundaries(examined: Examined, measured: Intervals, fs_hz: float) -> list[Boundary]:
    """Onsets and offsets between which the intervals were measured; none of a wave whose interval was not."""
    marks = examined.marks
    if marks is None or measured.qrs_ms is None:
        return []
    at = [(marks.qrs_onset, "QRS"), (marks.qrs_offset, "")]
    if measured.pr_ms is not None:
        at = [(marks.p_onset, "P"), (marks.p_offset, ""), *at]
    if measured.qt_ms is not None:
        at.append((marks.t_offset, "T"))
    return [Boundary(sample / fs_hz, name) for sample, name in at if sample is not None]
