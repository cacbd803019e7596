"""Fixtures that more than one package's tests use."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module", autouse=True)
def short_collections() -> None:
    """Spare garbage collections what is there when a file begins: to look through all tests took up to 3.5 s.

    They stop each thread of the process, also the servers that tests run in it.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """What was left open is said when it is collected, at the latest now."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real recordings and images that is not part of the repository; tests that need it say so and skip."""
    folder = Path(os.environ.get("SANGLOC_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder} (set SANGLOC_TEST_DATA): real files are not read in this run")
    return folder
