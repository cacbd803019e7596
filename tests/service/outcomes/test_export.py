"""Outcomes leave as a cohort: what training reads, pixel for pixel and label for label, and nothing of whose it is."""

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
from tests.service.standin import StandIn

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
SAID = ["nguon bi mat", "Người Được Khám Thử Nghiệm", "reason in free text", "film-of-the-person", "tram-y-te-key"]
SOURCE = ["--citation", "Thử Nghiệm: screening 2026, 'as \"said\"'", "--licence", "for the tests alone"]


class WithAGate(StandIn):
    """The stand-in, that refuses a film on which nothing is to be seen."""

    async def assess(self, inputs, context, **more):
        found = await super().assess(inputs, context, **more)
        by_index = {each.index: each for each in inputs}
        for each in found.inputs:
            if b"BLANK" in by_index[each.index].read()[:4096]:
                each.accepted, each.problems = False, [Problem("saturated", "reject")]
            if b"PARTLY" in by_index[each.index].read():  # a zip, as the engine says it
                each.problems = [Problem("leads_reversed", "reject")]
        return found


def values(seed, bits=12):
    """A film unlike any other: the phantom behind blots of many sizes."""
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
    """16 bits as PNG, with a text chunk that names somebody."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    told, out = PngInfo(), io.BytesIO()
    told.add_text("Patient", SECRETS["PatientName"])
    Image.fromarray(values(seed, 16)).save(out, "PNG", pnginfo=told)
    return out.getvalue()


def signal(seed):
    noise = np.random.default_rng(seed).normal(0, 6, (12, ecg_made.counts().shape[1]))
    noise += 30 * np.sin(np.arange(noise.shape[1]) / (20 + seed))
    return (ecg_made.counts() + noise).astype(np.int16)


def recordings(seed, person):
    """One recording a person, in one format after the other; ``.hea`` is the same for many persons."""
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
    """A server, two sites of it, and what was posted there."""

    def __init__(self, served, settings):
        self.served, self.settings = served, settings
        self.clients = {site: served.client(served.key("site", site)) for site in ("commune", "district")}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in self.clients.values():
            each.close()

    def post(self, files, site="commune", **context):
        about = {"person": {}, "order": {"reason": SAID[2]}, **context}
        parts = [(field, (name, content, "application/octet-stream")) for field, name, content in files]
        parts.append(("context", (None, json.dumps(about), "application/json")))
        made = self.clients[site].post("/v1/visits", files=parts, headers={"Prefer": "wait=20"})
        assert made.status_code == 201, made.text
        return made.json()["id"]

    def film(self, content, site="commune", **context):
        return self.post([("image", "film-of-the-person.dcm", content)], site, **context)

    def tell(self, visit, finding, outcome, site="commune"):
        told = {"finding": finding, "outcome": outcome, "source": SAID[0]}
        made = self.clients[site].post(f"/v1/visits/{visit}/outcomes", json=told)
        assert made.status_code == 201, made.text

    def export(self, modality, out, *more):
        return main(["--modality", modality, "--out", str(out), *SOURCE, "--quiet", *map(str, more)])


@pytest.fixture(scope="module")
def server(tmp_path_factory, new_database):
    settings = settings_for(tmp_path_factory.mktemp("outcomes"), database_url=new_database(), max_upload_mb=4)
    with serving(settings, WithAGate()) as served, Clinic(served, settings) as clinic:
        yield clinic


@pytest.fixture
def clinic(server, monkeypatch):
    """The clinic, with the environment that its server runs in."""
    monkeypatch.setenv("SANGLOC_DATA_DIR", str(server.settings.data_dir))
    monkeypatch.setenv("SANGLOC_DATABASE_URL", server.settings.database_url)
    return server


@pytest.fixture
def apart(tmp_path, monkeypatch):
    """A clinic of the test's own, over SQLite."""
    settings = settings_for(tmp_path / "data", max_upload_mb=4)
    monkeypatch.setenv("SANGLOC_DATA_DIR", str(settings.data_dir))
    with serving(settings, WithAGate()) as served, Clinic(served, settings) as clinic:
        yield clinic


def person_of(i):
    return {
        "id": f"MRN-{i:04}",
        "name": SAID[1],
        "birth_date": "1961-02-03",
        "age_years": 30.5 + 3 * i,
        "sex": "female",
    }


def table(out):
    with (out / "cases.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def checked(out):
    """The checks of training, and the cohort as it loads it."""
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


def assert_nothing_tells(out, *more):
    """No identifier in any byte or name of what was exported."""
    secrets = [*SECRETS.values(), *SAID, "MRN-", "1.2.826.0.1.777", "1961", *more]
    for path in out.rglob("*"):
        content = b"" if path.is_dir() else path.read_bytes()
        for secret in secrets:
            assert secret not in path.name
            for encoding in ("utf-8", "utf-16-le"):
                assert secret.encode(encoding) not in content, (secret, path)


@pytest.fixture
def key(tmp_path):
    """A kept key: persons fall into the same parts in every run, and into each of them with and without a finding."""
    path = tmp_path / "a.key"
    path.write_text("c6" * 32)
    return path


# ------------------------------------------------------------------ films
def test_films_are_a_cohort_that_training_takes(clinic, tmp_path, key, capsys):
    """Two films of each person, at two visits of one site or the other; half of them had it."""
    posted = {}
    assert all(secret.encode() in dicom(0, "MRN-") for secret in SECRETS.values())  # there is something to find
    for i in range(PERSONS):
        site = ("commune", "district")[i // 2 % 2]
        for turn in range(2):
            seed = 2 * i + turn
            content = raster(seed) if i % 5 == 0 else dicom(seed, f"MRN-{i:04}")
            visit = clinic.film(content, site, person=person_of(i), visited_on="2026-11-20")
            clinic.tell(visit, "pneumonia", ("refuted", "confirmed")[i % 2], site)
            clinic.tell(visit, "effusion", "lost", site)
            film = read_image(content)
            posted[conform_film(film.pixels, 224).tobytes()] = (i, site, film)
    assert clinic.export("cxr", tmp_path / "out", "--key", key) == DONE
    said = capsys.readouterr()
    assert f"{2 * PERSONS} films of {PERSONS} persons" in said.out
    assert f"pneumonia: {PERSONS} confirmed, {PERSONS} refuted" in said.out
    assert said.err == ""

    cohort, inputs, checks = checked(tmp_path / "out")
    assert len(posted) == len(cohort.frame) == 2 * PERSONS
    assert list(cohort.labels) == ["pneumonia"]  # of effusion nothing is known
    assert "columns" not in checks  # each is named, and each that is named is there
    pseudonyms = {}
    for x, y, row in zip(inputs.x, cohort.labels.pneumonia, cohort.frame.itertuples(), strict=True):
        i, site, film = posted.pop(x.tobytes())  # the conformed pixels are those of the file that was posted
        again = read_image((tmp_path / "out" / "films" / row.file).read_bytes())
        assert np.array_equal(again.pixels, film.pixels)
        assert chunks((tmp_path / "out" / "films" / row.file).read_bytes()) == {b"IHDR", b"IDAT", b"IEND"}
        assert (y, row.site, row.sex, row.view) == (i % 2, site, "female", film.view)
        assert row.age_years == min(int(30.5 + 3 * i), 90)
        assert pseudonyms.setdefault(i, row.person) == row.person
    assert not posted
    assert len(set(pseudonyms.values())) == PERSONS
    assert_nothing_tells(tmp_path / "out", "film-of-the-person", "20260102", "2026-01-02")


def test_the_manifest_says_what_was_asked_for_and_no_more(apart, tmp_path):
    apart.tell(apart.film(dicom(1, "A")), "mass", "confirmed")
    apart.tell(apart.film(raster(2)), "mass", "refuted")
    assert apart.export("cxr", tmp_path / "out", "--name", "xa.2026", "--dates") == DONE
    manifest = read_manifest(tmp_path / "out" / "cohort.yaml")
    assert (manifest.name, manifest.modality, manifest.site) == ("xa.2026", "cxr", None)
    assert (manifest.source.citation, manifest.source.licence) == (SOURCE[1], SOURCE[3])
    assert manifest.columns.made_on == "made_on"
    assert [row["made_on"] for row in sorted(table(tmp_path / "out"), key=lambda row: row["mass"])] == [
        "",
        "2026-01-02",
    ]


# ------------------------------------------------------------------ recordings
def test_recordings_are_a_cohort_that_training_takes(clinic, tmp_path, key):
    import wfdb

    posted = []
    for i in range(PERSONS):
        files = recordings(i, f"M{i:02}")
        parts = [("ecg", name, content) for name, content in files.items()]
        visit = clinic.post(parts, person={**person_of(i), "id": f"E-{i}"})
        clinic.tell(visit, "atrial_fibrillation", ("refuted", "confirmed")[i // 3 % 2])
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
    assert_nothing_tells(tmp_path / "out", "film-of-the-person", "2026-11-21", "20261121")


def test_a_zip_is_exported_where_all_of_it_was_accepted(apart, tmp_path):
    def zipped(*names):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for seed, name in enumerate(names):
                archive.writestr(name, ecg_made.csv(signal(seed)))
        return out.getvalue()

    for name in ("whole.csv", "PARTLY.csv"):
        visit = apart.post([("ecg", "both.zip", zipped("one.csv", name))])
        apart.tell(visit, "normal_ecg", "confirmed")
    assert apart.export("ecg", tmp_path / "out") == DONE
    rows = table(tmp_path / "out")
    assert [row["normal_ecg"] for row in rows] == ["1", "1"]
    assert len({row["person"] for row in rows}) == 1
    made = [ecg_made.read({"a.csv": ecg_made.csv(signal(seed))}).samples for seed in (0, 1)]
    for row in rows:
        stem = (tmp_path / "out" / "recordings" / row["file"]).with_suffix("")
        again = ecg_made.read(ecg_made.on_disk([stem.with_suffix(".hea"), stem.with_suffix(".dat")])).samples
        assert min(np.abs(again - each).max() for each in made) <= 0.6e-6


def test_gaps_and_huge_values_survive():
    from data_specs.ecg.recording import Recording

    samples = np.random.default_rng(1).normal(0, 1, (12, 5000)).astype(np.float32)
    samples[3, 100:200] = np.nan
    for largest in (1.0, 400.0, 600.0, 1e5):
        again = ecg_made.read(recording_files(Recording(samples * np.float32(largest), 499.9, "csv"), "r"))
        assert again.fs_hz == 499.9
        assert np.array_equal(np.isnan(again.samples), np.isnan(samples))
        assert np.nanmax(np.abs(again.samples - samples * np.float32(largest))) <= 1e-6 * largest


# ------------------------------------------------------------------ which cases
def test_only_accepted_films_whose_last_outcome_is_known(apart, tmp_path, capsys):
    told = apart.tell
    kept = apart.post([("image", "a.dcm", dicom(1, "A")), ("image", "b.dcm", dicom(2, "A", PatientComments="BLANK"))])
    told(kept, "pneumonia", "confirmed")
    told(kept, "pneumonia", "refuted")
    told(kept, "mass", "confirmed")
    told(kept, "atrial_fibrillation", "confirmed")
    told(kept, "incident_ckd", "confirmed")
    lost = apart.film(dicom(3, "B"))
    told(lost, "pneumonia", "confirmed")
    told(lost, "pneumonia", "lost")
    apart.film(dicom(4, "C"))  # nothing was heard of it
    burnt = apart.film(dicom(5, "D", BurnedInAnnotation="YES"))
    told(burnt, "mass", "refuted")
    lateral = apart.film(dicom(6, "E", ViewPosition="LL"))
    told(lateral, "mass", "refuted")
    elsewhere = apart.film(dicom(7, "F"), "district")
    told(elsewhere, "mass", "refuted", "district")

    assert apart.export("cxr", tmp_path / "out") == DONE
    rows = table(tmp_path / "out")
    by_site = {row["site"]: row for row in rows}
    assert len(rows) == 2
    assert (by_site["commune"]["pneumonia"], by_site["commune"]["mass"]) == ("0", "1")
    assert (by_site["district"]["pneumonia"], by_site["district"]["mass"]) == ("", "0")
    assert by_site["commune"]["age_years"] == "61"  # as the header says, where the visit is silent
    assert set(rows[0]) == {"person", "file", "age_years", "sex", "site", "view", "pneumonia", "mass"}
    assert len(list((tmp_path / "out" / "films").iterdir())) == 2
    said = capsys.readouterr().out
    assert "1 burned_in_annotation" in said
    assert "1 wrong_view" in said

    assert apart.export("cxr", tmp_path / "one", "--site", "district", "--findings", "mass") == DONE
    assert [row["site"] for row in table(tmp_path / "one")] == ["district"]
    assert apart.export("cxr", tmp_path / "none", "--since", "2999-01-01") == REFUSED
    assert not (tmp_path / "none").exists()
    assert apart.export("ecg", tmp_path / "none") == REFUSED  # an outcome of the ECG, and none was posted
    assert capsys.readouterr().err.count("nothing to export") == 2


def test_one_person_keeps_one_name_and_one_film_one_row(apart, tmp_path):
    by_id = apart.film(dicom(1, "HOSPITAL-7"), person={"id": "P-7"})
    again = apart.film(dicom(2, "HOSPITAL-7"), person={"id": "P-7"})
    twice = apart.film(dicom(2, "HOSPITAL-7"))  # the film again, without the context: the header alone tells whose
    third = apart.film(dicom(3, "HOSPITAL-7"))
    namesake = apart.film(dicom(4, "HOSPITAL-7"), "district")  # another hospital's number
    nobody = apart.post([("image", "a.png", raster(5)), ("image", "b.png", raster(6))])
    for visit in (by_id, again, third, nobody):
        apart.tell(visit, "mass", "confirmed")
    apart.tell(twice, "mass", "refuted")
    apart.tell(namesake, "mass", "refuted", "district")
    assert apart.export("cxr", tmp_path / "out", "--keep-key") == DONE
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
    assert named[2]["mass"] == "0"  # the latest outcome of the film, whichever visit brought it

    kept = tmp_path / "out.key"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert apart.export("cxr", tmp_path / "same", "--key", kept) == DONE
    assert table(tmp_path / "same") == table(tmp_path / "out")
    assert apart.export("cxr", tmp_path / "other") == DONE
    for column in ("person", "file"):
        assert not {r[column] for r in table(tmp_path / "other")} & {r[column] for r in table(tmp_path / "out")}
    assert not (tmp_path / "other.key").exists()
    assert kept.read_text().strip() not in "".join(
        (tmp_path / "out" / n).read_text() for n in ("cases.csv", "cohort.yaml")
    )


# ------------------------------------------------------------------ refusals
def test_what_cannot_be_done_is_said_in_a_line_and_leaves_nothing(apart, tmp_path, capsys, monkeypatch):
    visit = apart.film(dicom(1, "A"))
    apart.tell(visit, "mass", "confirmed")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("mine")
    assert apart.export("cxr", full) == REFUSED
    assert [each.name for each in full.iterdir()] == ["mine.txt"]
    assert apart.export("labs", tmp_path / "out") == REFUSED
    bad = tmp_path / "bad.key"
    bad.write_text("no key")
    assert apart.export("cxr", tmp_path / "out", "--key", bad) == REFUSED
    (tmp_path / "out.key").write_text("mine")
    assert apart.export("cxr", tmp_path / "out", "--keep-key") == REFUSED
    assert (tmp_path / "out.key").read_text() == "mine"
    assert apart.export("cxr", full / "mine.txt" / "below") == CANNOT
    (stored,) = apart.settings.data_dir.glob("files/??/*")
    content = stored.read_bytes()
    stored.write_bytes(content[:-1])
    assert apart.export("cxr", tmp_path / "out") == REFUSED
    stored.unlink()
    assert apart.export("cxr", tmp_path / "gone", "--keep-key") == REFUSED
    assert not (tmp_path / "gone.key").exists()
    monkeypatch.setenv("SANGLOC_DATA_DIR", str(tmp_path / "nowhere"))
    assert apart.export("cxr", tmp_path / "out") == CANNOT
    monkeypatch.setenv("SANGLOC_DATABASE_URL", "postgresql+psycopg://someone:password@/x?host=/nowhere")
    assert apart.export("cxr", tmp_path / "out") == CANNOT
    monkeypatch.setenv("SANGLOC_DATABASE_URL", "mysql://x")
    assert apart.export("cxr", tmp_path / "out") == CANNOT
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert all(line.startswith("outcomes: ") for line in lines)
    assert "when it came" in lines[1]
    assert "(1 damaged in the store)" in lines[5]
    assert "(1 not in the store)" in lines[6]
    assert "password" not in "".join(lines)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "nowhere").exists()


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
def test_a_command_line_that_cannot_be_used(arguments, said, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err


def test_the_command_itself_and_its_progress(apart, tmp_path):
    for seed in range(3):
        apart.tell(apart.film(dicom(seed, f"P{seed}")), "mass", ("confirmed", "refuted")[seed % 2])
    command = [sys.executable, "-m", "service.outcomes", "--modality", "cxr", "--out", tmp_path / "out", *SOURCE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "3 of 3 written"
    assert "3 films of 3 persons" in done.stdout
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
