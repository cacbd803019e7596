"""Batches without a delay timer: a free stream takes all requests that are queued, up to the largest batch.

A request may have several rows (the windows of one recording); they stay together. A bad request fails alone: rows of
the wrong shape are refused at once, a result that is not finite fails its own request, and where a whole run fails,
its requests are run one by one. A request that its caller has cancelled is dropped before it is computed.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from dataclasses import dataclass, field
from math import ceil
from time import perf_counter

import numpy as np

from inference.runtime.session import Array, Session


class InferenceFailed(Exception):
    """A request has no result; ``code`` says why. Other requests of its batch are not affected."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass(eq=False)
class _Request:
    rows: Array
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[tuple[Array, ...]]
    queued_at: float = field(default_factory=perf_counter)


@dataclass
class BatcherCounts:
    """What a batcher has done so far.

    Parameters
    ----------
    batches, rows
        Runs of the session that succeeded, and the rows in them.
    failed
        Requests without a result; they are in ``requests`` too.
    left
        Requests whose caller had left.
    queue_seconds
        How long requests waited for their run, added up.
    run_seconds
        How long the runs took, added up.
    """

    requests: int = 0
    batches: int = 0
    rows: int = 0
    failed: int = 0
    left: int = 0
    queue_seconds: float = 0.0
    run_seconds: float = 0.0


class Batcher:
    """Runs the requests for one session, in as many threads as it has streams.

    Parameters
    ----------
    max_batch
        Most rows in one run where the session does not fix it, unless a single request has more.
    finite
        Whether a NaN in the first output is an error (it is not for tabular bundles, where NaN means unknown).
    """

    def __init__(self, session: Session, *, name: str, max_batch: int = 16, finite: bool = True) -> None:
        self.session = session
        self.counts = BatcherCounts()
        self._fixed = session.setup.batch
        self._max_batch = session.setup.batch or max_batch
        self._finite = finite
        self._queue: deque[_Request] = deque()
        self._wake = threading.Condition()
        self._closed = False
        self._idle = session.setup.streams
        self._threads = [
            threading.Thread(target=self._serve, name=f"batcher-{name}-{stream}", daemon=True)
            for stream in range(session.setup.streams)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def rows_waiting(self) -> int:
        """Rows that are queued for a run."""
        with self._wake:
            return sum(len(request.rows) for request in self._queue)

    async def infer(self, rows: Array) -> tuple[Array, ...]:
        """Outputs for ``rows`` (``(k, ...)``), each ``(k, ...)``.

        Raises
        ------
        InferenceFailed
            ``shape`` (wrong dtype or shape), ``not_finite``, ``session`` (the runtime failed) or ``closed``.
        """
        if not self.session.accepts(rows):
            raise InferenceFailed("shape")
        loop = asyncio.get_running_loop()
        request = _Request(rows, loop, loop.create_future())
        with self._wake:
            if self._closed:
                raise InferenceFailed("closed")
            self._queue.append(request)
            self._wake.notify()
        return await request.future

    def close(self) -> None:
        """Finish what is queued and stop."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join()

    def _serve(self) -> None:
        while requests := self._take():
            self._run(requests)
            with self._wake:
                self._idle += 1

    def _take(self) -> list[_Request]:
        """Wait for the first request, then take those that are queued; empty when closed."""
        with self._wake:
            while True:
                taken: list[_Request] = []
                n_rows, most = 0, self._share()
                while self._queue and (not taken or n_rows + len(self._queue[0].rows) <= most):
                    request = self._queue.popleft()
                    if request.future.cancelled():
                        self.counts.left += 1
                        continue
                    taken.append(request)
                    n_rows += len(request.rows)
                if taken or self._closed:
                    self._idle -= 1
                    return taken
                self._wake.wait()

    def _share(self) -> int:
        """Most rows for one stream: a whole batch where padding would fill it, else its equal part of the queue."""
        if self._fixed is not None or self._idle == 1:
            return self._max_batch
        return min(self._max_batch, ceil(self.rows_waiting / self._idle))

    def _run(self, requests: list[_Request]) -> None:
        started = perf_counter()
        rows = requests[0].rows if len(requests) == 1 else np.concatenate([r.rows for r in requests])
        try:
            outputs = self.session.run(rows)
        except Exception:
            if len(requests) == 1:
                self._settle(requests[0], InferenceFailed("session"))
            else:
                for request in requests:
                    self._run([request])
            return
        with self._wake:
            self.counts.batches += 1
            self.counts.rows += len(rows)
            self.counts.queue_seconds += sum(started - r.queued_at for r in requests)
            self.counts.run_seconds += perf_counter() - started
        at = 0
        for request in requests:
            part = tuple(output[at : at + len(request.rows)] for output in outputs)
            at += len(request.rows)
            broken = self._finite and not np.isfinite(part[0]).all()
            self._settle(request, InferenceFailed("not_finite") if broken else part)

    def _settle(self, request: _Request, result: tuple[Array, ...] | InferenceFailed) -> None:
        with self._wake:
            self.counts.requests += 1
            self.counts.failed += isinstance(result, InferenceFailed)

        def settle() -> None:
            if request.future.done():
                return
            if isinstance(result, InferenceFailed):
                request.future.set_exception(result)
            else:
                request.future.set_result(result)

        try:
            request.loop.call_soon_threadsafe(settle)
        except RuntimeError:
            # The caller's loop is closed, so there is no one to give the result to.
            with self._wake:
                self.counts.left += 1
