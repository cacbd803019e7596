"""Counters and times for Prometheus; ``docs/reference/metrics.md`` lists them. No label names a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from inference.bundles.loading import Bundle
    from inference.runtime.batcher import Batcher

    InService = Callable[[], tuple[Mapping[str, Bundle], Mapping[str, Batcher]]]

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCHER_COUNTS = {
    "requests": "Requests that a batcher has answered, those that failed included",
    "batches": "Runs of a batcher's session that succeeded",
    "rows": "Rows in these runs: divided by the runs, the mean size of a batch",
    "failed": "Requests without a result",
    "left": "Requests whose caller had left",
    "queue_seconds": "How long requests waited for their run, added up",
    "run_seconds": "How long the runs took, added up",
}
"""The fields of ``inference.runtime.batcher.BatcherCounts``."""


class Metrics:
    """One registry for each application, so that two applications in one process have counts of their own."""

    media_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "sangloc_requests_total", "Requests answered", ("method", "route", "status"), registry=self._registry
        )
        self.latency = Histogram(
            "sangloc_request_seconds",
            "Time from a request's headers to the end of its answer",
            ("method", "route"),
            buckets=SECONDS,
            registry=self._registry,
        )
        self.visits = Counter(
            "sangloc_visits_total", "Visits finished by this process", ("status", "priority"), registry=self._registry
        )
        self.stages = Histogram(
            "sangloc_stage_seconds",
            "Time in each stage of a visit: intake (body read to row committed), assess, total, evidence (rendering)",
            ("stage",),
            buckets=SECONDS,
            registry=self._registry,
        )
        self.unfinished = Gauge(
            "sangloc_visits_unfinished", "Accepted visits without an outcome", registry=self._registry
        )
        self.visits_oldest = Gauge(
            "sangloc_visits_oldest_seconds",
            "How long ago the visit was received that has waited longest for its outcome; 0 where none waits",
            registry=self._registry,
        )
        self.arrivals_oldest = Gauge(
            "sangloc_arrivals_oldest_seconds",
            "How long ago the DICOM object came that has waited longest to become part of a visit; 0 where none waits",
            registry=self._registry,
        )
        self.shadows = Counter(
            "sangloc_shadow_total",
            "Answers of shadow bundles that were stored; visits that a shadow bundle did not assess: dropped, failed",
            ("outcome",),
            registry=self._registry,
        )
        self.deliveries = Counter(
            "sangloc_deliveries_total",
            "Attempts to deliver a report: delivered, put_back (to be tried again), dead (given up)",
            ("kind", "outcome"),
            registry=self._registry,
        )
        self.arrivals = Counter(
            "sangloc_arrivals_total",
            "DICOM objects that arrived: stored, known (sent before), own (made here), or the code of a refusal",
            ("outcome",),
            registry=self._registry,
        )
        self.connections_open = Gauge("sangloc_connections_open", "Open HTTP connections", registry=self._registry)
        self.connections = Counter(
            "sangloc_connections_total",
            "Connections beyond a limit: an idle one replaced by a new one, spare (only the state is told), refused",
            ("outcome",),
            registry=self._registry,
        )
        self.wrong_keys = Counter(
            "sangloc_wrong_keys_total",
            "Wrong keys and refused sign-ins: refused, or limited because too many came from one network",
            ("outcome",),
            registry=self._registry,
        )
        self.sign_ins = Counter(
            "sangloc_sign_ins_total",
            "Sign-ins on the pages, by a key or by the provider: opened, or the reason why not",
            ("way", "outcome"),
            registry=self._registry,
        )
        self.leases_lost = Counter(
            "sangloc_leases_lost_total",
            "Outcomes of this process that were not written, because another process had taken the work over",
            ("work",),
            registry=self._registry,
        )
        self.unavailable = Counter(
            "sangloc_unavailable_total",
            "Requests that were answered with 503, by its code",
            ("code",),
            registry=self._registry,
        )
        self.free_bytes = Gauge(
            "sangloc_free_bytes", "Room that is left on the disk of a folder", ("folder",), registry=self._registry
        )
        self.deliveries_waiting = Gauge(
            "sangloc_deliveries_waiting", "Deliveries that have not arrived", ("kind",), registry=self._registry
        )
        self.deliveries_oldest = Gauge(
            "sangloc_deliveries_oldest_seconds",
            "How old the report is that has waited longest for a delivery; 0 where none waits",
            ("kind",),
            registry=self._registry,
        )
        self.deliveries_given_up = Gauge(
            "sangloc_deliveries_given_up",
            "Deliveries that were given up, to destinations that have not ended",
            ("kind",),
            registry=self._registry,
        )
        self.health_book_late = Gauge(
            "sangloc_health_book_late",
            "Check-ups that have not arrived in the health book in time: unsigned, waiting, given_up",
            ("why",),
            registry=self._registry,
        )
        self.releases = Counter(
            "sangloc_releases_total",
            "Releases of the centre that this node has put in force, or refused",
            ("outcome",),
            registry=self._registry,
        )
        self.release = Gauge(
            "sangloc_release_number", "Number of the release in force; 0 where there is none", registry=self._registry
        )
        self.looks_waiting = Gauge(
            "sangloc_audit_waiting",
            "Looks of this process that were shown or are about to be, and are not in the audit log yet",
            registry=self._registry,
        )
        self.incidents_open = Gauge("sangloc_incidents_open", "Incidents that are not closed", registry=self._registry)
        self.incidents_overdue = Gauge(
            "sangloc_incidents_overdue",
            "Incidents that are not closed, and whose deadline has passed",
            registry=self._registry,
        )
        self.drift_alarms_open = Gauge(
            "sangloc_drift_alarms_open",
            "Alarms about devices whose films have changed, that have not ended and that nobody has silenced",
            registry=self._registry,
        )
        self.drift_checked = Gauge(
            "sangloc_drift_oldest_check_seconds",
            "How long ago the site was compared with before that has waited longest for it; 0 where there is none",
            registry=self._registry,
        )
        self.normals_stopped = Gauge(
            "sangloc_normals_stopped",
            "Certificates of normals whose bound was shown to be broken, and that no other has replaced",
            registry=self._registry,
        )
        self.ready = Gauge("sangloc_ready", "1 when visits are accepted", registry=self._registry)

    def add_batchers(self, in_service: InService) -> None:
        """Export what batchers count.

        Parameters
        ----------
        in_service
            Called for each exposition: the bundles in service by name, and their batchers.
        """
        self._registry.register(_Batchers(in_service))

    def add_readers(self, deaths: Callable[[], Mapping[str, int]]) -> None:
        """Export how often processes that read files have stopped.

        Parameters
        ----------
        deaths
            Called for each exposition: how many readers stopped, by a short word for the cause.
        """
        self._registry.register(_Readers(deaths))

    def exposition(self) -> bytes:
        return generate_latest(self._registry)


class _Batchers(Collector):
    """What the batchers of the bundles in service have counted, read when Prometheus asks."""

    def __init__(self, in_service: InService) -> None:
        self._in_service = in_service

    def collect(self) -> Iterator[Metric]:
        labels = ("bundle", "version")
        waiting = GaugeMetricFamily("sangloc_batcher_rows_waiting", "Rows that are queued for a run", labels=labels)
        counters = {
            field: CounterMetricFamily(f"sangloc_batcher_{field}", text, labels=labels)
            for field, text in BATCHER_COUNTS.items()
        }
        bundles, batchers = self._in_service()
        for name, bundle in bundles.items():
            batcher = batchers[name]
            if batcher.session is not bundle.session:  # just replaced by another version: shown the next time
                continue
            values = (name, bundle.manifest.version)
            waiting.add_metric(values, batcher.rows_waiting)
            for field, counter in counters.items():
                counter.add_metric(values, getattr(batcher.counts, field))
        yield waiting
        yield from counters.values()


class _Readers(Collector):
    """How often processes that read files have stopped, read when Prometheus asks."""

    def __init__(self, deaths: Callable[[], Mapping[str, int]]) -> None:
        self._deaths = deaths

    def collect(self) -> Iterator[Metric]:
        stopped = CounterMetricFamily(
            "sangloc_reader_deaths", "Processes that stopped while they read a file, by the cause", labels=("cause",)
        )
        for cause, count in self._deaths().items():
            stopped.add_metric((cause,), count)
        yield stopped
