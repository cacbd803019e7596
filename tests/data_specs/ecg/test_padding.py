"""What fills a recording up to a fixed length is no signal: it is cut off, in every format alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_specs.ecg.header import recording, without_padding
from data_specs.ecg.recording import LEADS, Recording
from data_specs.problems import Refused
from data_specs.subject import Subject
from tests.data_specs.ecg_made import (
    FS,
    aecg,
    cardiosoft,
    counts,
    csv,
    dicom,
    edf,
    millivolts,
    muse,
    on_disk,
    philips,
    read,
    scp,
    wfdb16,
)


def of(samples: np.ndarray, fs_hz: float = FS) -> Recording:
    leads = dict(zip(LEADS, samples.astype(np.float32), strict=True))
    return recording(leads, fs_hz=fs_hz, format="made", subject=Subject())


@pytest.mark.parametrize("value", [0.0, np.nan, -0.125])
@pytest.mark.parametrize(("before", "after"), [(600, 748), (0, 1348), (1348, 0)])
def test_a_value_or_none_at_both_ends_is_cut_off(value: float, before: int, after: int) -> None:
    made = millivolts(counts(seconds=7.3))
    padded = np.pad(made, ((0, 0), (before, after)), constant_values=value)
    np.testing.assert_array_equal(of(padded).samples, made.astype(np.float32))


def test_each_lead_may_be_filled_with_a_value_of_its_own() -> None:
    made = millivolts(counts(seconds=8.0))
    padded = np.hstack([np.tile(made[:, :1], 700), made, np.tile(made[:, -1:], 700)])
    assert 3990 <= of(padded).samples.shape[1] <= 4000  # samples that are equal to the padding go with it


def test_a_lead_that_is_flat_for_the_whole_recording_changes_nothing() -> None:
    made = millivolts(counts(seconds=7.3))
    made[8] = 0.0
    assert of(np.pad(made, ((0, 0), (500, 500)))).samples.shape == (12, 3650)


def test_what_is_left_decides_whether_it_is_too_short() -> None:
    with pytest.raises(Refused) as refused:
        of(np.pad(millivolts(counts(seconds=4.5)), ((0, 0), (1000, 1750))))
    assert (refused.value.problem.code, refused.value.problem.found) == ("too_short", "4.5 s")


def test_a_recording_in_which_nothing_changes_is_left_to_the_gate() -> None:
    assert of(np.zeros((12, 5000))).samples.shape == (12, 5000)


@pytest.mark.parametrize("seconds", [0.1, 0.19])
def test_less_than_a_fifth_of_a_second_may_be_a_flat_line_of_the_heart(seconds: float) -> None:
    made = millivolts(counts(seconds=8.0))
    n = round(seconds * FS)
    made[:, :n] = made[:, n : n + 1]
    assert of(made).samples.shape == made.shape


def test_leads_that_fall_off_while_one_goes_on_are_not_padding() -> None:
    made = millivolts(counts(seconds=10.0))
    made[:11, 3000:] = 0.0
    assert of(made).samples.shape == made.shape


def test_nothing_is_copied_where_nothing_is_cut() -> None:
    leads = dict(zip(LEADS, millivolts(counts()), strict=True))
    assert without_padding(leads, FS) is leads


FORMATS: dict[str, Callable[[np.ndarray], dict[str, bytes] | bytes]] = {
    "wfdb": wfdb16,
    "csv": csv,
    "dicom": dicom,
    "scp": scp,
    "aecg": aecg,
    "muse": muse,
    "cardiosoft": cardiosoft,
    "philips": philips,
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("seconds", [5.0, 5.5, 7.3])
def test_short_and_padded_recordings_are_read_in_every_format(name: str, seconds: float) -> None:
    made = counts(seconds=seconds)
    assert read(FORMATS[name](made)).duration_s == seconds
    padded = np.pad(made, ((0, 0), (500, 5000 - made.shape[1])))
    kept = read(FORMATS[name](padded)).samples
    assert abs(kept.shape[1] - made.shape[1]) <= 2  # a zero of the recording itself may go with the padding


def test_whole_seconds_of_edf() -> None:
    assert read(edf(counts(seconds=5.0))).duration_s == 5.0
    filled = np.pad(counts(seconds=7.3), ((0, 0), (0, 350)))  # up to a whole data record
    assert abs(read(edf(filled)).samples.shape[1] - 3650) <= 2


def test_real_recordings_keep_every_sample(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    headers = sorted((shared_data / "ecg" / "raw").glob("*.hea"))[::3]
    if not headers:
        pytest.skip("ecg/raw not found: real recordings are not compared")
    records = [on_disk([header, header.with_suffix(".mat")]) for header in headers]
    cut = [read(record).samples.shape for record in records]
    monkeypatch.setattr("data_specs.ecg.header.without_padding", lambda leads, fs_hz: leads)
    assert cut == [read(record).samples.shape for record in records]
