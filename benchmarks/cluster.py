"""What a hospital runs (``docs/how-to/deploy.md``): N server processes, one PostgreSQL, one S3, Caddy before them."""

from __future__ import annotations

import ssl
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.chaos import postgres, proxy
from benchmarks.chaos import s3 as object_store
from benchmarks.chaos.asking import Client
from benchmarks.chaos.servers import Server, kept_running
from benchmarks.serving import KEY


def missing() -> str:
    """Which program a cluster needs that is not installed; empty where all are."""
    if postgres.installed() is None:
        return "PostgreSQL or its driver is not installed"
    if not object_store.installed():
        return "moto or s3fs is not installed"
    return "" if proxy.installed() else "caddy is not installed"


class Cluster:
    """Servers that are ready, each with a data folder of its own; entering it starts everything, leaving it ends it.

    Parameters
    ----------
    n_processes
        How many servers.
    with_proxy
        Whether Caddy stands before them.
    settings
        Of the servers, beside those of database and store.
    s3_by
        Gives the address by which the servers reach the S3 server on a port, where something stands between.
    postgres_settings
        Of the PostgreSQL server.
    errors
        A file to which what the servers log as errors is added at the end.

    Attributes
    ----------
    servers
        The server processes. Each has its ``port``, and can be killed and started again.
    postgres, s3
        What is behind them.
    proxy
        What is before them; ``None`` without it.
    """

    servers: list[Server]
    postgres: postgres.Cluster
    s3: object_store.S3
    proxy: proxy.Proxy | None = None

    def __init__(
        self,
        n_processes: int = 2,
        *,
        with_proxy: bool = True,
        settings: Mapping[str, str] | None = None,
        s3_by: Callable[[int], str] | None = None,
        postgres_settings: Mapping[str, str] | None = None,
        errors: Path | None = None,
    ) -> None:
        self._n, self._with_proxy, self._settings = n_processes, with_proxy, settings or {}
        self._s3_by, self._errors = s3_by, errors
        self._postgres_settings = postgres_settings
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        programs = postgres.installed()
        if programs is None:
            raise RuntimeError(missing())
        with ExitStack() as stack:  # what was started ends where the rest cannot be started
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="sangloc-cluster-")))
            self.postgres = stack.enter_context(postgres.cluster(programs, self._postgres_settings))
            self.s3 = object_store.S3()
            stack.callback(self.s3.stop)
            self.s3.start()
            at = self._s3_by(self.s3.port) if self._s3_by else f"http://127.0.0.1:{self.s3.port}"
            settings = {
                "SANGLOC_DATABASE_URL": self.postgres.url,
                "SANGLOC_STORE_URL": f"s3://{object_store.BUCKET}/cluster",
                **object_store.environment_at(at),
                **self._settings,
            }
            made = [Server(folder, settings, data=folder / f"process-{k}") for k in range(self._n)]
            self.servers = stack.enter_context(kept_running(made, errors=self._errors))
            if self._with_proxy:
                self.proxy = proxy.Proxy(folder / "proxy", [server.port for server in made])
                stack.callback(self.proxy.stop)
                self.proxy.start()
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    @property
    def address(self) -> str:
        """Where clients reach it: the proxy, or without it the first server."""
        return self.proxy.address if self.proxy else f"http://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """Of :attr:`address`."""
        return self.proxy.port if self.proxy else self.servers[0].port

    @property
    def context(self) -> ssl.SSLContext | None:
        """With which a client of :attr:`address` trusts the proxy; ``None`` where no TLS is spoken."""
        return self.proxy.context if self.proxy else None

    def client(self, key: str = KEY, *, source: str = "127.0.0.1", timeout_s: float = 120.0) -> Client:
        """A client of :attr:`address`; the proxy sends all of one ``source`` to the same server while that is ready."""
        return Client(self.port, key, source=source, timeout_s=timeout_s, context=self.context)
