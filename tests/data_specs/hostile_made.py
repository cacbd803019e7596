"""Hostile files that tests make: small or large, of every format, each with far too many of something."""

from __future__ import annotations

import io
import itertools
import struct
import zipfile
import zlib
from collections.abc import Callable

from tests.data_specs.cxr_made import DEFLATED, EXPLICIT, IMPLICIT, JPEG, dicom, phantom
from tests.data_specs.ecg_made import aecg, counts, muse, philips, scp
from tests.data_specs.ecg_made import dicom as ecg_dicom

LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
MANY = 300_000

# ---------------------------------------------------------------- films


def png(*chunks: tuple[bytes, bytes], columns: int = 300, rows: int = 300, depth: int = 8, colour: int = 0) -> bytes:
    """A PNG of zeros, with chunks before its pixels."""
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + columns * samples * depth // 8)
    header = struct.pack(">LLBBBBB", columns, rows, depth, colour, 0, 0, 0)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(rows)) + packer.flush()
    parts = ((b"IHDR", header), *chunks, (b"IDAT", data), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">L", len(content)) + name + content + struct.pack(">L", zlib.crc32(name + content))
        for name, content in parts
    )


def tiff(entries: list[tuple[int, int, int, int]], *, after: bytes = b"", next_directory: int = 0) -> bytes:
    """A TIFF with one directory at byte 8; ``after`` follows it."""
    directory = b"".join(struct.pack("<HHLL", *entry) for entry in entries)
    return struct.pack("<2sHLH", b"II", 42, 8, len(entries)) + directory + struct.pack("<L", next_directory) + after


def tiff_of(columns: int, rows: int, *more: tuple[int, int, int, int], strips: int = 1, data: bytes = b"") -> bytes:
    """A grey TIFF whose strips all lie at the same place."""
    entries = [(256, 4, 1, columns), (257, 4, 1, rows), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    entries += [(273, 4, strips, 0), (277, 3, 1, 1), (278, 4, 1, -(-rows // strips)), (279, 4, strips, 0), *more]
    entries = list({entry[0]: entry for entry in entries}.values())
    end = 8 + 2 + 12 * len(entries) + 4
    offsets = struct.pack(f"<{strips}L", *[end + 8 * strips] * strips)
    sizes = struct.pack(f"<{strips}L", *[len(data)] * strips)
    places = {273: end if strips > 1 else end + 8, 279: end + 4 * strips if strips > 1 else len(data)}
    entries = [(code, kind, n, places.get(code, value)) for code, kind, n, value in entries]
    return tiff(sorted(entries), after=offsets + sizes + data)


def tiff_pages(n: int) -> bytes:
    """A chain of empty directories."""
    return struct.pack("<2sHL", b"II", 42, 8) + b"".join(
        struct.pack("<HHHLLL", 1, 256, 4, 1, 300, 8 + 18 * (k + 1)) for k in range(n)
    )


def jpeg(segments: bytes) -> bytes:
    return b"\xff\xd8" + segments + b"\xff\xd9"


def film(*, syntax: str = EXPLICIT, elements: bytes = b"") -> bytes:
    """A DICOM film with elements between its meta information and its first own element."""
    content = dicom(phantom(), syntax)
    start = 144 + int.from_bytes(content[140:144], "little")
    return content[:start] + elements + content[start:]


def nested(depth: int) -> bytes:
    """A sequence in a sequence in a sequence, all of undefined length, in explicit VR."""
    return b"\x08\x00\x18\x22SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * depth


def films() -> dict[str, Callable[[], bytes]]:
    text = (b"tEXt", b"Comment\0x")
    sequence = b"\x08\x00\x18\x22SQ\0\0"
    item = b"\xfe\xff\x00\xe0\0\0\0\0"
    return {
        "png of many chunks": lambda: png(*itertools.repeat(text, MANY)),
        "png of one large text": lambda: png((b"zTXt", b"a\0\0" + zlib.compress(bytes(1 << 25)))),
        "png of many palettes": lambda: png(*itertools.repeat((b"PLTE", bytes(768)), 5000), colour=3),
        "jpeg of many comments": lambda: jpeg(b"\xff\xfe\0\2" * MANY),
        "jpeg of many fill bytes": lambda: jpeg(b"\xff" * 4_000_000),
        "jpeg of many restarts": lambda: jpeg(b"\xff\xd0" * MANY),
        "jpeg of many frames": lambda: jpeg(b"\xff\xc0\0\x0b\x08\x01\x2c\x01\x2c\x01\x01\x11\0" * 9000),
        "tiff of many tags": lambda: tiff([(65000, 3, 1, 1)] * 60_000),
        "tiff of long tags": lambda: tiff([(65000 + k, 4, 1 << 20, 8) for k in range(500)], after=bytes(1 << 22)),
        "tiff of many samples": lambda: tiff_of(2000, 2000, (277, 3, 1, 200)),
        "tiff of many bits": lambda: tiff_of(300, 300, (258, 3, 60_000, 8), data=bytes(120_000)),
        "tiff of a long description": lambda: tiff_of(300, 300, (270, 2, 900_000, 8), data=b"=" * 1_000_000),
        "tiff of many strips": lambda: tiff_of(300, 300, strips=100_000, data=bytes(300)),
        "tiff of strips at one place": lambda: tiff_of(300, 60_000, strips=60_000, data=bytes(1 << 20)),
        "tiff of many pages": lambda: tiff_pages(50_000),
        "tiff in a circle": lambda: tiff([(256, 4, 1, 300)], next_directory=8),
        "tiff of sub-directories": lambda: tiff_of(300, 300, (330, 4, 200_000, 8), data=bytes(900_000)),
        "tiff of small tiles": lambda: tiff_of(3000, 3000, (322, 4, 1, 16), (323, 4, 1, 16), data=bytes(300)),
        "dicom of many elements": lambda: film(elements=b"\x09\x00\x10\x00LO\0\0" * MANY),
        "dicom of many implicit elements": lambda: film(
            syntax=IMPLICIT, elements=b"".join(b"\x09\0" + struct.pack("<HL", k % 60_000, 0) for k in range(MANY))
        ),
        "dicom of nested sequences": lambda: film(elements=nested(50_000)),
        "dicom of nested implicit sequences": lambda: film(
            syntax=IMPLICIT, elements=b"\x08\0\x18\x22\xff\xff\xff\xff\xfe\xff\0\xe0\xff\xff\xff\xff" * 50_000
        ),
        "dicom of many items": lambda: film(elements=sequence + struct.pack("<L", 8 * MANY) + item * MANY),
        "dicom of many undefined items": lambda: film(elements=sequence + b"\xff\xff\xff\xff" + item * MANY),
        "dicom of many views": lambda: film(
            elements=b"\x54\x00\x20\x02SQ\0\0" + struct.pack("<L", 8 * MANY) + item * MANY
        ),
        "dicom of a long number": lambda: film(
            syntax=IMPLICIT, elements=b"\x28\0\x30\0" + struct.pack("<L", 6_000_000) + b"1\\" * 3_000_000
        ),
        "dicom of a long name": lambda: film(
            syntax=IMPLICIT, elements=b"\x10\0\x10\0" + struct.pack("<L", 6_000_000) + b"^=" * 3_000_000
        ),
        "dicom of many fragments": lambda: (
            dicom(phantom(8).astype("uint8"), JPEG, bits=8)[:-8] + item * MANY + b"\xfe\xff\xdd\xe0\0\0\0\0"
        ),
        "dicom that inflates": lambda: dicom_that_inflates(1 << 26),
    }


def dicom_that_inflates(n_bytes: int) -> bytes:
    content = dicom(phantom(), DEFLATED)
    start = 144 + int.from_bytes(content[140:144], "little")
    packer = zlib.compressobj(1, zlib.DEFLATED, -15)
    part = bytes(1 << 20)
    return content[:start] + b"".join(packer.compress(part) for _ in range(n_bytes >> 20)) + packer.flush()


# ---------------------------------------------------------------- recordings


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def segments(n: int) -> bytes:
    """A record of many segments, which share a signal file."""
    headers = {
        f"s{k}.hea": f"s{k} 12 500 20\n{''.join(f'x.dat 16 1000 16 0 0 0 0 {lead}{chr(10)}' for lead in LEADS)}"
        for k in range(min(n, 400))
    }
    whole = f"m/{n} 12 500 {20 * n}\n" + "".join(f"s{k % 400} 20\n" for k in range(n))
    files = {name: text.encode() for name, text in {"m.hea": whole, **headers}.items()}
    return zipped({**files, "x.dat": bytes(480)})


def csv(rows: str, n: int, head: str = "# fs=1000\n") -> bytes:
    return (head + ",".join(LEADS) + "\n" + rows * n).encode()


def mat5(elements: bytes) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + elements


def scp_of_pointers(n: int) -> bytes:
    """Pointers to one large section."""
    body = bytearray(4_000_000)
    pointers = b"".join(struct.pack("<HII", 6, 3_000_000, 7) for _ in range(n))
    body[2:6] = len(body).to_bytes(4, "little")
    body[16:22] = b"SCPECG"
    body[10:14] = (16 + len(pointers)).to_bytes(4, "little")
    body[22 : 22 + len(pointers)] = pointers
    return bytes(body)


def xml(body: str, root: str = "AnnotatedECG") -> bytes:
    return f"<{root}>{body}</{root}>".encode()


def end_of_zip(entries: int, n_bytes: int, before: bytes = b"") -> bytes:
    return before + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, entries, entries, n_bytes, 0, 0)


def recordings() -> dict[str, Callable[[], bytes]]:
    """Each is one file; the key ends with its extension."""
    directory = (b"PK\1\2" + bytes(42)) * MANY
    element, item = b"\x09\x00\x10\x00LO\0\0", b"\xfe\xff\x00\xe0\0\0\0\0"
    deep = 90_000
    return {
        "gain of digits.hea": lambda: b"r 1 500 5000\nr.dat 16 " + b"1" * 100_000 + b"x\n",
        "many signals.hea": lambda: b"r 300000 500 5000\n" + b"r.dat 16 200 16 0 0 0 0 I\n" * MANY,
        "many fields.hea": lambda: b"r 1 500 " + b"1-1-1 " * MANY,
        "many comments.hea": lambda: b"r 1 500\nr.dat 16\n" + b"# age age sex <age> <sex>\n" * 100_000,
        "many segments.zip": lambda: segments(4096),
        "as many segments as can be.zip": lambda: segments(500),
        "headers that name each other.zip": lambda: zipped(
            {
                f"s{k}.hea": (f"s{k}/300 12 500 9999\n" + "".join(f"s{n} 20\n" for n in range(300))).encode()
                for k in range(300)
            }
        ),
        "many members.zip": lambda: zipped({f"{k}": b"" for k in range(20_000)}),
        "directory.zip": lambda: end_of_zip(0xFFFF, len(directory), b"PK\3\4" + directory[4:]),
        "directory that understates.zip": lambda: end_of_zip(1, len(directory), b"PK\3\4" + directory[4:]),
        "bomb.zip": lambda: zipped({"a.csv": bytes(1 << 25)}),
        "blank rows.csv": lambda: csv("\n", 1_900_000),
        "empty cells.csv": lambda: csv("," * 11 + "\n", 100_000),
        "blank cells.csv": lambda: csv(" ," * 11 + "\n", 50_000),
        "carriage returns.csv": lambda: csv("\r", 4_000_000),
        "commas.csv": lambda: ("," * 3_990 + "\n").encode() * 60,
        "spaces.csv": lambda: (("I" + " " * 40 + ",") * 80 + "\n").encode() * 60,
        "equal signs.csv": lambda: ("a=" * 1_990 + "\n").encode() * 60,
        "long names.csv": lambda: csv("1" + ",1" * 11 + "\n", 9, "Lead " * 700 + "\n"),
        "many elements.mat": lambda: mat5(bytes(8 * MANY)),
        "many matrices.mat": lambda: mat5(struct.pack("<LL", 14, 8) + bytes(8)) + bytes(0),
        "many small parts.mat": lambda: mat5((struct.pack("<LL", 15, 8) + zlib.compress(b"")) * 100_000),
        "bomb.mat": lambda: mat5(struct.pack("<LL", 15, 260_000) + zlib.compress(bytes(1 << 27), 1)[:260_000]),
        "many variables.mat": lambda: (
            struct.pack("<5i", 50, 1, 1, 0, 2).ljust(20) + (b"a\0\0" + struct.pack("<5i", 50, 1, 1, 0, 2)) * 200_000
        ),
        "many pointers.scp": lambda: scp_of_pointers(990),
        "deep.xml": lambda: xml("<a>" * deep + "</a>" * deep),
        "many attributes.xml": lambda: xml(f"<a {' '.join(f'b{k}={chr(34) * 2}' for k in range(MANY))}/>"),
        "many numbers.xml": lambda: aecg(counts()).replace(b"<digits>", b"<digits>" + b"1 " * 1_500_000, 1),
        "many rhythms.xml": lambda: xml(
            "<Waveform><WaveformType>Rhythm</WaveformType></Waveform>" * 20_000, "RestingECG"
        ),
        "punycode.xml": lambda: b"<?xml version='1.0' encoding='punycode'?><a>" + b"a" * MANY + b"-" + b"b" * MANY,
        "blanks in base64.xml": lambda: muse(counts()).replace(
            b"<WaveFormData>", b"<WaveFormData>" + b"A " * 2_000_000, 1
        ),
        "entities.xml": lambda: b'<!DOCTYPE a [<!ENTITY b "c">' + b"]><a>" + b"&b;" * MANY + b"</a>",
        "many elements.dcm": lambda: ecg_dicom(counts()) + element * MANY,
        "many items.dcm": lambda: ecg_dicom(counts()) + item * MANY,
        "nested.dcm": lambda: ecg_dicom(counts()) + nested(50_000),
        "many channels.dcm": lambda: many_channels(MANY),
        "many records.edf": lambda: edf_of_records(MANY),
        "many labels.xml": lambda: philips(counts()).replace(b'leadlabels="', b'leadlabels="' + b"I II V1 " * 200_000),
        "beats that overlap.scp": lambda: scp(counts(), beats=[1000] * 90).replace(
            struct.pack("<III", 952, 1001, 1051), struct.pack("<III", 1, 1001, 5000)
        ),
    }


def many_channels(n: int) -> bytes:
    """A waveform sequence of stated length whose one item has elements of no length."""
    content = ecg_dicom(counts())
    start = 144 + int.from_bytes(content[140:144], "little")
    elements = b"".join(b"\x3a\0" + struct.pack("<H", k % 60_000) + b"LO\0\0" for k in range(n))
    item = b"\xfe\xff\x00\xe0" + struct.pack("<L", len(elements)) + elements
    return content[:start] + b"\x00\x54\x00\x01SQ\0\0" + struct.pack("<L", len(item)) + item


def edf_of_records(n: int) -> bytes:
    """A discontinuous file of many records of one sample each."""
    labels = [*LEADS, "EDF Annotations"]
    head = "0".ljust(8) + " " * 80 + " " * 80 + "01.01.2601.01.01" + str(256 * (len(labels) + 1)).ljust(8)
    head += "EDF+D".ljust(44) + str(n).ljust(8) + "0.002".ljust(8) + str(len(labels)).ljust(4)
    fields = ((16, labels), (80, [""]), (8, ["mV"]), (8, ["-3"]), (8, ["3"]), (8, ["-32768"]), (8, ["32767"]))
    for width, values in (*fields, (80, [""]), (8, ["1"]), (32, [""])):
        head += "".join((values * len(labels))[k].ljust(width) for k in range(len(labels)))
    return head.encode() + bytes(2 * len(labels) * n)
