"""DICOM waveform objects."""

from __future__ import annotations

import io
import zlib
from datetime import date

import numpy as np
import pydicom
import pytest

from data_specs.problems import Refused
from tests.data_specs.ecg_made import counts, dicom, millivolts, read


def refusal(content: bytes, **kw: str) -> str:
    with pytest.raises(Refused) as refused:
        read(content, **kw)
    return refused.value.problem.code


def changed(change, **kw: object) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(dicom(counts(), **kw)))
    change(dataset)
    file = io.BytesIO()
    dataset.save_as(file)
    return file.getvalue()


@pytest.mark.parametrize("form", [{}, {"median": False}, {"split": True}, {"big": True}])
def test_rhythm_not_median_in_any_grouping(form: dict[str, bool]) -> None:
    recording = read(dicom(counts(), **form))
    assert (recording.format, recording.fs_hz, recording.age_years, recording.sex) == ("dicom", 500, 54, "female")
    assert (recording.person_id, recording.recorded_on) == ("P-1", date(2026, 11, 21))
    np.testing.assert_allclose(recording.samples, millivolts(counts()), atol=1e-6)


@pytest.mark.parametrize(
    ("code", "scheme"), [("5.6.3-9-{}", "SCPECG"), ("2:{}", "MDC"), ("MDC_ECG_LEAD_{name}", "MDC"), ("?", "L")]
)
def test_lead_codes(code: str, scheme: str) -> None:
    def recode(dataset: pydicom.Dataset) -> None:
        for group in dataset.WaveformSequence:
            for channel in group.ChannelDefinitionSequence:
                source = channel.ChannelSourceSequence[0]
                name = source.CodeMeaning.removeprefix("Lead ")
                source.CodeValue = code.format(source.CodeValue.removeprefix("2:"), name=name)[:16]
                source.CodingSchemeDesignator = scheme

    np.testing.assert_allclose(read(changed(recode)).samples, millivolts(counts()), atol=1e-6)


def test_baseline_and_padding() -> None:
    def shift(dataset: pydicom.Dataset) -> None:
        for group in dataset.WaveformSequence:
            group.add_new(0x5400100A, "OW", np.int16(counts()[0, 0]).tobytes())
            for channel in group.ChannelDefinitionSequence:
                channel.ChannelBaseline = "100"

    samples = read(changed(shift)).samples
    assert np.isnan(samples[0, 0])
    kept = ~np.isnan(samples)
    np.testing.assert_allclose(samples[kept], (millivolts(counts()) + 0.1)[kept], atol=1e-6)


def test_units() -> None:
    assert refusal(dicom(counts(), unit=None)) == "unit_unknown"
    assert refusal(dicom(counts(), unit="mm[Hg]")) == "unit_unknown"
    np.testing.assert_allclose(read(dicom(counts(), unit=None), ecg_unit="uV").samples, counts() / 1000, atol=1e-6)
    np.testing.assert_allclose(read(dicom(counts(), unit="mV")).samples, millivolts(counts()) * 1000, atol=1e-3)


def rhythm(dataset: pydicom.Dataset) -> pydicom.Dataset:
    return dataset.WaveformSequence[-1]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda d: delattr(d, "WaveformSequence"), "unsupported_format"),
        (lambda d: setattr(rhythm(d), "WaveformData", rhythm(d).WaveformData[:-2]), "truncated"),
        (lambda d: setattr(rhythm(d), "NumberOfWaveformSamples", 2499), "too_short"),
        (lambda d: setattr(rhythm(d), "SamplingFrequency", "50"), "sampling_rate"),
        (lambda d: delattr(rhythm(d), "SamplingFrequency"), "sampling_rate"),
        (lambda d: setattr(rhythm(d), "WaveformSampleInterpretation", "MB"), "unsupported_format"),
        (lambda d: setattr(rhythm(d), "WaveformBitsAllocated", 8), "unreadable"),
        (lambda d: delattr(rhythm(d), "WaveformData"), "unreadable"),
        (lambda d: rhythm(d).ChannelDefinitionSequence.pop(), "unsupported_format"),
        (lambda d: d.WaveformSequence.pop(), "too_short"),
    ],
)
def test_refused(change, code: str) -> None:
    if code == "unsupported_format" and "pop" in change.__code__.co_names:
        code = "lead_missing"  # V6 is gone from the definitions
    assert refusal(changed(change)) == code


def test_a_deflated_bomb_is_not_inflated() -> None:
    meta = dicom(counts())
    start = 144 + int.from_bytes(meta[140:144], "little")
    deflated = meta[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    deflated = deflated[:140] + (int.from_bytes(meta[140:144], "little") + 2).to_bytes(4, "little") + deflated[144:]
    deflated = deflated.replace(b"UI\x14\x001.2.840.10008.1.2.1.99", b"UI\x16\x001.2.840.10008.1.2.1.99")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    body = b"".join(packer.compress(bytes(1 << 20)) for _ in range(130)) + packer.flush()
    assert refusal(deflated + body) == "too_costly"


def test_many_items_are_refused_while_they_are_parsed() -> None:
    assert refusal(dicom(counts()) + b"\xfe\xff\x00\xe0\0\0\0\0" * 100_000) == "unreadable"


NUMBERS = {
    "SamplingFrequency": "500.0",
    "ChannelSensitivity": "2.50",
    "ChannelSensitivityCorrectionFactor": "2.00",
    "ChannelBaseline": "0.00",
}


def with_numbers(dataset: pydicom.Dataset) -> None:
    for group in dataset.WaveformSequence:
        group.SamplingFrequency = NUMBERS["SamplingFrequency"]
        for channel in group.ChannelDefinitionSequence:
            for keyword in [*NUMBERS][1:]:
                setattr(channel, keyword, NUMBERS[keyword])


@pytest.mark.parametrize("keyword", NUMBERS)
def test_a_decimal_comma_is_a_decimal_point(keyword: str) -> None:
    content, point = changed(with_numbers), NUMBERS[keyword].encode()
    assert point in content
    recording = read(content.replace(point, point.replace(b".", b",")))
    np.testing.assert_allclose(recording.samples, millivolts(counts()), atol=1e-6)


@pytest.mark.parametrize("keyword", NUMBERS)
def test_a_number_that_cannot_be_read_is_not_absent(keyword: str) -> None:
    content, point = changed(with_numbers), NUMBERS[keyword].encode()
    with pytest.raises(Refused) as refused:
        read(content.replace(point, b"x" * len(point)))
    assert (refused.value.problem.code, refused.value.problem.found.split()[0]) == ("unreadable", keyword)
