"""Folders, tables, buckets and archives: what is listed, what it states, what cannot be read."""

from __future__ import annotations

import csv
import pickle
from datetime import date

import pytest

from benchmarks.serving import free_port
from data_specs.cohort import Columns
from data_specs.problems import Refused
from inference.archive.cases import BadSource, Case, SourceFile
from inference.archive.dicomweb import only_part
from inference.archive.files import Files
from inference.archive.move import Address, Pacs
from inference.archive.scoring import Options, seen
from inference.archive.tables import NAMES, Table, lines_of
from tests.conftest import ROOT
from tests.data_specs.cxr_made import CT
from tests.inference.archive.made import failed, film, rows, run
from tests.service.conftest import s3, s3_environment  # noqa: F401  fixtures
from tests.service.orthanc import orthanc

OPTIONS = Options(ROOT, {}, b"k" * 32)


def listed(source):
    return sorted(tuple(file.place for file in case.files) for case in source.cases())


def test_a_folder_has_each_file_once_and_the_files_of_a_record_together(tmp_path):
    for name in ("b/a.hea", "b/a.mat", "b/a.atr", "a.dcm", "a.dat", "c/d/x.png", "c/.hidden", ".git/x.dcm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    source = Files(str(tmp_path), 3, "north")
    assert listed(source) == [("a.dat",), ("a.dcm",), ("b/a.atr", "b/a.hea", "b/a.mat"), ("c/d/x.png",)]
    case = next(case for case in source.cases() if case.place == "c/d/x.png")
    assert (case.source, case.site, case.files[0].n_bytes) == (3, "north", 9)
    again = pickle.loads(pickle.dumps(source))
    assert again.read(case.files[0]) == b"c/d/x.png"
    with pytest.raises(Refused) as refused:
        again.read(SourceFile("y.png", "c/d/y.png"))
    assert refused.value.problem.code == "file_missing"


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(BadSource, match="no such folder"):
        list(Files(str(tmp_path / "lost")).cases())


def test_a_larger_file_is_not_read(tmp_path):
    (tmp_path / "a.dcm").write_bytes(bytes(1_000_001))
    source = Files(str(tmp_path), max_mb=1)
    (case,) = source.cases()
    with pytest.raises(Refused) as refused:
        source.read(case.files[0])
    assert refused.value.problem.code == "over_limit"
    (tmp_path / "a.dcm").write_bytes(bytes(1_000_000))
    assert len(source.read(case.files[0])) == 1_000_000


def test_a_case_is_another_one_when_anything_is_that_is_known_before_it_is_read():
    one = Case((SourceFile("a.dcm", "a.dcm", "t1", 5),), 0, "north", "P-1", 40.0, "female", date(2026, 1, 2))
    others = [
        Case(one.files, 0, "south", "P-1", 40.0, "female", date(2026, 1, 2)),
        Case(one.files, 0, "north", "P-2", 40.0, "female", date(2026, 1, 2)),
        Case(one.files, 0, "north", "P-1", 41.0, "female", date(2026, 1, 2)),
        Case(one.files, 0, "north", "P-1", 40.0, "male", date(2026, 1, 2)),
        Case(one.files, 0, "north", "P-1", 40.0, "female", date(2026, 1, 3)),
        Case((SourceFile("a.dcm", "a.dcm", "t2", 5),), 0, "north", "P-1", 40.0, "female", date(2026, 1, 2)),
    ]
    assert len({seen(case, "/films", OPTIONS) for case in (one, *others)}) == 7
    assert seen(one, "/films", OPTIONS) != seen(one, "/other", OPTIONS)
    assert "P-1" not in seen(one, "/films", OPTIONS)


# ---------------------------------------------------------------- tables
def table(tmp_path, text):
    path = tmp_path / "list.csv"
    path.write_text(text, "utf-8-sig")
    return path


TABLE = """\
person;file;age_years;sex;site;made_on;view
P-1;a.dcm;54,5;F;north;2026-01-02;PA
;b.hea;;;;;
"""


def test_a_table_speaks_the_words_of_a_cohort(tmp_path):
    assert set(NAMES) - {"study"} <= set(Columns.model_fields)
    path = table(tmp_path, TABLE)
    first, second = lines_of(path, "file", {}, "south")
    assert (first.person, first.age_years, first.sex, first.site, first.made_on) == (
        "P-1", 54.5, "female", "north", date(2026, 1, 2),
    )  # fmt: skip
    assert (second.person, second.age_years, second.sex, second.site, second.made_on) == ("", None, None, "south", None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("person,image\nP-1,a.dcm\n", "no column 'file'"),
        ("file,age_years\na.dcm,old\n", "line 2: age_years"),
        ("file,sex\na.dcm,x\n", "line 2: sex"),
        ("file,made_on\na.dcm,2026-02-30\n", "line 2: made_on"),
        ("file,made_on\n,2026-02-03\n", "line 2: no file"),
        ("", "no column 'file'"),
    ],
)
def test_a_cell_that_cannot_be_read_is_named_with_its_line(tmp_path, text, says):
    with pytest.raises(BadSource, match=says):
        list(lines_of(table(tmp_path, text), "file", {}))


def test_an_age_that_none_can_have_is_not_stated(tmp_path):
    lines = lines_of(table(tmp_path, "file,age_years\na,0\nb,300\nc,7\n"), "file", {})
    assert [line.age_years for line in lines] == [None, None, 7.0]


def test_paths_start_from_the_root_that_is_named(tmp_path):
    (tmp_path / "films").mkdir()
    (tmp_path / "films" / "a.hea").write_bytes(b"header")
    (tmp_path / "films" / "a.dat").write_bytes(b"signal")
    path = table(tmp_path, f"file\na.hea; a.dat\n{tmp_path / 'films' / 'a.hea'}\n")
    source = Table(path, Files(str(tmp_path / "films")), {})
    together, absolute = source.cases()
    assert [source.read(file) for file in together.files] == [b"header", b"signal"]
    assert source.read(absolute.files[0]) == b"header"
    assert together.files[0].mark


# ---------------------------------------------------------------- S3
def test_a_bucket_is_scored_and_not_fetched_again(tmp_path, monkeypatch, s3_environment):  # noqa: F811
    boto3 = pytest.importorskip("boto3")
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    for number in range(3):
        client.put_object(Bucket="visits", Key=f"archive/{number}/film.dcm", Body=film(number))
    client.put_object(Bucket="visits", Key="archive/0/empty.dcm", Body=b"")
    client.put_object(Bucket="visits", Key="other/film.dcm", Body=film(9))
    out = tmp_path / "out"
    assert "4 listed: 4 scored (1 refused)" in run("s3://visits/archive", "--out", out)
    assert set(failed(out)) == {"0/empty.dcm"}
    assert "4 listed: 0 scored" in run("s3://visits/archive", "--out", out)
    client.put_object(Bucket="visits", Key="archive/0/film.dcm", Body=film(7))
    assert "1 scored (0 refused), 3 done before" in run("s3://visits/archive", "--out", out)
    assert len({row["input"] for row in rows(out)}) == 5
    client.close()


# ---------------------------------------------------------------- archives
STUDIES = [f"1.2.3.{number}.1" for number in range(3)]


def studies(tmp_path, *more):
    path = tmp_path / "studies.csv"
    with path.open("w", newline="") as opened:
        csv.writer(opened).writerows([["study", "site"], *([study, "north"] for study in (*STUDIES, *more))])
    return path


def fill(peer):
    for number in range(3):
        peer.add(film(number))
    peer.add(film(0, SOPInstanceUID="1.2.3.0.9", SOPClassUID=CT, Modality="CT"))


def test_studies_are_fetched_by_wado_rs(tmp_path):
    with orthanc(tmp_path / "orthanc") as peer:
        fill(peer)
        secret = tmp_path / "authorization"
        secret.write_text(peer.http.build_request("GET", "/").headers.get("Authorization") or _basic(peer.auth))
        out = tmp_path / "out"
        arguments = (studies(tmp_path, "1.2.9"), "--out", out, "--dicomweb", peer.dicomweb)
        told = run(*arguments, "--authorization-file", secret, code=1)
        assert "4 listed: 3 scored (0 refused), 0 done before, 0 twice, 1 not reached" in told
        assert {row["site"] for row in rows(out)} == {"north"}
        assert {row["day"] for row in rows(out)} == {date(2026, 1, day) for day in (1, 2, 3)}
        assert {place: row["code"] for place, row in failed(out).items()} == {"studies/1.2.9": "not_reached"}
        before = rows(out)
        assert "3 done before" in run(*arguments, "--authorization-file", secret, code=1)
        assert rows(out) == before
        run(studies(tmp_path), "--out", tmp_path / "nobody", "--dicomweb", peer.dicomweb, code=1)
        assert {row["reason"].partition("(")[2][:8] for row in failed(tmp_path / "nobody").values()} == {"HTTP 401"}


def _basic(auth):
    import base64

    return "Basic " + base64.b64encode(":".join(auth).encode()).decode()


def test_studies_are_sent_by_c_move(tmp_path):
    port = free_port()
    with orthanc(tmp_path / "orthanc", modalities={"archive": ("ARCHIVE", port)}) as peer:
        fill(peer)
        arguments = ("--pacs", f"ORTHANC@127.0.0.1:{peer.dicom_port}", "--receive", f"ARCHIVE@127.0.0.1:{port}")
        out = tmp_path / "out"
        told = run(studies(tmp_path, "1.2.9"), "--out", out, *arguments, code=1)
        assert "4 listed: 3 scored (0 refused), 0 done before, 0 twice, 1 not reached" in told
        assert len({row["input"] for row in rows(out)}) == 3
        assert "3 done before" in run(studies(tmp_path), "--out", out, *arguments)


def test_an_archive_that_is_away_is_a_line_for_each_study(tmp_path):
    port = free_port()
    (tmp_path / "a").mkdir()
    run(studies(tmp_path), "--out", tmp_path / "a", "--dicomweb", f"http://127.0.0.1:{port}/dicom-web", code=1)
    assert {row["code"] for row in failed(tmp_path / "a").values()} == {"not_reached"}
    source = Pacs(studies(tmp_path), Address("PACS", "127.0.0.1", port), Address("ME", "127.0.0.1", free_port()), {})
    cases = list(source.cases())
    assert [case.place for case in cases] == STUDIES
    with pytest.raises(Refused) as refused:
        source.read(cases[0].files[0])
    assert (refused.value.problem.code, refused.value.problem.found) == ("not_reached", "A-ASSOCIATE")


@pytest.mark.parametrize("text", ["PACS", "PACS@host", "PACS@host:0", "@host:104", f"{'A' * 17}@host:104"])
def test_an_address_of_another_form_is_refused(text):
    with pytest.raises(BadSource, match="AE_TITLE@HOST:PORT"):
        Address.of(text)


def test_a_body_of_one_part_is_taken_apart_and_any_other_is_not():
    part = b"--x\r\nContent-Type: application/dicom\r\n\r\n%s\r\n"
    kind = 'multipart/related; type="application/dicom"; boundary="x"'
    assert only_part(part % b"one\r\ntwo" + b"--x--\r\n", kind) == b"one\r\ntwo"
    assert only_part(b"bare", "application/dicom") == b"bare"
    two = part % b"a" + part % b"b" + b"--x--"
    for body, said in ((two, kind), (b"", kind), (part % b"a", kind), (b"a", "text/html")):
        with pytest.raises(Refused):
            only_part(body, said)


def test_an_address_with_a_password_is_refused_and_not_repeated(tmp_path):
    told = run(studies(tmp_path), "--out", tmp_path / "out", "--dicomweb", "http://me:secret@127.0.0.1:9/", code=2)
    assert "--authorization-file" in told
    assert "secret" not in told
