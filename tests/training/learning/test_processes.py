"""Two processes walk the path of one: batch norm, dropout, augmentation, mixup and unknown labels are all on."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from models.networks import ChannelDropout
from tests.training.learning import ddp_curve
from tests.training.learning.children import ends
from tests.training.learning.ddp_curve import NETWORKS, curve, gradients, recordings, train
from training.bundle.export import export_onnx
from training.learning.fit import predict
from training.learning.processes import Processes, SynchronisedBatchNorm, chosen_device, synchronised


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def of_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of what two processes made."""
    folder = tmp_path_factory.mktemp("two")
    codes, _, said = ends(ddp_curve.main, "together", "2", str(folder), "fp32")
    assert codes == [0, 0], said[-4000:]
    return folder


def saved(path: Path) -> nn.Module:
    network = torch.load(path, weights_only=False)
    assert isinstance(network, nn.Module)
    return network


def test_two_processes_have_the_gradients_of_one(of_two: Path) -> None:
    one, two = gradients(Processes.current()), torch.load(of_two / "gradients-0.pt", weights_only=True)
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-12, rtol=1e-9, msg=name)


@pytest.mark.parametrize("name", NETWORKS)
def test_two_processes_have_the_loss_curve_of_one(of_two: Path, tmp_path: Path, name: str) -> None:
    train(name, tmp_path, "fp32")
    one = curve(tmp_path)
    assert len(set(one)) == len(one) > 2
    assert curve(of_two / name) == pytest.approx(one, abs=1e-3)


@pytest.mark.parametrize("name", NETWORKS)
def test_all_processes_return_the_same_network_and_the_first_writes(of_two: Path, name: str) -> None:
    first, second = (saved(of_two / f"{name}-{rank}.pt").state_dict() for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert len(list((of_two / name / "tensorboard").iterdir())) == 1
    assert (of_two / name / "checkpoint.pt").exists()
    assert not (of_two / name / "checkpoint.part").exists()


def test_what_two_processes_trained_is_exported_as_ever(of_two: Path, tmp_path: Path) -> None:
    network = saved(of_two / "recording-0.pt")
    assert not any(isinstance(module, SynchronisedBatchNorm) for module in network.modules())
    x = recordings(4).x
    export_onnx(network, x[:2].numpy(), ("logits", "evidence"), tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    logits = session.run(["logits"], {"input": x.numpy()})[0]
    assert logits == pytest.approx(predict(network, x), abs=1e-4)


def test_synchronised_keeps_weights_names_and_evaluation() -> None:
    network = nn.Sequential(nn.Conv1d(12, 4, 3), nn.Sequential(nn.BatchNorm1d(4)))
    network[1][0].weight.requires_grad_(False)
    before, x = {key: value.clone() for key, value in network.state_dict().items()}, torch.randn(8, 12, 20)
    expected = network.eval()(x)
    other = synchronised(network).eval()
    assert isinstance(other[1][0], SynchronisedBatchNorm)
    assert not other[1][0].weight.requires_grad
    assert before.keys() == other.state_dict().keys()
    torch.testing.assert_close(other(x), expected, atol=0, rtol=0)


def test_alone_there_is_no_group() -> None:
    with Processes.joined("cpu") as processes:
        assert (processes.rank, processes.world_size, processes.first) == (0, 1, True)
        assert processes.rows(16) == slice(0, 16)
        assert not torch.distributed.is_initialized()


def test_rows_are_shared_in_order() -> None:
    cpu = torch.device("cpu")
    assert [Processes(rank, 3, cpu).rows(24) for rank in range(3)] == [slice(0, 8), slice(8, 16), slice(16, 24)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_that_is_absent_is_said() -> None:
    assert chosen_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="no CUDA device"):
        chosen_device("cuda")


def test_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match="auto, cpu or cuda"):
        chosen_device("tpu")


def test_dropout_leaves_out_whole_channels_and_keeps_the_mean() -> None:
    torch.manual_seed(0)
    dropout, x = ChannelDropout(0.25), torch.ones(200, 50, 3)
    assert dropout.eval()(x) is x
    out = dropout.train()(x)
    assert ((out == 0).all(dim=2) | (out == 1 / 0.75).all(dim=2)).all()
    assert float(out.mean()) == pytest.approx(1, abs=0.02)
