"""A server that makes visits of arrivals soon after they came."""

from __future__ import annotations

import pytest

from tests.service.receive.dicom.arriving import QUIET_S
from tests.service.serving import serving, settings_for


@pytest.fixture(scope="module")
def gathering(tmp_path_factory, new_database):
    folder = tmp_path_factory.mktemp("arrivals")
    with serving(settings_for(folder, database_url=new_database(), dicom_gather_seconds=QUIET_S)) as served:
        yield served
