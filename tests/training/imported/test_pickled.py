"""Files that hold whole modules: their tensors are taken, nothing is run, and what wants more is refused by name."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from tests.conftest import ROOT
from training.imported import disposable
from training.imported.disposable import Unreadable, read_disposably
from training.imported.pickled import MAGIC_NUMBER, NotOnTheList, read_modules

BOTH = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])


@pytest.fixture(scope="module")
def small() -> nn.Module:
    """A DenseNet of torchxrayvision's class, with few weights."""
    models = pytest.importorskip("torchxrayvision.models", exc_type=ImportError)
    torch.manual_seed(2)
    network = models.DenseNet(growth_rate=4, block_config=(1, 1, 1, 1), num_init_features=8, bn_size=2)
    network.op_threshs = torch.linspace(0.1, 0.9, 18)
    return network


def saved(path: Path, content: object, zipped: bool = True) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def same(found: Any, network: nn.Module) -> bool:
    expected = network.state_dict()
    return found.keys() == expected.keys() and all(torch.equal(found[k], v) for k, v in expected.items())


@BOTH
def test_every_tensor_of_a_module_is_taken(tmp_path: Path, small: nn.Module, zipped: bool) -> None:
    assert same(read_modules(saved(tmp_path / "whole.pt", small, zipped)), small)


@BOTH
def test_modules_inside_a_checkpoint_are_taken_with_what_stands_beside(tmp_path: Path, zipped: bool) -> None:
    """As reproduce-chexnet keeps them: a torchvision module, figures, a state of random numbers."""
    network = torchvision.models.resnet18(num_classes=14)
    network.fc = nn.Sequential(nn.Linear(512, 14), nn.Sigmoid())
    content = {
        "model": nn.DataParallel(network), "best_loss": np.float64(0.15), "epoch": 7, "LR": 0.01,
        "rng_state": torch.get_rng_state(), "seen": {1, 2}, "shape": torch.Size([3]),
    }  # fmt: skip
    found = read_modules(saved(tmp_path / "c", content, zipped))
    assert set(found) == {"model", "rng_state"}
    assert same({k.removeprefix("module."): v for k, v in found["model"].items()}, network)


def test_weights_of_other_kinds_and_views_are_rebuilt(tmp_path: Path) -> None:
    layer = nn.Linear(6, 4).half()
    layer.weight = nn.Parameter(torch.arange(24, dtype=torch.float16).reshape(6, 4).T)
    layer.register_buffer("empty", torch.zeros(0))
    found = read_modules(saved(tmp_path / "l.pt", layer))
    assert same(found, layer)
    assert found["weight"].dtype == torch.float16


class Bomb:
    def __init__(self, fuse: Path) -> None:
        self.fuse = str(fuse)

    def __reduce__(self) -> Any:
        return open, (self.fuse, "w")


class Layer(nn.Module):
    """A module of a class that is on nobody's list."""


@BOTH
def test_a_module_that_wants_more_is_refused_by_name_and_nothing_is_run(tmp_path: Path, zipped: bool) -> None:
    fuse = tmp_path / "went-off"
    network = nn.Sequential(nn.Linear(2, 2))
    network[0].extra = Bomb(fuse)
    with pytest.raises(NotOnTheList, match=r"io\.open"):
        read_modules(saved(tmp_path / "b.pt", network, zipped))
    with pytest.raises(NotOnTheList, match=r"test_pickled\.Layer"):
        read_modules(saved(tmp_path / "l.pt", nn.Sequential(nn.Linear(2, 2), Layer()), zipped))
    assert not fuse.exists()


@pytest.mark.parametrize("opcodes", [b"cos\nsystem\n(S'touch x'\ntR.", b"cbuiltins\neval\n(S'1'\ntR.", b"\x82\x01."])
def test_no_way_to_a_global_leads_round_the_list(tmp_path: Path, opcodes: bytes) -> None:
    head = b"".join(pickle.dumps(each, protocol=2) for each in (MAGIC_NUMBER, 1001, {}))
    (tmp_path / "x.pt").write_bytes(head + opcodes)
    with pytest.raises((pickle.UnpicklingError, ValueError)):
        read_modules(tmp_path / "x.pt")


def test_storages_that_are_larger_than_the_file_are_not_made(tmp_path: Path) -> None:
    class Storage(pickle.Pickler):
        def persistent_id(self, thing: object) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", 10**12, None) if thing == "here" else None

    with (tmp_path / "x.pt").open("wb") as file:
        for each in (MAGIC_NUMBER, 1001, {}, OrderedDict(a="here")):
            Storage(file, protocol=2).dump(each)
    with pytest.raises(pickle.UnpicklingError, match="larger than the file"):
        read_modules(tmp_path / "x.pt")


def test_a_damaged_file_is_refused(tmp_path: Path, small: nn.Module) -> None:
    for zipped in (True, False):
        whole = saved(tmp_path / "w.pt", small, zipped).read_bytes()
        for share in (0.3, 0.7, 0.99):
            (tmp_path / "cut.pt").write_bytes(whole[: int(share * len(whole))])
            with pytest.raises(Exception):  # noqa: B017, PT011  of any kind: the process that reads it takes all
                read_modules(tmp_path / "cut.pt")


def test_a_reader_that_takes_too_long_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disposable, "WALL_S", 0.05)
    (tmp_path / "x.pt").write_bytes(b"\x80")
    with pytest.raises(Unreadable, match=r"more than 0\.05 s"):
        read_disposably("pickled", tmp_path / "x.pt")


def test_a_reader_has_only_so_much_memory_and_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import os, sys; from pathlib import Path; from training.imported import disposable, pickled\n"
        "pickled.read_modules = lambda path: {'a': disposable.torch.ones(10**9)}\n"
        "sys.exit(disposable.main('pickled', Path(sys.argv[1]), Path(sys.argv[2])))"
    )
    (tmp_path / "x.pt").write_bytes(b"\x80")
    command = [sys.executable, "-c", code, tmp_path / "x.pt", tmp_path / "out.pt"]
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == disposable.REFUSED
    assert "RuntimeError" in done.stdout or "MemoryError" in done.stdout
    given: dict[str, Any] = {}

    def run(command: object, **how: Any) -> subprocess.CompletedProcess[str]:
        given.update(how)
        return subprocess.CompletedProcess([], 1, "", "")

    monkeypatch.setenv("SANGLOC_DATABASE_URL", "postgresql://secret")
    monkeypatch.setattr(disposable.subprocess, "run", run)
    with pytest.raises(Unreadable, match="more time or memory"):
        read_disposably("pickled", tmp_path / "x.pt")
    assert "secret" not in str(given["env"])
