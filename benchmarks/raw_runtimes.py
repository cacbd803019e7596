"""The runtimes without this project's session: ONNX Runtime, OpenVINO, torch."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.report import cores
from data_specs.bundle import CxrInput, EcgInput
from inference.bundles.loading import Bundle

PROVIDERS = {"CUDAExecutionProvider": "ORT CUDA", "TensorrtExecutionProvider": "ORT TensorRT"}


Rows = NDArray[Any]
Run = Callable[[int], None]
"""Runs a number of batches."""


@dataclass(frozen=True)
class Variant:
    """One way to compute a bundle's graph; ``prepare`` makes a run for rows of a fixed shape."""

    runtime: str
    precision: str
    prepare: Callable[[Rows], Run]


def random_rows(bundle: Bundle, batch: int) -> Rows:
    """A random batch of the bundle's input."""
    chance = np.random.default_rng(2026)
    contract = bundle.manifest.input
    if isinstance(contract, CxrInput):
        return chance.integers(0, 256, (batch, 1, contract.size_px, contract.size_px), dtype=np.uint8)
    if isinstance(contract, EcgInput):
        return chance.standard_normal((batch, len(contract.leads), contract.n_samples), dtype=np.float32)
    return chance.uniform(1, 100, (batch, len(contract.features))).astype(np.float32)


def onnxruntime_variants(model: Path, missing: list[str]) -> Iterator[Variant]:
    """ONNX Runtime on the CPU, and with IOBinding on each GPU provider that can be loaded; fp32 and fp16."""
    import onnxruntime as ort  # noqa: PLC0415

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = cores(), 3
    cpu = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def on_cpu(rows: Rows) -> Run:
        def run(n: int) -> None:
            for _ in range(n):
                cpu.run(None, {"input": rows})

        return run

    yield Variant("ORT CPU", "fp32", on_cpu)
    for provider, name in PROVIDERS.items():
        if not Path("/dev/nvidia0").exists():
            missing.append(f"{name}: no NVIDIA GPU")
            continue
        if provider not in ort.get_available_providers():
            missing.append(f"{name}: this ONNX Runtime has no {provider}")
            continue
        for precision in ("fp32", "fp16"):
            graph: str | bytes = str(model)
            if precision == "fp16":
                if importlib.util.find_spec("onnx") is None:
                    missing.append(f"{name} fp16: onnx is not installed")
                    continue
                graph = half_precision(model)
            session = ort.InferenceSession(graph, options, providers=[provider, "CPUExecutionProvider"])
            if session.get_providers()[0] != provider:
                missing.append(f"{name}: {provider} did not load; active is {session.get_providers()[0]}")
                break
            yield Variant(name, precision, bound(session, "cuda"))


def bound(session: Any, device: str) -> Callable[[Rows], Run]:
    """Runs with IOBinding: input and outputs are allocated once on ``device`` and not copied between runs."""
    import onnxruntime as ort  # noqa: PLC0415

    def prepare(rows: Rows) -> Run:
        binding = session.io_binding()
        binding.bind_ortvalue_input("input", ort.OrtValue.ortvalue_from_numpy(rows, device, 0))
        for output in session.get_outputs():
            binding.bind_output(output.name, device)

        def run(n: int) -> None:
            for _ in range(n):
                session.run_with_iobinding(binding)
            binding.synchronize_outputs()

        return run

    return prepare


def half_precision(model: Path) -> bytes:
    """The graph with its floats in fp16; inputs and outputs keep their types."""
    import onnx  # noqa: PLC0415
    from onnxruntime.transformers.float16 import convert_float_to_float16  # noqa: PLC0415

    converted = convert_float_to_float16(onnx.load(model), keep_io_types=True)
    content: bytes = converted.SerializeToString()
    return content


def openvino_variants(model: Path, missing: list[str]) -> Iterator[Variant]:
    """OpenVINO on the CPU: fp32 and, if the cores support it, bf16; with one stream and with one for each core."""
    if importlib.util.find_spec("openvino") is None:
        missing.append("OpenVINO: not installed")
        return
    os.environ.setdefault("OPENVINO_TELEMETRY", "0")
    import openvino as ov  # noqa: PLC0415

    core = ov.Core()
    capable = core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    for precision, hint in (("fp32", "f32"), ("bf16", "bf16")):
        if precision == "bf16" and "BF16" not in capable:
            missing.append("OpenVINO bf16: these cores have no bf16")
            continue
        for streams in sorted({1, cores()}):
            settings = {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": cores()}
            yield Variant(f"OpenVINO {streams}×", precision, _openvino(core, model, settings, streams))


def _openvino(core: Any, model: Path, settings: dict[str, Any], streams: int) -> Callable[[Rows], Run]:
    import openvino as ov  # noqa: PLC0415

    def prepare(rows: Rows) -> Run:
        graph = core.read_model(model)
        graph.reshape({"input": list(rows.shape)})
        compiled = core.compile_model(graph, "CPU", settings)
        queue = ov.AsyncInferQueue(compiled, streams)

        def run(n: int) -> None:
            for _ in range(n):
                queue.start_async({"input": rows}, share_inputs=True)
            queue.wait_all()

        return run

    return prepare


def torch_variants(bundle: Bundle, missing: list[str], *, on_cpu: bool, densenet: bool) -> Iterator[Variant]:
    """The same architecture in torch: eager, ``torch.compile`` and a CUDA graph, in fp32 and fp16 (bf16 on a CPU).

    The weights are the bundle's if they can be restored, else random, which takes the same time.
    """
    if importlib.util.find_spec("torch") is None:
        missing.append("torch eager, torch.compile, CUDA graph: torch is not installed")
        return
    import torch  # noqa: PLC0415

    cuda = torch.cuda.is_available()
    if not cuda:
        missing.append("CUDA graph: no CUDA device")
        if not on_cpu:
            missing.append("torch eager, torch.compile: no CUDA device (--torch measures them on the CPU)")
            return
    network = network_of(bundle, densenet=densenet)
    if network is None:
        missing.append(f"torch: there is no module for the network of {bundle.manifest.name}")
        return
    device = "cuda" if cuda else "cpu"
    network = network.to(device).eval()
    if bundle.manifest.input.modality == "cxr":
        network = network.to(memory_format=torch.channels_last)
    for precision, dtype in (
        ("fp32", torch.float32),
        ("fp16" if cuda else "bf16", torch.float16 if cuda else torch.bfloat16),
    ):
        yield Variant("torch eager", precision, _torch(network, device, dtype))
        try:
            compiled = torch.compile(network, mode="max-autotune-no-cudagraphs" if cuda else "default")
            with torch.inference_mode():
                _call(compiled, torch.zeros((1, *_shape(bundle)), dtype=_dtype(bundle), device=device), dtype)
            yield Variant("torch.compile", precision, _torch(compiled, device, dtype))
        except Exception as error:  # no compiler, or a network that it does not support
            missing.append(f"torch.compile {precision}: {type(error).__name__}: {str(error).splitlines()[0][:120]}")
        if cuda:
            yield Variant("CUDA graph", precision, _cuda_graph(network, dtype))


def network_of(bundle: Bundle, *, densenet: bool) -> Any:
    """The torch module of a bundle's architecture; ``None`` if there is none."""
    from models.imported import ImportedNet, Normalisation, build  # noqa: PLC0415
    from models.networks import FilmNet, GateNet, RecordingNet  # noqa: PLC0415
    from training.bundle.restore import CannotRestore, restore  # noqa: PLC0415

    n = 1 + max((finding.column for finding in bundle.manifest.findings), default=0)
    networks: dict[str, Callable[[], Any]] = {
        "lung": lambda: FilmNet(n),
        "cardiac": lambda: RecordingNet(n),
        "cxr_gate": GateNet,
    }
    if densenet:
        return ImportedNet(build("densenet121", n, 3), Normalisation((124.0, 116.0, 104.0), (58.0, 57.0, 57.0)))
    if bundle.manifest.name not in networks:
        return None
    network = networks[bundle.manifest.name]()
    try:
        restore(network, bundle.folder / bundle.manifest.weights.path)
    except CannotRestore as reason:
        print(f"{bundle.folder.name}: random weights in torch ({str(reason)[:80]}…)")
    return network


def _shape(bundle: Bundle) -> tuple[int, ...]:
    return random_rows(bundle, 1).shape[1:]


def _dtype(bundle: Bundle) -> Any:
    import torch  # noqa: PLC0415

    return torch.uint8 if bundle.manifest.input.modality == "cxr" else torch.float32


def _call(network: Any, x: Any, dtype: Any) -> Any:
    import torch  # noqa: PLC0415

    with torch.autocast(x.device.type, dtype, enabled=dtype != torch.float32):
        return network(x)


def _torch(network: Any, device: str, dtype: Any) -> Callable[[Rows], Run]:
    import torch  # noqa: PLC0415

    def prepare(rows: Rows) -> Run:
        x = torch.from_numpy(rows).to(device)

        def run(n: int) -> None:
            with torch.inference_mode():
                for _ in range(n):
                    _call(network, x, dtype)
            if device == "cuda":
                torch.cuda.synchronize()

        return run

    return prepare


def _cuda_graph(network: Any, dtype: Any) -> Callable[[Rows], Run]:
    """Capture a graph for a fixed shape and replay it; capturing needs three runs on another stream before."""
    import torch  # noqa: PLC0415

    def prepare(rows: Rows) -> Run:
        x = torch.from_numpy(rows).cuda()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode(), torch.cuda.stream(side):
            for _ in range(3):
                _call(network, x, dtype)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.inference_mode(), torch.cuda.graph(graph):
            _call(network, x, dtype)

        def run(n: int) -> None:
            for _ in range(n):
                graph.replay()
            torch.cuda.synchronize()

        return run

    return prepare
