"""PNG, JPEG and TIFF films: depth, colour, orientation, polarity, and what is refused."""

from __future__ import annotations

import io
import struct
import time
import zlib
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from data_specs.cxr.files import read_image, sniff
from data_specs.problems import Problem, Refused
from tests.data_specs.cxr_made import dicom, phantom

EIGHT = phantom(8).astype(np.uint8)
WIDE = np.repeat(EIGHT[..., None], 3, axis=2)


def refusal(content: bytes) -> Problem:
    with pytest.raises(Refused) as caught:
        read_image(content)
    return caught.value.problem


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, values, **options)
    return out.getvalue()


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (saved(Image.fromarray(EIGHT), "PNG"), "png"),
        (saved(Image.fromarray(EIGHT), "JPEG"), "jpeg"),
        (tiff(EIGHT), "tiff"),
        (tiff(EIGHT, bigtiff=True, byteorder=">"), "tiff"),
        (dicom(EIGHT, bits=8), "dicom"),
        (b"", None),
        (b"GIF89a" + bytes(300), None),
        (b"hello", None),
        (b'{"uid": "1.2.840.10008.1.2"}', None),
    ],
)
def test_the_bytes_say_what_they_are(content: bytes, name: str | None) -> None:
    assert sniff(content) == name
    if name is None:
        assert refusal(content).code == "unsupported_format"
    else:
        assert read_image(content).format == name


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(EIGHT),
        Image.fromarray(WIDE),
        Image.fromarray(EIGHT).convert("P"),
        Image.fromarray(EIGHT).convert("LA"),
        Image.fromarray(WIDE).convert("RGBA"),
    ],
    ids=["grey", "rgb", "palette", "grey and alpha", "rgb and alpha"],
)
def test_8_bit_png_comes_back_bit_for_bit(image: Image.Image) -> None:
    np.testing.assert_array_equal(read_image(saved(image, "PNG")).pixels, EIGHT)


def test_colour_becomes_luma_and_transparency_black() -> None:
    colour = WIDE.copy()
    colour[..., 1] //= 2
    expected = np.rint(0.299 * colour[..., 0] + 0.587 * colour[..., 1] + 0.114 * colour[..., 2])
    assert np.abs(read_image(saved(Image.fromarray(colour), "PNG")).pixels - expected).max() <= 1
    alpha = np.full_like(EIGHT, 255)
    alpha[:50] = 0
    film = read_image(saved(Image.fromarray(np.dstack([WIDE, alpha])), "PNG")).pixels
    assert (film[:50] == 0).all()
    np.testing.assert_array_equal(film[50:], EIGHT[50:])


@pytest.mark.parametrize("widened", [257, 256])
def test_8_bit_widened_to_16_comes_back_bit_for_bit(widened: int) -> None:
    values = EIGHT.astype(np.uint16) * widened
    for content in (imagecodecs.png_encode(values), tiff(values), tiff(values, byteorder=">")):
        np.testing.assert_array_equal(read_image(content).pixels, EIGHT)


@pytest.mark.parametrize("bits", [10, 12, 15, 16])
def test_16_bit_uses_the_range_of_the_film(bits: int) -> None:
    values = phantom(bits) * 0.9
    values = values.astype(np.uint16) + 37
    values[0, 0], values[0, 1] = 65535, 0
    for content in (imagecodecs.png_encode(values), tiff(values, compression="deflate")):
        film = read_image(content).pixels.astype(float)
        assert film.dtype.kind == "f"
        assert np.percentile(film, 0.5) == pytest.approx(0, abs=3)
        assert np.percentile(film, 99.4) == pytest.approx(255, abs=3)
        assert np.corrcoef(film.ravel(), np.clip(values, 0, 2**bits).ravel())[0, 1] > 0.99


@pytest.mark.parametrize(
    ("image", "options"),
    [
        (Image.fromarray(EIGHT), {}),
        (Image.fromarray(EIGHT), {"progressive": True}),
        (Image.fromarray(WIDE), {}),
        (Image.fromarray(WIDE), {"subsampling": 0}),
        (Image.fromarray(WIDE).convert("CMYK"), {}),
    ],
    ids=["grey", "progressive", "colour", "full chroma", "cmyk"],
)
def test_jpeg_is_grey(image: Image.Image, options: dict[str, Any]) -> None:
    film = read_image(saved(image, "JPEG", quality=97, **options))
    assert np.abs(film.pixels.astype(int) - EIGHT).max() <= 6


def test_grey_jpeg_is_what_the_decoder_gives() -> None:
    content = saved(Image.fromarray(EIGHT), "JPEG")
    np.testing.assert_array_equal(read_image(content).pixels, np.asarray(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    turned = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }.get(orientation)
    image = Image.fromarray(EIGHT)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(image if turned is None else image.transpose(turned), "JPEG", quality=97, exif=exif)
    assert np.abs(read_image(content).pixels.astype(int) - EIGHT).max() <= 6


def test_tiff_orientation_is_applied() -> None:
    content = tiff(EIGHT[::-1, ::-1], extratags=[(274, "H", 1, 3, True)])
    np.testing.assert_array_equal(read_image(content).pixels, EIGHT)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "lzw"},
        {"compression": "deflate", "predictor": True},
        {"compression": "packbits"},
        {"tile": (64, 64), "compression": "lzw"},
        {"rowsperstrip": 7},
        {"bigtiff": True},
        {"byteorder": ">"},
    ],
)
def test_8_bit_tiff_comes_back_bit_for_bit(options: dict[str, Any]) -> None:
    np.testing.assert_array_equal(read_image(tiff(EIGHT, **options)).pixels, EIGHT)
    np.testing.assert_array_equal(read_image(tiff(WIDE, photometric="rgb", **options)).pixels, EIGHT)


def test_other_tiffs() -> None:
    np.testing.assert_array_equal(read_image(tiff(255 - EIGHT, photometric="miniswhite")).pixels, EIGHT)
    planes = np.ascontiguousarray(WIDE.transpose(2, 0, 1))
    np.testing.assert_array_equal(read_image(tiff(planes, photometric="rgb", planarconfig="separate")).pixels, EIGHT)
    palette = np.stack([np.arange(256, dtype=np.uint16) * 257] * 3)
    np.testing.assert_array_equal(read_image(tiff(EIGHT, photometric="palette", colormap=palette)).pixels, EIGHT)
    film = read_image(tiff(EIGHT, compression="jpeg", compressionargs={"level": 97})).pixels
    assert np.abs(film.astype(int) - EIGHT).max() <= 6


def test_a_palette_of_sixteen_colours() -> None:
    """Codes of 4 bits, colours of 16 (TIFF 6.0 section 5): they are as deep as the colours, not as the codes."""
    codes = np.tile(np.arange(16, dtype=np.uint8), (240, 15))
    colours = tuple(17 * 257 * code for _ in "RGB" for code in range(16))
    content = tiff(codes, photometric="minisblack", bitspersample=4, extratags=[(320, "H", 48, colours, True)])
    grey, palette = (struct.pack("<HHLL", 262, 3, 1, kind) for kind in (1, 3))
    assert content.count(grey) == 1
    np.testing.assert_array_equal(read_image(content.replace(grey, palette)).pixels, 17 * codes)


def test_a_reduced_page_beside_the_film_is_no_second_frame() -> None:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        writer.write(EIGHT)
        writer.write(EIGHT[::4, ::4].copy(), subfiletype=1)
    np.testing.assert_array_equal(read_image(out.getvalue()).pixels, EIGHT)


def test_tiffs_that_hold_no_film() -> None:
    assert refusal(tiff(np.stack([EIGHT, EIGHT]), photometric="minisblack")).code == "multiframe"
    assert refusal(tiff(EIGHT.astype(np.float32))).code == "unsupported_format"
    assert refusal(tiff(EIGHT.astype(np.uint32))).code == "unsupported_format"
    assert refusal(tiff(EIGHT > 100)).code == "unsupported_format"
    assert refusal(tiff(EIGHT, compression="zstd")).code == "unsupported_format"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def png_header(columns: int, rows: int) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">LLBBBBB", columns, rows, 8, 0, 0, 0, 0))


def test_claims_of_60_000_squared_are_refused_before_decoding() -> None:
    bomb = png_header(60000, 60000) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")
    jpeg = bytearray(saved(Image.fromarray(EIGHT), "JPEG"))
    at = jpeg.index(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", 60000, 60000)
    huge = bytearray(tiff(EIGHT))
    for tag in (256, 257):
        at = (
            huge.index(struct.pack("<HH", tag, 3))
            if struct.pack("<HH", tag, 3) in huge
            else huge.index(struct.pack("<HH", tag, 4))
        )
        huge[at + 2 : at + 12] = struct.pack("<HLL", 4, 1, 60000)
    start = time.perf_counter()
    for content in (bomb, bytes(jpeg), bytes(huge)):
        assert refusal(content).code == "too_large"
    assert time.perf_counter() - start < 1


def test_too_small() -> None:
    small = Image.fromarray(EIGHT[:223])
    for kind in ("PNG", "JPEG", "TIFF"):
        problem = refusal(saved(small, kind))
        assert (problem.code, problem.expected) == ("too_small", "224 px")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_a_cut_file_is_refused(kind: str, share: float) -> None:
    content = saved(Image.fromarray(EIGHT), kind)
    assert refusal(content[: int(len(content) * share)]).code in ("truncated", "unreadable")


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    content = saved(Image.fromarray(EIGHT), "JPEG", progressive=True)
    at = content.rindex(b"\xff\xda")
    scan = content[at : at + 2 + int.from_bytes(content[at + 2 : at + 4], "big")]
    assert refusal(content[:-2] + scan * 1000 + b"\xff\xd9").code == "unreadable"


def test_an_animated_png_is_no_film() -> None:
    frames = [Image.fromarray(EIGHT), Image.fromarray(255 - EIGHT)]
    assert refusal(saved(frames[0], "PNG", save_all=True, append_images=frames[1:])).code == "multiframe"


def test_what_a_damaged_png_says_of_itself_does_not_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    named = b"Nguyen Van A\0\0" + zlib.compress(bytes(200_000))
    chunk = len(named).to_bytes(4, "big") + b"iCCP" + named + zlib.crc32(b"iCCP" + named).to_bytes(4, "big")
    content = saved(Image.fromarray(EIGHT), "PNG")
    assert np.array_equal(read_image(content[:33] + chunk + content[33:]).pixels, EIGHT)
    assert "Nguyen" not in caplog.text
