"""Weights by their keys: safetensors, and Keras HDF5 without Keras."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.imported_ecg import Residual2020
from tests.training.imported.keras_files import forward, residual2020, write
from training.imported.files import ImportRefused, read_checkpoint
from training.imported.keras import NotKeras, layers_by_kind, read_keras
from training.imported.recordings import ARCHITECTURES
from training.imported.safetensors import is_safetensors, read_safetensors
from training.imported.sources import fill


def safetensors(path: Path, header: dict[str, object], values: bytes) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + values)
    return path


def test_safetensors_are_read_by_their_names(tmp_path: Path) -> None:
    one, two = np.arange(6, dtype=np.float32).reshape(2, 3), np.arange(4, dtype=np.int64)
    header = {
        "__metadata__": {"format": "pt"},
        "layer.weight": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "layer.steps": {"dtype": "I64", "shape": [4], "data_offsets": [24, 56]},
        "half.weight": {"dtype": "BF16", "shape": [1, 2], "data_offsets": [56, 60]},
        "empty": {"dtype": "F32", "shape": [0], "data_offsets": [60, 60]},
    }
    half = torch.tensor([1.5, -2.0], dtype=torch.bfloat16).view(torch.uint8).numpy().tobytes()
    path = safetensors(tmp_path / "m.safetensors", header, one.tobytes() + two.tobytes() + half)
    found = read_safetensors(path)
    assert found["layer.weight"].tolist() == one.tolist()
    assert found["layer.steps"].tolist() == two.tolist()
    assert found["half.weight"].float().tolist() == [[1.5, -2.0]]
    assert read_checkpoint(path).format == "safetensors"


@pytest.mark.parametrize(
    "about",
    [
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 20]},
        {"dtype": "F32", "shape": [2, 3], "data_offsets": [8, 32]},
        {"dtype": "F32", "shape": [-2, -3], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 24]},
        {"dtype": "F13", "shape": [2, 3], "data_offsets": [0, 24]},
        {"dtype": "F32", "shape": [2, 3]},
        "nothing",
    ],
)
def test_safetensors_whose_header_is_wrong_are_refused(tmp_path: Path, about: object) -> None:
    path = safetensors(tmp_path / "m.safetensors", {"layer.weight": about}, bytes(24))
    assert is_safetensors(path)
    with pytest.raises(ImportRefused, match="a damaged safetensors file"):
        read_checkpoint(path)


h5py = pytest.importorskip("h5py", reason="h5py not installed: Keras files are not read")


@pytest.fixture(scope="module")
def keras(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("keras") / "model.hdf5", residual2020())


def test_the_network_of_2020_answers_as_keras_would(keras: Path) -> None:
    """Against each layer of Keras by numpy: uneven zeros, its epsilon, its order of flattening, its order of layers."""
    network = Residual2020(6).eval()
    of_keras = ARCHITECTURES["residual2020"].keras
    assert of_keras is not None
    fill(network, of_keras(layers_by_kind(read_keras(keras))))
    x = np.random.default_rng(1).normal(0, 0.3, (1, 4096, 12))
    with torch.inference_mode():
        logits, over_time = network(torch.from_numpy(x.transpose(0, 2, 1)).float())
    np.testing.assert_allclose(logits.numpy(), forward(residual2020(), x), atol=2e-5)
    assert over_time.shape == (1, 6, 16)
    torch.testing.assert_close(over_time.mean(dim=2), logits)
    assert float(over_time.std(dim=2).min()) > 1e-3


def test_every_array_of_a_keras_file_has_the_name_of_its_layer(keras: Path) -> None:
    weights = read_keras(keras)
    assert len(weights) == 13 + 9 * 4 + 2
    assert weights["conv1d_2/kernel"].shape == (1, 64, 128)


def test_arrays_in_other_files_are_not_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "secret.hdf5", "w") as secret:
        secret["kernel:0"] = np.ones((2, 2), np.float32)
    with h5py.File(tmp_path / "link.hdf5", "w") as file:
        group = file.create_group("dense")
        file.attrs["layer_names"] = [b"dense"]
        group.attrs["weight_names"] = [b"kernel:0"]
        group["kernel:0"] = h5py.ExternalLink("secret.hdf5", "kernel:0")
    with pytest.raises(NotKeras, match="not in this file"):
        read_keras(tmp_path / "link.hdf5")
    (tmp_path / "raw").write_bytes(bytes(16))
    with h5py.File(tmp_path / "raw.hdf5", "w") as file:
        group = file.create_group("dense")
        file.attrs["layer_names"] = [b"dense"]
        group.attrs["weight_names"] = [b"kernel:0"]
        group.create_dataset("kernel:0", (2, 2), "f4", external=[(str(tmp_path / "raw"), 0, 16)])
    with pytest.raises(NotKeras, match="no array in this file"):
        read_keras(tmp_path / "raw.hdf5")


def test_other_hdf5_files_and_too_many_values_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.hdf5", "w") as file:
        file["x"] = 1
    with pytest.raises(NotKeras, match="names no layers"):
        read_keras(tmp_path / "other.hdf5")
    with h5py.File(tmp_path / "bomb.hdf5", "w") as file:
        group = file.create_group("dense")
        file.attrs["layer_names"] = [b"dense"]
        group.attrs["weight_names"] = [b"kernel:0"]
        group.create_dataset("kernel:0", (2**20, 2**20), "f4", chunks=(2**10, 2**10), compression="gzip")
    with pytest.raises(NotKeras, match="1099511627776 values"):
        read_keras(tmp_path / "bomb.hdf5")
    (tmp_path / "cut.hdf5").write_bytes(h5py.File(tmp_path / "other.hdf5").id.get_file_image()[:600])
    with pytest.raises(ImportRefused, match="no Keras file of weights"):
        read_checkpoint(tmp_path / "cut.hdf5")
