"""Identifiers that tests plant everywhere in what is posted, each a word of its own: a find says where it was."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo
from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.sequence import Sequence

from service.export.profile import actions
from tests.data_specs import cxr_made, ecg_made

TEXTS = {"AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UR", "UT"}
NOT_IN_THE_TABLE = ("Manufacturer", "ManufacturerModelName", "LUTExplanation", "FilterType", "ScanOptions")
UID_ROOT = "1.2.826.0.1.3680043.99"


class Planted:
    """Words by the place where they were planted."""

    def __init__(self):
        self.places = {}

    def word(self, place):
        """A new word, which nothing else in a file looks like."""
        word = f"QZ{len(self.places):04}XV"
        self.places[word] = place
        return word

    def uid(self, place):
        uid = f"{UID_ROOT}.7{len(self.places):04}"
        self.places[uid] = place
        return uid

    def found_in(self, content):
        """The places whose words stand in ``content``, as a text of any of the usual encodings, in any case."""
        folded = content.lower()
        return [
            place
            for word, place in self.places.items()
            if any(word.lower().encode(each) in folded for each in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le"))
        ]


def film_values(seed=0, rows=640, columns=600, bits=12):
    """A calm film with dark borders above and below, another one for each seed."""
    from PIL.Image import Resampling

    rng = np.random.default_rng(seed)
    blots = Image.fromarray(rng.standard_normal((5, 5)).astype(np.float32)).resize((columns, rows), Resampling.BICUBIC)
    film = cxr_made.phantom(bits, rows, columns) + 2 ** (bits - 5) * np.asarray(blots)
    film[: rows // 11] = film[-(rows // 11) :] = 2 ** (bits - 6)
    return np.clip(film, 0, 2**bits - 1).astype(np.uint16)


def with_text(values, text, at, size, *, grey):
    """The film with a text burned in, and where its strokes are."""
    strokes = Image.new("L", values.shape[::-1], 0)
    ImageDraw.Draw(strokes).text(at, text, fill=255, font=ImageFont.load_default(size))
    mask = np.asarray(strokes) > 127
    burned = values.copy()
    burned[mask] = grey
    return burned, mask


def planted_film(planted, values=None, syntax=cxr_made.EXPLICIT, **tags):
    """A DICOM film with a word in every element of table E.1-1 that can hold one, and in all that stands around."""
    made = dcmread(io.BytesIO(cxr_made.dicom(film_values() if values is None else values, syntax, **tags)))
    for tag in actions():
        if "x" not in tag and tag[:4] not in ("0000", "0002", "fffa", "fffc") and keyword_for_tag(tag):
            plant(planted, made, int(tag, 16))
    for keyword in NOT_IN_THE_TABLE:
        setattr(made, keyword, planted.word(keyword))
    made.ImageType = ["ORIGINAL", "PRIMARY", planted.word("ImageType")]
    plant_around(planted, made)
    out = io.BytesIO()
    made.preamble = planted.word("preamble").encode().ljust(128, b"\0")
    made.file_meta.SourceApplicationEntityTitle = planted.word("file meta")
    made.file_meta.PrivateInformationCreatorUID = planted.uid("file meta")
    made.file_meta.PrivateInformation = planted.word("file meta").encode()
    made.save_as(out)
    return out.getvalue() + planted.word("behind the end").encode()


def plant(planted, dataset, tag):
    vr = dictionary_VR(tag).split(" ")[0]
    place = f"{tag:08x} {keyword_for_tag(tag)}"
    if vr in TEXTS:
        dataset.add_new(tag, vr, planted.word(place))
    elif vr == "UI":
        dataset.add_new(tag, vr, planted.uid(place))
    elif vr in ("OB", "UN"):
        dataset.add_new(tag, vr, planted.word(place).encode())
    elif vr == "SQ":
        item = Dataset()
        item.PatientName, item.PatientID = planted.word(place), planted.word(place)
        dataset.add_new(tag, vr, Sequence([item]))


def plant_around(planted, dataset):
    """Private elements, overlays, curves, padding."""
    block = dataset.private_block(0x0011, planted.word("private creator"), create=True)
    for n, vr in enumerate(("LO", "UT", "PN", "SH", "CS"), start=1):
        block.add_new(n, vr, planted.word(f"private {vr}"))
    block.add_new(9, "OB", planted.word("private OB").encode())
    item = Dataset()
    item.add_new(0x00190010, "LO", "NESTED")
    item.add_new(0x00191001, "LO", planted.word("nested private"))
    block.add_new(10, "SQ", Sequence([item]))
    for group in (0x6000, 0x6002):
        dataset.add_new((group, 0x0010), "US", 8)
        dataset.add_new((group, 0x0011), "US", 8)
        dataset.add_new((group, 0x0040), "CS", "G")
        dataset.add_new((group, 0x0050), "SS", [1, 1])
        dataset.add_new((group, 0x0100), "US", 1)
        dataset.add_new((group, 0x0102), "US", 0)
        for element, vr in ((0x0022, "LO"), (0x1500, "LO"), (0x4000, "LT")):
            dataset.add_new((group, element), vr, planted.word(f"overlay {element:04x}"))
        dataset.add_new((group, 0x3000), "OW", planted.word("overlay data").encode())
    dataset.add_new(0x50000022, "LO", planted.word("curve description"))
    dataset.add_new(0x50003000, "OW", planted.word("curve data").encode())
    dataset.add_new(0xFFFCFFFC, "OB", planted.word("trailing padding").encode())


def planted_rasters(planted):
    """PNG with text chunks, JPEG with a comment and EXIF, TIFF with its tags; name to content."""
    values = (film_values(5) >> 4).astype(np.uint8)
    image, texts = Image.fromarray(values), PngInfo()
    texts.add_text("Patient", planted.word("PNG tEXt"))
    texts.add_itxt("Patient", planted.word("PNG iTXt"))
    png, jpeg, tiff = io.BytesIO(), io.BytesIO(), io.BytesIO()
    image.save(png, "PNG", pnginfo=texts)
    exif = Image.Exif()
    exif[0x010E], exif[0x013B] = planted.word("EXIF description"), planted.word("EXIF artist")
    image.save(jpeg, "JPEG", quality=92, exif=exif, comment=planted.word("JPEG comment").encode())
    image.save(tiff, "TIFF", tiffinfo={270: planted.word("TIFF description"), 315: planted.word("TIFF artist")})
    return {
        f"{planted.word('name of a PNG')}.png": png.getvalue(),
        f"{planted.word('name of a JPEG')}.jpg": jpeg.getvalue(),
        f"{planted.word('name of a TIFF')}.tif": tiff.getvalue(),
    }


def planted_recordings(planted):
    """Recordings of every format with words in comments, names and headers; name to content."""
    made = ecg_made.counts()
    record = planted.word("name of a WFDB record")
    files = ecg_made.wfdb16(made, record=record)
    comments = "".join(f"\n# Name: {planted.word('WFDB comment')}" for _ in range(5))
    files[f"{record}.hea"] = f"# {planted.word('WFDB first line')}\n".encode() + files[f"{record}.hea"]
    files[f"{record}.hea"] += comments.encode()
    head = f"# patient id={planted.word('CSV head')}\n# name={planted.word('CSV head')}\n# age=54\n"
    files[f"{planted.word('name of a CSV')}.csv"] = ecg_made.csv(made[:, ::-1], head=head)
    waveform = dcmread(io.BytesIO(ecg_made.dicom((made * 0.9).astype(np.int16), median=False)))
    for keyword in ("PatientName", "PatientID", "InstitutionName", "PatientComments", "OperatorsName"):
        setattr(waveform, keyword, planted.word(f"ECG {keyword}"))
    waveform.private_block(0x0021, "ECG", create=True).add_new(1, "LO", planted.word("ECG private"))
    out = io.BytesIO()
    waveform.save_as(out)
    files[f"{planted.word('name of an ECG')}.dcm"] = out.getvalue()
    for kind, content in planted_in_headers(planted, made).items():
        files[f"{planted.word(f'name of {kind}')}.{kind.rpartition(' ')[2]}"] = content
    return files


def planted_in_headers(planted, made):
    """EDF, SCP-ECG and four kinds of XML, with words where each has names and numbers of persons; kind to content."""

    def word(place):
        return planted.word(place).encode()

    edf = ecg_made.edf(made)
    for old, new in (
        (b"MCH-0234567 F 02-MAY-1951 X", b"%s F 02-MAY-1951 %s" % (word("EDF patient"), word("EDF name"))),
        (b"Startdate 02-MAR-2002 X X X", b"Startdate 02-MAR-2002 %s %s X" % (word("EDF number"), word("EDF doctor"))),
    ):
        edf = replaced(edf, old.ljust(80), new.ljust(80))
    names = {0: "last name", 1: "first name", 20: "referring physician", 21: "confirming physician", 30: "free text"}
    said = {tag: word(f"SCP {name}") + b"\0" for tag, name in names.items()} | {2: word("SCP patient") + b"\0"}
    subject = b'<trialSubject><id extension="%s"/><subjectDemographicPerson><name>%s</name>'
    person = b"<PatientID>%s</PatientID><PatientLastName>%s</PatientLastName><PatientFirstName>%s</PatientFirstName>"
    info = b"<PID>%s</PID><Name><FamilyName>%s</FamilyName><GivenName>%s</GivenName></Name>"
    general = "<patientid>{}</patientid><name><lastname>{}</lastname><firstname>{}</firstname></name>"
    philips = ecg_made.philips(made).decode("utf-16")
    named = general.format(*(planted.word("Philips person") for _ in range(3)))
    return {
        "an edf": edf,
        "an scp": ecg_made.scp(made, said=said),
        "an aECG xml": replaced(
            ecg_made.aecg(made),
            b'<trialSubject><id extension="S-1"/><subjectDemographicPerson>',
            subject % (word("aECG subject"), word("aECG name")),
        ),
        "a MUSE xml": replaced(
            ecg_made.muse(made),
            b"<PatientID>P-1</PatientID>",
            person % (word("MUSE patient"), word("MUSE name"), word("MUSE name")),
        ),
        "a CardioSoft xml": replaced(
            ecg_made.cardiosoft(made),
            b"<PID>P-1</PID>",
            info % (word("CardioSoft patient"), word("CardioSoft name"), word("CardioSoft name")),
        ),
        "a Philips xml": replaced(philips, "<patientid>P-1</patientid>", named).encode("utf-16"),
    }


def replaced(content, old, new):
    """``content`` with ``new`` for ``old``, which it has once."""
    assert content.count(old) == 1
    return content.replace(old, new)
