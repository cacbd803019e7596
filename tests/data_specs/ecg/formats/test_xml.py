"""HL7 aECG, GE MUSE, GE CardioSoft and Philips XML."""

from __future__ import annotations

from datetime import date

import numpy as np
import pytest

from data_specs.ecg.recording import LEADS
from data_specs.problems import Refused
from tests.data_specs.ecg_made import aecg, cardiosoft, counts, millivolts, muse, philips, read


def refusal(content: bytes, **kw: str) -> str:
    with pytest.raises(Refused) as refused:
        read(content, **kw)
    return refused.value.problem.code


@pytest.mark.parametrize(
    ("content", "kind", "person"),
    [
        (aecg(counts()), "aecg", "S-1"),
        (aecg(counts(), names=LEADS), "aecg", "S-1"),
        (muse(counts()), "muse", "P-1"),
        (muse(counts(), names=LEADS), "muse", "P-1"),
        (cardiosoft(counts()), "cardiosoft", "P-1"),
        (philips(counts()), "philips", "P-1"),
        (philips(counts(), version="1.03", kind="SierraECG"), "philips", "P-1"),
        (philips(counts(), plain=True), "philips", "P-1"),
    ],
)
def test_read(content: bytes, kind: str, person: str) -> None:
    recording = read(content)
    age = 54 if kind in ("muse", "cardiosoft") else 54.72  # stated; by the birth date, 1 March 1972
    assert (recording.format, recording.fs_hz, recording.age_years, recording.sex) == (kind, 500, age, "female")
    assert (recording.person_id, recording.recorded_on) == (person, date(2026, 11, 21))
    np.testing.assert_allclose(recording.samples, millivolts(counts()), atol=1e-6)


def test_a_calibration_pulse_at_the_end_is_cut_off() -> None:
    made = counts()
    pulse = np.zeros((12, 300), np.int16)
    pulse[:, 60:160] = 200  # 1 mV in all leads, also in III, where I and II would make 0
    recording = read(cardiosoft(np.hstack([made, pulse])))
    kept = recording.samples.shape[1]  # some isoelectric samples before it may go with it
    assert 4980 <= kept <= 5000
    np.testing.assert_allclose(recording.samples, millivolts(made)[:, :kept], atol=1e-6)


@pytest.mark.parametrize(
    "content",
    [aecg(counts(), unit=""), aecg(counts(), unit="1"), muse(counts(), unit=""), cardiosoft(counts(), resolution="")],
)
def test_unit_from_the_context_where_the_file_is_silent(content: bytes) -> None:
    assert refusal(content) == "unit_unknown"
    np.testing.assert_allclose(read(content, ecg_unit="uV").samples, millivolts(counts()), atol=1e-6)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (aecg(counts()).replace(b'code="RHYTHM"', b'code="REPRESENTATIVE_BEAT"'), "lead_missing"),
        (aecg(counts(), names=("II",)), "lead_missing"),
        (aecg(counts(), step="0.02"), "sampling_rate"),
        (aecg(counts(), step="0"), "sampling_rate"),
        (aecg(counts(), step="x"), "unreadable"),
        (aecg(counts()[:, :2499]), "too_short"),
        (aecg(counts()).replace(b"<digits>", b"<digits>1 ", 1), "truncated"),
        (aecg(counts()).replace(b"<digits>", b"<digits>1e39 "), "amplitude_implausible"),
        (aecg(counts())[:-20], "truncated"),
        (muse(counts()).replace(b">Rhythm<", b">Median<"), "lead_missing"),
        (muse(counts()).replace(b"<LeadSampleCountTotal>5000", b"<LeadSampleCountTotal>5001"), "truncated"),
        (muse(counts()).replace(b"<SampleBase>50<", b"<SampleBase><"), "sampling_rate"),
        (muse(counts()).replace(b"<SampleExponent>1<", b"<SampleExponent>99<"), "sampling_rate"),
        (muse(counts()).replace(b"</WaveFormData>", b"!</WaveFormData>"), "unreadable"),
        (cardiosoft(counts()).replace(b"StripData", b"MedianSamples"), "lead_missing"),
        (cardiosoft(counts()).replace(b"SampleCountTotal>5000", b"SampleCountTotal>5001"), "truncated"),
        (philips(counts(), version="1.05"), "unsupported_format"),
        (philips(counts(), kind="MortaraECG"), "unsupported_format"),
        (philips(counts().repeat(2, axis=1)[:, :2499]), "too_short"),
        (
            philips(counts()).decode("utf-16").replace('perchannel="10000"', 'perchannel="10400"').encode("utf-16"),
            "truncated",
        ),
        (philips(counts()).decode("utf-16").replace("XLI", "XYZ").encode("utf-16"), "unsupported_format"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format"),
        (b"<html><body>I,II</body>", "unreadable"),
    ],
)
def test_refused(content: bytes, code: str) -> None:
    assert refusal(content) == code


def test_bombs() -> None:
    laughs = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "aaaaaaaaaa">' + "".join(
        f'<!ENTITY {chr(98 + k)} "{f"&{chr(97 + k)};" * 10}">' for k in range(9)
    )
    assert refusal((laughs + "]><RestingECG>&j;</RestingECG>").encode()) == "unreadable"
    outside = b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><RestingECG>&a;</RestingECG>'
    assert refusal(outside) == "unreadable"
    assert refusal(b"<RestingECG>" + b"<a/>" * 1_000_000 + b"</RestingECG>") == "unreadable"
    assert refusal(b"<a>" * 90_000 + b"</a>" * 90_000) == "unsupported_format"


def test_lzw_does_not_grow_without_bound() -> None:
    """Repeating the newest code makes ever longer strings: 750 codes would unpack to 280 kB for each lead."""
    from data_specs.ecg.formats.philips import _lzw

    codes = [0, *range(256, 1000)] * 20
    bits = "".join(f"{code:010b}" for code in codes)
    bits += "0" * (-len(bits) % 8)
    assert len(_lzw(int(bits, 2).to_bytes(len(bits) // 8, "big"), 10_000)) < 12_000
