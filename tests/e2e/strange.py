"""Strange films, recordings and orders, each beside the plain one that it has to be read as.

The films are made around the sample film, the recordings around the sample recordings; no person is real.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom import dcmread
from pydicom.uid import generate_uid

from samples.demo import SAMPLES
from tests.data_specs.cxr_made import EXPLICIT, JPEG, JPEG_LS, JPEG_LS_NEAR, RLE, dicom, encoded, set_tags
from tests.service.receive.hl7.made import order

GREYS = np.asarray(Image.open(SAMPLES / "film-abnormal.jpg").convert("L"))
TWELVE_BITS = GREYS.astype(np.uint16) * 16
SIGNED = GREYS.astype(np.int16) * 15 + 100 - 2048
"""Without the last values of the range, where an error of a lossy codec would change the sign."""
WINDOW = {"WindowCenter": "-16", "WindowWidth": "4080"}
SCALE = {"RescaleSlope": "0.80", "RescaleIntercept": "-3.5", "WindowCenter": "1500.5", "WindowWidth": "2900.5"}
Made = Callable[[str], bytes]
"""Makes a file of a person with this PatientID."""


@dataclass(frozen=True)
class Kind:
    """A kind of strange file.

    Parameters
    ----------
    plain
        What it has to be read as; ``None`` where it is refused.
    reserve, refused
        Code of the reserve with which it is taken, or with which it is refused.
    within
        How far its probabilities may be from those of the plain file.
    person
        What the visit has to say of the person where the file itself makes it (C-STORE, STOW-RS).
    identifiers
        Identifiers that the report has to name as they came, with a word of what the reserve says is wrong.
    """

    name: str
    made: Made
    plain: Made | None
    reserve: str | None = None
    refused: str | None = None
    within: float = 0.0
    person: dict[str, Any] = field(default_factory=dict)
    identifiers: dict[str, tuple[str | None, str]] = field(default_factory=dict)


# ---------------------------------------------------------------- films
def film(values: NDArray[Any] = TWELVE_BITS, syntax: str = EXPLICIT, bits: int = 12, **given: Any) -> Made:
    def made(person: str) -> bytes:
        identity: dict[str, Any] = {
            "StudyInstanceUID": generate_uid(),
            "SeriesInstanceUID": generate_uid(),
            "SOPInstanceUID": generate_uid(),
            "SpecificCharacterSet": "ISO_IR 192",
            "PatientID": person,
            "PatientName": "THỬ^NGHIỆM",
            "PatientBirthDate": "19700102",
        }
        return dicom(values, syntax, bits=bits, **{**identity, **given})

    return made


def changed(made: Made, *changes: tuple[bytes, bytes]) -> Made:
    """The same file with other bytes in one place, or in several."""

    def strange(person: str) -> bytes:
        content = made(person)
        for old, new in changes:
            assert content.count(old) == 1, old
            content = content.replace(old, new)
        return content

    return strange


def near_lossless() -> bytes:
    patterns = (SIGNED.view(np.uint16) & 0x0FFF).astype(np.uint16)
    return encoded(patterns, JPEG_LS_NEAR, 12)


def rle_with_a_byte_more() -> bytes:
    """Two segments, each of which gives one byte more than the film has pixels (PS3.5, Annex G)."""
    planes = TWELVE_BITS.astype("<u2").reshape(-1).view(np.uint8).reshape(-1, 2)
    segments = [bytes(imagecodecs.packbits_encode(planes[:, k].tobytes() + b"\0")) for k in (1, 0)]
    segments = [each + b"\x80" * (len(each) % 2) for each in segments]
    offsets = (64, 64 + len(segments[0]))
    return np.array([2, *offsets, *[0] * 13], "<u4").tobytes() + b"".join(segments)


PLAIN = film()
IN_DIGITS = film(**SCALE)
COMMAS = [
    Kind(
        f"{keyword} with a decimal comma",
        changed(IN_DIGITS, (number.encode(), number.replace(".", ",").encode())),
        IN_DIGITS,
    )
    for keyword, number in SCALE.items()
]
CODED = [
    Kind(
        "JPEG-LS, near, signed",
        film(SIGNED, JPEG_LS_NEAR, signed=True, codestream=near_lossless(), **WINDOW),
        film(SIGNED, signed=True, **WINDOW),
        within=0.02,
    ),
    Kind(
        "JPEG-LS, lossless, signed",
        film(
            SIGNED,
            JPEG_LS,
            signed=True,
            codestream=encoded((SIGNED.view(np.uint16) & 0x0FFF).astype(np.uint16), JPEG_LS, 12),
            **WINDOW,
        ),
        film(SIGNED, signed=True, **WINDOW),
    ),
    Kind("baseline JPEG, said to be signed", film(GREYS, JPEG, 8, signed=True), film(GREYS, JPEG, 8)),
    Kind("RLE, a byte more", film(TWELVE_BITS, RLE, codestream=rle_with_a_byte_more()), PLAIN),
]
PARTS = [
    *(
        Kind(f"BodyPartExamined {word}", film(BodyPartExamined=word), PLAIN)
        for word in ("PECHO", "TIMPHOI", "BRUST", "GRIL COSTAL")
    ),
    *(
        Kind(f"BodyPartExamined {word}", film(BodyPartExamined=word), PLAIN, reserve="body_part_unknown")
        for word in ("T?RAX", "AP PORTABLE CHE")
    ),
    Kind("BodyPartExamined ABDOMEN", film(BodyPartExamined="ABDOMEN"), None, refused="wrong_body_part"),
]
CHARACTERS = b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 192"
"""The element SpecificCharacterSet of these films."""
UNBORN = film(PatientBirthDate="")
PERSONS = [
    *(
        Kind(f"PatientAge {age}", film(PatientAge=age, PatientBirthDate=""), UNBORN, person={"age_years": None})
        for age in ("000Y", "000D", "000M")
    ),
    *(
        Kind(
            f"PatientBirthDate {day}",
            film(PatientBirthDate=day),
            UNBORN,
            person={"birth_date": None, "age_years": None},
        )
        for day in ("00010101", "19500000", "00000000", "19000101", "1950")
    ),
    Kind(
        "two ages",
        film(PatientAge="040Y"),
        film(PatientAge="040Y", PatientBirthDate=""),
        reserve="age_contradicts",
        person={"age_years": 40},
    ),
    Kind("UTF-8 without a character set", changed(PLAIN, (CHARACTERS, b"")), PLAIN, person={"name": "THỬ NGHIỆM"}),
    Kind(
        "UTF-8 as ISO 2022 IR 192",
        changed(PLAIN, (CHARACTERS, CHARACTERS[:6] + b"\x10\x00ISO 2022 IR 192 ")),
        PLAIN,
        person={"name": "THỬ NGHIỆM"},
    ),
    Kind(
        "letters of no character set",
        changed(film(PatientName="ME^XXX"), (CHARACTERS, b""), (b"ME^XXX", b"M\xc9^X\xd4X")),
        PLAIN,
        reserve="letters_left_out",
        person={"name": "M XX"},
    ),
]
REFUSED = [
    Kind("a slope that is no number", changed(IN_DIGITS, (b"0.80", b"abcd")), None, refused="unreadable"),
    Kind("a slope of 0", film(**{**SCALE, "RescaleSlope": "0"}), None, refused="unreadable"),
    Kind("a film that was cut", lambda person: PLAIN(person)[:-5000], None, refused="truncated"),
    Kind(
        "no pixels",
        lambda person: dicom(None, PatientID=person, StudyInstanceUID=generate_uid()),
        None,
        refused="no_pixel_data",
    ),
]

# ---------------------------------------------------------------- identifiers
LONG = "1." + "2" * 70
MALFORMED: list[tuple[str, str | None, str]] = [
    ("StudyInstanceUID", "1.2.826.01.7", "leading zero"),
    ("StudyInstanceUID", "1.2.ABC.7", "other than digits"),
    ("StudyInstanceUID", LONG, "longer than 64"),
    ("StudyInstanceUID", "1.2.826.7.", "empty part"),
    ("StudyInstanceUID", " 1.2.826.8 ", "blanks or NULs"),
    ("StudyInstanceUID", "1.2.826.9\0\0\0", "blanks or NULs"),
    ("StudyInstanceUID", "", "missing"),
    ("StudyInstanceUID", None, "missing"),
    ("SeriesInstanceUID", "1.2.826.01.7", "leading zero"),
    ("SeriesInstanceUID", "", "missing"),
    ("SeriesInstanceUID", None, "missing"),
    ("SOPInstanceUID", "1.2.826.01.7", "leading zero"),
    ("SOPInstanceUID", LONG, "longer than 64"),
    ("SOPInstanceUID", "", "missing"),
]


def malformed(
    what: str, made: Callable[..., Made], plain: Made, rows: Sequence[tuple[str, str | None, str]] = MALFORMED
) -> list[Kind]:
    """A kind for each row of the table."""
    return [
        Kind(
            f"{what}, {keyword} {'absent' if uid is None else repr(uid[:20])}",
            made(**{keyword: uid}),
            plain,
            reserve="identifier_malformed",
            identifiers={keyword: (uid, wrong)},
        )
        for keyword, uid, wrong in rows
    ]


FILMS = [*COMMAS, *CODED, *PARTS, *PERSONS, *REFUSED, *malformed("film", film, PLAIN)]


# ---------------------------------------------------------------- recordings
def waveform(**given: Any) -> Made:
    """The sample recording in DICOM."""

    def made(person: str) -> bytes:
        dataset = dcmread(SAMPLES / "recording.dcm")
        uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
        set_tags(dataset, {**uids, "PatientID": person, **given})
        out = io.BytesIO()
        dataset.save_as(out)
        return out.getvalue()

    return made


def in_wfdb() -> dict[str, bytes]:
    return {name: (SAMPLES / name).read_bytes() for name in ("E07517.hea", "E07517.mat")}


def wfdb_with(old: bytes, new: bytes, header: str = "E07517.hea") -> dict[str, bytes]:
    files = in_wfdb()
    return {header: files.pop("E07517.hea").replace(old, new), **files}


WAVEFORMS = malformed("recording", waveform, waveform(), MALFORMED[::3])
WFDB = {
    "folders before names": wfdb_with(b"E07517", b"records100/00000/E07517"),
    "a header without its ending": wfdb_with(b"", b"", header="E07517"),
    "a header as text": wfdb_with(b"", b"", header="E07517.txt"),
    "gains with a decimal comma": wfdb_with(b"1000/mV", b"1000,0/mV"),
    "a rate with a decimal comma": wfdb_with(b"12 500 5000", b"12 500,0 5000"),
}

# ---------------------------------------------------------------- orders
BORN = "19610530"
REASON = "Khám sức khỏe \\T\\ ho"


def ordered(old: str, new: str) -> Callable[[str], bytes]:
    return lambda number: order(control=number, accession=number).decode().replace(old, new).encode()


ORDERS: dict[str, tuple[Callable[[str], bytes], str | None, str]] = {
    "as it should be": (ordered("", ""), "1961-05-30", "Khám sức khỏe & ho"),
    "birth year alone, with zeros": (ordered(BORN, "19610000"), None, "Khám sức khỏe & ho"),
    "birth year alone": (ordered(BORN, "1961"), None, "Khám sức khỏe & ho"),
    "birth date of zeros": (ordered(BORN, "00000000"), None, "Khám sức khỏe & ho"),
    "an empty date of a program": (ordered(BORN, "00010101"), None, "Khám sức khỏe & ho"),
    "line ends as X0D0A": (ordered(REASON, "Ho\\X0D0A\\sốt"), "1961-05-30", "Ho\nsốt"),
    "a tab": (ordered(REASON, "Ho\tsốt"), "1961-05-30", "Ho sốt"),
    "a no-break space": (ordered(REASON, "Ho\u00a0sốt"), "1961-05-30", "Ho sốt"),
    "line feeds": (ordered("\r", "\n"), "1961-05-30", "Khám sức khỏe & ho"),
    "both line ends": (ordered("\r", "\r\n"), "1961-05-30", "Khám sức khỏe & ho"),
    "MSH-18 UTF-8": (ordered("UNICODE UTF-8", "UTF-8"), "1961-05-30", "Khám sức khỏe & ho"),
}
