"""SCP-ECG records."""

from __future__ import annotations

import struct
from datetime import date

import numpy as np
import pytest

from data_specs.problems import Refused
from tests.data_specs.ecg_made import EIGHT, counts, millivolts, read, scp


def refusal(content: bytes) -> str:
    with pytest.raises(Refused) as refused:
        read(content)
    return refused.value.problem.code


@pytest.mark.parametrize("huffman", [False, True])
@pytest.mark.parametrize("differences", [0, 1, 2])
@pytest.mark.parametrize("beats", [(), (180, 580, 980, 1380)])
def test_every_coding(differences: int, huffman: bool, beats: tuple[int, ...]) -> None:
    recording = read(scp(counts(), differences=differences, huffman=huffman, beats=beats))
    assert (recording.format, recording.fs_hz, recording.age_years, recording.sex) == ("scp", 500, 54, "female")
    assert (recording.person_id, recording.recorded_on) == ("P-1", date(2026, 11, 21))
    np.testing.assert_allclose(recording.samples, millivolts(counts()), atol=1e-6)


def test_own_huffman_table_with_a_switch() -> None:
    """Two tables: 0 is '1' in both, '01' changes table, '00' precedes 16 plain bits."""
    made = counts()[:, :4000]
    plain = scp(made)
    codes = [(1, 1, 1, 0, 0b1), (2, 18, 1, 0, 0b00), (2, 2, 0, 2, 0b10)]
    other = [(1, 1, 1, 0, 0b1), (2, 18, 1, 0, 0b00), (2, 2, 0, 1, 0b10)]
    table = struct.pack("<H", 2) + b"".join(
        struct.pack("<H", len(one)) + b"".join(struct.pack("<BBBhI", *code) for code in one) for one in (codes, other)
    )

    def coded(row: np.ndarray) -> bytes:
        bits = "".join(
            "1" if v == 0 else f"01 00{v & 0xFFFF:016b}" if n % 50 == 0 else f"00{v & 0xFFFF:016b}"
            for n, v in enumerate(row.tolist())
        )
        bits = bits.replace(" ", "")
        bits += "0" * (-len(bits) % 8)
        return int(bits, 2).to_bytes(len(bits) // 8, "big")

    rows = [coded(made[k]) for k in (0, 1, *range(6, 12))]
    body = struct.pack("<HHBB", 5000, 2000, 0, 0) + struct.pack("<8H", *map(len, rows)) + b"".join(rows)
    head = plain[:22]
    pointers, sections, at = b"", b"", 143
    for number, content in ((1, b"\xff\0\0"), (2, table), (3, _section(plain, 3)), (6, body)):
        pointers += struct.pack("<HII", number, len(content) + 16, at)
        sections += struct.pack("<HHIBB6x", 0, number, len(content) + 16, 20, 20) + content
        at += len(content) + 16
    record = head + pointers.ljust(120, b"\0") + sections
    record = record[:2] + struct.pack("<I", len(record)) + record[6:]
    np.testing.assert_allclose(read(record).samples, millivolts(made), atol=1e-6)


def _section(record: bytes, number: int) -> bytes:
    for at in range(22, 142, 10):
        found, size, index = struct.unpack_from("<HII", record, at)
        if found == number:
            return record[index + 15 : index - 1 + size]
    raise AssertionError(number)


def test_minus_avr_and_other_leads_ride_along() -> None:
    made = counts()
    names = (*EIGHT, "aVR", "aVL")
    record = scp(
        np.where(np.arange(12)[:, None] == 3, -made, made), names=names, codes=[1, 2, 3, 4, 5, 6, 7, 8, 65, 66]
    )
    np.testing.assert_allclose(read(record).samples, millivolts(made), atol=1e-6)


def test_overflown_lengths_are_read_with_a_reserve() -> None:
    made = np.tile(counts(), 7)[:, :32767]
    recording = read(scp(made, lengths_short=5000))
    assert recording.samples.shape == (12, 32767)
    assert [(p.code, p.severity) for p in recording.problems] == [("truncated", "warn")]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (scp(counts(), lengths_short=1), "truncated"),
        (scp(counts(), huffman=True, differences=2)[:-500], "truncated"),
        (scp(counts(), codes=[1, 2, 11, 3, 4, 6, 8, 9]), "lead_missing"),
        (scp(counts()[:, :2499]), "too_short"),
        (
            scp(counts()).replace(struct.pack("<HHBB", 5000, 2000, 0, 0), struct.pack("<HHBB", 5000, 20000, 0, 0)),
            "sampling_rate",
        ),
        (
            scp(counts()).replace(struct.pack("<HHBB", 5000, 2000, 0, 0), struct.pack("<HHBB", 5000, 0, 0, 0)),
            "sampling_rate",
        ),
        (
            scp(counts()).replace(struct.pack("<HHBB", 5000, 2000, 0, 0), struct.pack("<HHBB", 5000, 2000, 7, 0)),
            "unreadable",
        ),
        (
            scp(counts(), beats=(180,)).replace(
                struct.pack("<HHBB", 5000, 2000, 0, 0), struct.pack("<HHBB", 5000, 2000, 0, 1)
            ),
            "unsupported_format",
        ),
        (scp(counts())[:140], "truncated"),
        (scp(counts())[:30], "truncated"),
    ],
)
def test_refused(content: bytes, code: str) -> None:
    assert refusal(content) == code
