"""Servers at home and abroad."""

from __future__ import annotations

import pytest

from tests.service.export.ends import End
from tests.service.serving import serving, settings_for


@pytest.fixture
def home(tmp_path, monkeypatch, new_database):
    settings = settings_for(tmp_path / "home", database_url=new_database(), max_upload_mb=16)
    with serving(settings) as served:
        yield End(served, settings, monkeypatch)


@pytest.fixture(scope="module")
def abroad(tmp_path_factory):
    """One for all tests of a module: each takes sites of its own."""
    settings = settings_for(tmp_path_factory.mktemp("abroad"), max_upload_mb=16)
    with pytest.MonkeyPatch.context() as patch, serving(settings) as served:
        yield End(served, settings, patch)
