"""What an import is held against: its own class in another environment, and lower precisions without labels."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from data_specs.bundle import CxrInput, FindingSpec
from training.bundle.export import ParityError
from training.imported.network import MIN_FOR_PRECISIONS, Network, check_wrapped, reference_logits, unlabelled_cases
from training.imported.parity import prove

OWN = "torchxrayvision.models.DenseNet"


def network(n_real: int = 2, *, shift: float = 0.0) -> Network:
    """A linear layer over four numbers, and its wrapping, which may answer otherwise."""
    torch.manual_seed(1)
    original = nn.Linear(4, 2).eval()
    x = np.random.default_rng(3).normal(size=(n_real + 2, 4)).astype(np.float32)
    wrapped = nn.Linear(4, 2).eval()
    wrapped.load_state_dict(original.state_dict())
    with torch.no_grad():
        wrapped.bias += shift
    return Network(
        wrapped=wrapped, outputs=("logits",), reference=original, original=original, prepared=lambda x: x,
        input=CxrInput(size_px=4), organ="lung", purpose="", source="", architecture="", classes=("a", "b"),
        findings=(FindingSpec(name="edema", column=1),), left_out=(), unused=(), golden=x, compared=x, n_real=n_real,
        limits=(),
    )  # fmt: skip


def interpreter(path: Path, code: str) -> Path:
    """A stand-in for the interpreter of another environment: OUT is its last argument."""
    path.write_text(f"#!{sys.executable}\nimport sys\n{code}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize(
    ("own_class", "python", "says"),
    [
        (None, None, "no package in a registry has the class"),
        ("torchxrayvision.models.ResNet", None, "cannot be made without a download"),
        ("os.system", Path("/bin/sh"), "cannot be made without a download"),
        (OWN, None, "give --parity-python"),
        (OWN, Path("/nowhere/python"), "did not run it"),
    ],
)
def test_what_was_not_proved_is_said(own_class: str | None, python: Path | None, says: str) -> None:
    said = prove(network(), own_class, python)
    assert said.startswith("not proved: ")
    assert says in said


def test_an_environment_without_the_class_proves_nothing(tmp_path: Path) -> None:
    python = interpreter(tmp_path / "python", "sys.exit('ModuleNotFoundError: no torchxrayvision')")
    assert "cannot use torchxrayvision.models.DenseNet (ModuleNotFoundError" in prove(network(), OWN, python)


def test_a_class_that_answers_otherwise_ends_the_import(tmp_path: Path) -> None:
    answers = "import numpy as np; x = np.load(sys.argv[5]); np.save(sys.argv[6], np.zeros(({rows}, 2), np.float32))"
    with pytest.raises(ParityError, match="differs from the imported network by"):
        prove(network(), OWN, interpreter(tmp_path / "a", answers.format(rows="len(x)")))
    with pytest.raises(ParityError, match=r"gives \(1, 2\)"):
        prove(network(), OWN, interpreter(tmp_path / "b", answers.format(rows="1")))


@pytest.mark.parametrize("shift", [0.0, 2e-4, float("nan")])
def test_a_wrapping_that_answers_otherwise_ends_the_import(shift: float) -> None:
    other = network(shift=shift)
    expected = reference_logits(other, other.compared)
    if shift:
        with pytest.raises(ParityError, match="the wrapped network differs"):
            check_wrapped(other, other.compared, expected)
    else:
        check_wrapped(other, other.compared, expected)


def test_lower_precisions_are_asked_for_the_halves_of_enough_real_cases() -> None:
    few, enough = network(MIN_FOR_PRECISIONS - 1), network(MIN_FOR_PRECISIONS)
    assert unlabelled_cases(few, reference_logits(few, few.compared)) is None
    logits = reference_logits(enough, enough.compared)
    found: Any = unlabelled_cases(enough, logits)
    assert np.array_equal(found.x, enough.compared[2:]), "noise is not a case"
    assert list(found.outcomes) == [1]
    above = logits[2:, 1] > np.median(logits[2:, 1])
    assert found.outcomes[1].tolist() == above.astype(float).tolist()
    assert above.sum() == MIN_FOR_PRECISIONS // 2
    assert unlabelled_cases(enough, np.zeros_like(logits)) is None, "a constant tells nothing"
