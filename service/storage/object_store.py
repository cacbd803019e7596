"""An object store, asked by fsspec: how long it may take to answer, and what is done while it keeps silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from service.errors import ServiceError, StorageUnavailable
from service.storage.outages import noted

S3_LIMITS: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 10, "retries": {"total_max_attempts": 2}}
"""How soon an S3 that does not answer is given up: seconds, and attempts (botocore, ``Config``)."""
WRITE_S, SLOWEST_BYTES_PER_S = 20.0, 200_000.0
"""How long a write may take, and what it may need more for each byte. S3's client asks the server whether it may send a
body (RFC 9110, section 10.1.1, ``Expect: 100-continue``), and waits for that answer without end."""
SILENT_S = 5.0
"""A request that fails after this time has met a store that keeps silent."""


class ObjectStore:
    """A file system of fsspec. Any number of threads may ask it.

    While it keeps silent, one request at a time tries it, and the others are refused at once: else they would wait for
    the same silence, and the threads in which they wait would be missing for what needs no store.

    Attributes
    ----------
    root
        The bucket, and the prefix in it.
    """

    def __init__(self, url: str) -> None:
        import fsspec  # type: ignore[import-untyped]  # noqa: PLC0415  it imports the store's client

        is_s3 = urlsplit(url).scheme in ("s3", "s3a")
        self._files, self.root = fsspec.core.url_to_fs(url, **({"config_kwargs": S3_LIMITS} if is_s3 else {}))
        if is_s3:
            self._files.retries = 1  # s3fs has attempts of its own, each with all of botocore's
        self._is_silent = False
        self._trial = threading.Lock()

    @contextmanager
    def asked(self) -> Iterator[Any]:
        """The file system, for one request. It blocks: use it in a thread.

        Raises
        ------
        StorageUnavailable
            For whatever the file system raises, since each has its own errors; or another request is trying a store
            that keeps silent.
        """
        is_trial = self._is_silent
        if is_trial and not self._trial.acquire(blocking=False):
            raise noted(StorageUnavailable("silent"))
        began = time.monotonic()
        try:
            yield self._files
            self._is_silent = False
        except ServiceError:
            self._is_silent = False
            raise
        except Exception as error:
            self._is_silent = time.monotonic() - began > SILENT_S
            raise noted(StorageUnavailable(type(error).__name__), error) from error
        finally:
            if is_trial:
                self._trial.release()

    def within(self, n_bytes: int) -> dict[str, float]:
        """The limit of time for a request that writes so many bytes, as an argument of the file system's methods."""
        return {"timeout": WRITE_S + n_bytes / SLOWEST_BYTES_PER_S} if self._files.async_impl else {}
