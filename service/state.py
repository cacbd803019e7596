"""What the parts of the running service share."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fastapi import Request

from data_specs.next_steps.table import Table
from service.keys import Keys
from service.protocols.tensors import Tensors
from service.settings import Settings
from service.storage.database import Database
from service.storage.store import Store

if TYPE_CHECKING:
    from service.delivery.worker import Courier
    from service.metrics import Metrics
    from service.visits.work import Engine, Work


@dataclass(slots=True)
class Service:
    """Made by ``service.app.build``, found by every route as ``service_of(request)``.

    Parameters
    ----------
    next_steps
        The programme's table of what to do next.
    uploads
        Places for bodies being read.
    tensors
        What is held of requests to the models themselves.
    engine
        ``None`` until the bundles are loaded.
    draining
        The process was asked to stop: nothing new is taken on.
    failed
        The bundles could not be loaded.
    queue_was_full
        When a visit was last counted, so that bodies that would be refused are not read.
    """

    settings: Settings
    database: Database
    store: Store
    keys: Keys
    metrics: Metrics
    work: Work
    next_steps: Table
    uploads: asyncio.Semaphore
    tensors: Tensors
    engine: Engine | None = None
    draining: bool = False
    failed: bool = False
    queue_was_full: bool = False
    courier: Courier = field(init=False)

    def stop(self) -> None:
        """Take nothing more on."""
        self.draining = True
        self.work.stop_taking()
        self.courier.stop_taking()

    @property
    def available(self) -> bool:
        return self.engine is not None and not self.draining

    async def read_file(self, sha256: str) -> bytes:
        return await asyncio.to_thread(self.store.read, sha256)


def service_of(request: Request) -> Service:
    service: Service = request.app.state.service
    return service
