"""The layout of a frame at every bound, the parts of its pixel data, and the memory that it is said to take."""

from __future__ import annotations

import struct
from typing import Any

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray

from data_specs.cxr.image import MAX_PIXELS
from data_specs.cxr.pixels import Frame, Stored, frame_of, stored_values
from data_specs.dicom.header import EXPLICIT_BIG, Header, PixelElement, read_header
from data_specs.problems import Problem, Refused
from data_specs.reading import memory_limit
from tests.data_specs.cxr_made import (
    BIG,
    DEFLATED_FRAME,
    EXPLICIT,
    HTJ2K,
    IMPLICIT,
    J2K,
    JPEG,
    JPEG_12,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    RLE,
    UNCOMPRESSED,
    dicom,
    encoded,
    phantom,
)

LAYOUT: dict[str, Any] = {
    "Rows": 4, "Columns": 6, "BitsAllocated": 16, "BitsStored": 12, "HighBit": 11, "SamplesPerPixel": 1,
    "PixelRepresentation": 0, "PhotometricInterpretation": "MONOCHROME2",
}  # fmt: skip


def frame(**changed: Any) -> Frame:
    values = {key: value for key, value in (LAYOUT | changed).items() if value is not None}
    return frame_of(Header(EXPLICIT, values, True, None))


def refused(action: Any, *args: Any, **given: Any) -> Problem:
    with pytest.raises(Refused) as raised:
        action(*args, **given)
    return raised.value.problem


# ---------------------------------------------------------------- the layout
@pytest.mark.parametrize(
    ("keyword", "least", "most", "expected"),
    [
        ("Rows", 1, 65535, "Rows 1–65535"),
        ("Columns", 1, 65535, "Columns 1–65535"),
        ("BitsStored", 1, 16, "BitsStored 1–16"),
    ],
)
def test_a_number_of_the_layout_at_its_bounds(keyword: str, least: int, most: int, expected: str) -> None:
    for value in (least, most):
        assert frame(**{keyword: value})
    for value, said in ((least - 1, least - 1), (most + 1, most + 1), (None, "—")):
        assert refused(frame, **{keyword: value}) == Problem("unreadable", "reject", f"{keyword} {said}", expected)


def test_a_value_has_no_more_bits_than_its_cell() -> None:
    assert frame(BitsAllocated=8, BitsStored=8, HighBit=7).bits_stored == 8
    assert refused(frame, BitsAllocated=8, BitsStored=9).expected == "BitsStored 1–8"
    for cell in (1, 7, 12, 24, 32, None):
        assert refused(frame, BitsAllocated=cell).expected == "BitsAllocated 8, 16"


@pytest.mark.parametrize(
    ("stated", "used"), [(11, 11), (12, 12), (15, 15), (10, 11), (16, 11), (0, 11), (None, 11), (-1, 11)]
)
def test_a_high_bit_that_the_value_does_not_fit_under_is_that_of_the_value(stated: int | None, used: int) -> None:
    assert frame(HighBit=stated).high_bit == used


def test_samples_sign_and_planes() -> None:
    for stated, samples in ((1, 1), (3, 3), (None, 1)):
        assert frame(SamplesPerPixel=stated).samples == samples
    for stated in (0, 2, 4):
        assert refused(frame, SamplesPerPixel=stated) == Problem(
            "unreadable", "reject", f"SamplesPerPixel {stated}", "1, 3"
        )
    for stated, signed in ((0, False), (1, True), (None, False)):
        assert frame(PixelRepresentation=stated).signed is signed
    assert refused(frame, PixelRepresentation=2) == Problem("unreadable", "reject", "PixelRepresentation 2", "0, 1")
    for stated, planar in ((0, False), (1, True), (2, False), (None, False)):
        assert frame(PlanarConfiguration=stated).planar is planar
    made = frame(PhotometricInterpretation="monochrome1")
    assert (made.photometric, made.rows, made.columns) == ("MONOCHROME1", 4, 6)
    assert (made.bits_allocated, made.bits_stored) == (16, 12)
    assert frame(PhotometricInterpretation=None).photometric == ""


def test_a_film_of_exactly_as_many_pixels_as_are_read() -> None:
    columns = 50_000
    rows, left = divmod(MAX_PIXELS, columns)
    assert left == 0
    assert frame(Rows=rows, Columns=columns).rows == rows
    assert refused(frame, Rows=rows + 1, Columns=columns) == Problem(
        "too_large", "reject", f"{columns} × {rows + 1} px", f"{MAX_PIXELS // 1_000_000} Mpx"
    )


# ---------------------------------------------------------------- pixel data as it stands in the file
def stored(
    data: bytes,
    syntax: str = EXPLICIT,
    *,
    length: int | None = -1,
    vr: str = "OW",
    before: bytes = b"",
    **layout: Any,
) -> Stored:
    """A frame whose pixel data is ``data``; ``length`` is what the element states, and what it has where it is -1."""
    values = {key: value for key, value in (LAYOUT | layout).items() if value is not None}
    stated = len(data) if length == -1 else length
    element = PixelElement("PixelData", vr, before + data, len(before), stated)
    header = Header(syntax, values, syntax != EXPLICIT_BIG, element)
    return stored_values(header, frame_of(header))


GREY = np.arange(24, dtype=np.uint16).reshape(4, 6) * 150


def test_values_without_a_codec_in_both_byte_orders() -> None:
    for syntax, order in ((EXPLICIT, "<"), (IMPLICIT, "<"), (BIG, ">")):
        found = stored(GREY.astype(f"{order}u2").tobytes(), syntax, before=b"\0" * 10)
        assert found.values.tolist() == GREY.tolist()
        assert (found.precision, found.signed, found.exact) == (16, False, True)
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    found = stored(bytes(range(24)), PixelRepresentation=1, **eight)
    assert (found.values.ravel().tolist(), found.precision, found.signed) == (list(range(24)), 8, True)


def test_eight_bits_in_words_of_the_other_byte_order() -> None:
    """PS3.5 A.3: in big endian, cells of 8 bits in OW lie swapped in their words; in OB they do not."""
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    data = bytes(range(24))
    swapped = np.frombuffer(data, np.uint16).byteswap().tobytes()
    assert stored(swapped, BIG, **eight).values.ravel().tolist() == list(range(24))
    assert stored(data, BIG, vr="OB", **eight).values.ravel().tolist() == list(range(24))
    assert stored(data, EXPLICIT, **eight).values.ravel().tolist() == list(range(24))
    odd = {**eight, "Rows": 3, "Columns": 5}
    assert stored(swapped[:16], BIG, **odd).values.ravel().tolist() == list(range(15))


def test_colour_without_a_codec() -> None:
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "SamplesPerPixel": 3, "Rows": 2, "Columns": 4}
    data = bytes(range(24))
    mixed = stored(data, PhotometricInterpretation="RGB", **eight)
    assert mixed.values[1, 2].tolist() == [18, 19, 20]
    planes = stored(data, PhotometricInterpretation="RGB", PlanarConfiguration=1, **eight)
    assert planes.values[1, 2].tolist() == [6, 14, 22]
    # Two luma samples, then one of each chroma (PS3.3 C.7.6.3.1.2): two bytes for each pixel.
    halved = stored(data[:16], PhotometricInterpretation="YBR_FULL_422", **eight)
    assert halved.values.tolist() == [[0, 1, 4, 5], [8, 9, 12, 13]]


@pytest.mark.parametrize("length", [-1, 48])
def test_a_frame_that_lacks_a_byte_is_truncated(length: int) -> None:
    data = GREY.tobytes()
    assert stored(data, length=length).values.shape == (4, 6)
    assert refused(stored, data[:-1], length=length) == Problem("truncated", "reject", "47 B", "48 B")
    assert refused(stored, data, length=47).found == "47 B"
    assert refused(stored, b"").found == "0 B"


def test_pixel_data_of_no_stated_length_is_of_a_codec() -> None:
    assert refused(stored, GREY.tobytes(), length=None) == Problem(
        "unreadable", "reject", "PixelData 0xFFFFFFFF", EXPLICIT
    )
    assert refused(stored, GREY.tobytes(), "1.2.3") == Problem(
        "unsupported_transfer_syntax", "reject", "1.2.3", "1.2.840.10008.1.2.1"
    )


# ---------------------------------------------------------------- fragments
ITEM, END = 0xE000, 0xE0DD


def item(data: bytes = b"", element: int = ITEM, group: int = 0xFFFE, length: int | None = None) -> bytes:
    return struct.pack("<HHL", group, element, len(data) if length is None else length) + data


def encapsulated(*items: bytes, **layout: Any) -> Stored:
    return stored(b"".join(items), UNCOMPRESSED, length=None, before=b"\1\2\3", **layout)


def test_the_fragments_of_a_frame_are_joined_without_the_offset_table() -> None:
    data = GREY.tobytes()
    for table in (b"", b"\0\0\0\0"):
        for parts in ((data,), (data[:10], data[10:])):
            found = encapsulated(item(table), *map(item, parts), item(element=END))
            assert found.values.tolist() == GREY.tolist()
            assert (found.precision, found.signed) == (16, False)
    assert encapsulated(item(), item(data)).values.tolist() == GREY.tolist(), "without its delimiter"
    assert encapsulated(item(), item(data), item(element=END), b"\7" * 20).values.tolist() == GREY.tolist()
    assert encapsulated(item(), item(data), b"\0" * 7).values.tolist() == GREY.tolist(), "no item has seven bytes"


def test_what_is_no_item_is_refused_by_its_tag() -> None:
    data = GREY.tobytes()
    for wrong, tag in (
        (item(data, element=0xE001), "(FFFE,E001)"),
        (item(data, group=0xFFFF), "(FFFF,E000)"),
        (item(data, length=0xFFFFFFFF), "(FFFE,E000)"),
    ):
        assert refused(encapsulated, item(), wrong) == Problem("unreadable", "reject", tag, "(FFFE,E000)")
    assert refused(stored, data, UNCOMPRESSED) == Problem("unreadable", "reject", "PixelData 48 B", UNCOMPRESSED)


def test_an_item_longer_than_the_file_is_truncated() -> None:
    data = GREY.tobytes()
    assert encapsulated(item(), item(data, length=48)).values.shape == (4, 6)
    assert refused(encapsulated, item(), item(data, length=49)) == Problem("truncated", "reject", "48 B", "49 B")
    assert refused(encapsulated, item()).code == "truncated"
    assert refused(encapsulated, item(), item(element=END)) == Problem("truncated", "reject", "19 B", "(FFFE,E000)")
    assert refused(encapsulated, b"").code == "truncated"


def test_a_frame_in_too_many_fragments_is_refused() -> None:
    data = GREY.tobytes()
    most = [item()] * 49_999
    assert encapsulated(*most, item(data)).values.tolist() == GREY.tolist()
    assert refused(encapsulated, *most, item(), item(data)) == Problem(
        "unreadable", "reject", "(FFFE,E000) > 50000", "(FFFE,E000)"
    )


# ---------------------------------------------------------------- RLE
def packed(data: bytes) -> bytes:
    """One segment, in runs of literals."""
    runs = [data[k : k + 128] for k in range(0, len(data), 128)]
    return b"".join(bytes([len(run) - 1]) + run for run in runs)


def rle_stored(
    segments: list[bytes], *, stated: int | None = None, offsets: list[int] | None = None, **layout: Any
) -> Stored:
    at = [64 + sum(map(len, segments[:k])) for k in range(len(segments))] if offsets is None else offsets
    head = struct.pack("<16L", len(segments) if stated is None else stated, *at, *[0] * (15 - len(at)))
    return stored(item() + item(head + b"".join(segments)), RLE, length=None, **layout)


def test_rle_has_the_highest_byte_of_each_sample_first() -> None:
    wide = np.arange(24, dtype=np.uint16).reshape(4, 6) * 1000
    high, low = (wide >> 8).astype(np.uint8).tobytes(), (wide & 255).astype(np.uint8).tobytes()
    found = rle_stored([packed(high), packed(low)], BitsStored=16, HighBit=15, PixelRepresentation=1)
    assert found.values.tolist() == wide.tolist()
    assert (found.precision, found.signed, found.exact) == (16, True, True)
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    assert rle_stored([packed(low)], **eight).values.ravel().tolist() == list(low)
    colour = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}
    planes = [bytes(range(24)), bytes(range(50, 74)), bytes(range(100, 124))]
    found = rle_stored([packed(plane) for plane in planes], **eight, **colour)
    assert found.values[1, 2].tolist() == [8, 58, 108]
    six = [packed(part) for plane in planes for part in (bytes([1] * 24), plane)]
    assert rle_stored(six, BitsStored=16, HighBit=15, **colour).values[1, 2].tolist() == [264, 314, 364]


def test_rle_that_gives_fewer_pixels_is_truncated_and_more_are_left_out() -> None:
    eight = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}
    data = bytes(range(24))
    assert refused(rle_stored, [packed(data[:-1])], **eight) == Problem("truncated", "reject", "23 B", "24 B")
    for surplus in (1, 128):  # the longest run gives 128 bytes (PS3.5 G.3.2)
        longer = packed(data + b"\7" * surplus)
        assert rle_stored([longer], **eight).values.ravel().tolist() == list(data)
    with pytest.raises(imagecodecs.PackbitsError):
        rle_stored([packed(data + b"\7" * 129)], **eight)


@pytest.mark.parametrize("stated", [0, 1, 3])
def test_rle_of_another_number_of_segments_is_refused(stated: int) -> None:
    half = packed(bytes(24))
    assert refused(rle_stored, [half, half], stated=stated) == Problem("unreadable", "reject", f"RLE {stated}", "RLE 2")


@pytest.mark.parametrize("offsets", [[63, 90], [64, 63], [64, 10_000], [120, 90], [64, 115]])
def test_rle_segments_lie_in_the_frame_one_after_another(offsets: list[int]) -> None:
    half = packed(bytes(24))
    assert rle_stored([half, half], offsets=[64, 64 + len(half)]).values.shape == (4, 6)
    assert refused(rle_stored, [half, half], offsets=offsets) == Problem("unreadable", "reject", "RLE", "PS3.5 G.5")


def test_an_empty_rle_segment_gives_no_pixels() -> None:
    half = packed(bytes(24))
    assert refused(rle_stored, [half, half], offsets=[64, 64]) == Problem("truncated", "reject", "0 B", "24 B")


def test_an_empty_rle_frame_has_no_segments() -> None:
    assert refused(stored, item() + item(b"\2\0\0\0"), RLE, length=None).found == "RLE"
    assert refused(stored, item() + item(b""), RLE, length=None).found == "RLE 0"


# ---------------------------------------------------------------- codestreams
OF_SYNTAX = {
    # Transfer syntax (PS3.6 table A-1) to what encodes it here, and whether it gives back every value.
    "1.2.840.10008.1.2.4.50": (JPEG, 8, False),
    "1.2.840.10008.1.2.4.51": (JPEG_12, 12, False),
    "1.2.840.10008.1.2.4.53": (JPEG, 8, False),
    "1.2.840.10008.1.2.4.55": (JPEG_12, 12, False),
    "1.2.840.10008.1.2.4.57": (JPEG_LOSSLESS_SV1, 12, True),
    "1.2.840.10008.1.2.4.70": (JPEG_LOSSLESS_SV1, 12, True),
    "1.2.840.10008.1.2.4.80": (JPEG_LS, 12, True),
    "1.2.840.10008.1.2.4.81": (JPEG_LS, 12, False),
    "1.2.840.10008.1.2.4.90": (J2K, 12, True),
    "1.2.840.10008.1.2.4.91": (J2K, 12, True),
    "1.2.840.10008.1.2.4.92": (J2K, 12, True),
    "1.2.840.10008.1.2.4.93": (J2K, 12, True),
    "1.2.840.10008.1.2.4.201": (HTJ2K, 12, True),
    "1.2.840.10008.1.2.4.202": (HTJ2K, 12, True),
    "1.2.840.10008.1.2.4.203": (HTJ2K, 12, True),
}


def of(values: NDArray[Any], syntax: str, bits: int, codestream: bytes, **layout: Any) -> Stored:
    shape = {"Rows": values.shape[0], "Columns": values.shape[1], "BitsAllocated": 8 * values.dtype.itemsize}
    given = shape | {"BitsStored": bits, "HighBit": bits - 1} | layout
    return stored(item() + item(codestream + b"\0" * (len(codestream) % 2)), syntax, length=None, **given)


@pytest.mark.parametrize("syntax", OF_SYNTAX)
@pytest.mark.parametrize("signed", [0, 1])
def test_each_transfer_syntax_has_its_decoder(syntax: str, signed: int) -> None:
    by, bits, exact = OF_SYNTAX[syntax]
    values = phantom(bits, 32, 40).astype(np.uint8 if bits == 8 else np.uint16)
    found = of(values, syntax, bits, encoded(values, by, bits), PixelRepresentation=signed)
    assert np.abs(found.values.astype(int) - values).max() <= (0 if exact or by == JPEG_LS else 2**bits / 30)
    # JPEG-LS and HTJ2K are encoded here with whole cells.
    assert (found.precision, found.exact) == (16 if by in (JPEG_LS, HTJ2K) else bits, exact)
    lossy_jpeg = by in (JPEG, JPEG_12)
    assert found.signed is (bool(signed) and not lossy_jpeg), "the samples of the lossy processes of JPEG have no sign"


def test_a_deflated_frame_gives_what_it_needs_and_no_more() -> None:
    import zlib

    def deflated(data: bytes) -> Stored:
        deflater = zlib.compressobj(wbits=-15)
        return stored(item() + item(deflater.compress(data) + deflater.flush()), DEFLATED_FRAME, length=None)

    assert deflated(GREY.tobytes()).values.tolist() == GREY.tolist()
    assert deflated(GREY.tobytes() + b"\0" * 100_000).values.tolist() == GREY.tolist()
    assert refused(deflated, GREY.tobytes()[:-1]).found == "47 B"


@pytest.mark.parametrize("syntax", [J2K, JPEG_LS, JPEG_LOSSLESS_SV1])
def test_a_codestream_of_another_shape_or_depth_is_refused_before_it_is_decoded(
    syntax: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = phantom(12, 32, 40)
    stream = encoded(values, syntax, 12)
    depth = of(values, syntax, 12, stream).precision
    for codec in ("jpeg2k", "jpegls", "jpeg8"):
        monkeypatch.setattr(f"imagecodecs.{codec}_decode", None)
    for layout, expected in (
        ({"Rows": 33}, "40 × 33 px × 1, 16 bit"),
        ({"Columns": 39}, "39 × 32 px × 1, 16 bit"),
        ({"SamplesPerPixel": 3}, "40 × 32 px × 3, 16 bit"),
        ({"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}, "40 × 32 px × 1, 8 bit"),
    ):
        assert refused(of, values, syntax, 12, stream, **layout) == Problem(
            "unreadable", "reject", f"40 × 32 px × 1, {depth} bit", expected
        )


def test_a_codestream_as_deep_as_its_cell_is_read() -> None:
    eight = phantom(8, 32, 40).astype(np.uint8)
    fits = of(eight, J2K, 8, encoded(eight, J2K, 8))
    assert (fits.precision, fits.values.dtype) == (8, np.uint8)


@pytest.mark.parametrize("bits", [8, 12])
def test_a_sign_that_jpeg_2000_states_itself(bits: int) -> None:
    values = (phantom(bits, 32, 40).astype(int) - 2 ** (bits - 1)).astype(np.int8 if bits == 8 else np.int16)
    for stated in (0, 1):
        found = of(values, J2K, bits, encoded(values, J2K, bits), PixelRepresentation=stated)
        assert found.signed
        assert found.values.dtype.kind == "u"
        np.testing.assert_array_equal(found.values.view(values.dtype), values)


@pytest.mark.parametrize(
    "wrong",
    [np.zeros((4, 7), np.uint8), np.zeros((4, 6), np.int8), np.zeros((4, 6), np.float32), np.zeros((4, 6), np.uint32)],
)
def test_what_a_decoder_must_not_give_is_refused(wrong: NDArray[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.zeros((4, 6), np.uint8)
    stream = encoded(values, JPEG_LS, 8)
    monkeypatch.setattr("imagecodecs.jpegls_decode", lambda data: wrong)
    assert refused(of, values, JPEG_LS, 8, stream) == Problem(
        "unreadable", "reject", f"{wrong.shape} {wrong.dtype}", "(4, 6)"
    )


# ---------------------------------------------------------------- colour
COLOUR = np.zeros((16, 16, 3), np.uint8)
COLOUR[:, :8], COLOUR[:, 8:] = (200, 100, 50), (30, 60, 120)
LUMA = [round(0.299 * r + 0.587 * g + 0.114 * b) for r, g, b in ((200, 100, 50), (30, 60, 120))]


def in_colour(syntax: str, stream: bytes, photometric: str) -> NDArray[Any]:
    given = {"SamplesPerPixel": 3, "PhotometricInterpretation": photometric}
    return of(COLOUR[..., 0], syntax, 8, stream, **given).values.astype(int)


@pytest.mark.parametrize("syntax", [J2K, JPEG_LS, JPEG_LOSSLESS_SV1])
def test_lossless_colour_keeps_its_samples(syntax: str) -> None:
    np.testing.assert_array_equal(in_colour(syntax, encoded(COLOUR, syntax, 8), "RGB"), COLOUR)


def test_of_a_jpeg_in_ycbcr_the_luma_is_decoded() -> None:
    """With a JFIF marker the stream says so, whatever the header says."""
    stream = imagecodecs.jpeg8_encode(COLOUR, level=95)
    for photometric in ("YBR_FULL_422", "RGB"):
        found = in_colour(JPEG, stream, photometric)
        assert found.shape == (16, 16)
        assert np.abs(found[8, [2, 13]] - LUMA).max() <= 2


def test_a_jpeg_in_rgb_is_decoded_as_it_is() -> None:
    """With Adobe's marker, or with nothing that says its colours where the header says RGB."""
    marked = imagecodecs.jpeg8_encode(COLOUR, level=95, colorspace="RGB", outcolorspace="RGB")
    at = marked.index(b"\xff\xee")
    bare = marked[:at] + marked[at + 2 + int.from_bytes(marked[at + 2 : at + 4], "big") :]
    bare = bare.replace(b"R\x11\0G\x11\0B\x11\0", b"\1\x11\0\2\x11\0\3\x11\0")  # component names in the frame
    bare = bare.replace(b"R\0G\0B\0", b"\1\0\2\0\3\0")  # and in the scan
    assert b"R" + b"\x11" not in bare
    for stream in (marked, bare):
        assert np.abs(in_colour(JPEG, stream, "RGB") - COLOUR)[:, [2, 13]].max() <= 3
    # Nothing says RGB: it is taken for YCbCr, and its first plane is the luma.
    assert np.abs(in_colour(JPEG, bare, "YBR_FULL")[8, [2, 13]] - [200, 30]).max() <= 3


# ---------------------------------------------------------------- memory
def asked(content: bytes) -> list[int]:
    """Bytes that are asked for before a film is decoded, one request after another."""
    requests: list[int] = []

    def grant(n_bytes: int) -> int:
        requests.append(n_bytes)
        return n_bytes

    header = read_header(content)
    with memory_limit(grant):
        stored_values(header, frame_of(header))
    return requests


ROWS, COLUMNS = 64, 50
PIXELS = ROWS * COLUMNS
"""Each film is shown in as many bytes as it has pixels; a colour film has a luma plane beside them."""


def test_the_memory_that_a_native_film_takes() -> None:
    grey = phantom(12, ROWS, COLUMNS)
    assert asked(dicom(grey)) == [PIXELS], "it is viewed in the file"
    eight = grey.astype(np.uint8)
    assert asked(dicom(eight, BIG, bits=8)) == [2 * PIXELS + PIXELS], "swapped and copied"
    assert asked(dicom(grey, BIG)) == [PIXELS]
    colour = np.repeat(eight[..., None], 3, axis=2)
    assert asked(dicom(colour, bits=8, PhotometricInterpretation="RGB")) == [2 * PIXELS]
    deep = np.repeat(grey[..., None], 3, axis=2)
    assert asked(dicom(deep, PhotometricInterpretation="RGB")) == [3 * PIXELS]


def test_the_memory_that_a_compressed_film_takes() -> None:
    grey = phantom(12, ROWS, COLUMNS)

    def of_stream(syntax: str, codestream: bytes | None = None) -> tuple[int, list[int]]:
        content = dicom(grey, syntax, codestream=codestream)
        at = content.rindex(b"\xfe\xff\x00\xe0")
        (length,) = struct.unpack_from("<L", content, at + 4)
        return length, asked(content)

    length, requests = of_stream(UNCOMPRESSED)
    assert requests == [length, length + PIXELS]
    length, requests = of_stream(DEFLATED_FRAME)
    assert requests == [length, length + 2 * PIXELS + 2 * PIXELS], "inflated, and once more while its pieces are joined"
    length, requests = of_stream(RLE)
    assert requests == [length, length + 2 * PIXELS + length + PIXELS + 128]
    length, requests = of_stream(JPEG_LS)
    assert requests == [length, length + 2 * PIXELS + PIXELS]
    length, requests = of_stream(JPEG_LOSSLESS_SV1)
    assert requests == [length, length + 2 * PIXELS + PIXELS]
    length, requests = of_stream(J2K)
    assert requests == [length, length + 2 * PIXELS + 4 * PIXELS + length], "OpenJPEG: four bytes a sample, and a copy"
