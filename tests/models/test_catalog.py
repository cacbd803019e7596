"""The catalog: every entry can be read, describes a network that can be built, and says what stands against its use."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from data_specs.vocabulary import judged_findings
from models.__main__ import _parser, main
from models.catalog import CATALOG, Source, read_catalog
from models.community import next_version
from models.imported_ecg import ARCHITECTURES
from tests.conftest import ROOT
from training.imported.films import XRV_CLASSES
from training.imported.findings import ECG_FINDINGS, FILM_FINDINGS, findings_of
from training.imported.recordings import input_of
from training.imported.spec import EcgContract, Spec

ENTRIES = read_catalog()
IMPORTED = [source for source in ENTRIES.values() if not source.cannot]


@pytest.mark.parametrize("source", IMPORTED, ids=lambda source: source.name)
def test_every_entry_describes_a_network_and_its_findings(source: Source) -> None:
    spec = Spec.model_validate({"trained_on": source.trained_on, **source.spec})
    assert {"ecg": "cardiac", "cxr": "lung"}[spec.modality] == source.bundle
    table = ECG_FINDINGS if spec.modality == "ecg" else FILM_FINDINGS
    classes = spec.classes or XRV_CLASSES
    thresholds = spec.op_threshs or (None,) * len(classes)
    assert len(thresholds) == len(classes)
    findings, left_out = findings_of(classes, thresholds, spec, table)
    assert {f.name for f in findings} <= set(judged_findings(source.bundle))
    assert len(findings) + len(left_out) <= len(classes) + len(spec.any_of)
    if spec.modality == "ecg":
        assert spec.input is not None
        assert spec.architecture in ARCHITECTURES
        assert input_of(spec.input).modality == "ecg"


def test_what_the_catalog_says_of_torchxrayvision_is_what_that_package_says() -> None:
    models = pytest.importorskip("torchxrayvision.models", exc_type=ImportError)
    held = {s.url: s for s in ENTRIES.values() if s.name.startswith("xrv-")}
    assert len(held) == 8
    for about in models.model_urls.values():
        source = held[about["weights_url"]]
        assert source.url is not None
        assert source.file == source.url.rsplit("/", 1)[1]
        assert source.spec["classes"] == about["labels"]
        assert source.spec["op_threshs"] == pytest.approx(about["op_threshs"], nan_ok=True)
        assert source.spec.get("input_size", 224) == about["input_resolution"]


def test_the_statements_of_ptb_xl_stand_in_the_order_of_their_benchmark() -> None:
    """Sorted, as its MultiLabelBinarizer makes them; 71 of them."""
    classes = ENTRIES["ptbxl-xresnet1d101"].spec["classes"]
    assert classes == sorted(classes)
    assert len(set(classes)) == 71


def test_no_other_file_names_where_weights_are_published() -> None:
    hosts = {re.match(r"https://([^/]+)/", s.url)[1] for s in ENTRIES.values() if s.url}  # type: ignore[index]
    assert len(hosts) >= 3
    folders = (ROOT / folder for folder in ("data_specs", "inference", "models", "service", "training", "docs"))
    files = [f for folder in folders for f in folder.rglob("*") if f.suffix in {".py", ".toml", ".md"} and f != CATALOG]
    publishers = {"zenodo.org", "huggingface.co"} | (hosts - {"github.com"})
    assert [f for f in files if any(f"//{host}" in f.read_text("utf-8") for host in publishers)] == []


def test_an_entry_has_a_place_or_says_why_not() -> None:
    entry = ENTRIES["xrv-densenet121-nih"].model_dump(by_alias=True)
    for change in ({"url": None}, {"address_unknown": "ask"}, {"import": {}}, {"url": "http://example.org/a"}):
        with pytest.raises(ValueError, match=r"address_unknown|cannot|url"):
            Source.model_validate({**entry, **change})


def test_the_table_and_the_whole_entry(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog"]) == 0
    table = capsys.readouterr().out
    assert all(re.search(rf"^{name} ", table, re.MULTILINE) for name in ENTRIES)
    for words in ("by one command", "with --from", "cannot be imported", "12 leads, 400 Hz, 4096 samples"):
        assert words in table
    assert main(["catalog", "ribeiro-2020"]) == 0
    entry = capsys.readouterr().out
    for words in ("Not confirmed: the unit", "CC BY 4.0", "model/model.hdf5", "residual2020"):
        assert words in entry
    assert main(["catalog", "none"]) == 1
    assert "not in the catalog" in capsys.readouterr().err


def test_terms_are_said_before_anything_is_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fetch", "xrv-densenet121-all", "--from", str(tmp_path / "none"), "--downloads", str(tmp_path / "d")]
    assert main(command) == 1
    said = capsys.readouterr()
    assert "AGAINST ITS USE: CheXpert" in said.out
    assert "nothing was fetched: read the terms" in said.err
    assert not (tmp_path / "d").exists()
    assert main([*command, "--terms-read"]) == 1
    assert "no such file" in capsys.readouterr().err
    assert main(["fetch", "deepecg-efficientnetv2-77", "--terms-read"]) == 1
    assert "TorchScript" in capsys.readouterr().err


def test_the_commands_of_the_page_can_be_given() -> None:
    page = (ROOT / "docs/how-to/community-weights.md").read_text("utf-8")
    commands = re.findall(r"^python -m models (.+)$", page, re.MULTILINE)
    assert len(commands) >= 8
    for command in commands:
        given = _parser().parse_args(command.split())
        assert given.run
        assert getattr(given, "name", None) in {None, "lung", "cardiac", *ENTRIES}


def test_the_specs_of_the_reference_can_be_read() -> None:
    page = (ROOT / "docs/reference/import-spec.md").read_text("utf-8")
    specs = [Spec.model_validate(yaml.safe_load(text)) for text in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)]
    assert [spec.modality for spec in specs] == ["cxr", "cxr", "cxr", "ecg"]
    listed = set(re.findall(r"`(\w+)`", page))
    assert {*Spec.model_fields, *EcgContract.model_fields} <= listed


def test_candidates_have_versions_below_those_that_serve(tmp_path: Path) -> None:
    assert next_version(tmp_path, "lung") == "0.1.0"
    for made in ("lung-0.1.0", "lung-0.10.2", "lung-1.2.0", "cardiac-0.30.0"):
        (tmp_path / made).mkdir()
    assert next_version(tmp_path, "lung") == "0.11.0"
