"""The checks before training: what stops a cohort, what is only said, and that each names its rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from scipy.ndimage import gaussian_filter

from training.cohorts.checks import check_cohort
from training.cohorts.inputs import Inputs, load_inputs
from training.cohorts.likeness import appearance, auc_of_appearance, cramers_v, similar_pairs
from training.cohorts.table import load_table
from training.cohorts.verdicts import Check, doubts, report, unusable
from training.figures.prospects import main

SOURCE = {"citation": "made up", "licence": "none"}
COLUMNS = {"person": "patient", "file": "image", "age_years": "age", "sex": "sex", "view": "view", "split": "part"}


def film(seed: int) -> Image.Image:
    """A picture unlike any other: blots of many sizes."""
    rng = np.random.default_rng(seed)
    blots = [Image.fromarray(rng.standard_normal((s, s)).astype(np.float32)) for s in (4, 8, 16, 32, 64, 128)]
    picture = sum(np.asarray(blot.resize((256, 256), Image.Resampling.BILINEAR)) for blot in blots)
    return Image.fromarray(np.clip(128 + 25 * np.asarray(picture), 0, 255).astype(np.uint8))


def made(folder: Path, n: int = 40) -> pd.DataFrame:
    """A sound cohort: half train, a quarter validates, a quarter tests; label, view and sex have no tie."""
    (folder / "films").mkdir()
    rows = []
    for i in range(n):
        film(i).save(folder / "films" / f"case{i:02}.png")
        part = "train" if i < n // 2 else "validation" if i < 3 * n // 4 else "test"
        rows.append(
            {
                "patient": f"P{i:03}",
                "image": f"case{i:02}.png",
                "age": str(30 + i),
                "sex": "FM"[i // 2 % 2],
                "view": ("PA", "AP")[i // 4 % 2],
                "part": part,
                "Pneumonia": str(i % 2),
                "spare": "x",
            }
        )
    return pd.DataFrame(rows)


def write(folder: Path, table: pd.DataFrame, **manifest: Any) -> Path:
    table.to_csv(folder / "films.csv", index=False)
    document = {
        "name": "made-up",
        "modality": "cxr",
        "table": "films.csv",
        "files": "films",
        "columns": COLUMNS,
        "labels": {"pneumonia": "Pneumonia"},
        "site": "one hospital",
        "source": SOURCE,
        **manifest,
    }
    path = folder / "cohort.yaml"
    path.write_text(yaml.safe_dump({k: v for k, v in document.items() if v is not None}))
    return path


def checked(path: Path) -> tuple[list[Check], Inputs]:
    table = load_table(path)
    inputs = load_inputs(table, progress=False)
    return check_cohort(table, inputs), inputs


def named(checks: list[Check], name: str) -> Check:
    found = [check for check in checks if check.name == name]
    assert len(found) == 1, (name, [(c.name, c.message) for c in checks])
    return found[0]


def test_a_sound_cohort_passes_with_its_doubts(tmp_path: Path) -> None:
    checks, inputs = checked(write(tmp_path, made(tmp_path)))
    assert not unusable(checks), report(checks, load_table(tmp_path / "cohort.yaml"))
    assert inputs.x.shape == (40, 1, 224, 224)
    assert inputs.readable.all()
    counts = named(checks, "class counts")  # five of each in validation
    assert counts.verdict == "doubtful"
    assert counts.figure == 5
    assert doubts(checks) == (f"class counts: {counts.message}",)
    assert named(checks, "columns").names == ("spare",)


def planted(folder: Path) -> Path:
    """The sound cohort with five faults, as newcomers make them."""
    table = made(folder)
    content = (folder / "films" / "case06.png").read_bytes()
    (folder / "films" / "case06.png").write_bytes(content[: len(content) // 3])  # row 8: unreadable
    table.loc[31, "patient"] = "P003"  # rows 5 and 33: one person trains and tests
    film(12).resize((300, 300)).save(folder / "films" / "case25.jpg", quality=80)  # rows 14 and 27: one picture
    table.loc[25, "image"] = "case25.jpg"
    table.loc[17, "Pneumonia"] = "2"  # row 19: no label
    table["view"] = ["AP" if y == "1" else "PA" for y in table.Pneumonia]  # the view is the label
    return write(folder, table)


def test_five_planted_faults_are_all_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = planted(tmp_path)
    checks, _ = checked(path)

    faults = {check.name: check for check in checks if check.verdict == "unusable"}
    assert set(faults) == {
        "unreadable files",
        "person in two splits",
        "duplicate across splits",
        "label values",
        "label by view",
    } | {"contradictory labels"}  # the copy carries the other label
    assert faults["unreadable files"].rows == (8,)
    assert faults["unreadable files"].names == ("case06.png",)
    assert "truncated" in faults["unreadable files"].message or "unreadable" in faults["unreadable files"].message
    assert faults["person in two splits"].rows == (5, 33)
    assert faults["person in two splits"].names == ("P003",)
    assert faults["duplicate across splits"].rows == (14, 27)
    assert "14 = 27" in faults["duplicate across splits"].message
    assert faults["label values"].rows == (19,)
    assert "found 2" in faults["label values"].message
    assert faults["label by view"].figure == pytest.approx(1.0, abs=0.01)
    assert "100% of the negatives" in faults["label by view"].message
    assert len(faults["label by view"].rows) > 15

    assert main(["--cohort", str(path), "--quiet"]) == 2
    printed = capsys.readouterr().out
    for name in faults:
        assert name in printed
    assert "8 (case06.png)" in printed
    assert "UNUSABLE" in printed


def test_the_command_passes_a_sound_cohort_and_says_what_is_wrong_with_a_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, made(tmp_path))
    assert main(["--cohort", str(path), "--quiet"]) == 0
    assert "usable (0 unusable" in capsys.readouterr().out
    assert main(["--cohort", str(write(tmp_path, pd.DataFrame({"a": ["1"]}))), "--quiet"]) == 2
    assert "no column 'patient'" in capsys.readouterr().out
    path.write_text("name: [")
    assert main(["--cohort", str(path)]) == 2
    assert "not YAML" in capsys.readouterr().out


def test_other_faults_of_a_table(tmp_path: Path) -> None:
    table = made(tmp_path)
    table.loc[2, "image"] = "nowhere.png"
    table.loc[3, "image"] = "../films.csv"
    table.loc[4, "age"] = "214"
    table.loc[5, "age"] = "old"
    table.loc[6, "sex"] = "W"
    table.loc[7, "part"] = "dev"
    table.loc[8, "part"] = ""
    table.loc[9, "patient"] = ""
    table["day"] = "2025-03-01"
    table.loc[10, "day"] = "3/1/25"
    table.loc[11, "day"] = "2199-01-01"
    table["Effusion"] = "0"
    columns = COLUMNS | {"made_on": "day", "device": "station"}
    labels = {"pneumonia": "Pneumonia", "effusion": "Effusion"}
    path = write(tmp_path, table, columns=columns, labels=labels, age_years=[18, 90])
    checks, inputs = checked(path)
    found = {(c.name, c.verdict, c.rows) for c in checks}
    for expected in (
        ("missing files", "unusable", (4, 5)),
        ("implausible ages", "unusable", (6, 7)),
        ("sexes", "doubtful", (8,)),
        ("splits", "unusable", (9,)),
        ("splits", "doubtful", (10,)),
        ("persons", "unusable", (11,)),
        ("dates", "doubtful", (12,)),
        ("dates", "doubtful", (13,)),
        ("constant label", "doubtful", ()),
        ("columns", "unusable", ()),
    ):
        assert expected in found, (expected, found)
    assert not inputs.readable[[2, 3]].any()
    loaded = load_table(path)
    assert loaded.frame.part[7] == loaded.frame.part[8] == "unused"
    assert np.isnan(loaded.frame.age_years[5])
    assert loaded.frame.sex[6] is None


def test_ages_say_whom_a_finding_is_offered_for(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = made(tmp_path)
    found = named(checked(write(tmp_path, table))[0], "ages")
    assert found.verdict == "ok"
    assert "30 to 70" in found.message

    unsaid = {key: column for key, column in COLUMNS.items() if key != "age_years"}
    path = write(tmp_path, table, columns=unsaid)
    assert named(checked(path)[0], "ages").verdict == "unusable"
    assert main(["--cohort", str(path), "--quiet"]) == 2
    assert "add `age_years: [from, to]`" in " ".join(capsys.readouterr().out.split())
    empty = write(tmp_path, table.assign(age=""))
    assert named(checked(empty)[0], "ages").verdict == "unusable"
    stated = named(checked(write(tmp_path, table, columns=unsaid, age_years=[18, 90]))[0], "ages")
    assert stated.verdict == "doubtful"

    table.loc[0, "age"] = "4"  # one child among adults
    table.loc[1, "age"] = ""
    found = named(checked(write(tmp_path, table))[0], "ages")
    assert found.verdict == "doubtful"
    assert "4 to 70" in found.message
    assert "1 are under 18 years, 0 of them in test" in found.message
    assert "the age is unknown in 1 of 40" in found.message


def test_cases_of_ages_that_are_not_offered_do_not_count(tmp_path: Path) -> None:
    table = made(tmp_path)
    checks, _ = checked(write(tmp_path, table, age_years=[18, 63]))  # the last seven, of ten, in test are older
    assert "7 outside it are left out of validation and test" in named(checks, "ages").message
    counts = named(checks, "class counts")
    assert counts.verdict == "unusable"
    assert "test 1 positive, 2 negative" in counts.message


def test_class_counts(tmp_path: Path) -> None:
    table = made(tmp_path)
    table.loc[table.part == "test", "Pneumonia"] = "0"
    table.loc[39, "Pneumonia"] = "1"
    counts = named(checked(write(tmp_path, table))[0], "class counts")
    assert counts.verdict == "unusable"
    assert counts.figure == 1
    assert "test 1 positive, 9 negative" in counts.message


def test_one_picture_under_two_persons_and_with_two_labels(tmp_path: Path) -> None:
    table = made(tmp_path)
    table.loc[4, "image"] = table.loc[2, "image"]
    table.loc[7, "image"] = table.loc[2, "image"]
    checks, _ = checked(write(tmp_path, table))
    persons = named(checks, "duplicate across persons")
    assert persons.verdict == "doubtful"
    assert persons.rows == (4, 6, 9)
    against = named(checks, "contradictory labels")
    assert against.verdict == "unusable"
    assert "4 ≠ 9" in against.message
    assert "6 ≠ 9" in against.message


def test_copies_are_found_and_other_pictures_are_not() -> None:
    base = np.stack([np.asarray(film(i).resize((224, 224)))[None] for i in range(60)])
    darker = (base[:20] * 0.8).astype(np.uint8)
    pairs = similar_pairs(np.concatenate([base, darker]), np.arange(80))
    assert {(i, j) for i, j, _ in pairs} == {(i, 60 + i) for i in range(20)}


def test_a_recording_is_found_again() -> None:
    rng = np.random.default_rng(5)
    x = gaussian_filter(rng.standard_normal((50, 12, 1000)), (0, 0, 3)).astype(np.float32)
    x /= x.std(axis=2, keepdims=True)
    again = x[7] + 0.02 * rng.standard_normal((12, 1000)).astype(np.float32)
    assert [(i, j) for i, j, _ in similar_pairs(np.concatenate([x, again[None]]), np.arange(51))] == [(7, 50)]
    assert appearance(x).shape == (50, 120)


def test_figures_of_association() -> None:
    y = np.tile([0.0, 1.0], 100)
    assert cramers_v(y, np.where(y == 1, "AP", "PA").astype(object)) == (pytest.approx(1.0), pytest.approx(0, abs=1e-9))
    v, p = cramers_v(y, np.repeat(["a", "b", "c", "d"], 50).astype(object))
    assert v == 0
    assert p == pytest.approx(1)
    rng = np.random.default_rng(1)
    look = rng.standard_normal((200, 256))
    person = np.arange(200).astype(str)
    assert auc_of_appearance(look, y, person) == pytest.approx(0.5, abs=0.12)
    assert auc_of_appearance(look + 0.4 * y[:, None], y, person) > 0.9
    # Looks that belong to the person, not to the label, tell nothing about a person who was not seen.
    of_person = np.repeat(rng.standard_normal((120, 256)), 4, axis=0)
    label = np.repeat(rng.permutation(np.arange(120) % 2), 4).astype(float)
    assert auc_of_appearance(of_person, label, np.repeat(np.arange(120), 4).astype(str)) == pytest.approx(0.5, abs=0.15)
    assert auc_of_appearance(look[:12], y[:12], person[:12]) is None


# ---------------------------------------------------------------- real films


def test_the_view_confound_of_nih_has_its_figure(tmp_path: Path, shared_data: Path) -> None:
    nih = pd.read_csv(shared_data / "cxr/nih/labels.csv", dtype=str)
    nih["abnormal"] = (nih.finding_labels != "No Finding").astype(int)
    columns = {"person": "patient_id", "file": "image", "age_years": "age", "sex": "sex", "view": "view"}
    files = str(shared_data / "cxr/nih/images")
    path = write(tmp_path, nih, columns=columns, labels={"abnormal": "abnormal"}, files=files, site="Bethesda")
    checks, inputs = checked(path)
    view = named(checks, "label by view")
    assert view.verdict == "doubtful"
    assert view.figure == pytest.approx(0.21, abs=0.01)
    assert "AP in 66% of the negatives and 45% of the positives" in view.message
    assert inputs.readable.all()
    assert not unusable(checks)
    assert any("label by view" in doubt for doubt in doubts(checks))
    assert named(checks, "duplicate").rows == (278, 279)  # one film that the collection holds twice


@pytest.fixture
def two_collections(shared_data: Path) -> pd.DataFrame:
    nih = pd.read_csv(shared_data / "cxr/nih/labels.csv", dtype=str)
    negative = nih[nih.finding_labels == "No Finding"].sample(150, random_state=1)
    positive = pd.read_csv(shared_data / "cxr/tb/labels.csv", dtype=str).sample(150, random_state=1)
    return pd.concat(
        [
            pd.DataFrame({"patient": negative.patient_id, "image": "nih/images/" + negative.image, "tb": "0"}),
            pd.DataFrame({"patient": positive.image, "image": "tb/images/" + positive.image, "tb": "1"}),
        ]
    ).assign(hospital=["nih"] * 150 + ["tbx11k"] * 150)


@pytest.mark.parametrize("said", [True, False])
def test_positives_of_one_collection_and_negatives_of_another_are_stopped(
    tmp_path: Path, shared_data: Path, two_collections: pd.DataFrame, said: bool
) -> None:
    columns = {"person": "patient", "file": "image"} | ({"site": "hospital"} if said else {})
    files, labels = str(shared_data / "cxr"), {"tuberculosis": "tb"}
    checks, _ = checked(write(tmp_path, two_collections, columns=columns, labels=labels, files=files, site=None))
    look = named(checks, "label by look")
    assert look.verdict == "unusable"
    assert look.figure is not None
    assert look.figure >= 0.95
    assert len(look.rows) == 150
    if said:
        assert "explain 100% of the label" in look.message
        site = named(checks, "label by site")
        assert site.verdict == "unusable"
        assert site.figure == pytest.approx(1.0)
    else:
        assert "The site of the cases is not stated" in look.message


@pytest.mark.parametrize("said", [True, False])
def test_a_disease_that_shows_at_a_glance_is_not_stopped_in_one_hospital(
    tmp_path: Path, shared_data: Path, said: bool
) -> None:
    films = pd.read_csv(shared_data / "cxr/kermany/labels.csv", dtype=str)
    films = films[films.split == "train"].sample(400, random_state=1)
    path = write(
        tmp_path,
        films,
        columns={"person": "group_id", "file": "path"},
        labels={"pneumonia": "pneumonia"},
        files=str(shared_data / "cxr/kermany"),
        site="Guangzhou" if said else None,
        age_years=[1, 6],
    )
    checks, _ = checked(path)
    look = named(checks, "label by look")
    assert look.figure is not None
    assert look.figure >= 0.95
    # Its look is as telling as that of two collections joined: only the stated site tells the two apart.
    assert look.verdict == ("doubtful" if said else "unusable")
    assert unusable(checks) != said
    if not said:
        assert "site: …" in look.message


def test_two_sites_with_both_labels_each_are_not_stopped(tmp_path: Path, shared_data: Path) -> None:
    nih = pd.read_csv(shared_data / "cxr/nih/labels.csv", dtype=str)
    kermany = pd.read_csv(shared_data / "cxr/kermany/labels.csv", dtype=str)
    kermany = kermany[kermany.split == "train"].groupby("pneumonia").sample(100, random_state=1)
    nih = nih.assign(y=nih.Pneumonia).groupby("y").sample(100, random_state=1)
    table = pd.concat(
        [
            pd.DataFrame({"patient": nih.patient_id, "image": "nih/images/" + nih.image, "y": nih.y}),
            pd.DataFrame({"patient": kermany.group_id, "image": "kermany/" + kermany.path, "y": kermany.pneumonia}),
        ]
    ).assign(hospital=["b"] * 200 + ["g"] * 200)
    columns = {"person": "patient", "file": "image", "site": "hospital"}
    path = write(tmp_path, table, columns=columns, labels={"pneumonia": "y"}, files=str(shared_data / "cxr"), site=None)
    checks, _ = checked(path)
    assert not [c for c in checks if c.name == "label by site"]
    assert named(checks, "label by look").verdict != "unusable"
