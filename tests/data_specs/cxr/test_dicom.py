"""DICOM films: every transfer syntax, the greyscale pipeline, what the tags say, and what is refused."""

from __future__ import annotations

import struct
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from data_specs.cxr.files import read_image
from data_specs.cxr.image import ChestImage
from data_specs.problems import Problem, Refused
from tests.data_specs.cxr_made import (
    BIG,
    CR,
    CT,
    DEFLATED,
    DEFLATED_FRAME,
    EXPLICIT,
    HTJ2K,
    HTJ2K_LOSSY,
    HTJ2K_RPCL,
    IMPLICIT,
    J2K,
    J2K_LOSSY,
    J2K_PART2,
    JPEG,
    JPEG_12,
    JPEG_LOSSLESS,
    JPEG_LOSSLESS_SV1,
    JPEG_LS,
    JPEG_LS_NEAR,
    RLE,
    SC,
    UNCOMPRESSED,
    dicom,
    encoded,
    full_window,
    phantom,
)

LOSSLESS = (EXPLICIT, IMPLICIT, BIG, DEFLATED, UNCOMPRESSED, DEFLATED_FRAME, RLE)
LOSSLESS_CODECS = (JPEG_LOSSLESS, JPEG_LOSSLESS_SV1, JPEG_LS, J2K, J2K_PART2, HTJ2K, HTJ2K_RPCL)


def refusal(content: bytes) -> Problem:
    with pytest.raises(Refused) as caught:
        read_image(content)
    assert "Secret" not in repr(caught.value.problem)
    return caught.value.problem


def shown(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Full range of ``bits`` as 8-bit grey."""
    return np.rint(values / (2**bits - 1) * 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------- transfer syntaxes


@pytest.mark.parametrize("bits", [8, 10, 12, 15, 16])
@pytest.mark.parametrize("syntax", [*LOSSLESS, *LOSSLESS_CODECS])
def test_lossless_syntaxes_give_every_value(syntax: str, bits: int) -> None:
    values = phantom(bits).astype(np.uint8 if bits == 8 else np.uint16)
    film = read_image(dicom(values, syntax, bits=bits, **full_window(bits)))
    assert film.format == "dicom"
    assert film.problems == ()
    np.testing.assert_array_equal(film.pixels, shown(values, bits))


@pytest.mark.parametrize(
    ("syntax", "bits", "within"),
    [(JPEG, 8, 6), (JPEG_12, 12, 3), (JPEG_LS_NEAR, 12, 1), (J2K_LOSSY, 12, 3), (HTJ2K_LOSSY, 12, 12)],
)
def test_lossy_syntaxes_come_near(syntax: str, bits: int, within: int) -> None:
    values = phantom(bits).astype(np.uint8 if bits == 8 else np.uint16)
    film = read_image(dicom(values, syntax, bits=bits, **full_window(bits)))
    assert np.abs(film.pixels.astype(int) - shown(values, bits)).max() <= within


def test_lossy_overshoot_is_clipped_not_wrapped() -> None:
    """A 12-bit JPEG of a 10-bit film rings past 1023; masked to 10 bits, its brightest parts would turn black."""
    values = phantom(10)
    values[100:140, 100:140] = 1023
    film = read_image(dicom(values, JPEG_12, bits=10, codestream=encoded(values, JPEG_12, 12), **full_window(10)))
    assert film.pixels[100:140, 100:140].min() > 240


@pytest.mark.parametrize("bits", [12, 16])
@pytest.mark.parametrize("syntax", [EXPLICIT, BIG, RLE, J2K, JPEG_LS, JPEG_LOSSLESS_SV1])
def test_signed_values_keep_their_sign(syntax: str, bits: int) -> None:
    half = 2 ** (bits - 1)
    values = (phantom(bits).astype(np.int32) - half).astype(np.int16)
    codestream = None
    if syntax in (JPEG_LS, JPEG_LOSSLESS_SV1):  # these codestreams know no sign: two's complement in BitsStored bits
        codestream = encoded((values.astype(np.int32) & (2**bits - 1)).astype(np.uint16), syntax, bits)
    film = read_image(
        dicom(values, syntax, bits=bits, signed=True, codestream=codestream, WindowCenter=0, WindowWidth=2**bits)
    )
    np.testing.assert_array_equal(film.pixels, shown(values.astype(int) + half, bits))


def test_junk_in_the_unused_bits_is_masked() -> None:
    values = phantom(12)
    film = read_image(dicom(values | 0xA000, bits=12, **full_window(12)))
    np.testing.assert_array_equal(film.pixels, shown(values, 12))


def test_values_in_the_high_bits_are_shifted() -> None:
    values = phantom(12)
    film = read_image(dicom(values << 4, bits=12, HighBit=15, **full_window(12)))
    np.testing.assert_array_equal(film.pixels, shown(values, 12))


def test_an_unknown_transfer_syntax_is_named() -> None:
    problem = refusal(dicom(phantom(8).astype(np.uint8), "1.2.840.10008.1.2.4.100", bits=8, codestream=b"\0" * 64))
    assert (problem.code, problem.found) == ("unsupported_transfer_syntax", "1.2.840.10008.1.2.4.100")


def test_a_frame_in_several_fragments_is_joined() -> None:
    values = phantom(12)
    whole = encoded(values, J2K, 12)
    content = dicom(values, J2K, bits=12, codestream=whole, **full_window(12))
    at = content.rindex(b"\xfe\xff\x00\xe0")
    half = len(whole) // 2 // 2 * 2
    parts = (whole[:half], whole[half:] + b"\0" * (len(whole) % 2))
    items = b"".join(b"\xfe\xff\x00\xe0" + len(part).to_bytes(4, "little") + part for part in parts)
    film = read_image(content[:at] + items + b"\xfe\xff\xdd\xe0\0\0\0\0")
    np.testing.assert_array_equal(film.pixels, shown(values, 12))


# ------------------------------------------------------------------------------------------- greyscale pipeline


def test_monochrome1_is_inverted_and_monochrome2_is_not() -> None:
    values = phantom(12)
    upright = read_image(dicom(values, **full_window(12))).pixels
    inverse = read_image(dicom(4095 - values, PhotometricInterpretation="MONOCHROME1", **full_window(12))).pixels
    np.testing.assert_array_equal(upright, inverse)
    assert upright[10, 10] == 255, "the marker is white"
    assert upright[115, 72] < 100 < upright[200, 120], "lungs are darker than the belly"


def test_presentation_lut_shape_does_not_invert_twice() -> None:
    values = phantom(12)
    tags = {"PhotometricInterpretation": "MONOCHROME1", "PresentationLUTShape": "INVERSE"} | full_window(12)
    np.testing.assert_array_equal(read_image(dicom(4095 - values, **tags)).pixels, shown(values, 12))


def test_rescale_comes_before_the_window() -> None:
    values = phantom(12)
    film = read_image(dicom(values, RescaleSlope="2", RescaleIntercept="-1000", WindowCenter=3096, WindowWidth=8191))
    expected = np.clip((2.0 * values - 1000 - 3095.5) / 8190 + 0.5, 0, 1) * 255
    np.testing.assert_array_equal(film.pixels, np.rint(expected).astype(np.uint8))


@pytest.mark.parametrize(
    ("function", "formula"),
    [
        ("LINEAR", lambda x: np.clip((x - 1999.5) / 1999 + 0.5, 0, 1)),
        ("LINEAR_EXACT", lambda x: np.clip((x - 2000) / 2000 + 0.5, 0, 1)),
        ("SIGMOID", lambda x: 1 / (1 + np.exp(-4 * (x - 2000) / 2000))),
    ],
)
def test_windows_follow_the_standard(function: str, formula: Any) -> None:
    values = phantom(12)
    film = read_image(dicom(values, WindowCenter=2000, WindowWidth=2000, VOILUTFunction=function))
    np.testing.assert_array_equal(film.pixels, np.rint(formula(values.astype(float)) * 255).astype(np.uint8))


def test_the_first_of_several_windows_holds() -> None:
    values = phantom(12)
    film = read_image(dicom(values, WindowCenter=[2048, 100], WindowWidth=[4096, 10]))
    np.testing.assert_array_equal(film.pixels, shown(values, 12))


def lut(first: int, entries: NDArray[Any], bits: int = 16) -> Sequence:
    item = Dataset()
    item.add_new(0x00283002, "US", [entries.size % 65536, first, bits])
    item.add_new(0x00283006, "OW", entries.astype("<u2").tobytes())
    item.add_new(0x00283004, "LO", "US")
    return Sequence([item])


def test_voi_lut_is_applied_before_a_window_and_clamps_outside() -> None:
    values = phantom(12)
    entries = (np.arange(3000) / 2999) ** 2 * 65535
    film = read_image(dicom(values, VOILUTSequence=lut(500, np.rint(entries)), WindowCenter=1, WindowWidth=1))
    index = np.clip(values.astype(int) - 500, 0, 2999)
    np.testing.assert_array_equal(film.pixels, np.rint(np.rint(entries)[index] / 65535 * 255).astype(np.uint8))


def test_voi_lut_that_states_16_bit_for_12_is_scaled_by_what_it_holds() -> None:
    values = phantom(12)
    film = read_image(dicom(values, VOILUTSequence=lut(0, np.arange(4096))))
    np.testing.assert_array_equal(film.pixels, shown(values, 12))


def test_modality_lut_comes_first() -> None:
    values = phantom(10)
    film = read_image(
        dicom(
            values, bits=10, ModalityLUTSequence=lut(0, np.arange(1024)[::-1] * 4), WindowCenter=2048, WindowWidth=4096
        )
    )
    expected = np.rint((1023 - values.astype(float)) * 4 / 4095 * 255)
    np.testing.assert_array_equal(film.pixels, expected.astype(np.uint8))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_does_not_set_the_range(photometric: str) -> None:
    values = 1000 + phantom(10)
    values[:60] = 4000
    film = read_image(dicom(values, PhotometricInterpretation=photometric, PixelPaddingValue=4000))
    assert (film.pixels[:60] == 0).all()
    assert film.pixels[60:].max() > 240
    assert np.ptp(film.pixels[60:].astype(int)) > 200


def test_a_padding_range_is_black() -> None:
    values = 1000 + phantom(10)
    values[:60] = np.arange(3900, 4140)[:60, None] - 100
    film = read_image(dicom(values, PixelPaddingValue=3800, PixelPaddingRangeLimit=4095))
    assert (film.pixels[:60] == 0).all()


def test_without_a_window_8_bit_stays_bit_for_bit() -> None:
    values = phantom(8).astype(np.uint8)
    np.testing.assert_array_equal(read_image(dicom(values, bits=8)).pixels, values)


def test_without_a_window_more_bits_use_the_range_of_the_film() -> None:
    values = 200 + phantom(10)
    values[0, 0], values[0, 1] = 4095, 0  # two dead pixels do not set it
    film = read_image(dicom(values))
    assert film.problems == ()
    assert (np.percentile(film.pixels, 1), np.percentile(film.pixels, 99)) == pytest.approx((0, 255), abs=12)


@pytest.mark.parametrize(
    ("center", "width"), [(2048, 0), (2048, -5), (30000, 100), (5, 2), (32768, 65536), ("2048", "")]
)
def test_a_window_that_shows_nothing_is_replaced_and_said(center: Any, width: Any) -> None:
    values = phantom(12) // 8 if center == 32768 else phantom(12)
    film = read_image(dicom(values, WindowCenter=center, WindowWidth=width))
    assert np.ptp(film.pixels.astype(int)) > 200
    codes = [problem.code for problem in film.problems]
    assert codes == ([] if width == "" else ["window_implausible"])


@pytest.mark.parametrize("syntax", [EXPLICIT, IMPLICIT, RLE, JPEG, J2K, JPEG_LS])
def test_a_grey_film_in_colour_is_grey_again(syntax: str) -> None:
    values = np.repeat(phantom(8).astype(np.uint8)[..., None], 3, axis=2)
    film = read_image(
        dicom(values, syntax, bits=8, SOPClassUID=SC, Modality="OT", PhotometricInterpretation="RGB")
        if syntax != JPEG
        else dicom(values, syntax, bits=8, SOPClassUID=SC, PhotometricInterpretation="YBR_FULL_422")
    )
    assert np.abs(film.pixels.astype(int) - values[..., 0]).max() <= (6 if syntax == JPEG else 0)


def test_colour_planes_and_luma() -> None:
    values = np.zeros((256, 240, 3), np.uint8)
    values[..., 0], values[:128, :, 1], values[..., 2] = 200, 100, 50
    planes = np.ascontiguousarray(values.transpose(2, 0, 1)).reshape(256, 240, 3)
    film = read_image(dicom(planes, bits=8, PhotometricInterpretation="RGB", PlanarConfiguration=1))
    assert film.pixels[0, 0] == round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert film.pixels[200, 0] == round(0.299 * 200 + 0.114 * 50)


def test_palette_colour_is_looked_up() -> None:
    values = phantom(8).astype(np.uint8)
    table = (np.arange(256) * 257).astype("<u2").tobytes()
    tags: dict[str, Any] = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour in ("Red", "Green", "Blue"):
        tags[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        tags[f"{colour}PaletteColorLookupTableData"] = table
    np.testing.assert_array_equal(read_image(dicom(values, bits=8, **tags)).pixels, values)


# ------------------------------------------------------------------------------------------- what the tags say


@pytest.mark.parametrize("modality", ["CR", "DX", "DR", "RG", "dx "])
def test_radiographs_are_read(modality: str) -> None:
    assert read_image(dicom(phantom(), Modality=modality)).view == "PA"


@pytest.mark.parametrize("modality", ["OT", "SC", "HC", ""])
def test_secondary_captures_are_read(modality: str) -> None:
    read_image(dicom(phantom(), SOPClassUID=SC, Modality=modality))


@pytest.mark.parametrize(
    ("modality", "sop_class"), [("CT", SC), ("MR", CT), ("MG", CR), ("", CT), ("OT", CR), ("US", SC), ("XC", SC)]
)
def test_other_modalities_are_refused(modality: str, sop_class: str) -> None:
    assert refusal(dicom(phantom(), SOPClassUID=sop_class, Modality=modality)).code == "wrong_modality"


CHESTS = ["chest", " CHEST ", "THORAX", "LUNG", "RIB", "HEART", "CHEST PA", "PORT CHEST", "Tórax", "CHESTABDOMEN"]


@pytest.mark.parametrize("part", [*CHESTS, "", "UNKNOWN", None])
def test_chest_terms_and_silence_are_accepted(part: str | None) -> None:
    read_image(dicom(phantom(), BodyPartExamined=part))


def test_a_body_part_in_vietnamese_is_understood() -> None:
    content = dicom(phantom(), BodyPartExamined="CHEST_", SpecificCharacterSet="ISO_IR 192")
    read_image(content.replace(b"CHEST_", "NGỰC".encode()))
    assert refusal(content.replace(b"CHEST_", "GỐI  ".encode()[:6])).code == "wrong_body_part"


MORE_CHESTS = [
    "PECHO",
    "TORAX",
    "TIMPHOI",
    "TIM PHOI",
    "BRUST",
    "GRIL COSTAL",
    "PULMON",
    "PORTABLECHEST",
    "RIBS",
    "POUMONS",
]


@pytest.mark.parametrize("part", MORE_CHESTS)
def test_chest_terms_of_other_languages_are_accepted(part: str) -> None:
    film = read_image(dicom(phantom(), BodyPartExamined=part, SpecificCharacterSet="ISO_IR 192"))
    assert film.problems == ()


@pytest.mark.parametrize("part", ["T?RAX", "AP PORTABLE CHE", "XYZ", "ROUTINE", "TRX", "1", "CH EST"])
def test_a_word_that_is_not_known_leaves_the_decision_to_the_pixels(part: str) -> None:
    film = read_image(dicom(phantom(), BodyPartExamined=part))
    assert [(each.code, each.severity, each.expected) for each in film.problems] == [
        ("body_part_unknown", "warn", "CHEST")
    ]


OTHER_PARTS = [
    "ABDOMEN",
    "SKULL",
    "LEG",
    "T SPINE",
    "THORACIC SPINE",
    "HAND",
    "PELVIS",
    "COT SONG NGUC",
    "RACHIS DORSAL",
]
OTHER_PARTS += [
    "BRUSTWIRBELSAEULE",
    "KNIE",
    "GENOU",
    "RODILLA",
    "TSPINE",
    "SHOULDER",
    "LSPINE",
    "BREAST",
    "HIP",
    "CSPINE AP",
]


@pytest.mark.parametrize("part", OTHER_PARTS)
def test_other_body_parts_are_refused(part: str) -> None:
    problem = refusal(dicom(phantom(), BodyPartExamined=part))
    assert (problem.code, problem.found) == ("wrong_body_part", part)


def test_a_code_of_a_region_that_is_not_known() -> None:
    other = coded("123037004", "SCT", "")
    film = read_image(dicom(phantom(), BodyPartExamined="", AnatomicRegionSequence=other))
    assert [each.code for each in film.problems] == ["body_part_unknown"]


def coded(value: str, scheme: str, meaning: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return Sequence([item])


def test_the_coded_region_counts_where_the_body_part_is_silent() -> None:
    knee, chest = coded("72696002", "SCT", "Knee"), coded("51185008", "SCT", "Thoracic structure")
    assert refusal(dicom(phantom(), BodyPartExamined="", AnatomicRegionSequence=knee)).code == "wrong_body_part"
    read_image(dicom(phantom(), BodyPartExamined="", AnatomicRegionSequence=chest))


@pytest.mark.parametrize(
    ("said", "view"),
    [
        ("PA", "PA"),
        ("AP", "AP"),
        ("AP SUPINE", "AP"),
        ("PA ERECT", "PA"),
        ("pa", "PA"),
        ("", None),
        ("ANTERO-POSTERIOR", "AP"),
    ],
)
def test_frontal_views_are_recorded(said: str, view: str | None) -> None:
    assert read_image(dicom(phantom(), ViewPosition=said)).view == view


@pytest.mark.parametrize("said", ["LL", "RL", "LATERAL", "LAT", "LEFT LATERAL", "RLO", "LLD", "AP LLD", "OBLIQUE"])
def test_other_views_are_refused(said: str) -> None:
    assert refusal(dicom(phantom(), ViewPosition=said)).code == "wrong_view"


def test_views_by_code_and_by_orientation() -> None:
    lateral = coded("R-10236", "SRT", "left lateral")
    assert refusal(dicom(phantom(), ViewPosition="", ViewCodeSequence=lateral)).code == "wrong_view"
    assert refusal(dicom(phantom(), ViewPosition="", PatientOrientation=["P", "F"])).code == "wrong_view"
    frontal = coded("399348003", "SCT", "antero-posterior")
    assert read_image(dicom(phantom(), ViewPosition="", ViewCodeSequence=frontal)).view == "AP"


@pytest.mark.parametrize(
    ("age", "years"),
    [("054Y", 54), ("018M", 1.5), ("010D", 10 / 365.25), ("052W", 364 / 365.25), ("054", None), ("", None)],
)
def test_age_needs_its_unit(age: str, years: float | None) -> None:
    film = read_image(dicom(phantom(), PatientAge=age))
    assert film.age_years == (None if years is None else pytest.approx(years))


def test_age_from_the_birth_date() -> None:
    assert read_image(dicom(phantom(), PatientBirthDate="19760102")).age_years == pytest.approx(50, abs=0.01)
    assert read_image(dicom(phantom(), PatientBirthDate="20990102")).age_years is None


def test_two_ages_in_one_file_are_a_reserve() -> None:
    film = read_image(dicom(phantom(), PatientAge="054Y", PatientBirthDate="19500102"))
    assert (film.age_years, [each.code for each in film.problems]) == (54, ["age_contradicts"])
    film = read_image(dicom(phantom(), PatientAge="000Y", PatientBirthDate="19000101"))
    assert (film.age_years, film.problems) == (None, ())


def test_person_and_date() -> None:
    film = read_image(dicom(phantom(), PatientSex="F", BurnedInAnnotation="YES"))
    assert (film.sex, film.person_id, str(film.recorded_on)) == ("female", "P-17", "2026-01-02")
    assert [problem.code for problem in film.problems] == ["burned_in_annotation"]
    film = read_image(
        dicom(
            phantom(),
            PatientSex="O",
        )
    )
    assert film.sex is None


@pytest.mark.parametrize(
    "charset", ["ISO_IR 192", "ISO-IR 100", "NONSENSE", ["", "ISO 2022 IR 87"], "GB18030", "ISO_IR 999"]
)
def test_character_sets_never_matter(charset: Any) -> None:
    content = dicom(phantom(), SpecificCharacterSet="ISO_IR 100")
    said = "\\".join(charset) if isinstance(charset, list) else charset
    old = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"
    value = said.encode() + b" " * (len(said) % 2)
    assert old in content
    film = read_image(content.replace(old, old[:6] + len(value).to_bytes(2, "little") + value))
    assert film.person_id == "P-17"


SCALED = {"WindowCenter": "1638", "WindowWidth": "3276", "RescaleSlope": "0.80", "RescaleIntercept": "0.50"}


@pytest.mark.parametrize("keyword", SCALED)
def test_a_decimal_comma_is_a_decimal_point(keyword: str) -> None:
    values = {**SCALED, "WindowCenter": "1638.5", "WindowWidth": "3276.5"}
    content = dicom(phantom(), **values)
    point = values[keyword].encode()
    assert content.count(point) == 1
    comma = read_image(content.replace(point, point.replace(b".", b",")))
    assert np.array_equal(comma.pixels, read_image(content).pixels)
    other = read_image(content.replace(point, b"9" + point[1:]))
    assert not np.array_equal(comma.pixels, other.pixels)


@pytest.mark.parametrize("keyword", SCALED)
@pytest.mark.parametrize("value", ["abcd", "1,,2", "1,5.", "nan ", "1 2 ", "--12", "1_00"])
def test_a_number_that_cannot_be_read_is_not_absent(keyword: str, value: str) -> None:
    content = dicom(phantom(), **SCALED)
    old = SCALED[keyword].encode()
    found = refusal(content.replace(b"DS\x04\x00" + old, b"DS\x04\x00" + value.encode()))
    assert found.code == "unreadable"
    assert found.found.startswith(keyword)


def test_a_slope_of_zero_is_no_slope() -> None:
    assert refusal(dicom(phantom(), RescaleSlope="0", RescaleIntercept="0")).found == "RescaleSlope 0"


@pytest.mark.parametrize("keyword", ["BitsStored", "HighBit", "PixelRepresentation", "SamplesPerPixel"])
def test_a_layout_that_cannot_be_read_is_not_the_usual_one(keyword: str) -> None:
    """One byte where the value has two: pydicom cannot convert it."""
    content = dicom(phantom())
    tag = pydicom.datadict.tag_for_keyword(keyword)
    assert tag is not None
    start = content.index(struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, b"US", 2))
    found = refusal(content[: start + 6] + b"\x01\0" + content[start + 8 : start + 9] + content[start + 10 :])
    assert (found.code, found.found.split()[0]) == ("unreadable", keyword)


def test_a_sign_that_the_standard_does_not_know() -> None:
    assert refusal(dicom(phantom(), PixelRepresentation=2)).found == "PixelRepresentation 2"


# ------------------------------------------------------------------------------------------- what is refused


def test_no_pixel_data() -> None:
    assert refusal(dicom(None)).code == "no_pixel_data"
    assert refusal(dicom(None, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")).code == "no_pixel_data"


def test_several_frames() -> None:
    assert refusal(dicom(phantom(), NumberOfFrames=2)).code == "multiframe"
    read_image(dicom(phantom(), NumberOfFrames=1))


def test_too_small() -> None:
    problem = refusal(dicom(phantom(12, 400, 223)))
    assert (problem.code, problem.found, problem.expected) == ("too_small", "223 × 400 px", "224 px")
    read_image(dicom(phantom(12, 224, 224)))


@pytest.mark.parametrize("syntax", [EXPLICIT, JPEG, J2K, RLE])
def test_a_claim_of_60_000_squared_is_refused_at_once(syntax: str) -> None:
    content = dicom(phantom(8).astype(np.uint8), syntax, bits=8)
    for tag, value in ((b"\x28\x00\x10\x00US\x02\x00", 256), (b"\x28\x00\x11\x00US\x02\x00", 240)):
        content = content.replace(tag + value.to_bytes(2, "little"), tag + (60000).to_bytes(2, "little"))
    start = time.perf_counter()
    assert refusal(content).code == "too_large"
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize("syntax", [JPEG, JPEG_LOSSLESS_SV1, JPEG_LS, J2K, HTJ2K])
def test_a_codestream_of_another_size_than_the_tags_is_refused(syntax: str) -> None:
    small, large = phantom(8).astype(np.uint8), phantom(8, 512, 240).astype(np.uint8)
    problem = refusal(dicom(small, syntax, bits=8, codestream=encoded(large, syntax, 8)))
    assert problem.code == "unreadable"
    assert "512" in problem.found


@pytest.mark.parametrize("syntax", [*LOSSLESS, *LOSSLESS_CODECS, JPEG_12, J2K_LOSSY])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.97])
def test_a_file_that_was_cut_is_truncated(syntax: str, share: float) -> None:
    if syntax == DEFLATED:
        content = dicom(np.random.default_rng(0).integers(0, 4096, (256, 240), dtype=np.uint16), syntax)
    else:
        content = dicom(phantom(12), syntax)
    assert refusal(content[: int(len(content) * share)]).code == "truncated"


def test_a_file_that_was_cut_within_an_element_of_its_header_is_truncated() -> None:
    content = dicom(phantom(12))
    end = content.index(b"\xe0\x7f\x10\x00")
    codes = [refusal(content[: end - n]).code for n in range(1, 10)]
    assert codes == ["truncated"] * 9
    assert refusal(content[: end - 10]).code == "no_pixel_data", "what ends between two elements may be whole"


@pytest.mark.parametrize("syntax", [JPEG, JPEG_LOSSLESS_SV1, J2K, HTJ2K, JPEG_LS])
def test_a_codestream_that_was_cut_inside_a_whole_file_is_noticed(syntax: str) -> None:
    values = phantom(8).astype(np.uint8)
    whole = encoded(values, syntax, 8)
    assert refusal(dicom(values, syntax, bits=8, codestream=whole[: len(whole) // 2])).code in (
        "truncated",
        "unreadable",
    )


def test_a_deflate_bomb_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    import zlib

    monkeypatch.setattr("data_specs.dicom.header.MAX_INFLATED", 2**20)
    content = dicom(phantom(), DEFLATED)
    meta = content[: content.index(b"1.2.840.10008.1.2.1.99") + 22]
    deflater = zlib.compressobj(wbits=-15)
    bomb = deflater.compress(b"\0" * 2**24) + deflater.flush()
    assert refusal(meta + bomb).code == "too_costly"


def test_a_file_of_empty_elements_takes_bounded_time() -> None:
    head = dicom(None)
    start = time.perf_counter()
    refusal(head[: head.index(b"\x08\x00\x16\x00UI")] + b"\x09\x00\x10\x00UI\x00\x00" * 2_000_000)
    assert time.perf_counter() - start < 5


def test_nested_sequences_do_not_overflow() -> None:
    head = dicom(None)
    opened = b"\x08\x00\x18\x22SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    refusal(head[: head.index(b"\x08\x00\x16\x00UI")] + opened * 5000)


def test_missing_meta_and_transfer_syntax_are_refused_not_guessed() -> None:
    content = dicom(phantom())
    body = content[content.index(b"\x08\x00\x16\x00UI") :]
    problem = refusal(body)
    assert (problem.code, problem.expected) == ("unreadable", "(0002,0010) TransferSyntaxUID")
    np.testing.assert_array_equal(read_image(content[132:]).pixels, read_image(content).pixels)


@pytest.mark.parametrize("keyword", ["Rows", "Columns", "BitsAllocated", "BitsStored", "PhotometricInterpretation"])
def test_an_image_without_its_layout_is_unreadable(keyword: str) -> None:
    problem = refusal(dicom(phantom(), **{keyword: None}))
    assert problem.code == "unreadable"
    assert keyword in problem.found


def test_threads_do_not_disturb_each_other() -> None:
    files = [dicom(phantom(12), syntax, **full_window(12)) for syntax in (EXPLICIT, J2K, JPEG_LS, RLE)] * 8
    expected = shown(phantom(12), 12)

    def same(content: bytes) -> bool:
        return np.array_equal(read_image(content).pixels, expected)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(same, files))


# ------------------------------------------------------------------------------------------- real files

CHEST_FILES = {
    "RG1_CR_chest_mono1_15bit_J2Klossy.dcm": ("PA", "female", (1955, 1841)),
    "RG1_CR_chest_mono1_15bit_JPEGLSnear.dcm": ("PA", "female", (1955, 1841)),
    "RG1half_12bit_ExplicitLE.dcm": ("PA", "female", (978, 921)),
    "RG1half_Deflated.dcm": ("PA", "female", (978, 921)),
    "RG1half_J2Klossless.dcm": ("PA", "female", (978, 921)),
    "RG1half_MONO2_ExplicitLE.dcm": ("PA", "female", (978, 921)),
    "RG1half_RLE.dcm": ("PA", "female", (978, 921)),
    "SIIM_CR_chest_mono2_8bit_JPEGbaseline.dcm": ("PA", "male", (1024, 1024)),
    "udacity_test1_NIH_DX_8bit_implicitVR_ok.dcm": (None, "male", (1024, 1024)),
}
REFUSED_FILES = {
    "chest/udacity_test5_NIH_DX_8bit_implicitVR_modality_CT.dcm": "wrong_modality",
    "not_chest/RG3_CR_leg_mono1_10bit_J2KI.dcm": "wrong_body_part",
    "not_chest/RG3_CR_leg_mono1_10bit_JPLL.dcm": "wrong_body_part",
    "not_chest/RG3_CR_leg_mono1_10bit_JPLY.dcm": "wrong_body_part",
    "not_chest/kcr_CT_abdomen_12bit_ExplicitBigEndian.dcm": "wrong_modality",
    "malformed/fodicom_CR_chest_nopixel_chrJapMulti.dcm": "no_pixel_data",
    "malformed/orthanc_DX_NoPixelData.dcm": "no_pixel_data",
    "malformed/orthanc_Lunit_PR_chestPA.dcm": "no_pixel_data",
    "malformed/pydicom_meta_missing_tsyntax.dcm": "unreadable",
    "malformed/pydicom_no_meta.dcm": "unreadable",
}


def thumbnail(film: ChestImage) -> NDArray[np.float64]:
    from data_specs.cxr.image import conform

    small = conform(film.pixels, 32)[0].astype(float)
    return (small - small.mean()) / small.std()


@pytest.mark.parametrize("name", sorted(CHEST_FILES))
def test_real_chest_films_are_upright_and_white_on_black(shared_data: Path, name: str) -> None:
    film = read_image((shared_data / "cxr" / "dicom" / "chest" / name).read_bytes())
    assert (film.view, film.sex, film.pixels.shape) == CHEST_FILES[name]
    assert film.problems == ()
    rows, columns = film.pixels.shape
    lung = film.pixels[int(0.3 * rows) : int(0.5 * rows), int(0.2 * columns) : int(0.35 * columns)].mean()
    belly = film.pixels[int(0.85 * rows) : int(0.95 * rows), int(0.2 * columns) : int(0.45 * columns)].mean()
    assert lung + 20 < belly


def test_one_film_in_seven_encodings_is_one_film(shared_data: Path) -> None:
    folder = shared_data / "cxr" / "dicom" / "chest"
    films = [thumbnail(read_image(path.read_bytes())) for path in sorted(folder.glob("RG1*.dcm"))]
    assert len(films) == 7
    for film in films[1:]:
        assert np.corrcoef(films[0].ravel(), film.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("name", sorted(REFUSED_FILES))
def test_real_files_that_are_no_chest_film_are_refused(shared_data: Path, name: str) -> None:
    assert refusal((shared_data / "cxr" / "dicom" / name).read_bytes()).code == REFUSED_FILES[name]


def test_teeth_that_say_nothing_of_their_place_are_left_to_the_pixel_gate(shared_data: Path) -> None:
    name = "fodicom_CR_teeth_mono1_10bit_ModalityLUTSeq_JPEGlossless.dcm"
    film = read_image((shared_data / "cxr" / "dicom" / "not_chest" / name).read_bytes())
    assert film.pixels.shape == (1576, 1976)
    assert film.pixels[:40].mean() < 80 or film.pixels.std() > 40


def test_jpeg_extended_of_10_bit_agrees_with_its_lossless_twin(shared_data: Path) -> None:
    from data_specs.cxr.pixels import frame_of, stored_values
    from data_specs.dicom.header import read_header

    folder = shared_data / "cxr" / "dicom" / "not_chest"
    values = []
    for name in ("RG3_CR_leg_mono1_10bit_JPLY.dcm", "RG3_CR_leg_mono1_10bit_JPLL.dcm"):
        header = read_header((folder / name).read_bytes())
        values.append(stored_values(header, frame_of(header)).values.astype(int))
    assert np.abs(values[0] - values[1]).mean() < 4
