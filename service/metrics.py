"""Counters and times for Prometheus. Labels are routes, statuses and priorities: nothing that names a person."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """One registry per application, so that two of them in one process do not count for each other."""

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
            "sangloc_visits_unfinished", "Accepted visits that wait or are worked on", registry=self._registry
        )
        self.shadows = Counter(
            "sangloc_shadow_total",
            "Answers of bundles in the shadow that were stored; visits that were dropped, or failed, on the way there",
            ("outcome",),
            registry=self._registry,
        )
        self.deliveries = Counter(
            "sangloc_deliveries_total",
            "Attempts to deliver a report, by kind of destination: delivered, put_back (to be tried again), dead",
            ("kind", "outcome"),
            registry=self._registry,
        )
        self.arrivals = Counter(
            "sangloc_arrivals_total",
            "DICOM objects that came in: stored, known (sent before), own (made here), or a refusal's code",
            ("outcome",),
            registry=self._registry,
        )
        self.ready = Gauge("sangloc_ready", "1 when visits are taken on", registry=self._registry)

    def exposition(self) -> bytes:
        return generate_latest(self._registry)
