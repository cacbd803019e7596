"""What a person looks at, rendered when it is asked for: the film, the heatmap on it, the trace.

Only inputs that were accepted are rendered: one that was refused may be one that brings its decoder down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from data_specs.problems import Refused
from data_specs.visit.context import Context
from service.errors import NotFound
from service.keys import Key
from service.state import Service
from service.storage.tables import InputRow, VisitRow
from service.visits.stored import context_of, find_evidence, input_row, load_visit, was_accepted

if TYPE_CHECKING:
    from data_specs.ecg.recording import Recording

Layer = Literal["film", "overlay"]
OVERLAY_PX = 512


async def film(service: Service, key: Key, visit_id: str, index: int, max_px: int | None) -> bytes:
    """PNG of a posted image as it is looked at, ``max_px`` on its longest side, or at its own resolution."""
    row = await load_visit(service, key, visit_id)
    content = await service.read_file(_accepted_input(row, index, "image").sha256)
    from inference.render.pictures import film_png  # noqa: PLC0415  decoders are loaded by who decodes

    return await _rendered(lambda: film_png(content, max_px))


async def trace(service: Service, key: Key, visit_id: str, index: int, finding: str | None = None) -> bytes:
    """SVG of the recording that input ``index`` belongs to, on millimetre paper, with the evidence of ``finding``."""
    row = await load_visit(service, key, visit_id)
    evidence = find_evidence(row, finding, index) if finding else None
    from inference.render.pictures import trace_svg  # noqa: PLC0415

    files = await _recordings(service, row, index)
    return await _rendered(lambda: trace_svg(_recording(files, index, context_of(row)), evidence).encode())


async def evidence_png(
    service: Service, key: Key, visit_id: str, finding: str, index: int, *, layer: Layer = "film"
) -> bytes:
    """PNG of where a finding came from.

    Parameters
    ----------
    layer
        ``film``: the map blended over the film or the trace. ``overlay``: a heatmap alone, on a transparent ground, to
        be stretched over the film.
    """
    row = await load_visit(service, key, visit_id)
    evidence = find_evidence(row, finding, index)
    from inference.render import pictures as render  # noqa: PLC0415

    if evidence.kind == "trace":
        files = await _recordings(service, row, index)
        return await _rendered(lambda: render.trace_png(_recording(files, index, context_of(row)), evidence))
    if layer == "overlay":
        return await _rendered(lambda: render.heatmap_png((OVERLAY_PX, OVERLAY_PX), evidence))
    content = await service.read_file(_accepted_input(row, index, "image").sha256)
    return await _rendered(lambda: render.evidence_png(content, evidence))


def _accepted_input(row: VisitRow, index: int, field: Literal["image", "ecg"]) -> InputRow:
    posted = input_row(row, index)
    if posted.field != field or not was_accepted(row, index):
        raise NotFound
    return posted


async def _recordings(service: Service, row: VisitRow, index: int) -> list[tuple[InputRow, bytes]]:
    """All accepted recording files of the visit: which of them belong together only their contents tell."""
    _accepted_input(row, index, "ecg")
    accepted = [each for each in row.inputs if each.field == "ecg" and was_accepted(row, each.index)]
    return [(each, await service.read_file(each.sha256)) for each in accepted]


def _recording(files: Sequence[tuple[InputRow, bytes]], index: int, context: Context) -> Recording:
    from data_specs.ecg.files import group_recordings, read_recording  # noqa: PLC0415  all the readers
    from data_specs.ecg.posted import PostedFile  # noqa: PLC0415

    posted = [PostedFile(each.index, each.filename, content) for each, content in files]
    for group in group_recordings(posted):
        if any(file.index == index for file in group.files):
            return read_recording(group, ecg_unit=context.ecg_unit)
    raise NotFound


async def _rendered(draw: Callable[[], bytes]) -> bytes:
    """Run in a thread; what its reader refuses cannot be shown."""
    try:
        return await asyncio.to_thread(draw)
    except Refused:
        raise NotFound from None
