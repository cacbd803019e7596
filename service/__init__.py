"""Who, when, where: routes, keys, store, leases, pages. ``create_app`` is what a server or a test needs of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from inference.readers.pool import Readers
    from service.settings import Settings
    from service.visits.engine import Engine


def create_app(
    settings: Settings,
    engine: Engine | None = None,
    stop: Callable[[], None] = lambda: None,
    *,
    readers: Readers | None = None,
) -> FastAPI:
    """The application under ``settings``.

    Parameters
    ----------
    engine
        What assesses visits; ``None``: the one of ``inference``, loaded from the bundles while the service starts.
    stop
        Called when the bundles cannot be loaded, because nothing can be served then.
    readers
        Who reads files; ``None``: readers of its own, which end with it.
    """
    from service.app import build  # noqa: PLC0415  the settings alone are imported by what only wants to read them

    return build(settings, engine, stop, readers)
