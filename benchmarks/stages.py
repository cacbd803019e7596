"""``stages``: core-milliseconds of each stage of a visit alone, compared with the whole service.

A core-millisecond is CPU time of the process, all threads together. Stages are the functions of the service, called in
a loop. fsync waits for the disk and needs little CPU, so its cost is seen in the wall time.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchmarks import files
from benchmarks.over_http import bundles_of, warm_up
from benchmarks.raw import own_batch
from benchmarks.report import COLOURS, Report, table
from benchmarks.serving import Server, serving
from inference.engine import Engine
from inference.runtime.session import Machine

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from data_specs.visit.assessment import Assessment
    from service.storage.tables import VisitRow

T = TypeVar("T")
AT_ONCE = 32
BULK_CLIENTS = 3
"""One request is read and another is answered while the films of a third are assessed."""
ON_DEMAND = "evidence render"
"""Done only when a user opens the picture; not part of a posted visit."""


@dataclass(frozen=True)
class Cost:
    """CPU and wall time of one unit of work, in milliseconds."""

    core_ms: float
    wall_ms: float


def cost_of(work: Callable[[], object], seconds: float, *, per_call: int = 1) -> Cost:
    """CPU and wall time of one unit, from calls for about ``seconds``, each of ``per_call`` units."""
    work()
    n, cpu, started = 0, time.process_time(), time.perf_counter()
    while n == 0 or time.perf_counter() - started < seconds:
        work()
        n += 1
    units = n * per_call
    wall = time.perf_counter() - started
    return Cost(1000 * (time.process_time() - cpu) / units, 1000 * wall / units)


def cost_of_each(work: Callable[[T], object], units: Sequence[T]) -> Cost:
    """CPU and wall time of one unit, for work that can be done only once per unit."""
    cpu, started = time.process_time(), time.perf_counter()
    for unit in units:
        work(unit)
    n, wall = len(units), time.perf_counter() - started
    return Cost(1000 * (time.process_time() - cpu) / n, 1000 * wall / n)


def run(report: Report, *, network: str = "lung", seconds: float = 1.0, rounds: int = 5) -> dict[str, Any]:
    """Measure the stages and the service alternately; medians."""
    alone: dict[str, list[Cost]] = {}
    service: list[float] = []
    in_bulk: list[float] = []
    with bundles_of(network) as bundles:
        engine = Engine(bundles, Machine(session="auto"))
        try:
            with tempfile.TemporaryDirectory() as folder, serving(bundles) as server:
                warm_up(server, "png")
                for _ in range(rounds):
                    for name, cost in stage_costs(engine, Path(folder), seconds / 2).items():
                        alone.setdefault(name, []).append(cost)
                    alone.setdefault("HTTP request and answer", []).append(_http_cost(server, seconds))
                    service.append(server.post(files.KINDS["png"](False), clients=AT_ONCE, seconds=4 * seconds)[1])
                    in_bulk.append(server.post(files.bulk(), clients=BULK_CLIENTS, seconds=4 * seconds)[1])
        finally:
            engine.close()
    core = {name: statistics.median(c.core_ms for c in costs) for name, costs in alone.items()}
    wall = {name: statistics.median(c.wall_ms for c in costs) for name, costs in alone.items()}
    sums = [sum(costs[i].core_ms for name, costs in alone.items() if name != ON_DEMAND) for i in range(rounds)]
    ratio = statistics.median(spent / total for spent, total in zip(service, sums, strict=True))
    of_bulk = statistics.median(spent / total for spent, total in zip(in_bulk, sums, strict=True))
    total, spent = statistics.median(sums), statistics.median(service)
    rows = [[name, core[name], wall[name], core[name] / total] for name in core if name != ON_DEMAND]
    rows += [["sum of the stages", total, None, 1.0], ["the service, 32 clients", spent, None, ratio]]
    rows += [["the service, 32 visits in each request", statistics.median(in_bulk), None, of_bulk]]
    rows += [[f"({ON_DEMAND}, on demand)", core[ON_DEMAND], wall[ON_DEMAND], None]]
    table(f"a visit of one PNG 512², {network}: each stage alone", ("", "core-ms", "wall ms", "of the sum"), rows)
    print(f"\nservice ÷ sum of its stages: {ratio:.2f} (median of {rounds} alternations)")
    report.plot(lambda axes: _draw(axes, core, spent), title=f"{network}: core-ms of one visit", size=(8.0, 3.4))
    figures = {
        "network": network,
        "core_ms": core,
        "wall_ms": wall,
        "sum_core_ms": total,
        "service_core_ms": spent,
        "ratio": ratio,
        "bulk_core_ms": statistics.median(in_bulk),
        "bulk_ratio": of_bulk,
        "rounds": rounds,
    }
    report.end(figures)
    return figures


def _http_cost(server: Server, seconds: float) -> Cost:
    """Cost of an HTTP request to a route that does nothing."""
    outcome, core_ms = server.trivial(clients=AT_ONCE, seconds=max(0.5, seconds))
    return Cost(core_ms, 1000 / outcome.rate_per_s)


def stage_costs(engine: Engine, folder: Path, seconds: float) -> dict[str, Cost]:
    """Cost of each stage of a visit with a PNG; ``folder`` is for the store and the database."""
    return {**_intake_costs(folder, seconds), **_film_costs(engine, seconds), **_answer_costs(engine, folder, seconds)}


def _intake_costs(folder: Path, seconds: float) -> dict[str, Cost]:
    from service.receive.multipart import FormReader  # noqa: PLC0415
    from service.receive.posted import Part  # noqa: PLC0415
    from service.storage.drafts import Drafts  # noqa: PLC0415
    from service.storage.store import open_store  # noqa: PLC0415

    body = files.KINDS["png"](False)
    numbers = itertools.count(time.time_ns() % 10**12)
    store = open_store(folder.joinpath("store").as_uri(), folder)
    drafts = Drafts(store.drafts)
    parts: list[Part] = []

    def parse() -> None:
        reader = FormReader(body.content_type, drafts)
        reader.feed(files.numbered(body.content, next(numbers)))
        parts.extend(part for part in reader.finish() if part.field != "context")

    parsed = cost_of(parse, seconds)
    stored = cost_of_each(lambda part: store.put(part.draft), parts)
    read = cost_of_each(lambda part: store.read(part.draft.sha256), parts)
    return {"parse multipart, hash": parsed, "store, fsync": stored, "read back, verify": read}


def _film_costs(engine: Engine, seconds: float) -> dict[str, Cost]:
    from data_specs.bundle import CxrInput  # noqa: PLC0415
    from data_specs.cxr.files import read_image  # noqa: PLC0415
    from data_specs.cxr.image import conform  # noqa: PLC0415
    from inference.cxr.gate import judge, saturated_share  # noqa: PLC0415
    from inference.cxr.pipeline import for_network, upright_of  # noqa: PLC0415

    content = files.numbered(files.png(), 0)
    gate, lung = engine.bundles["cxr_gate"], engine.bundles["lung"]
    pixels = read_image(content).pixels
    takes = lung.input_as(CxrInput)
    sizes = [gate.input_as(CxrInput).size_px, takes.read_px]
    n = own_batch(lung)
    for_gate, whole = (conform(pixels, size)[None] for size in sizes)
    logits, distance, lungs, *_ = (np.asarray(o, dtype=np.float64) for o in gate.session.run(for_gate))
    upright = upright_of(
        gate.manifest.thresholds,
        [(judge(gate.manifest.thresholds, 0.0, logits[0], float(distance[0, 0]), lungs[0, 0]), lungs[0, 0])],
    )
    films = [np.repeat(one, n, axis=0) for one in (for_gate, for_network(whole, upright, takes))]
    return {
        "decode": cost_of(lambda: read_image(content), seconds),
        "conform": cost_of(lambda: ([conform(pixels, size) for size in sizes], saturated_share(pixels)), seconds),
        f"gate network, batch {n}": cost_of(lambda: gate.session.run(films[0]), seconds, per_call=n),
        "gate verdict": cost_of(
            lambda: judge(gate.manifest.thresholds, 0.0, logits[0], float(distance[0, 0]), lungs[0, 0]), seconds
        ),
        "as the network takes it": cost_of(lambda: for_network(whole, upright, takes), seconds),
        f"network, batch {n}": cost_of(lambda: lung.session.run(films[1]), seconds, per_call=n),
    }


def _answer_costs(engine: Engine, folder: Path, seconds: float) -> dict[str, Cost]:
    from data_specs.visit.assessment import EvidenceMap  # noqa: PLC0415
    from data_specs.visit.context import Context  # noqa: PLC0415
    from inference.engine import PostedInput  # noqa: PLC0415
    from inference.findings import answer, offered, positive_share  # noqa: PLC0415
    from inference.render.pictures import evidence_png  # noqa: PLC0415
    from service.visits.stored import visit_view  # noqa: PLC0415

    content = files.numbered(files.png(which="film-abnormal"), 0)
    context = Context.model_validate(files.CONTEXT)
    assessment = asyncio.run(engine.assess([PostedInput(0, "image", "f.png", content)], context))
    specs = offered(engine.bundles["lung"].manifest, 42)
    numbers, activation = np.zeros(64), np.random.default_rng(0).standard_normal((64, 7, 7))

    def heatmap(values: NDArray[np.float64]) -> EvidenceMap:
        return EvidenceMap(kind="heatmap", input=0, values=positive_share(values))

    def findings() -> None:
        answer(specs, numbers, evidence=lambda spec: [heatmap(activation[spec.column])])

    evidence = heatmap(activation[0])
    row, write = _visit_writer(folder, assessment, context.model_dump_json(exclude_unset=True))
    return {
        "findings": cost_of(findings, seconds),
        "database, two grouped transactions": cost_of(write, seconds, per_call=AT_ONCE),
        "JSON": cost_of(lambda: (assessment.model_dump_json(), visit_view(row, "en").model_dump_json()), seconds),
        ON_DEMAND: cost_of(lambda: io.BytesIO(evidence_png(content, evidence)), seconds),
    }


def _visit_writer(folder: Path, assessment: Assessment, context: str) -> tuple[VisitRow, Callable[[], None]]:
    """The row of a finished visit, and a function that writes :data:`AT_ONCE` visits at a time to the database."""
    import uuid  # noqa: PLC0415

    from sqlalchemy import func, select  # noqa: PLC0415

    from service.storage.database import Database, database_now, insert_rows  # noqa: PLC0415
    from service.storage.owner import Owner  # noqa: PLC0415
    from service.storage.tables import VISITS, Base, InputRow, VisitRow  # noqa: PLC0415
    from service.visits.leases import Lease, Leases  # noqa: PLC0415

    database = Database(f"sqlite:///{folder / f'{uuid.uuid4().hex}.db'}")
    Base.metadata.create_all(database.engine)
    leases = Leases(database, Owner(folder / "owners"), 60.0)
    unfinished = select(func.count()).select_from(VISITS).where(VISITS.c.status == "accepted")

    def row() -> VisitRow:
        name = str(uuid.uuid4())
        file = InputRow(visit_id=name, index=0, field="image", filename="f.png", sha256="0" * 64, n_bytes=1)
        return VisitRow(
            id=name, site="admin", key_id="bootstrap", context=context, status="accepted", priority="unassessed",
            body_hash="0" * 64, version=1, attempts=0, faults=0, inputs=[file],
        )  # fmt: skip

    async def visit() -> VisitRow:
        new = row()

        def insert(session: Session) -> None:
            session.execute(unfinished).scalar_one()
            new.received_at = database_now(session)
            leases.lease_new(new, new.received_at)
            insert_rows(session, new, *new.inputs)

        await database.write(insert)
        await leases.finish(Lease(new, 1), "complete", assessment)
        return new

    async def together() -> VisitRow:
        return (await asyncio.gather(*(visit() for _ in range(AT_ONCE))))[0]

    return asyncio.run(together()), lambda: asyncio.run(together()) and None


def _draw(axes: Any, core: dict[str, float], service: float) -> None:
    left = 0.0
    for colour, (name, value) in zip(COLOURS * 3, ((k, v) for k, v in core.items() if k != ON_DEMAND), strict=False):
        axes.barh(["stages"], [value], left=left, color=colour, label=f"{name} ({value:.2f})")
        left += value
    axes.barh(["service"], [service], color="0.6")
    axes.set(xlabel="core-milliseconds for one visit")
    axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
