"""``python -m models certify``: the sample is read as it stands in a real database, and the log says what follows."""

from __future__ import annotations

import csv
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from data_specs.planning.normals import in_sample
from data_specs.visit.assessment import AssessedOrgan, Assessment, FoundFinding
from data_specs.visit.context import Context, Person
from data_specs.visit.contract import ModelUsed
from data_specs.visit.opinion import Author, Judgement, Opinion
from inference.bundles.registry import read_registry
from models.__main__ import main
from models.registry import promote
from service.storage.tables import Base, OpinionRow, OutcomeRow, SampleKeyRow, VisitRow
from tests.models.versions import for_triage, shipped, version

SITE, FINDING = "xã Một", "abnormal (18-85)"
SIGNED = ["--who", "the screening lead", "--why", "a test"]
AT = datetime.now(UTC) - timedelta(days=1)
KEY = 32 * "ab"
AUTHOR = Author(id="S-1", name="S", facility="tỉnh", role="specialist")


@pytest.fixture(scope="module")
def shipped_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shipped(tmp_path_factory.mktemp("shipped"), "lung", edit=for_triage)


@pytest.fixture
def bundles(tmp_path: Path, shipped_once: Path) -> Path:
    folder = tmp_path / "bundles"
    folder.mkdir()
    (folder / "lung-1.0.0").symlink_to(shipped_once / "lung-1.0.0")
    return folder


def scores(path: Path, events: int, *, normal: int = 1500) -> Path:
    with path.open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("person", "probability", "outcome"))
        lines.writerows((f"e{i}", 0.5 + i / 1000, "confirmed") for i in range(events))
        lines.writerows((f"n{i}", i / 4000, "refuted") for i in range(normal))
    return path


def certify(bundles: Path, *more: str) -> int:
    return main(["--bundles", str(bundles), "certify", "lung", "--site", SITE, "--finding", FINDING, *SIGNED, *more])


def held(bundles: Path):
    return read_registry(bundles).certified("lung", SITE, datetime.now(UTC))


def test_a_certificate_is_a_line_of_the_log(tmp_path: Path, bundles: Path, capsys) -> None:
    assert certify(bundles, "--scores", str(scores(tmp_path / "s.csv", 100))) == 0
    entry = held(bundles)
    assert entry.certificate.thresholds == {"all": 0.501}
    assert entry.certificate.groups == ()
    assert (entry.certificate.persons, entry.certificate.events) == (1600, 100)
    assert entry.certificate.age_years == (18, 86)
    assert entry.cases
    said = capsys.readouterr().out
    assert "of 1,000 persons with a finding at most 50 are released" in said
    assert "of 1,000 persons released at most" in said
    assert main(["--bundles", str(bundles), "show", "lung", "1.0.0"]) == 0
    assert f"certify by {SITE}" in capsys.readouterr().out


def test_a_server_of_before_does_not_know_the_line_and_reads_the_others(tmp_path: Path, bundles: Path) -> None:
    assert certify(bundles, "--scores", str(scores(tmp_path / "s.csv", 100))) == 0
    (line,) = [json.loads(line) for line in (bundles / "registry.jsonl").read_text().splitlines()]
    assert line["action"] == "certify"
    assert {"verdicts", "thresholds"}.isdisjoint(line)


def test_too_few_events_say_how_many_are_needed_and_log_nothing(tmp_path: Path, bundles: Path, capsys) -> None:
    assert certify(bundles, "--scores", str(scores(tmp_path / "s.csv", 40))) == 1
    assert "too few to certify: each group needs 59 persons with a finding; all has 40" in capsys.readouterr().err
    assert held(bundles) is None


def test_too_many_of_those_released_might_have_a_finding(tmp_path: Path, bundles: Path, capsys) -> None:
    cases = str(scores(tmp_path / "s.csv", 100, normal=100))
    assert certify(bundles, "--scores", cases) == 1
    assert "of 1,000 persons released up to" in capsys.readouterr().err
    assert certify(bundles, "--scores", cases, "--prevalence", "10/1000") == 0


def test_dry_run_logs_nothing(tmp_path: Path, bundles: Path, capsys) -> None:
    assert certify(bundles, "--scores", str(scores(tmp_path / "s.csv", 100)), "--dry-run") == 0
    assert "It would be certified" in capsys.readouterr().out
    assert held(bundles) is None


def test_it_dies_with_its_version_its_acceptance_its_term_and_its_end(tmp_path: Path, bundles: Path) -> None:
    cases = str(scores(tmp_path / "s.csv", 100))
    assert certify(bundles, "--scores", cases) == 0
    entry = held(bundles)
    later = entry.certificate.expires
    assert read_registry(bundles).certified("lung", SITE, later) is None
    assert read_registry(bundles).certified("lung", "xã Hai", datetime.now(UTC)) is None
    accepted = entry.model_copy(
        update={"action": "accept", "certificate": None, "verdicts": {FINDING: "fit for triage"}}
    )
    log = bundles / "registry.jsonl"
    before = log.read_text()
    log.write_text(before + accepted.model_dump_json(by_alias=True, exclude={"certificate"}) + "\n")
    assert held(bundles) is None
    log.write_text(before)
    assert held(bundles) is not None
    assert certify(bundles, "--end") == 0
    assert held(bundles) is None
    assert certify(bundles, "--end") == 1


def test_another_version_in_service_has_no_certificate(tmp_path: Path, bundles: Path) -> None:
    assert certify(bundles, "--scores", str(scores(tmp_path / "s.csv", 100))) == 0
    version(bundles, "lung", "1.1.0")
    promote(bundles, "lung", "1.1.0", who="w", why="y", override="a test")
    assert held(bundles) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("person,probability\n", "no column"),
        ("person,probability,outcome\nA,1.5,1\n", "'probability' in line 2"),
        ("person,probability,outcome\nA,0.5,maybe\n", "'outcome' in line 2"),
        ("person,probability,outcome\n,0.5,1\n", "'person' in line 2"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path: Path, bundles: Path, content: str, said: str, capsys) -> None:
    file = tmp_path / "s.csv"
    file.write_text(content)
    assert certify(bundles, "--scores", str(file)) == 2
    assert said in capsys.readouterr().err


# ---------------------------------------------------------------- the random tenth
def database(folder: Path, readings: list[str | None], *, probability: float = 0.1) -> str:
    """Visits of which the drawn ones are read so: normal, abnormal, seen (not blind), outcome, or not at all."""
    address = f"sqlite:///{folder / 'sangloc.db'}"
    engine = create_engine(address)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add(SampleKeyRow(id=1, key=KEY))
        drawn = (each for i in range(100_000) if in_sample(bytes.fromhex(KEY), each := f"visit-{i}"))
        not_drawn = (each for i in range(100_000) if not in_sample(bytes.fromhex(KEY), each := f"visit-{i}"))
        for reading, visit, other in zip(readings, drawn, not_drawn, strict=False):
            _add(session, visit, reading, probability)
            _add(session, other, "abnormal", 0.001)  # would change everything if it counted
        session.commit()
    engine.dispose()
    return address


def _add(session: Session, visit: str, reading: str | None, probability: float) -> None:
    found = FoundFinding(name="abnormal", probability=0.9 if reading in ("abnormal", "outcome") else probability)
    organs = {"lung": AssessedOrgan(status="assessed", findings=[found])}
    used = ModelUsed(name="lung", version="1.0.0", sha256="0" * 64)
    assessment = Assessment(organs=organs, inputs=[], models=[used], priority="routine", next_steps=[])
    context = Context(person=Person(sex="female", age_years=50))
    row = VisitRow(id=visit, site=SITE, key_id="k", context=context.model_dump_json(), status="complete",
                   received_at=AT, body_hash="0" * 64, assessment=assessment.model_dump_json())  # fmt: skip
    session.add(row)
    if reading in ("normal", "abnormal", "seen"):
        judged = (Judgement(finding="nodule", verdict="add"),) if reading == "abnormal" else ()
        opinion = Opinion(number=1, author=AUTHOR, signed_at=AT, judgements=judged, blind=reading != "seen")
        session.add(OpinionRow(visit_id=visit, number=1, key_id="k", role="specialist", signed_at=AT,
                               opinion=opinion.model_dump_json()))  # fmt: skip
    if reading == "outcome":
        session.add(OutcomeRow(id=f"{visit}-o", visit_id=visit, finding="abnormal", outcome="confirmed", source="",
                               key_id="k", recorded_at=AT))  # fmt: skip


def test_the_random_tenth_is_read_from_the_database(tmp_path: Path, bundles: Path, capsys) -> None:
    read = ["abnormal"] * 110 + ["outcome"] * 5 + ["normal"] * 600
    address = database(tmp_path, [*read, "seen"])
    more = ("--prevalence", "24/8000")
    assert certify(bundles, "--database", address, *more, "--dry-run") == 0
    assert "715 cases read, 1 not read" in capsys.readouterr().out
    assert certify(bundles, "--database", address, *more) == 0
    assert held(bundles).certificate.groups == ("age", "device", "sex")
    assert set(held(bundles).certificate.thresholds) == {"all", "sex female", "age 41-60", "device not stated"}


def test_a_sample_that_is_hardly_read_certifies_nothing(tmp_path: Path, bundles: Path, capsys) -> None:
    address = database(tmp_path, ["abnormal"] * 150 + ["normal"] * 600 + ["seen"] * 60 + [None] * 10)
    assert certify(bundles, "--database", address, "--unread", "--prevalence", "24/8000") == 1
    printed = capsys.readouterr()
    assert "70 of 820 visits of the sample have neither a blind reading nor an outcome" in printed.err
    assert printed.out.count("\n  visit-") == 70


def test_the_key_is_made_where_nothing_has_been_drawn_yet(tmp_path: Path, bundles: Path) -> None:
    address = database(tmp_path, [])
    engine = create_engine(address)
    with engine.begin() as connection:
        connection.execute(SampleKeyRow.__table__.delete())
    assert certify(bundles, "--database", address) == 1
    with engine.connect() as connection:
        (key,) = connection.scalars(select(SampleKeyRow.key)).all()
    assert len(bytes.fromhex(key)) == 32
    engine.dispose()
