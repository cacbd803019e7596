"""What is tried here is how networks learn: their figures are drawn a tenth as often, which is most of the time."""

from __future__ import annotations

import pytest

from training.figures.evaluate import evaluate
from training.figures.offer import offer


@pytest.fixture(scope="module", autouse=True)
def fewer_draws() -> object:
    with pytest.MonkeyPatch.context() as patch:
        for figures in (evaluate, offer):
            patch.setitem(figures.__kwdefaults__, "draws", 100)
        yield
