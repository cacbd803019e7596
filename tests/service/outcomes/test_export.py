"""The exported cohort has the pixels and labels that training reads, and no personal data."""

from __future__ import annotations

import csv
import io
import json
import stat
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from data_specs.cohort import read_manifest
from data_specs.cxr.files import read_image
from data_specs.cxr.image import conform as conform_film
from data_specs.ecg.recording import conform as conform_recording
from data_specs.problems import Problem
from service.outcomes.__main__ import CANNOT, DONE, REFUSED, main
from service.outcomes.files import recording_files
from tests.conftest import ROOT
from tests.data_specs import cxr_made, ecg_made
from tests.service.serving import serving, settings_for
from tests.service.standin import StandIn, content_of

PERSONS = 24
SECRETS = {
    "PatientName": "BI^MAT^TEN",
    "OtherPatientNames": "TEN^GOI^KHAC",
    "PatientBirthDate": "19610203",
    "AccessionNumber": "ACC-SECRET-9",
    "ReferringPhysicianName": "BAC^SI^GUI",
    "InstitutionName": "BENH VIEN BI MAT",
    "StudyInstanceUID": "1.2.826.0.1.777.1",
    "SeriesInstanceUID": "1.2.826.0.1.777.2",
    "DeviceSerialNumber": "SERIAL-4711",
    "PatientComments": "comment about the person",
}
FREE_TEXTS = [
    "nguon bi mat",
    "Người Được Khám Thử Nghiệm",
    "reason in free text",
    "film-of-the-person",
    "tram-y-te-key",
]
SOURCE = ["--citation", "Thử Nghiệm: screening 2026, 'as \"said\"'", "--licence", "for the tests alone"]


class EngineWithGate(StandIn):
    """An engine that refuses a blank film, and rejects one recording of a zip."""

    async def assess(self, inputs, context, site):
        found = await super().assess(inputs, context, site)
        by_index = {each.index: each for each in inputs}
        read = []
        for each in found.inputs:
            update, content = {}, content_of(by_index[each.index].open())
            if b"BLANK" in content[:4096]:
                update = {"accepted": False, "problems": [Problem("saturated", "reject")]}
            if b"PARTLY" in content:  # a zip, as the engine says it
                update |= {"problems": [Problem("leads_reversed", "reject")]}
            read.append(each.model_copy(update=update))
        return found.model_copy(update={"inputs": read})


def values(seed, bits=12):
    """The pixels of a film that differs for each seed: the phantom with random blots."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    blots = [Image.fromarray(rng.standard_normal((s, s)).astype(np.float32)) for s in (4, 8, 16, 32, 64, 128)]
    noise = sum(np.asarray(each.resize((240, 256), Image.Resampling.BILINEAR)) for each in blots)
    film = cxr_made.phantom(bits) + 2 ** (bits - 4) * noise
    return np.clip(film, 0, 2**bits - 1).astype(np.uint16)


def dicom(seed, person, **tags):
    kind = (cxr_made.EXPLICIT, cxr_made.JPEG_LS, cxr_made.J2K_LOSSY, cxr_made.DEFLATED)[seed % 4]
    photometric = "MONOCHROME1" if seed % 3 == 0 else "MONOCHROME2"
    window = {"WindowCenter": 2000 + 20 * seed, "WindowWidth": 3000} if seed % 2 else {}
    own = {"PatientID": person, "SOPInstanceUID": f"1.2.826.0.1.777.3.{seed}", "PatientAge": "061Y", "PatientSex": "M"}
    about = {"PhotometricInterpretation": photometric, "ViewPosition": ("PA", "AP")[seed % 2]}
    return cxr_made.dicom(values(seed), kind, **{**SECRETS, **own, **about, **window, **tags})


def raster(seed):
    """A 16-bit PNG with a text chunk that names a person."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    texts, out = PngInfo(), io.BytesIO()
    texts.add_text("Patient", SECRETS["PatientName"])
    Image.fromarray(values(seed, 16)).save(out, "PNG", pnginfo=texts)
    return out.getvalue()


def signal(seed):
    noise = np.random.default_rng(seed).normal(0, 6, (12, ecg_made.counts().shape[1]))
    noise += 30 * np.sin(np.arange(noise.shape[1]) / (20 + seed))
    return (ecg_made.counts() + noise).astype(np.int16)


def recordings(seed, person):
    """The files of one recording, in one of three formats. Many persons have the same file names."""
    made = signal(seed)
    if seed % 3 == 0:
        content = ecg_made.dicom(made, median=False).replace(b"P-1 ", f"{person:<4}".encode()[:4])
        return {"film-of-the-person.dcm": content}
    if seed % 3 == 1:
        files = ecg_made.wfdb16(made, record="film-of-the-person")
        files["film-of-the-person.hea"] = files["film-of-the-person.hea"] + b"\n# BI^MAT^TEN"
        return files
    return {"film-of-the-person.csv": ecg_made.csv(made, head=f"# patient id={person}\n# sex=F\n# age=70\n")}


class Clinic:
    """A server with two sites, and functions to post, to record outcomes, and to export."""

    def __init__(self, served, settings):
        self.served, self.settings = served, settings
        self.clients = {site: served.client(served.key("site", site)) for site in ("commune", "district")}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in self.clients.values():
            each.close()

    def post(self, files, site="commune", **context):
        about = {"person": {}, "order": {"reason": FREE_TEXTS[2]}, **context}
        parts = [(field, (name, content, "application/octet-stream")) for field, name, content in files]
        parts.append(("context", (None, json.dumps(about), "application/json")))
        made = self.clients[site].post("/v1/visits", files=parts, headers={"Prefer": "wait=20"})
        assert made.status_code == 201, made.text
        return made.json()["id"]

    def film(self, content, site="commune", **context):
        return self.post([("image", "film-of-the-person.dcm", content)], site, **context)

    def record_outcome(self, visit, finding, outcome, site="commune"):
        record = {"finding": finding, "outcome": outcome, "source": FREE_TEXTS[0]}
        made = self.clients[site].post(f"/v1/visits/{visit}/outcomes", json=record)
        assert made.status_code == 201, made.text

    def export(self, modality, out, *more):
        return main(["--modality", modality, "--out", str(out), *SOURCE, "--quiet", *map(str, more)])


@pytest.fixture(scope="module")
def server(tmp_path_factory, new_database):
    settings = settings_for(tmp_path_factory.mktemp("outcomes"), database_url=new_database(), max_upload_mb=4)
    with serving(settings, EngineWithGate()) as served, Clinic(served, settings) as clinic:
        yield clinic


@pytest.fixture
def clinic(server, monkeypatch):
    """The shared clinic, with the environment of its server."""
    monkeypatch.setenv("SANGLOC_DATA_DIR", str(server.settings.data_dir))
    monkeypatch.setenv("SANGLOC_DATABASE_URL", server.settings.database_url)
    return server


@pytest.fixture
def own_clinic(tmp_path, monkeypatch):
    """A clinic for one test, on SQLite."""
    settings = settings_for(tmp_path / "data", max_upload_mb=4)
    monkeypatch.setenv("SANGLOC_DATA_DIR", str(settings.data_dir))
    with serving(settings, EngineWithGate()) as served, Clinic(served, settings) as clinic:
        yield clinic


def person_of(i):
    return {
        "id": f"MRN-{i:04}",
        "name": FREE_TEXTS[1],
        "birth_date": "1961-02-03",
        "age_years": 30.5 + 3 * i,
        "sex": "female",
    }


def table(out):
    with (out / "cases.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def checked(out):
    """The cohort as training loads it, and the results of training's checks."""
    from training.cohorts.checks import check_cohort
    from training.cohorts.inputs import load_inputs
    from training.cohorts.table import load_table
    from training.cohorts.verdicts import report, unusable

    cohort = load_table(out / "cohort.yaml")
    inputs = load_inputs(cohort, progress=False)
    checks = check_cohort(cohort, inputs)
    assert not unusable(checks), report(checks, cohort)
    assert inputs.readable.all()
    return cohort, inputs, {check.name: check for check in checks}


def chunks(png):
    """Kinds of a PNG's chunks (W3C PNG, section 5.3)."""
    found, at = set(), 8
    while at < len(png):
        found.add(png[at + 4 : at + 8])
        at += 12 + int.from_bytes(png[at : at + 4])
    return found


def assert_no_personal_data(out, *more):
    """Assert that no exported file has an identifier in its name or content."""
    secrets = [*SECRETS.values(), *FREE_TEXTS, "MRN-", "1.2.826.0.1.777", "1961", *more]
    for path in out.rglob("*"):
        content = b"" if path.is_dir() else path.read_bytes()
        for secret in secrets:
            assert secret not in path.name
            for encoding in ("utf-8", "utf-16-le"):
                assert secret.encode(encoding) not in content, (secret, path)


@pytest.fixture
def key(tmp_path):
    """A fixed key, so that each part of the split gets persons with and without the finding in every run."""
    path = tmp_path / "a.key"
    path.write_text("c6" * 32)
    return path


# ------------------------------------------------------------------ films
def test_exported_films_are_a_cohort_that_training_reads(clinic, tmp_path, key, capsys):
    """Two films of each person, in two visits at one of two sites. Half of the persons have pneumonia."""
    posted = {}
    assert all(secret.encode() in dicom(0, "MRN-") for secret in SECRETS.values())  # the posted film holds them
    for i in range(PERSONS):
        site = ("commune", "district")[i // 2 % 2]
        for turn in range(2):
            seed = 2 * i + turn
            content = raster(seed) if i % 5 == 0 else dicom(seed, f"MRN-{i:04}")
            visit = clinic.film(content, site, person=person_of(i), visited_on="2026-11-20")
            clinic.record_outcome(visit, "pneumonia", ("refuted", "confirmed")[i % 2], site)
            clinic.record_outcome(visit, "effusion", "lost", site)
            film = read_image(content)
            posted[conform_film(film.pixels, 224).tobytes()] = (i, site, film)
    assert clinic.export("cxr", tmp_path / "out", "--key", key) == DONE
    said = capsys.readouterr()
    assert f"{2 * PERSONS} films of {PERSONS} persons" in said.out
    assert f"pneumonia: {PERSONS} confirmed, {PERSONS} refuted" in said.out
    assert said.err == ""

    cohort, inputs, checks = checked(tmp_path / "out")
    assert len(posted) == len(cohort.frame) == 2 * PERSONS
    assert list(cohort.labels) == ["pneumonia"]  # all outcomes of effusion are ``lost``
    assert "columns" not in checks  # every column is named in the manifest, and every named column exists
    pseudonyms = {}
    for x, y, row in zip(inputs.x, cohort.labels.pneumonia, cohort.frame.itertuples(), strict=True):
        i, site, film = posted.pop(x.tobytes())  # the same pixels as from the posted file
        again = read_image((tmp_path / "out" / "films" / row.file).read_bytes())
        assert np.array_equal(again.pixels, film.pixels)
        assert chunks((tmp_path / "out" / "films" / row.file).read_bytes()) == {b"IHDR", b"IDAT", b"IEND"}
        assert (y, row.site, row.sex, row.view) == (i % 2, site, "female", film.view)
        assert row.age_years == min(int(30.5 + 3 * i), 90)
        assert pseudonyms.setdefault(i, row.person) == row.person
    assert not posted
    assert len(set(pseudonyms.values())) == PERSONS
    assert_no_personal_data(tmp_path / "out", "film-of-the-person", "20260102", "2026-01-02")


def test_the_manifest_holds_the_options_of_the_command(own_clinic, tmp_path):
    own_clinic.record_outcome(own_clinic.film(dicom(1, "A")), "mass", "confirmed")
    own_clinic.record_outcome(own_clinic.film(raster(2)), "mass", "refuted")
    assert own_clinic.export("cxr", tmp_path / "out", "--name", "xa.2026", "--dates") == DONE
    manifest = read_manifest(tmp_path / "out" / "cohort.yaml")
    assert (manifest.name, manifest.modality, manifest.site) == ("xa.2026", "cxr", None)
    assert (manifest.source.citation, manifest.source.licence) == (SOURCE[1], SOURCE[3])
    assert manifest.columns.made_on == "made_on"
    assert [row["made_on"] for row in sorted(table(tmp_path / "out"), key=lambda row: row["mass"])] == [
        "",
        "2026-01-02",
    ]


# ------------------------------------------------------------------ recordings
def test_exported_recordings_are_a_cohort_that_training_reads(clinic, tmp_path, key):
    import wfdb

    posted = []
    for i in range(PERSONS):
        files = recordings(i, f"M{i:02}")
        parts = [("ecg", name, content) for name, content in files.items()]
        visit = clinic.post(parts, person={**person_of(i), "id": f"E-{i}"})
        clinic.record_outcome(visit, "atrial_fibrillation", ("refuted", "confirmed")[i // 3 % 2])
        posted.append(ecg_made.read(files))
    assert clinic.export("ecg", tmp_path / "out", "--key", key) == DONE
    cohort, inputs, _ = checked(tmp_path / "out")
    assert len(cohort.frame) == cohort.frame.person.nunique() == PERSONS
    windows = np.stack([conform_recording(each, fs_hz=100, n_samples=1000, max_windows=1)[0] for each in posted])
    for x, y, row in zip(inputs.x, cohort.labels.atrial_fibrillation, cohort.frame.itertuples(), strict=True):
        i = int(np.abs(windows - x).max(axis=(1, 2)).argmin())
        assert np.abs(windows[i] - x).max() < 1e-4  # standard deviations
        assert (y, row.age_years) == (i // 3 % 2, min(int(30.5 + 3 * i), 90))
        stem = tmp_path / "out" / "recordings" / row.file
        files = {stem.with_suffix(s).name: stem.with_suffix(s).read_bytes() for s in (".hea", ".dat")}
        again = ecg_made.read(files)
        assert again.fs_hz == posted[i].fs_hz
        assert np.abs(again.samples - posted[i].samples).max() <= 0.6e-6  # mV
        assert (again.age_years, again.sex, again.person_id, again.recorded_on) == (None, None, None, None)
        record = wfdb.rdrecord(str(stem.with_suffix("")))
        assert np.allclose(record.p_signal.T, posted[i].samples, atol=1e-6)
        assert record.sig_name == list(ecg_made.LEADS)
        assert record.checksum == [int(c) for c in wfdb.rdrecord(str(stem.with_suffix("")), physical=False).checksum]
    assert_no_personal_data(tmp_path / "out", "film-of-the-person", "2026-11-21", "20261121")


def test_a_zip_is_exported_if_all_of_it_was_accepted(own_clinic, tmp_path):
    def zipped(*names):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for seed, name in enumerate(names):
                archive.writestr(name, ecg_made.csv(signal(seed)))
        return out.getvalue()

    for name in ("whole.csv", "PARTLY.csv"):
        visit = own_clinic.post([("ecg", "both.zip", zipped("one.csv", name))])
        own_clinic.record_outcome(visit, "normal_ecg", "confirmed")
    assert own_clinic.export("ecg", tmp_path / "out") == DONE
    rows = table(tmp_path / "out")
    assert [row["normal_ecg"] for row in rows] == ["1", "1"]
    assert len({row["person"] for row in rows}) == 1
    made = [ecg_made.read({"a.csv": ecg_made.csv(signal(seed))}).samples for seed in (0, 1)]
    for row in rows:
        stem = (tmp_path / "out" / "recordings" / row["file"]).with_suffix("")
        again = ecg_made.read(ecg_made.on_disk([stem.with_suffix(".hea"), stem.with_suffix(".dat")])).samples
        assert min(np.abs(again - each).max() for each in made) <= 0.6e-6


def test_gaps_and_huge_values_are_kept():
    from data_specs.ecg.recording import Recording

    samples = np.random.default_rng(1).normal(0, 1, (12, 5000)).astype(np.float32)
    samples[3, 100:200] = np.nan
    for largest in (1.0, 400.0, 600.0, 1e5):
        again = ecg_made.read(recording_files(Recording(samples * np.float32(largest), 499.9, "csv"), "r"))
        assert again.fs_hz == 499.9
        assert np.array_equal(np.isnan(again.samples), np.isnan(samples))
        assert np.nanmax(np.abs(again.samples - samples * np.float32(largest))) <= 1e-6 * largest


# ------------------------------------------------------------------ which cases
def test_only_accepted_films_with_a_known_outcome_are_exported(own_clinic, tmp_path, capsys):
    record = own_clinic.record_outcome
    kept = own_clinic.post(
        [("image", "a.dcm", dicom(1, "A")), ("image", "b.dcm", dicom(2, "A", PatientComments="BLANK"))]
    )
    record(kept, "pneumonia", "confirmed")
    record(kept, "pneumonia", "refuted")
    record(kept, "mass", "confirmed")
    record(kept, "atrial_fibrillation", "confirmed")
    record(kept, "incident_ckd", "confirmed")
    lost = own_clinic.film(dicom(3, "B"))
    record(lost, "pneumonia", "confirmed")
    record(lost, "pneumonia", "lost")
    own_clinic.film(dicom(4, "C"))  # without an outcome
    burnt = own_clinic.film(dicom(5, "D", BurnedInAnnotation="YES"))
    record(burnt, "mass", "refuted")
    lateral = own_clinic.film(dicom(6, "E", ViewPosition="LL"))
    record(lateral, "mass", "refuted")
    elsewhere = own_clinic.film(dicom(7, "F"), "district")
    record(elsewhere, "mass", "refuted", "district")

    assert own_clinic.export("cxr", tmp_path / "out") == DONE
    rows = table(tmp_path / "out")
    by_site = {row["site"]: row for row in rows}
    assert len(rows) == 2
    assert (by_site["commune"]["pneumonia"], by_site["commune"]["mass"]) == ("0", "1")
    assert (by_site["district"]["pneumonia"], by_site["district"]["mass"]) == ("", "0")
    assert by_site["commune"]["age_years"] == "61"  # from the header, because the visit does not state it
    assert set(rows[0]) == {"person", "file", "age_years", "sex", "site", "view", "pneumonia", "mass"}
    assert len(list((tmp_path / "out" / "films").iterdir())) == 2
    said = capsys.readouterr().out
    assert "1 burned_in_annotation" in said
    assert "1 wrong_view" in said

    assert own_clinic.export("cxr", tmp_path / "one", "--site", "district", "--findings", "mass") == DONE
    assert [row["site"] for row in table(tmp_path / "one")] == ["district"]
    assert own_clinic.export("cxr", tmp_path / "none", "--since", "2999-01-01") == REFUSED
    assert not (tmp_path / "none").exists()
    assert own_clinic.export("ecg", tmp_path / "none") == REFUSED  # there is an outcome for the ECG, but no recording
    assert capsys.readouterr().err.count("nothing to export") == 2


def test_a_person_has_one_pseudonym_and_a_film_has_one_row(own_clinic, tmp_path):
    by_id = own_clinic.film(dicom(1, "HOSPITAL-7"), person={"id": "P-7"})
    again = own_clinic.film(dicom(2, "HOSPITAL-7"), person={"id": "P-7"})
    twice = own_clinic.film(dicom(2, "HOSPITAL-7"))  # the film again without context: only the header names the person
    third = own_clinic.film(dicom(3, "HOSPITAL-7"))
    namesake = own_clinic.film(dicom(4, "HOSPITAL-7"), "district")  # the same number at another hospital
    nobody = own_clinic.post([("image", "a.png", raster(5)), ("image", "b.png", raster(6))])
    for visit in (by_id, again, third, nobody):
        own_clinic.record_outcome(visit, "mass", "confirmed")
    own_clinic.record_outcome(twice, "mass", "refuted")
    own_clinic.record_outcome(namesake, "mass", "refuted", "district")
    assert own_clinic.export("cxr", tmp_path / "out", "--keep-key") == DONE
    cases = {}
    for row in table(tmp_path / "out"):
        pixels = read_image((tmp_path / "out" / "films" / row["file"]).read_bytes()).pixels.tobytes()
        cases[pixels] = row
    named = {
        seed: cases[read_image(content).pixels.tobytes()]
        for seed, content in [*((s, dicom(s, "HOSPITAL-7")) for s in (1, 2, 3, 4)), (5, raster(5)), (6, raster(6))]
    }
    assert len(cases) == 6
    assert len({named[seed]["person"] for seed in (1, 2, 3)}) == 1
    assert named[5]["person"] == named[6]["person"]
    assert len({named[seed]["person"] for seed in (1, 4, 5)}) == 3
    assert named[2]["mass"] == "0"  # the latest outcome of the film from any visit

    kept = tmp_path / "out.key"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert own_clinic.export("cxr", tmp_path / "same", "--key", kept) == DONE
    assert table(tmp_path / "same") == table(tmp_path / "out")
    assert own_clinic.export("cxr", tmp_path / "other") == DONE
    for column in ("person", "file"):
        assert not {r[column] for r in table(tmp_path / "other")} & {r[column] for r in table(tmp_path / "out")}
    assert not (tmp_path / "other.key").exists()
    assert kept.read_text().strip() not in "".join(
        (tmp_path / "out" / n).read_text() for n in ("cases.csv", "cohort.yaml")
    )


# ------------------------------------------------------------------ refusals
def test_a_failed_export_prints_one_line_and_leaves_no_files(own_clinic, tmp_path, capsys, monkeypatch):
    visit = own_clinic.film(dicom(1, "A"))
    own_clinic.record_outcome(visit, "mass", "confirmed")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    assert own_clinic.export("cxr", full) == REFUSED
    assert [each.name for each in full.iterdir()] == ["mine.txt"]
    assert own_clinic.export("labs", tmp_path / "out") == REFUSED
    bad = tmp_path / "bad.key"
    bad.write_text("no key")
    assert own_clinic.export("cxr", tmp_path / "out", "--key", bad) == REFUSED
    (tmp_path / "out.key").write_text("mine")
    assert own_clinic.export("cxr", tmp_path / "out", "--keep-key") == REFUSED
    assert (tmp_path / "out.key").read_text() == "mine"
    assert own_clinic.export("cxr", full / "mine.txt" / "below") == CANNOT
    (stored,) = own_clinic.settings.data_dir.glob("files/??/*")
    content = stored.read_bytes()
    stored.write_bytes(content[:-1])
    assert own_clinic.export("cxr", tmp_path / "out") == REFUSED
    stored.unlink()
    assert own_clinic.export("cxr", tmp_path / "gone", "--keep-key") == REFUSED
    assert not (tmp_path / "gone.key").exists()
    monkeypatch.setenv("SANGLOC_DATA_DIR", str(tmp_path / "nowhere"))
    assert own_clinic.export("cxr", tmp_path / "out") == CANNOT
    monkeypatch.setenv("SANGLOC_DATABASE_URL", "postgresql+psycopg://someone:password@/x?host=/nowhere")
    assert own_clinic.export("cxr", tmp_path / "out") == CANNOT
    monkeypatch.setenv("SANGLOC_DATABASE_URL", "mysql://x")
    assert own_clinic.export("cxr", tmp_path / "out") == CANNOT
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert all(line.startswith("outcomes: ") for line in lines)
    assert "when it came" in lines[1]
    assert "(1 damaged in the store)" in lines[5]
    assert "(1 not in the store)" in lines[6]
    assert "password" not in "".join(lines)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "nowhere").exists()


def test_a_site_without_visits_is_refused_with_those_that_have_some(own_clinic, tmp_path, capsys):
    assert own_clinic.export("cxr", tmp_path / "out", "--site", "commune") == REFUSED
    assert "there are some of: none" in capsys.readouterr().err
    own_clinic.record_outcome(own_clinic.film(dicom(1, "A")), "mass", "confirmed")
    assert own_clinic.export("cxr", tmp_path / "out", "--site", "commune", "comune") == REFUSED
    assert "no visits of comune; there are some of: commune" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert own_clinic.export("cxr", tmp_path / "out", "--site", "commune") == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--modality", "cxr", "--out", "x", "--licence", "l"], "--citation"),
        (["--modality", "cxr", "--out", "x", "--citation", "c"], "--licence"),
        (["--modality", "cxr", "--out", "x", "--citation", "c\nd", "--licence", "l"], "--citation"),
        (["--modality", "cxr", "--out", "x", *SOURCE, "--findings", "atrial_fibrillation"], "pneumonia"),
        (["--modality", "cxr", "--out", "x", *SOURCE, "--since", "yesterday"], "--since"),
        (["--modality", "cxr", "--out", "x", *SOURCE, "--name", "a b"], "--name"),
        (["--modality", "cxr", "--out", "x", *SOURCE, "--key", "k", "--keep-key"], "--keep-key"),
        (["--modality", "mri", "--out", "x", *SOURCE], "mri"),
    ],
)
def test_an_invalid_command_line_is_refused(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_the_command_and_its_progress(own_clinic, tmp_path):
    for seed in range(3):
        own_clinic.record_outcome(own_clinic.film(dicom(seed, f"P{seed}")), "mass", ("confirmed", "refuted")[seed % 2])
    command = [sys.executable, "-m", "service.outcomes", "--modality", "cxr", "--out", tmp_path / "out", *SOURCE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "3 of 3 written"
    assert "3 films of 3 persons" in done.stdout
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
