"""``formats``: what a 2048² film costs in each transfer syntax before any network sees it, stage by stage.

Each film is read twice: in full, and as the bundles in service allow. A core-millisecond is CPU time, of all threads.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import files
from benchmarks.report import COLOURS, Report, table
from benchmarks.serving import BUNDLES
from benchmarks.stages import cost_of, cost_of_each

if TYPE_CHECKING:
    from data_specs.bundle import CxrInput

PIECE_BYTES = 256 * 1024
"""A posted body is read in pieces of this size."""
READ = ("in full", "as served")
RECEIVED = ("multipart, hash", "store, fsync", "read back, verify")
DECODED = ("decode", "to the networks' sizes")


def run(report: Report, *, seconds: float = 1.0, rounds: int = 5) -> dict[str, Any]:
    """Measure all formats in turns; medians."""
    bodies = {name: files.KINDS[name](False) for name in files.SYNTAXES}
    takes = _takes()
    turns: dict[tuple[str, str], list[dict[str, float]]] = {}
    for _ in range(rounds):
        for name, body in bodies.items():
            with tempfile.TemporaryDirectory() as folder:
                content, received = _received(body, Path(folder), seconds)
            for how, decoded in zip(READ, _decoded(content, takes, seconds), strict=True):
                turns.setdefault((name, how), []).append({**received, **decoded})
    costs = {
        key: {stage: statistics.median(turn[stage] for turn in found) for stage in (*RECEIVED, *DECODED)}
        for key, found in turns.items()
    }
    rows = [[f"{name}, {how}", *each.values(), sum(each.values())] for (name, how), each in costs.items()]
    title = f"a 2048² film of 12 bits before the networks, core-ms; {rounds} turns, medians"
    table(title, ("", *RECEIVED, *DECODED, "sum"), rows)
    report.plot(lambda axes: _draw(axes, costs), title="core-ms of a 2048² film before the networks", size=(8.0, 5.0))
    figures = {"core_ms": {f"{name}, {how}": each for (name, how), each in costs.items()}, "rounds": rounds}
    report.end(figures)
    return figures


def _received(body: files.Body, folder: Path, seconds: float) -> tuple[bytes, dict[str, float]]:
    """The file of a posted body, and what it costs to take it in."""
    from service.receive.multipart import FormReader  # noqa: PLC0415
    from service.receive.posted import Part  # noqa: PLC0415
    from service.storage.drafts import Drafts  # noqa: PLC0415
    from service.storage.store import open_store  # noqa: PLC0415

    numbers = itertools.count(time.time_ns() % 10**12)
    store = open_store(folder.joinpath("store").as_uri(), folder)
    drafts = Drafts(store.drafts)
    films: list[Part] = []
    spent, end = [], time.perf_counter() + seconds
    while not spent or time.perf_counter() < end:
        whole = files.numbered(body.content, next(numbers))
        pieces = [whole[at : at + PIECE_BYTES] for at in range(0, len(whole), PIECE_BYTES)]
        started = time.process_time()
        reader = FormReader(body.content_type, drafts)
        for piece in pieces:
            reader.feed(piece)
        films += [part for part in reader.finish() if part.field != "context"]
        spent.append(1000 * (time.process_time() - started))
    costs = (
        statistics.median(spent),
        cost_of_each(lambda film: store.put(film.draft), films).core_ms,
        cost_of_each(lambda film: store.read(film.draft.sha256), films).core_ms,
    )
    return store.read(films[0].draft.sha256), dict(zip(RECEIVED, costs, strict=True))


def _takes() -> tuple[CxrInput, CxrInput]:
    """What the gate and the network in service take."""
    from data_specs.bundle import CxrInput  # noqa: PLC0415
    from inference.bundles.loading import load_in_service  # noqa: PLC0415
    from inference.bundles.registry import read_registry  # noqa: PLC0415
    from inference.runtime.session import ONE_THREAD  # noqa: PLC0415

    registry = read_registry(BUNDLES)
    gate, lung = (load_in_service(registry, name, ONE_THREAD).input_as(CxrInput) for name in ("cxr_gate", "lung"))
    return gate, lung


def _decoded(content: bytes, takes: tuple[CxrInput, CxrInput], seconds: float) -> list[dict[str, float]]:
    """What it costs to decode a film and to make it as small as the networks take it, in each of :data:`READ`."""
    from data_specs.cxr.files import read_image  # noqa: PLC0415
    from inference.cxr.gate import saturated_share  # noqa: PLC0415
    from inference.cxr.reading import for_networks, least_px_of  # noqa: PLC0415

    gate, lung = takes
    sizes_px = (gate.size_px, lung.read_px)

    def costs(least_px: int | None) -> dict[str, float]:
        film = read_image(content, least_px=least_px)
        decode = cost_of(lambda: read_image(content, least_px=least_px), seconds)
        smaller = cost_of(
            lambda: (for_networks(film.pixels, film.outline, sizes_px, least_px), saturated_share(film.pixels)),
            seconds / 2,
        )
        return dict(zip(DECODED, (decode.core_ms, smaller.core_ms), strict=True))

    return [costs(None), costs(least_px_of(gate, lung))]


def _draw(axes: Any, costs: dict[tuple[str, str], dict[str, float]]) -> None:
    names = [f"{name}, {how}" for name, how in costs]
    left = [0.0] * len(names)
    for colour, stage in zip(COLOURS, (*RECEIVED, *DECODED), strict=False):
        values = [each[stage] for each in costs.values()]
        axes.barh(names, values, left=left, color=colour, label=stage)
        left = [one + other for one, other in zip(left, values, strict=True)]
    axes.invert_yaxis()
    axes.set(xlabel="core-milliseconds")
    axes.legend(fontsize=8, frameon=False, loc="lower right")
