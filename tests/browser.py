"""The browser that pages are tried in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
"""Debian's; the shell without windows shows the same in a third of the processor time."""
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; without one, or without what drives it, the test is skipped."""
    if CHROMIUM is None:
        pytest.skip("chromium-headless-shell (or chromium) is not installed: no page is tried in a browser")
    driver = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: no page is tried")
    with driver.sync_playwright() as started:
        launched = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield launched
        launched.close()
