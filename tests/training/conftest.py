"""Pictures that tests make up are no chests: only the tests of the gate itself, and those of real files, ask it."""

from __future__ import annotations

import pytest

from training.cohorts import gates
from training.organs import lung


@pytest.fixture(scope="module", autouse=True)  # a package's would last into other folders' tests
def no_gate(tmp_path_factory: pytest.TempPathFactory) -> object:
    """Files are read and conformed as in serving, and none is judged; ``real_gate`` undoes that for one test.

    Without a gate nobody knows where the lungs of a film are, so the whole film is taken, and nothing is in service
    that takes anything else.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gates, "serving_gate", lambda modality: None)
        patch.setenv("SANGLOC_BUNDLES", str(tmp_path_factory.mktemp("nothing in service")))
        patch.setattr(lung, "INPUT", lung.INPUT.model_copy(update={"shows": "film"}))
        yield


@pytest.fixture
def real_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gates, "serving_gate", REAL)
    monkeypatch.delenv("SANGLOC_BUNDLES")


REAL = gates.serving_gate
