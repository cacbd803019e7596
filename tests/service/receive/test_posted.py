"""What a visit may hold: whether a file is a film or a recording, by every way in, and what is kept of its name."""

from __future__ import annotations

import io
import re
import zipfile
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread
from sqlalchemy import select

from service.receive.dicom.arrivals import receive
from service.receive.posted import clean_filename
from service.storage.drafts import Draft
from service.storage.tables import ArrivalRow
from tests.data_specs import ecg_made
from tests.data_specs.cxr_made import BIG, CR, CT, DEFLATED, DX, IMPLICIT, SC
from tests.service.receive.dicom.made import film, recording
from tests.service.serving import serving, settings_for

CLASSES = "1.2.840.10008.5.1.4.1.1"
TUS = {"Tus-Resumable": "1.0.0"}


# ---------------------------------------------------------------- film or recording
def picture(format):
    made = io.BytesIO()
    Image.new("L", (4, 4)).save(made, format)
    return made.getvalue()


def zipped(*files):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        for name, content in files:
            archive.writestr(name, content)
    return made.getvalue()


def of_class(content, sop_class, *, in_meta=True):
    """A DICOM file under another SOP class, which its file meta information names too, or does not."""
    dataset = dcmread(io.BytesIO(content))
    dataset.SOPClassUID = sop_class
    if in_meta:
        dataset.file_meta.MediaStorageSOPClassUID = sop_class
    else:
        del dataset.file_meta.MediaStorageSOPClassUID
    made = io.BytesIO()
    dataset.save_as(made, enforce_file_format=False)
    return made.getvalue()


PNG, BARE = picture("PNG"), film(syntax=IMPLICIT)
ECG = ecg_made.every_format()
WFDB = ECG["wfdb"]
FILES = {
    "CR": ("a.dcm", film(SOPClassUID=CR), "iiiiiiii"),
    "DX": ("a.dcm", film(SOPClassUID=DX), "iiiiiiii"),
    "DX, implicit": ("a.dcm", film(syntax=IMPLICIT), "iiiiiiii"),
    "DX, big endian": ("a.dcm", film(syntax=BIG), "iiiiiiii"),
    "DX, deflated": ("a.dcm", film(syntax=DEFLATED), "iiiiiiii"),
    "DX, not in its meta": ("a.dcm", of_class(film(), DX, in_meta=False), "iiiiiiii"),
    "capture": ("a.dcm", film(SOPClassUID=SC), "iiiiiiii"),
    "multi-frame capture": ("a.dcm", film(SOPClassUID=f"{CLASSES}.7.2"), "iiiiiiii"),
    "12-lead ECG": ("a.dcm", recording(), "eeeeeeee"),
    "12-lead ECG, not in its meta": ("a.dcm", of_class(recording(), f"{CLASSES}.9.1.1", in_meta=False), "eeeeeeee"),
    "general ECG": ("a.dcm", of_class(recording(), f"{CLASSES}.9.1.2"), "eeeeeeee"),
    "ambulatory ECG": ("a.dcm", of_class(recording(), f"{CLASSES}.9.1.3"), "eeeeeeee"),
    "general ECG, 32 bits": ("a.dcm", of_class(recording(), f"{CLASSES}.9.1.4"), "eeeeeeee"),
    "hemodynamic waveform": ("a.dcm", of_class(recording(), f"{CLASSES}.9.2.1"), "eeeeeee-"),
    "electrophysiology": ("a.dcm", of_class(recording(), f"{CLASSES}.9.3.1"), "eeeeeee-"),
    "respiratory waveform": ("a.dcm", of_class(recording(), f"{CLASSES}.9.6.1"), "eeeeeee-"),
    "CT": ("a.dcm", of_class(film(), CT), "iiiiiii-"),
    "structured report": ("a.dcm", of_class(film(), f"{CLASSES}.88.33"), "iiiiiii-"),
    "PDF in DICOM": ("a.dcm", of_class(film(), f"{CLASSES}.104.1"), "iiiiiii-"),
    "DICOM without its preamble": ("a.dcm", film()[132:], "iiiiiie-"),
    "implicit VR without its preamble": ("a.dcm", BARE[BARE.index(b"\x08\x00") :], "iie-eie-"),
    "PNG": ("a.png", PNG, "iiiiiie-"),
    "JPEG": ("a.jpg", picture("JPEG"), "iiiiiie-"),
    "TIFF": ("a.tif", picture("TIFF"), "iiiiiie-"),
    "WFDB header": ("rec.hea", WFDB["rec.hea"], "iieeeie-"),
    "WFDB signals": ("rec.dat", WFDB["rec.dat"], "iieeeie-"),
    **{
        name: (filename, content, "iieeeie-")
        for name in ("mat", "csv", "edf", "scp", "aecg", "muse", "cardiosoft", "philips")
        for filename, content in ECG[name].items()
    },
    "zip of a film": ("a.zip", zipped(("film.png", PNG)), "iiieiii-"),
    "zip of a recording": ("a.zip", zipped(*WFDB.items()), "iieeeee-"),
    "unknown": ("a", b"\x00\x01unknown", "iie-eie-"),
    "empty": ("a", b"", "iie-eie-"),
}
"""Name, content, and the answers: ``i`` film, ``e`` recording, ``-`` not taken; in the order of :data:`WAYS`."""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serving(settings_for(tmp_path_factory.mktemp("posted"), max_upload_mb=2)) as it:
        yield it


def posted(kind):
    """As a body of that Content-Type."""

    def post(served, name, content):
        with served.client(**{"Content-Type": kind}) as client:
            return first_field(client.post("/v1/visits", content=content))

    return post


def in_a_zip(served, name, content):
    """In a zip, after a film."""
    with served.client(**{"Content-Type": "application/zip"}) as client:
        visit = client.post("/v1/visits", content=zipped(("film.png", PNG), (name, content))).json()
    return visit["inputs"][1]["field"][0] if len(visit["inputs"]) > 1 else "-"


def uploaded(field):
    """As a resumable upload that says that it is ``field``, or nothing."""
    said = f",field {b64encode(field.encode()).decode()}" if field else ""

    def upload(served, name, content):
        about = {"Upload-Metadata": f"filename {b64encode(name.encode()).decode()}{said}"}
        with served.client(**TUS) as client:
            begun = client.post("/v1/uploads", headers={**about, "Upload-Length": str(len(content))})
            where = begun.headers["location"]
            piece = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
            assert client.patch(where, headers=piece, content=content).status_code == 204
            return first_field(client.post("/v1/uploads/visit", json={"uploads": [where.rpartition("/")[2]]}))

    return upload


def sent_by_dicom(served, name, content):
    """As C-STORE and STOW-RS hand it over."""
    service = served.app.state.service
    draft = Draft(service.store.drafts)
    draft.write(content)
    try:
        if receive(service, "s", "PEER", draft):
            return "-"
        with service.database.transaction() as session:
            return session.scalars(select(ArrivalRow.field).filter_by(sha256=draft.sha256)).one()[0]
    finally:
        draft.remove()


def first_field(response):
    assert response.status_code == 201, response.text
    return response.json()["inputs"][0]["field"][0]


WAYS = (
    posted("application/dicom"),
    posted("image/png"),
    posted("application/zip"),
    in_a_zip,
    uploaded(""),
    uploaded("image"),
    uploaded("ecg"),
    sent_by_dicom,
)


@pytest.mark.parametrize(("name", "content", "expected"), FILES.values(), ids=FILES)
def test_a_file_is_a_film_or_a_recording(served, name, content, expected):
    assert "".join(way(served, name, content) for way in WAYS) == expected


# ---------------------------------------------------------------- names
@pytest.mark.parametrize(
    ("posted", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\Users\\a\\film.dcm", "film.dcm"),
        ("a\u202egnp.exe", "agnp.exe"),
        ("x" * 300 + ".hea", "x" * 116 + ".hea"),
        ("Nguyễn.png", "Nguyễn.png"),
        ("..", ""),
        ("a\x00b\r\n.png", "ab.png"),
        ("", ""),
    ],
)
def test_what_is_kept_of_a_filename(posted, kept):
    assert clean_filename(posted) == kept


@given(st.text(max_size=400))
def test_any_filename_becomes_a_plain_one(posted):
    kept = clean_filename(posted)
    assert len(kept) <= 120
    assert "/" not in kept
    assert "\\" not in kept
    assert kept.isprintable() or re.search(r"\s", kept)
    assert kept not in (".", "..")
