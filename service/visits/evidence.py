"""Pictures of a visit, rendered when they are asked for: the film, the heatmap over it, the trace.

Only accepted inputs are rendered, because a refused one may crash its decoder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from data_specs.problems import Refused
from data_specs.visit.context import Context
from service.errors import NotFound
from service.keys import Key
from service.parts import Parts
from service.storage.tables import InputRow, VisitRow
from service.visits.stored import find_evidence, input_row, load_visit, was_accepted

if TYPE_CHECKING:
    from data_specs.ecg.recording import Recording

Layer = Literal["film", "overlay"]
OVERLAY_PX = 512


async def film(parts: Parts, key: Key, visit_id: str, index: int, max_px: int | None) -> bytes:
    """PNG of a posted image as it is displayed, ``max_px`` on its longest side at most, or in its own resolution."""
    row = await load_visit(parts, key, visit_id)
    content = await parts.read_file(_accepted_input(row, index, "image").sha256)
    from inference.render.pictures import film_png  # noqa: PLC0415  loads the image decoders

    return await _rendered(lambda: film_png(content, max_px))


async def trace(parts: Parts, key: Key, visit_id: str, index: int, finding: str | None = None) -> bytes:
    """SVG on millimetre paper of the recording to which input ``index`` belongs, with the evidence of ``finding``."""
    row = await load_visit(parts, key, visit_id)
    evidence = find_evidence(row, finding, index) if finding else None
    from inference.render.pictures import trace_svg  # noqa: PLC0415

    files = await _recordings(parts, row, index)
    return await _rendered(lambda: trace_svg(_recording(files, index, row.read_context()), evidence).encode())


async def evidence_png(
    parts: Parts, key: Key, visit_id: str, finding: str, index: int, *, layer: Layer = "film"
) -> bytes:
    """PNG of the evidence of a finding.

    Parameters
    ----------
    layer
        ``film``: the map over the film or the trace. ``overlay``: only the heatmap, on a transparent background, to be
        stretched over the film.
    """
    row = await load_visit(parts, key, visit_id)
    evidence = find_evidence(row, finding, index)
    from inference.render import pictures as render  # noqa: PLC0415

    if evidence.kind == "trace":
        files = await _recordings(parts, row, index)
        return await _rendered(lambda: render.trace_png(_recording(files, index, row.read_context()), evidence))
    if layer == "overlay":
        return await _rendered(lambda: render.heatmap_png((OVERLAY_PX, OVERLAY_PX), evidence))
    content = await parts.read_file(_accepted_input(row, index, "image").sha256)
    return await _rendered(lambda: render.evidence_png(content, evidence))


def _accepted_input(row: VisitRow, index: int, field: Literal["image", "ecg"]) -> InputRow:
    posted = input_row(row, index)
    if posted.field != field or not was_accepted(row, index):
        raise NotFound
    return posted


async def _recordings(parts: Parts, row: VisitRow, index: int) -> list[tuple[InputRow, bytes]]:
    """All accepted recording files of the visit, because only their content shows which of them belong together."""
    _accepted_input(row, index, "ecg")
    accepted = [posted for posted in row.inputs if posted.field == "ecg" and was_accepted(row, posted.index)]
    return [(posted, await parts.read_file(posted.sha256)) for posted in accepted]


def _recording(files: Sequence[tuple[InputRow, bytes]], index: int, context: Context) -> Recording:
    from data_specs.ecg.files import group_recordings, read_recording  # noqa: PLC0415  loads all ECG readers
    from data_specs.ecg.posted import PostedFile  # noqa: PLC0415

    posted = [PostedFile(file.index, file.filename, content) for file, content in files]
    for group in group_recordings(posted):
        if any(file.index == index for file in group.files):
            return read_recording(group, ecg_unit=context.ecg_unit)
    raise NotFound


async def _rendered(draw: Callable[[], bytes]) -> bytes:
    """Draw in a thread.

    Raises
    ------
    NotFound
        The reader of the file refuses it.
    """
    try:
        return await asyncio.to_thread(draw)
    except Refused:
        raise NotFound from None
