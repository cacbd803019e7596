"""One film and one ECG network from a publisher on loopback to a candidate, by the commands that the pages show.

Weights are random; files, names, sizes and networks are the true ones.
"""

from __future__ import annotations

import io
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from data_specs.bundle import EcgInput
from inference.bundles.deciding import MAX_TOLERANCE
from inference.bundles.loading import load_bundle, load_version
from models.__main__ import main
from models.catalog import read_catalog
from models.fetch import digest, fetch
from tests.conftest import ROOT
from tests.models.loopback import published
from tests.training.imported.keras_files import forward, residual2020, write
from training.imported.files import ImportRefused, read_checkpoint
from training.imported.films import XRV_CLASSES, films

CATALOG = read_catalog()
PAGE = (ROOT / "docs/how-to/community-weights.md").read_text("utf-8")


def as_shown(name: str) -> list[str]:
    """The command by which the page fetches a network, without `python -m models`."""
    (shown,) = (
        line for line in PAGE.splitlines() if line.startswith(f"python -m models fetch {name}") and "--from" not in line
    )
    return shown.split()[3:]


def test_a_film_network_is_fetched_and_held_against_its_class(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    xrv = pytest.importorskip(
        "torchxrayvision", reason="torchxrayvision not installed: not held against its class", exc_type=ImportError
    )
    torch.set_num_threads(1)
    torch.manual_seed(7)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = xrv.models.DenseNet(weights=None).train()
        for part in model.modules():
            if isinstance(part, torch.nn.BatchNorm2d):
                part.momentum = None
        with torch.no_grad():  # batch norms that have seen films, so that logits depend on the input and stay small
            model(600.0 * torch.randn(6, 1, 64, 64))
        content = io.BytesIO()
        torch.save(model.eval(), content, _use_new_zipfile_serialization=False)
    source = CATALOG["xrv-densenet121-nih"]
    assert source.url is not None
    path = source.url.removeprefix("https://github.com")
    with published({path: content.getvalue()}) as publisher:
        publisher.cut_after = [1_000_000]
        command = as_shown(source.name)
        command[command.index("films")] = str(ROOT / "samples")
        command[command.index(".venv/bin/python")] = sys.executable
        command += ["--from", publisher.address + path, "--downloads", str(tmp_path / "weights")]
        assert main([*command, "--out", str(tmp_path / "bundles")]) == 0
    assert [asked for _, asked in publisher.asked] == [None, "bytes=1000000-"]
    said = capfd.readouterr()
    assert "pinned in" in said.out
    assert "torchxrayvision.models.DenseNet differs by at most" in said.err
    assert "lung-0.1.0, an uncalibrated candidate" in said.out
    bundle = load_bundle(tmp_path / "bundles" / "lung-0.1.0")
    manifest = bundle.manifest
    x = films(224, None)[0][3:]
    logits, evidence = bundle.session.run(x)
    image = np.stack([xrv.utils.normalize(film[0].astype(np.float32), 255)[None] for film in x])
    with torch.inference_mode():
        expected = model(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    assert evidence.shape[1:] == (18, 7, 7)
    assert manifest.golden.tolerance <= MAX_TOLERANCE
    assert manifest.imported is not None
    assert (manifest.imported.source, manifest.imported.file) == ("torchxrayvision", source.file)
    assert set(manifest.imported.left_out) == {f"output {number}" for number in range(14, 18)}
    effusion = next(f for f in manifest.findings if f.name == "effusion")
    (point,) = effusion.operating_points
    assert (effusion.column, point.name, effusion.decides_at) == (XRV_CLASSES.index("Effusion"), "imported", "imported")
    assert point.threshold == pytest.approx(source.spec["op_threshs"][7])
    assert "DenseNet differs by at most" in bundle.card


def test_an_ecg_network_is_fetched_from_its_archive(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("h5py", reason="h5py not installed: Keras files are not read")
    source = CATALOG["ribeiro-2020"]
    weights = write(tmp_path / "model.hdf5", residual2020())
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.write(weights, source.member)
        zipped.writestr("model/README.md", "about it")
    command = [*as_shown(source.name), "--downloads", str(tmp_path / "weights"), "--out", str(tmp_path / "bundles")]
    with published({f"/{source.file}": archive.getvalue()}) as publisher:
        command += ["--from", f"{publisher.address}/{source.file}"]
        assert main(command) == 1
        assert "It is another file and is not used" in capfd.readouterr().err, (
            "the catalog has the digest of the true one"
        )
        (tmp_path / "a.zip").write_bytes(archive.getvalue())
        assert main([*command, "--sha256", digest(tmp_path / "a.zip")]) == 0
    said = capfd.readouterr()
    assert "not proved: no package in a registry has the class" in said.err
    bundle = load_bundle(tmp_path / "bundles" / "cardiac-0.1.0")
    assert load_version(tmp_path / "bundles", "cardiac", "0.1.0").manifest == bundle.manifest
    spec = bundle.input_as(EcgInput)
    assert (spec.fs_hz, spec.n_samples, spec.form) == (400, 4096, (None, "none", "zeros"))
    assert [(f.name, f.column) for f in bundle.manifest.findings] == [
        ("atrial_fibrillation", 4), ("conduction_disturbance", 6),
    ]  # fmt: skip
    assert bundle.manifest.golden.tolerance <= MAX_TOLERANCE
    x = np.random.default_rng(2).normal(0, 0.3, (1, 12, 4096)).astype(np.float32)
    logits, evidence = bundle.session.run(x)
    expected = forward(residual2020(), x.transpose(0, 2, 1).astype(np.float64))
    np.testing.assert_allclose(logits[:, :6], expected, atol=1e-4)
    assert logits[0, 6] == logits[0, :3].max()
    assert evidence.shape == (1, 7, 16)
    for words in ("UNCALIBRATED", "Its unit is not certain", "Lower precisions were not measured"):
        assert words in bundle.card


def test_a_file_that_wants_more_is_fetched_and_not_read(tmp_path: Path) -> None:
    """The file is what its publisher sent; what reads it refuses it by name."""
    fuse = tmp_path / "went-off"

    class Bomb:
        def __reduce__(self) -> object:
            return open, (str(fuse), "w")

    network = torch.nn.Sequential(torch.nn.Linear(2, 2))
    network.extra = Bomb()  # type: ignore[assignment]
    content = io.BytesIO()
    torch.save({"model": network}, content)
    with published({"/checkpoint": content.getvalue()}) as publisher:
        path, _ = fetch(CATALOG["chexnet-reproduced"], tmp_path, origin=f"{publisher.address}/checkpoint")
    with pytest.raises(ImportRefused, match=r"'io\.open'.*could run any program"):
        read_checkpoint(path)
    assert not fuse.exists()
