"""``archive``: films per second of ``python -m inference.archive`` and what one costs, beside the bare session's.

Measured after the first films are done, so that the start of engines and readers does not count: an archive has a
million films.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import files
from benchmarks.figures import CoreTime
from benchmarks.raw import in_service, own_batch
from benchmarks.raw_runtimes import random_rows
from benchmarks.report import Cell, Report, cores, table
from benchmarks.serving import BUNDLES
from inference.bundles.loading import Bundle
from inference.engine import Engine
from inference.runtime.session import Machine

KINDS: dict[str, Callable[[], bytes]] = {
    "png": files.png,
    **{name: (lambda syntax=syntax: files.dicom(syntax)) for name, syntax in files.SYNTAXES.items()},  # type: ignore[misc]
}
"""A film as PNG 512², and as DICOM 2048² of 12 in 16 bit in each transfer syntax."""
BARE = ("cxr_gate", "lung")
"""The sessions that a film passes."""


@dataclass(frozen=True)
class Cost:
    """Films per second, and core-milliseconds for each."""

    per_s: float
    core_ms: float

    @classmethod
    def since(cls, began: float, before: CoreTime, n: int) -> Cost:
        return cls(n / (time.perf_counter() - began), before.ms_per(CoreTime.of(os.getpid()), n))


def run(
    report: Report, *, kinds: Sequence[str] = ("png", "jpeg-lossless"), films: int = 400, workers: int = 0,
    seconds: float = 3.0, with_ray: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The bare sessions, then an archive of each kind of file."""
    workers = workers or cores()
    bare = {name: bare_cost(name, workers, seconds) for name in BARE}
    whole = Cost(1 / sum(1 / each.per_s for each in bare.values()), sum(each.core_ms for each in bare.values()))
    ways = {"one process": False, **({"by Ray": True} if with_ray else {})}
    found: dict[str, Cost] = {}
    missing: list[str] = []
    for kind in kinds:
        with tempfile.TemporaryDirectory() as folder:
            place = films_in(Path(folder), KINDS[kind](), films)
            for way, by_ray in ways.items():
                try:
                    found[f"{kind}, {way}"] = archive_cost(place, workers, by_ray=by_ray)
                except ModuleNotFoundError as error:
                    missing.append(f"{way}: {error.name} is not installed")
    rows: list[list[Cell]] = [
        ["bare sessions, gate and lung", whole.per_s, whole.core_ms, 1.0],
        *([name, each.per_s, each.core_ms, each.per_s / whole.per_s] for name, each in found.items()),
    ]
    table(f"archive of {films} films, {workers} workers", ("", "films/s", "core-ms/film", "of the bare sessions"), rows)
    for reason in dict.fromkeys(missing):
        print(f"not measured: {reason}")
    figures = {
        "films": films,
        "workers": workers,
        "bare": {**{name: vars(each) for name, each in bare.items()}, "gate and lung": vars(whole)},
        "archive": {name: vars(each) for name, each in found.items()},
        "not_measured": list(dict.fromkeys(missing)),
    }
    report.end(figures)
    return figures


def bare_cost(name: str, workers: int, seconds: float) -> Cost:
    """The session of a bundle alone, with as many threads."""
    engine = Engine(BUNDLES, Machine(threads=workers, session="auto"))
    try:
        bundle: Bundle = engine.bundles[name]
        batch = own_batch(bundle)
        compute = in_service(bundle, random_rows(bundle, batch))
        compute(2)
        began, before, n = time.perf_counter(), CoreTime.of(os.getpid()), 0
        while time.perf_counter() < began + seconds:
            compute(8)
            n += 8 * batch
        return Cost.since(began, before, n)
    finally:
        engine.close()


def films_in(folder: Path, content: bytes, n: int) -> Path:
    """A folder of ``n`` films, each with bytes of its own."""
    place = folder / "films"
    place.mkdir()
    ending = "png" if content.startswith(b"\x89PNG") else "dcm"
    for number in range(n):
        (place / f"{number:06}.{ending}").write_bytes(files.numbered(content, number))
    return place


def archive_cost(place: Path, workers: int, *, by_ray: bool) -> Cost:
    """Score a folder of films into an archive beside it."""
    from inference.archive.files import Files  # noqa: PLC0415  loads pyarrow
    from inference.archive.on_ray import BATCH, Cluster, scoring_by_ray  # noqa: PLC0415
    from inference.archive.parts import Archive  # noqa: PLC0415
    from inference.archive.rows import versions_of  # noqa: PLC0415
    from inference.archive.run import Run, Scoring  # noqa: PLC0415
    from inference.archive.scoring import Options, Scorer  # noqa: PLC0415
    from inference.archive.versions import chosen  # noqa: PLC0415

    if by_ray:
        import ray  # type: ignore[import-not-found, unused-ignore]  # noqa: F401, PLC0415
    versions = chosen(BUNDLES, {})
    sources = [Files(str(place))]
    costs: list[Cost] = []

    @contextmanager
    def timed(scorers: AbstractContextManager[Scoring]) -> Iterator[Scoring]:
        def scored(cases: Any) -> Iterator[Any]:
            results = scoring(cases)
            first = min(BATCH * workers, len(cases) // 2)  # as many may come at once
            yield from islice(results, first)
            began, before = time.perf_counter(), CoreTime.of(os.getpid())
            yield from results
            costs.append(Cost.since(began, before, len(cases) - first))

        with scorers as scoring:
            yield scored

    with tempfile.TemporaryDirectory() as out, Archive(Path(out), versions_of(versions)) as archive:
        options = Options(BUNDLES.resolve(), versions, archive.key, workers=workers)
        if by_ray:
            scorers = scoring_by_ray(sources, options, archive.done, Cluster(actors=workers))
            counts = Run(archive, sources, options, told=io.StringIO()).do(timed(scorers))
        else:
            with Scorer(sources, options, archive.done) as scorer:
                alone: AbstractContextManager[Scoring] = nullcontext(lambda cases: scorer.scored(iter(cases)))
                counts = Run(archive, sources, options, told=io.StringIO()).do(timed(alone))
    if counts.refused or counts.failed or counts.twice:
        raise RuntimeError(f"these films are not what they should be: {counts}")
    return costs[0]
