"""The bound on memory, and the promise that readers raise refusals only: cut and changed files of every format."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_specs.cxr.files import read_image, sniff
from data_specs.dicom.header import read_header
from data_specs.dicom.reference import is_dicom, reference_in
from data_specs.ecg.files import group_recordings, read_recording
from data_specs.ecg.formats.wfdb import named_files
from data_specs.ecg.posted import PostedFile, unzip
from data_specs.ecg.recording import LEADS
from data_specs.fields import field_of
from data_specs.problems import Refused
from data_specs.reading import MEMORY_LIMIT_BYTES, memory_limit, only_to_look, refusals_only, require_memory
from tests.conftest import ROOT
from tests.data_specs.cxr.test_fuzz import FILES as FILMS
from tests.data_specs.cxr.test_fuzz import damaged
from tests.data_specs.cxr_made import dicom, phantom
from tests.data_specs.ecg_made import counts, every_format, millivolts
from tests.data_specs.hostile_made import zipped

# ---------------------------------------------------------------- memory


def test_what_is_within_the_limit_may_be_allocated() -> None:
    require_memory(MEMORY_LIMIT_BYTES)
    with memory_limit(10 << 20):
        require_memory(10 << 20)


def test_more_is_too_costly_and_the_refusal_says_how_much() -> None:
    with memory_limit(10 << 20), pytest.raises(Refused) as refused:
        require_memory((10 << 20) + 1)
    problem = refused.value.problem
    assert (problem.code, problem.found, problem.expected) == ("too_costly", "11 MB", "≤ 10 MB")
    assert "11 MB" in problem.message("vi")


def test_a_limit_ends_with_its_block() -> None:
    with memory_limit(1):
        pass
    require_memory(MEMORY_LIMIT_BYTES)


def test_a_function_may_grant_memory_when_it_is_asked() -> None:
    asked: list[int] = []

    def grant(n_bytes: int) -> int:
        asked.append(n_bytes)
        return 5 << 20

    with memory_limit(grant):
        require_memory(3 << 20)
        with pytest.raises(Refused):
            require_memory(6 << 20)
    assert asked == [3 << 20, 6 << 20]


def test_the_same_film_is_refused_with_little_memory_and_read_with_more() -> None:
    content = dicom(phantom(12, 1000, 1000))
    with memory_limit(500_000), pytest.raises(Refused) as refused:
        read_image(content)
    assert refused.value.problem.code == "too_costly"
    with memory_limit(8 << 20):
        assert read_image(content).pixels.shape == (1000, 1000)


# ---------------------------------------------------------------- refusals only


@pytest.mark.parametrize("error", [ValueError("Nguyen^Van"), RecursionError(), KeyError("x"), StopIteration()])
def test_any_error_becomes_a_refusal_that_quotes_nothing(error: Exception) -> None:
    with pytest.raises(Refused) as refused, refusals_only("DICOM", "PS3.10"):
        raise error
    problem = refused.value.problem
    assert (problem.code, problem.found) == ("unreadable", f"DICOM: {type(error).__name__}")


def test_too_little_memory_is_too_costly() -> None:
    with pytest.raises(Refused) as refused, refusals_only("PNG"):
        raise MemoryError
    assert refused.value.problem.code == "too_costly"


def test_a_refusal_stays_as_it_is() -> None:
    with pytest.raises(Refused) as refused, refusals_only("PNG"):
        raise Refused("too_small", 1, 2)
    assert refused.value.problem.code == "too_small"


def test_an_interrupt_is_no_error_of_the_file() -> None:
    with pytest.raises(KeyboardInterrupt), refusals_only("PNG"):
        raise KeyboardInterrupt


def try_dicom(content: bytes) -> None:
    """Call every function that parses a DICOM object; each may refuse, and nothing else."""
    for read in (read_header, read_image, reference_in):
        with suppress(Refused):
            read(content)
    sniff(content)
    field_of(content)


@pytest.mark.parametrize("case", ["case1.dcm", "case2.dcm", "case3.dcm"])
def test_headers_that_raised_other_errors(case: str) -> None:
    path = ROOT.parent / "shared" / "cases" / "hostile" / "02-dicom-header-500" / case
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    content = path.read_bytes()
    for read in (read_header, reference_in):
        with pytest.raises(Refused):
            read(content)


def cut_at_every_byte(content: bytes, step: int) -> None:
    start = content[: 256 * 1024]
    header = read_header(content)
    end = min(len(start), header.pixels.offset if header.pixels else len(start), 2_100)
    for n in range(0, end + 1, step):
        with suppress(Refused):
            read_header(start[:n])
    for n in range(0, end + 1, 17 * step):
        try_dicom(start[:n])


@pytest.mark.parametrize("name", [name for name in FILMS if name[0].isdigit()])
def test_a_made_header_cut_at_every_byte(name: str) -> None:
    cut_at_every_byte(FILMS[name], 1)


def test_real_headers_cut_at_every_byte(shared_data: Path) -> None:
    found = 0
    for n, path in enumerate(sorted((shared_data / "cxr" / "dicom").rglob("*.dcm"))):
        content = path.read_bytes()
        if is_dicom(content) and "malformed" not in path.parts and "Deflated" not in path.name:
            found += 1
            cut_at_every_byte(content, 1 if n % 8 == 0 else 11)
    assert found > 8


def test_the_sample_recordings_header_cut_at_every_byte() -> None:
    cut_at_every_byte((ROOT / "samples" / "recording.dcm").read_bytes(), 1)


# ---------------------------------------------------------------- changed files


def changes(contents: Mapping[str, bytes], each: int, call: Callable[[str, bytes], Any]) -> None:
    for name, content in sorted(contents.items()):
        chance = random.Random(name)
        for _ in range(each):
            call(name, damaged(content, chance))


def test_a_changed_dicom_object_gives_refusals_only() -> None:
    small = {name: content for name, content in FILMS.items() if name[0].isdigit()}
    changes(small, 25, lambda _, content: try_dicom(content))


def test_a_changed_recording_gives_refusals_only() -> None:
    made = {f"{kind} {name}": content for kind, files in every_format().items() for name, content in files.items()}
    made |= {f"{name}.zip": zipped({"rec.csv": content[:4000]}) for name, content in list(made.items())[:4]}

    def call(name: str, content: bytes) -> None:
        file = PostedFile(0, name, content)
        for group in group_recordings([file]):
            with suppress(Refused):
                read_recording(group, ecg_unit="mV")
        with suppress(Refused):
            unzip(file)
        assert isinstance(named_files(content), set)

    changes(made, 12, call)


# ---------------------------------------------------------------- only to look at


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("wrong_view", dicom(phantom(), ViewPosition="LATERAL")),
        ("wrong_body_part", dicom(phantom(), BodyPartExamined="KNEE")),
        ("wrong_modality", dicom(phantom(), Modality="MR")),
        ("too_small", dicom(phantom(rows=100, columns=140))),
    ],
)
def test_a_film_that_is_refused_can_be_looked_at(code: str, content: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read_image(content)
    assert refused.value.problem.code == code
    with only_to_look():
        assert read_image(content).pixels.std() > 1


def table(leads: tuple[str, ...] = LEADS, fs_hz: float = 500.0, seconds: float = 10, unit: str = " (mV)") -> bytes:
    made = millivolts(counts(round(fs_hz), seconds))
    rows = [",".join(["time (s)", *(name + unit for name in leads)])]
    for n, row in enumerate(made.T):
        rows.append(",".join([f"{n / fs_hz:.6g}", *(f"{row[LEADS.index(name)]:.4f}" for name in leads)]))
    return ("\n".join(rows) + "\n").encode()


@pytest.mark.parametrize(
    ("code", "content"),
    [
        ("lead_missing", table(("II", "V1"))),
        ("too_short", table(seconds=3)),
        ("sampling_rate", table(fs_hz=50)),
        ("unit_unknown", table(unit="")),
    ],
)
def test_a_recording_that_is_refused_can_be_looked_at(code: str, content: bytes) -> None:
    (group,) = group_recordings([PostedFile(0, "a.csv", content)])
    with pytest.raises(Refused) as refused:
        read_recording(group, ecg_unit=None)
    assert refused.value.problem.code == code
    with only_to_look():
        seen = read_recording(group, ecg_unit=None)
    known = {name for name, samples in zip(LEADS, seen.samples, strict=True) if np.isfinite(samples).any()}
    assert known == ({"II", "V1"} if code == "lead_missing" else set(LEADS))
