"""Pictures of a visit, drawn by readers when they are asked for: the film, the heatmap over it, the trace."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import select

from data_specs.cxr.image import Window
from data_specs.problems import Refused
from data_specs.visit.assessment import EvidenceMap
from inference.readers.job import Job
from service.errors import NotFound
from service.keys import Key
from service.parts import Parts
from service.storage.tables import InputRow, PreviewRow, VisitRow
from service.visits.stored import find_evidence, has_common_gain, input_row, load_shown, was_accepted

if TYPE_CHECKING:
    from inference.render.paper import Form
    from inference.render.reading import FilmSize

Layer = Literal["film", "overlay"]
OVERLAY_PX, EVIDENCE_PX = 512, 1024


async def film(
    parts: Parts,
    key: Key,
    visit_id: str,
    index: int,
    max_px: int | None,
    *,
    window: Window = "as_sent",
    kind: Literal["png", "jpeg"] = "png",
) -> bytes:
    """A posted image as it is displayed, ``max_px`` on its longest side at most, or in its own resolution."""
    row = await load_shown(parts, key, visit_id)
    from inference.render.reading import draw_film  # noqa: PLC0415  loads Pillow

    return await _drawn(parts, draw_film, [_posted(row, index, "image")], max_px, window, kind)


async def size(parts: Parts, key: Key, visit_id: str, index: int) -> FilmSize:
    """Size of a posted image, and of its pixels where the file states it.

    Raises
    ------
    NotFound
        It cannot be decoded.
    """
    row = await load_shown(parts, key, visit_id)
    from inference.render.reading import film_size  # noqa: PLC0415

    posted = _posted(row, index, "image")
    if posted.awaited:  # lengths are not measured on a preview
        raise NotFound
    try:
        read = await parts.read_stored(film_size, [posted.sha256])
    except Refused:
        raise NotFound from None
    return read.document


async def trace(
    parts: Parts, key: Key, visit_id: str, index: int, finding: str | None = None, form: Form | None = None
) -> bytes:
    """SVG on millimetre paper of the recording to which input ``index`` belongs, with the evidence of ``finding``."""
    row = await load_shown(parts, key, visit_id)
    evidence = find_evidence(row, finding, index) if finding else None
    return await _trace(parts, row, index, evidence, "svg", form)


async def beats(parts: Parts, key: Key, visit_id: str, index: int) -> bytes:
    """SVG of the median beat of each lead, with the boundaries that were measured."""
    row = await load_shown(parts, key, visit_id)
    from inference.ecg.picture import draw_beats  # noqa: PLC0415  loads scipy

    files, names = recording_files(row, index)
    unit, voltage = row.read_context().ecg_unit, has_common_gain(row, index)
    return await _drawn(parts, draw_beats, files, names, index, unit, voltage)


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
    row = await load_shown(parts, key, visit_id)
    evidence = find_evidence(row, finding, index)
    from inference.render.pictures import heatmap_png  # noqa: PLC0415  loads Pillow
    from inference.render.reading import draw_evidence  # noqa: PLC0415

    if evidence.kind == "trace":
        return await _trace(parts, row, index, evidence, "png")
    posted = _posted(row, index, "image")
    if layer == "overlay":
        return await asyncio.to_thread(heatmap_png, (OVERLAY_PX, OVERLAY_PX), evidence)
    return await _drawn(parts, draw_evidence, [posted], evidence, EVIDENCE_PX)


async def outline(parts: Parts, key: Key, visit_id: str, finding: str, index: int) -> bytes:
    """SVG of the outline of a heatmap, to be stretched over the film.

    Raises
    ------
    NotFound
        The finding has no heatmap on this input.
    """
    row = await load_shown(parts, key, visit_id)
    evidence = find_evidence(row, finding, index)
    if evidence.kind != "heatmap":
        raise NotFound
    from inference.render.outlines import outline_svg  # noqa: PLC0415  loads Pillow

    return (await asyncio.to_thread(outline_svg, evidence)).encode()


def _posted(row: VisitRow, index: int, field: Literal["image", "ecg"]) -> InputRow:
    """The input, whether it was used or refused: a refused one is looked at by a doctor."""
    posted = input_row(row, index)
    if posted.field != field:
        raise NotFound
    return posted


async def _trace(
    parts: Parts,
    row: VisitRow,
    index: int,
    evidence: EvidenceMap | None,
    kind: Literal["png", "svg"],
    form: Form | None = None,
) -> bytes:
    """The recording of an input."""
    from inference.render.paper import USUAL  # noqa: PLC0415
    from inference.render.reading import draw_trace  # noqa: PLC0415  loads the ECG readers

    files, names = recording_files(row, index)
    unit, voltage = row.read_context().ecg_unit, has_common_gain(row, index)
    return await _drawn(parts, draw_trace, files, names, index, unit, evidence, kind, voltage, form or USUAL)


def recording_files(row: VisitRow, index: int) -> tuple[list[InputRow], list[tuple[int, str]]]:
    """The files among which are those of the recording of an input, and their indices and names.

    All files of recordings that were used are given, or all that were refused: only their content shows which files
    make one recording, and these were all used or all refused.
    """
    _posted(row, index, "ecg")
    used = was_accepted(row, index)
    files = [posted for posted in row.inputs if posted.field == "ecg" and was_accepted(row, posted.index) == used]
    return files, [(posted.index, posted.filename) for posted in files]


async def _drawn(parts: Parts, job: Job[..., None], files: Sequence[InputRow], *arguments: Any) -> bytes:
    """A picture.

    Raises
    ------
    NotFound
        The reader of the files refuses them.
    """
    try:
        read = await parts.read_stored(job, [await here(parts, posted) for posted in files], *arguments)
    except Refused:
        raise NotFound from None
    return read.arrays[0].tobytes()


async def here(parts: Parts, posted: InputRow) -> str:
    """The digest of what can be shown of a file: itself, or its preview where a node has not sent it yet.

    Raises
    ------
    NotFound
        Nothing of it is here.
    """
    if not posted.awaited:
        return posted.sha256
    preview = select(PreviewRow.sha256).where(PreviewRow.visit_id == posted.visit_id, PreviewRow.index == posted.index)
    sha256 = await parts.database.read(lambda session: session.scalar(preview))
    if sha256 is None:
        raise NotFound
    return sha256
