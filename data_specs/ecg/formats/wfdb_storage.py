"""The storage formats of WFDB signal files, from bytes to counts.

References
----------
WFDB Applications Guide, signal(5), https://physionet.org/physiotools/wag/signal-5.htm
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from data_specs.problems import Refused
from data_specs.reading import refusals_only, require_memory

INVALID = {80: -128, 212: -2048, 310: -512, 311: -512, 24: -(1 << 23), 32: -(1 << 31)} | {
    16: -32768, 61: -32768, 160: -32768, 508: -128, 516: -32768, 524: -(1 << 23),
}  # fmt: skip
_FLAC_BITS = {508: 8, 516: 16, 524: 24}
_BITS = {8: 8, 16: 16, 24: 24, 32: 32, 61: 16, 80: 8, 160: 16, 212: 12, 310: 32 / 3, 311: 32 / 3}


def decode(content: bytes, storage: int, *, offset: int, width: int, n_samples: int) -> NDArray[np.integer]:
    """Counts of one signal file, in the order of storage.

    Parameters
    ----------
    offset
        Bytes before the first sample.
    width
        Samples per frame, all signals of the file together.
    n_samples
        Number of samples that are needed; 0 for all.

    Raises
    ------
    Refused
        ``unsupported_format`` for an unknown storage format.
    """
    if storage in _FLAC_BITS:
        return _flac(content, _FLAC_BITS[storage], width, -(-n_samples // width) or -1)
    if storage not in _BITS:
        raise Refused("unsupported_format", found=f"WFDB {storage}", expected=", ".join(f"WFDB {k}" for k in _BITS))
    body = memoryview(content)[offset:]
    if n_samples:
        body = body[: int(np.ceil(n_samples * _BITS[storage] / 8)) + 4]
    return _DECODERS[storage](np.frombuffer(body, np.uint8))


def _whole(raw: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    return raw[: raw.size - raw.size % size]


def _int24(raw: NDArray[np.uint8]) -> NDArray[np.integer]:
    b = _whole(raw, 3).reshape(-1, 3).astype(np.int32)
    return ((b[:, 0] | b[:, 1] << 8 | b[:, 2] << 16) ^ (1 << 23)) - (1 << 23)


def _signed(values: NDArray[np.integer], bits: int) -> NDArray[np.integer]:
    return (values ^ (1 << (bits - 1))) - (1 << (bits - 1))


def _packed212(raw: NDArray[np.uint8]) -> NDArray[np.integer]:
    """Two 12-bit two's complement samples in three bytes; a single last sample takes two."""
    padded = np.append(raw, np.zeros(-raw.size % 3, np.uint8)).reshape(-1, 3).astype(np.int32)
    pairs = np.stack([padded[:, 0] | (padded[:, 1] & 0x0F) << 8, padded[:, 2] | (padded[:, 1] & 0xF0) << 4], axis=1)
    return _signed(pairs.reshape(-1)[: raw.size * 2 // 3], 12)


def _packed310(raw: NDArray[np.uint8]) -> NDArray[np.integer]:
    """Three 10-bit samples in two little-endian words: bits 1-10 of each, and the two words' bits 11-15 together."""
    padded = np.append(raw, np.zeros(-raw.size % 4, np.uint8)).view("<u2").reshape(-1, 2).astype(np.int32)
    one, two = padded[:, 0], padded[:, 1]
    triples = np.stack([one >> 1 & 0x3FF, two >> 1 & 0x3FF, one >> 11 & 0x1F | (two >> 11 & 0x1F) << 5], axis=1)
    return _signed(triples.reshape(-1)[: raw.size * 3 // 4], 10)


def _packed311(raw: NDArray[np.uint8]) -> NDArray[np.integer]:
    """Three 10-bit samples in the low 30 bits of a little-endian 32-bit word."""
    padded = np.append(raw, np.zeros(-raw.size % 4, np.uint8)).view("<u4").astype(np.int64)
    triples = np.stack([padded & 0x3FF, padded >> 10 & 0x3FF, padded >> 20 & 0x3FF], axis=1)
    return _signed(triples.reshape(-1)[: raw.size * 3 // 4], 10)


_DECODERS: Mapping[int, Callable[[NDArray[np.uint8]], NDArray[np.integer]]] = {
    8: lambda raw: raw.view(np.int8),
    16: lambda raw: _whole(raw, 2).view("<i2"),
    24: _int24,
    32: lambda raw: _whole(raw, 4).view("<i4"),
    61: lambda raw: _whole(raw, 2).view(">i2"),
    80: lambda raw: raw.astype(np.int16) - 128,
    160: lambda raw: _whole(raw, 2).view("<u2").astype(np.int32) - 32768,
    212: _packed212,
    310: _packed310,
    311: _packed311,
}


MAX_FLAC_SAMPLES = 64_000_000


def _flac(content: bytes, bits: int, width: int, n_frames: int) -> NDArray[np.integer]:
    """FLAC-compressed signals (formats 508, 516, 524): one channel per signal; ``n_frames`` of them, -1 for all.

    References
    ----------
    RFC 9639, section 6: the signature. libsndfile recognises dozens of other formats; it is given no other.
    """
    if not content.startswith(b"fLaC"):
        raise Refused("unreadable", found="WFDB", expected="FLAC")
    try:
        import soundfile  # type: ignore[import-untyped]  # noqa: PLC0415  # rare
    except ImportError as error:
        raise Refused("unsupported_format", found="WFDB FLAC", expected="WFDB 16, WFDB 212") from error
    with refusals_only("FLAC", "FLAC"), soundfile.SoundFile(io.BytesIO(content)) as flac:
        wanted = flac.frames if n_frames < 0 else min(n_frames, flac.frames)
        if flac.channels != width or wanted * width > MAX_FLAC_SAMPLES:
            raise Refused("unreadable", found=f"FLAC {flac.channels} × {flac.frames}", expected=f"FLAC {width}")
        require_memory(3 * 4 * wanted * width)  # as libsndfile gives them, joined, and shifted
        frames = flac.read(frames=wanted, dtype="int32", always_2d=True)
    return np.asarray(frames, np.int32).reshape(-1) >> (32 - bits)
