"""``raw``: the sessions of each bundle alone, by runtime, precision and batch; the baseline of the service."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from benchmarks.over_http import bundles_of
from benchmarks.raw_runtimes import (
    Rows,
    Run,
    Variant,
    onnxruntime_variants,
    openvino_variants,
    random_rows,
    torch_variants,
)
from benchmarks.report import COLOURS, Cell, Report, cores, table
from inference.bundles.loading import Bundle
from inference.engine import Engine
from inference.runtime.session import Machine

BATCHES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Measured:
    """Speed of one variant with one batch size."""

    bundle: str
    runtime: str
    precision: str
    batch: int
    rows_per_s: float

    @property
    def ms_per_batch(self) -> float:
        return 1000 * self.batch / self.rows_per_s


def run(
    report: Report, *, names: Sequence[str] = ("lung", "cardiac", "cxr_gate"), batches: Sequence[int] = BATCHES,
    seconds: float = 0.7, with_torch: bool = False, densenet: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Measure every session that this machine can run; print which it cannot run, and why."""
    found: list[Measured] = []
    missing: list[str] = []
    with bundles_of("densenet121" if densenet else "lung") as bundles:
        engine = Engine(bundles, Machine(session="auto"))
        try:
            for name in names:
                bundle = engine.bundles[name]
                for variant in variants(bundle, missing, with_torch=with_torch, densenet=densenet and name == "lung"):
                    for batch in batches:
                        rows = random_rows(bundle, batch)
                        rate = rate_of(variant.prepare(rows), batch, seconds)
                        found.append(Measured(name, variant.runtime, variant.precision, batch, rate))
        finally:
            engine.close()
    for name in names:
        _table(name, [m for m in found if m.bundle == name], batches)
    for reason in dict.fromkeys(missing):
        print(f"not measured: {reason}")
    report.plot(
        lambda axes: _draw(axes, [m for m in found if m.bundle == names[0]]), title=f"{names[0]}, bare sessions"
    )
    figures = {
        "densenet": densenet,
        "sessions": [{**vars(m), "ms_per_batch": m.ms_per_batch} for m in found],
        "not_measured": list(dict.fromkeys(missing)),
    }
    report.end(figures)
    return figures


def rate_of(run: Run, batch: int, seconds: float) -> float:
    """Rows per second, from at least three runs in about ``seconds``, after a warm-up."""
    run(1)
    started = time.perf_counter()
    run(1)
    n = max(3, int(seconds / max(1e-6, time.perf_counter() - started)))
    started = time.perf_counter()
    run(n)
    return n * batch / (time.perf_counter() - started)


def variants(bundle: Bundle, missing: list[str], *, with_torch: bool, densenet: bool = False) -> Iterator[Variant]:
    """Every variant that this machine can run; the others are added to ``missing`` with the reason."""
    setup = bundle.session.setup
    yield Variant(
        f"in service: {setup.runtime} {setup.streams}×", setup.precision, lambda rows: in_service(bundle, rows)
    )
    model = bundle.folder / bundle.manifest.weights.path
    yield from onnxruntime_variants(model, missing)
    yield from openvino_variants(model, missing)
    yield from torch_variants(bundle, missing, on_cpu=with_torch, densenet=densenet)


def in_service(bundle: Bundle, rows: Rows) -> Run:
    """The bundle's session in service, with as many runs at a time as it has streams."""
    session = bundle.session
    pool = ThreadPoolExecutor(session.setup.streams)

    def run(n: int) -> None:
        for _ in pool.map(lambda _: session.run(rows), range(n)):
            pass

    return run


def own_batch(bundle: Bundle) -> int:
    """Rows of a run in the service: the session's fixed batch, or 8 if it has none."""
    return bundle.session.setup.batch or 8


def _table(name: str, found: Sequence[Measured], batches: Sequence[int]) -> None:
    by_variant: dict[tuple[str, str], dict[int, Measured]] = {}
    for measured in found:
        by_variant.setdefault((measured.runtime, measured.precision), {})[measured.batch] = measured
    rows: list[list[Cell]] = [
        [
            f"{runtime} {precision}",
            *(by_batch[b].rows_per_s for b in batches),
            min(m.ms_per_batch for m in by_batch.values()),
        ]
        for (runtime, precision), by_batch in by_variant.items()
    ]
    columns = ("", *(f"batch {b}" for b in batches), "least ms/batch")
    table(f"{name}: rows per second, {cores()} cores", columns, rows)


def _draw(axes: Any, found: Sequence[Measured]) -> None:
    names = list(dict.fromkeys((m.runtime, m.precision) for m in found))
    for colour, (runtime, precision) in zip(COLOURS * 3, names, strict=False):
        mine = [m for m in found if (m.runtime, m.precision) == (runtime, precision)]
        x, y = [m.rows_per_s for m in mine], [m.ms_per_batch for m in mine]
        axes.plot(x, y, "o-", color=colour, markersize=4, label=f"{runtime} {precision}")
    axes.set(xlabel="rows per second", ylabel="ms per batch", yscale="log")
    axes.legend(fontsize=7, frameon=False)
