"""The running service, as its routes and listeners use it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import Request

from service.audit.looks import Looks
from service.delivery.worker import DeliveryWorker
from service.drift.notices import NoticeWorker
from service.drift.worker import DriftWorker
from service.parts import Parts
from service.places import Places, Shares
from service.protocols.tensors import Tensors
from service.visits.engine import Engine
from service.visits.work import Work

if TYPE_CHECKING:
    from service.exchange.worker import Upstream
    from service.provider.sign_in import Provider

MAX_LISTENERS = 200


@dataclass
class Service(Parts):
    """Made by ``service.app.build``, found by every route as ``service_of(request)``.

    Parameters
    ----------
    work
        The visits that this process assesses.
    deliveries
        The reports that this process sends.
    drift, notices
        The sites whose films this process compares with those of before, and the messages about alarms that it sends.
    uploads
        Limits how many request bodies are read at a time, and how many of them one key has.
    tensors
        Limits what requests to the models themselves (``/v2``) hold in memory.
    upstream
        The exchange with the centre; ``None`` where this is no node.
    provider
        The OpenID provider by which persons sign in; ``None``: there are only keys.
    engine
        ``None`` until the bundles are loaded.
    draining
        The process was asked to stop: nothing new is accepted.
    failed
        The bundles could not be loaded.
    looks
        Records who has looked at what.
    listeners
        Limits how many pages are told of new urgent visits at a time, and how many of them one key has.
    queue_was_full
        Whether the queue was full when it was last counted. Bodies are then refused before they are read.
    """

    work: Work
    deliveries: DeliveryWorker
    drift: DriftWorker
    notices: NoticeWorker
    uploads: Places
    tensors: Tensors
    looks: Looks
    listeners: Shares = field(default_factory=lambda: Shares(MAX_LISTENERS))
    upstream: Upstream | None = None
    provider: Provider | None = None
    engine: Engine | None = None
    draining: bool = False
    failed: bool = False
    queue_was_full: bool = False

    def stop(self) -> None:
        """Accept nothing more."""
        self.draining = True
        self.work.stop_taking()
        self.deliveries.stop_taking()
        if self.upstream is not None:
            self.upstream.stop_taking()

    @property
    def available(self) -> bool:
        """Whether visits are accepted."""
        return self.engine is not None and not self.draining


def service_of(request: Request) -> Service:
    """The service that this request was sent to."""
    service: Service = request.app.state.service
    return service
