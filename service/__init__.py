"""Who, when, where: routes, keys, store, leases, pages. ``create_app`` is what a server or a test needs of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from service.settings import Settings
    from service.visits.engine import Engine


def create_app(settings: Settings, engine: Engine | None = None, stop: Callable[[], None] = lambda: None) -> FastAPI:
    """The application under ``settings``; ``engine=None``: the one of ``inference``, loaded while the service starts.

    ``stop`` is called when the bundles cannot be loaded.
    """
    from service.app import build  # noqa: PLC0415  the settings alone are imported by what only wants to read them

    return build(settings, engine, stop)
