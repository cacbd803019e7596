"""Reads the settings, runs the server, and ends it in order after a signal."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import resource
import signal
import socket
import sys
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from service.settings import PREFIX, BadSettings, Settings, read_settings
from service.systemd import STOPPING, Systemd

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Server

    from service.visits.engine import Engine

BAD_SETTINGS, CANNOT_START = 2, 1
KEEP_ALIVE_S = 20
"""How long a connection stays open without a request."""
MAX_CONNECTIONS = 2000
FILES = 500
"""Descriptors that are left to the database, the store, the bundles and the other listeners."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until the process is asked to stop, and return the exit code."""
    parser = argparse.ArgumentParser(
        "server.py",
        description="Serves Sàng Lọc. Settings come from the environment: "
        + ", ".join(f"{PREFIX}{name.upper()}" for name in Settings.model_fields),
    )
    parser.parse_args(arguments)
    try:
        settings = read_settings()
    except BadSettings as error:
        print(f"server.py: {error}", file=sys.stderr)
        return BAD_SETTINGS
    return serve(settings)


def serve(settings: Settings, engine: Engine | None = None) -> int:
    """Serve under ``settings``.

    Returns
    -------
    0 after an orderly end, 1 where the service could not start, 2 where a setting cannot be used.
    """
    # There are as many decoders as cores. More threads inside numpy only cost time: with two cores a tenth of what the
    # examination of a recording takes. numpy's library reads this when it is loaded.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    systemd = Systemd.from_environment()
    from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415

    from data_specs.next_steps.table import BadTable  # noqa: PLC0415
    from service.app import build  # noqa: PLC0415  not needed where the settings are refused
    from service.logs import set_up_logs  # noqa: PLC0415

    set_up_logs()
    os.umask(0o077)  # only the service may read its files, whatever the data folder allows
    try:
        app = build(
            settings, engine, stop=lambda: server.handle_exit(signal.SIGTERM, None), loaded=_keep_what_is_loaded
        )
    except BadSettings as error:
        print(f"server.py: {error}", file=sys.stderr)
        return BAD_SETTINGS
    except BadTable as error:
        print(f"server.py: {PREFIX}NEXT_STEPS, or the table of a release: {error}", file=sys.stderr)
        return BAD_SETTINGS
    except (OSError, ImportError, ValueError, SQLAlchemyError) as error:
        # the message of most errors is not printed: it may quote an address with a password
        reason = error.strerror if isinstance(error, OSError) else type(error).__name__
        names = ", ".join(PREFIX + name for name in ("DATA_DIR", "STORE_URL", "DATABASE_URL"))
        print(f"server.py: one of {names} cannot be used: {reason}", file=sys.stderr)
        return BAD_SETTINGS
    server = server_of(app, settings, systemd)
    for ending in (signal.SIGTERM, signal.SIGINT):
        # uvicorn raises the signal again when it has ended; with the default action the exit code would be an error
        signal.signal(ending, lambda *_: None)
    try:
        server.run()
    except SystemExit:  # uvicorn could not bind the address, or the application did not start
        return CANNOT_START
    return 0 if server.started and not app.state.service.failed else CANNOT_START


def _keep_what_is_loaded() -> None:
    """Spare garbage collections what was loaded: to look through it would stop the process for 0.1 s each time."""
    gc.collect()
    gc.freeze()


def server_of(app: FastAPI, settings: Settings, systemd: Systemd | None = None) -> Server:
    """The HTTP server for ``app``, with its limits; it tells ``systemd`` how it is."""
    import uvicorn  # noqa: PLC0415

    from service.api.connections import SPARE_PLACES, Connections  # noqa: PLC0415
    from service.api.http1 import BoundedProtocol  # noqa: PLC0415

    total = max_connections(FILES + SPARE_PLACES)

    class LimitedProtocol(BoundedProtocol):
        open_connections = Connections(total, settings.connections_per_address, app.state.service.metrics)
        read_seconds = settings.idle_seconds

    class DrainingServer(uvicorn.Server):
        """Stops the service first: uvicorn waits for open requests, and some of these wait for the service.

        Systemd is told from here, because only here it is known that the port is open.
        """

        telling: asyncio.Task[None] | None = None

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if systemd is not None:
                service = app.state.service
                told = systemd.keep_told(lambda: service.available, service.database.probe)
                self.telling = asyncio.create_task(told)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            if systemd is not None:
                systemd.say(STOPPING)
            await super().shutdown(sockets)  # signs of life go on until it has ended
            if self.telling is not None:
                self.telling.cancel()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            app.state.service.stop()
            super().handle_exit(sig, frame)

    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=LimitedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
    return DrainingServer(config)


def max_connections(others: int) -> int:
    """How many connections may be open: ``MAX_CONNECTIONS``, or fewer where the system allows too few files.

    The process's own limit of open files, often 1024, is raised as far as the system lets it. Beyond that limit no
    connection could be accepted and no file opened.

    Parameters
    ----------
    others
        Files that are open besides.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_CONNECTIONS + others
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return MAX_CONNECTIONS if soft == resource.RLIM_INFINITY else max(1, min(MAX_CONNECTIONS, soft - others))
