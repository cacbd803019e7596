"""``engine``: MLPerf LoadGen with the engine in this process: Offline, SingleStream and Server, speed and accuracy.

The system under test is the same object in accuracy mode and in the performance runs, and their answers are compared.
"""

from __future__ import annotations

import array
import asyncio
import json
import math
import re
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchmarks import files
from benchmarks.figures import median_ratio, percentiles
from benchmarks.over_http import bundles_of
from benchmarks.raw import in_service, own_batch, rate_of
from benchmarks.raw_runtimes import random_rows
from benchmarks.report import Cell, Report, table
from data_specs.visit.context import Context
from inference.engine import Engine, PostedInput
from inference.runtime.session import Machine

Scenario = Literal["Offline", "SingleStream", "Server"]
SCENARIOS: tuple[Scenario, ...] = ("SingleStream", "Offline", "Server")
ADULT = Context.model_validate({"person": {"age_years": 42}})
N_FILMS = 64
SERVER_SHARE = 0.7
"""Rate of the Server scenario, as a share of the Offline rate."""
SERVER_LATENCY = 3.0
"""Latency limit of 99 % of the answers in the Server scenario, as a multiple of the SingleStream median."""
AT_ONCE = 64
"""Visits in the engine at a time; further queries wait, as in the service."""


@dataclass
class Library:
    """The sample films as PNG 512², each with other bytes."""

    films: list[bytes] = field(default_factory=list)

    @classmethod
    def made(cls, n: int = N_FILMS) -> Library:
        return cls([files.numbered(files.png(which=("film-normal", "film-abnormal")[i % 2]), i) for i in range(n)])


class SystemUnderTest:
    """The engine on an event loop in another thread, called by LoadGen.

    An answer is the probabilities of the lung findings, float32, in the order of the bundle's findings.
    """

    def __init__(self, engine: Engine, library: Library) -> None:
        self._engine, self.library = engine, library
        self.answers: dict[int, list[float]] = {}
        self._loop = asyncio.new_event_loop()
        self._places = asyncio.Semaphore(AT_ONCE)
        self._thread = threading.Thread(target=self._loop.run_forever, name="engine-loop", daemon=True)
        self._thread.start()
        self.faults: list[str] = []

    def issue(self, samples: Sequence[Any]) -> None:
        """Start queries without waiting for them; called by LoadGen."""
        queries = [(sample.id, sample.index) for sample in samples]
        self._loop.call_soon_threadsafe(
            lambda: [self._loop.create_task(self._answer_query(*query)) for query in queries]
        )

    def flush(self) -> None:
        """Called by LoadGen; there is nothing to do."""

    async def _answer_query(self, query: int, index: int) -> None:
        import mlperf_loadgen as lg  # noqa: PLC0415

        probabilities: list[float] = []
        try:
            async with self._places:
                probabilities = await self.answer(index)
            self.answers[index] = probabilities
        except Exception as error:  # LoadGen needs an answer for every query; the fault is reported at the end
            self.faults.append(f"{type(error).__name__}: {error}")
        buffer = array.array("f", probabilities)
        address, n = buffer.buffer_info()
        lg.QuerySamplesComplete([lg.QuerySampleResponse(query, address, n * buffer.itemsize)])

    async def answer(self, index: int) -> list[float]:
        """Probabilities of one film's lung findings."""
        found = await self._engine.assess([PostedInput(0, "image", "f.png", self.library.films[index])], ADULT)
        lung = found.organs["lung"]
        if lung.status != "assessed":
            raise RuntimeError(f"film {index} was not assessed: {[r.code for r in lung.reasons]}")
        return [f.probability for f in lung.findings if f.probability is not None]

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True)
class Verdict:
    """LoadGen's result of one run."""

    valid: bool
    summary: dict[str, str]

    def number(self, name: str) -> float:
        """A figure of the summary; NaN if it is missing."""
        found = next((value for key, value in self.summary.items() if key.startswith(name)), "nan")
        return float(found)


def run(
    report: Report, *, network: str = "lung", scenarios: Sequence[Scenario] = SCENARIOS, seconds: float = 10.0,
    rounds: int = 5,
) -> dict[str, Any]:  # fmt: skip
    """All scenarios, accuracy mode, and the Offline rate as a share of the session alone, measured alternately."""
    try:
        import mlperf_loadgen  # type: ignore[import-not-found]  # noqa: F401, PLC0415
    except ImportError:
        raise SystemExit("engine: mlcommons-loadgen is not installed (the extra 'test')") from None
    with bundles_of(network) as bundles:
        return _measured(report, bundles, network, scenarios, seconds, rounds)


def _measured(
    report: Report, bundles: Path, network: str, scenarios: Sequence[Scenario], seconds: float, rounds: int
) -> dict[str, Any]:
    engine = Engine(bundles, Machine(session="auto"))
    library = Library.made()
    sut = SystemUnderTest(engine, library)
    verdicts: dict[str, Verdict] = {}
    try:
        bundle = engine.bundles["lung"]
        batch = own_batch(bundle)
        bare = in_service(bundle, random_rows(bundle, batch))
        pairs = [(load(sut, "Offline", seconds / rounds, offline=50.0), rate_of(bare, batch, seconds / rounds))
                 for _ in range(rounds)]  # fmt: skip
        offline = [verdict.number("Samples per second") for verdict, _ in pairs]
        share = median_ratio(offline, [rate for _, rate in pairs])
        rate = percentiles(offline, [50])[0]
        alone_ms = float("nan")
        for scenario in scenarios:
            target = max(1.0, SERVER_SHARE * rate)
            latency_ms = SERVER_LATENCY * alone_ms if math.isfinite(alone_ms) else 1000.0
            verdicts[scenario] = load(sut, scenario, seconds, offline=rate, server=target, latency_ms=latency_ms)
            if scenario == "SingleStream":
                alone_ms = verdicts[scenario].number("50.00 percentile latency (ns)") / 1e6
        timed = dict(sut.answers)
        accuracy = accuracy_answers(sut)
    finally:
        sut.close()
        engine.close()
    differences = [float(np.abs(accuracy[i] - np.asarray(timed[i])).max()) for i in timed]
    rows = [_row(name, verdict) for name, verdict in verdicts.items()]
    table(
        f"LoadGen over the engine, {network}, PNG 512²",
        ("", "verdict", "samples/s", "p50 ms", "p90 ms", "p99 ms"),
        rows,
    )
    worst = max(differences, default=float("nan"))
    print(
        f"\nOffline is {share:.2f} of the bare session (batch {batch}), median of {rounds} alternations. "
        f"Accuracy mode: {len(accuracy)} films, answers differ from the performance runs' by at most {worst:.1e}."
    )
    if sut.faults:
        print(f"{len(sut.faults)} queries failed: {sut.faults[0]}")
    figures = {
        "network": network,
        "session": str(bundle.session.setup),
        "offline_per_s": rate,
        "bare_session_per_s": percentiles([r for _, r in pairs], [50])[0],
        "offline_share_of_bare_session": share,
        "rounds": rounds,
        "accuracy": {"films": len(accuracy), "compared": len(differences), "largest_difference": worst},
        "faults": len(sut.faults),
        "scenarios": {name: {"valid": v.valid, **v.summary} for name, v in verdicts.items()},
    }
    report.end(figures)
    return figures


def _row(name: str, verdict: Verdict) -> list[Cell]:
    rate = {"Offline": "Samples per second", "Server": "Completed samples per second"}.get(name, "QPS w/o loadgen")
    latencies = [verdict.number(f"{p}.00 percentile latency (ns)") / 1e6 for p in (50, 90, 99)]
    return [name, "VALID" if verdict.valid else "INVALID", verdict.number(rate), *latencies]


def load(
    sut: SystemUnderTest, scenario: Scenario, seconds: float, *, offline: float = 0.0, server: float = 0.0,
    latency_ms: float = 1000.0,
) -> Verdict:  # fmt: skip
    """One performance run.

    Parameters
    ----------
    offline
        Expected rate of Offline; LoadGen makes one query of it that lasts ``seconds``.
    server, latency_ms
        Rate of Server, and the latency limit of 99 % of its answers.
    """
    import mlperf_loadgen as lg  # noqa: PLC0415

    settings = lg.TestSettings()
    settings.scenario = getattr(lg.TestScenario, scenario)
    settings.mode = lg.TestMode.PerformanceOnly
    settings.min_duration_ms = int(1000 * seconds)
    settings.min_query_count = 1
    settings.offline_expected_qps = max(1.0, offline)
    settings.server_target_qps = max(1.0, server)
    settings.server_target_latency_ns = int(1e6 * latency_ms)
    settings.single_stream_expected_latency_ns = 20_000_000
    with tempfile.TemporaryDirectory() as folder:
        _start(sut, settings, folder)
        return read_summary((Path(folder) / "mlperf_log_summary.txt").read_text())


def accuracy_answers(sut: SystemUnderTest) -> dict[int, NDArray[np.float32]]:
    """The answer for each film, from LoadGen's accuracy log."""
    import mlperf_loadgen as lg  # noqa: PLC0415

    settings = lg.TestSettings()
    settings.scenario = lg.TestScenario.Offline
    settings.mode = lg.TestMode.AccuracyOnly
    with tempfile.TemporaryDirectory() as folder:
        _start(sut, settings, folder)
        entries = json.loads((Path(folder) / "mlperf_log_accuracy.json").read_text())
    return {entry["qsl_idx"]: np.frombuffer(bytes.fromhex(entry["data"]), np.float32) for entry in entries}


def _start(sut: SystemUnderTest, settings: Any, folder: str) -> None:
    import mlperf_loadgen as lg  # noqa: PLC0415

    n = len(sut.library.films)
    log = lg.LogSettings()
    log.log_output.outdir = folder
    log.log_output.copy_summary_to_stdout = False
    log.enable_trace = False
    library = lg.ConstructQSL(n, n, lambda _: None, lambda _: None)
    driver = lg.ConstructSUT(sut.issue, sut.flush)
    try:
        lg.StartTestWithLogSettings(driver, library, settings, log)
    finally:
        lg.DestroySUT(driver)
        lg.DestroyQSL(library)


def read_summary(text: str) -> Verdict:
    """The ``name : value`` lines of ``mlperf_log_summary.txt`` up to the settings, and its verdict."""
    results = text.partition("Test Parameters Used")[0]
    pairs = re.findall(r"^\s*([^:\n=]+?)\s*:\s*(\S.*?)\s*$", results, re.MULTILINE)
    summary = dict(pairs)
    return Verdict(summary.get("Result is") == "VALID", summary)
