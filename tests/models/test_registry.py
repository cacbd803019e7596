"""The registry on real bundles: what is promoted, what is refused and why, and a log that survives its writers."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from inference.bundles.deciding import NotDone, deciding
from inference.bundles.registry import LOG, read_log, read_registry
from models.__main__ import main
from models.compare import Comparison, FindingAnswer, Pair
from models.registry import promote, rollback, set_shadow
from tests.conftest import ROOT
from tests.models.versions import figures, shipped, version

SIGNED = {"who": "the screening lead", "why": "a test"}
COHORT = "adults, test persons"
AUROC = (COHORT, "all", "auroc", 0.85, 0.80, 0.90, 200, 90)


@pytest.fixture
def kidney(tmp_path: Path) -> Path:
    """One small bundle in two versions that differ in nothing but their number."""
    shipped(tmp_path, "kidney")
    version(tmp_path, "kidney", "1.1.0")
    return tmp_path


def log(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


def test_without_a_log_the_highest_version_is_in_service(kidney: Path) -> None:
    version(kidney, "kidney", "1.10.0")
    registry = read_registry(kidney)
    assert registry.versions == {"kidney": ("1.0.0", "1.1.0", "1.10.0")}
    assert (registry.in_service("kidney"), registry.previous("kidney")) == ("1.10.0", "1.1.0")


def test_a_promotion_is_logged_with_who_when_why_from_and_to(kidney: Path) -> None:
    entry, _ = promote(kidney, "kidney", "1.1.0", **SIGNED)
    (line,) = log(kidney)
    assert {k: line[k] for k in ("action", "name", "from", "to", "who", "why", "override")} == {
        "action": "promote", "name": "kidney", "from": "1.0.0", "to": "1.1.0", **SIGNED, "override": None,
    }  # fmt: skip
    assert str(line["at"]).startswith(f"{entry.at:%Y-%m-%dT%H:%M}")
    with pytest.raises(NotDone, match="in service already"):
        promote(kidney, "kidney", "1.1.0", **SIGNED)


def test_rollbacks_walk_back_over_the_promotions(kidney: Path) -> None:
    version(kidney, "kidney", "1.2.0")
    promote(kidney, "kidney", "1.0.0", **SIGNED)
    for number in ("1.1.0", "1.2.0"):
        promote(kidney, "kidney", number, **SIGNED)
    assert rollback(kidney, "kidney", **SIGNED).to_version == "1.1.0"
    assert rollback(kidney, "kidney", **SIGNED).to_version == "1.0.0"
    assert read_registry(kidney).in_service("kidney") == "1.0.0"
    promote(kidney, "kidney", "1.2.0", **SIGNED)
    assert rollback(kidney, "kidney", **SIGNED).to_version == "1.0.0"


def test_a_rollback_before_any_line_goes_to_the_version_below(kidney: Path) -> None:
    assert rollback(kidney, "kidney", **SIGNED).to_version == "1.0.0"
    registry = read_registry(kidney)
    assert (registry.in_service("kidney"), registry.previous("kidney")) == ("1.0.0", None)
    with pytest.raises(NotDone, match=r"no version before 1\.0\.0"):
        rollback(kidney, "kidney", **SIGNED)


def test_a_shadow_is_another_version_and_ends_when_it_is_promoted(kidney: Path) -> None:
    with pytest.raises(NotDone, match="roll back first"):
        set_shadow(kidney, "kidney", "1.1.0", **SIGNED)
    rollback(kidney, "kidney", **SIGNED)
    set_shadow(kidney, "kidney", "1.1.0", **SIGNED)
    assert (read_registry(kidney).in_service("kidney"), read_registry(kidney).shadow("kidney")) == ("1.0.0", "1.1.0")
    set_shadow(kidney, "kidney", None, **SIGNED)
    assert read_registry(kidney).shadow("kidney") is None
    set_shadow(kidney, "kidney", "1.1.0", **SIGNED)
    promote(kidney, "kidney", "1.1.0", **SIGNED)
    assert read_registry(kidney).shadow("kidney") is None


@pytest.mark.parametrize("fault", ["weights", "golden", "tolerance", "number", "input", "missing"])
def test_what_a_server_would_not_take_no_override_promotes(kidney: Path, fault: str) -> None:
    new = kidney / "kidney-1.1.0"
    manifest = json.loads((new / "screening.json").read_text())
    said = fault
    if fault == "weights":
        content = (new / "models/model.onnx").read_bytes()
        (new / "models/model.onnx").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        said = "model.onnx is not the file"
    elif fault == "golden":
        with np.load(new / "golden.npz") as golden:
            arrays = dict(golden)
        arrays["values"][0, 0] += 0.01
        np.savez_compressed(new / "golden.npz", **arrays)
        manifest["golden"]["sha256"] = hashlib.sha256((new / "golden.npz").read_bytes()).hexdigest()
        said = "golden cases differ"
    elif fault == "tolerance":
        manifest["golden"]["tolerance"] = 0.1
        said = "golden cases may differ"
    elif fault == "number":
        manifest["version"] = "1.1.1"
        said = "the manifest in it is that of kidney 1.1.1"
    elif fault == "input":
        manifest["input"] = {"modality": "cxr", "size_px": 224}
        said = "takes cxr"
    (new / "screening.json").write_text(json.dumps(manifest))
    number = "1.3.0" if fault == "missing" else "1.1.0"
    said = "1.3.0 is not there" if fault == "missing" else said
    with pytest.raises(NotDone, match=said) as refusal:
        promote(kidney, "kidney", number, **SIGNED, override="it is urgent")
    assert refusal.value.final
    assert read_log(kidney) == ((), ())


def lung(folder: Path, old: list[tuple], new: list[tuple]) -> Path:
    """Two versions of the film bundle whose ``abnormal`` carries these figures."""
    shipped(folder, "lung", edit=figures("abnormal", *old))
    version(folder, "lung", "1.1.0", figures("abnormal", *new))
    return folder


@pytest.mark.parametrize(("value", "refused"), [(0.801, False), (0.80, False), (0.799, True)])
def test_an_auroc_below_the_interval_in_service_is_refused_with_the_figures(
    tmp_path: Path, value: float, refused: bool
) -> None:
    lung(tmp_path, [AUROC], [(COHORT, "all", "auroc", value, 0.7, 0.9, 200, 90)])
    if not refused:
        promote(tmp_path, "lung", "1.1.0", **SIGNED)
        return
    with pytest.raises(NotDone) as refusal:
        promote(tmp_path, "lung", "1.1.0", **SIGNED)
    (reason,) = refusal.value.reasons
    assert all(said in reason for said in ("abnormal (18-85)", "0.799", "0.850 (0.800 to 0.900)", COHORT))
    assert read_registry(tmp_path).entries == ()


def sensitivity(group: str, value: float, positives: int = 40) -> tuple:
    return (COHORT, group, "sensitivity@screening", value, value - 0.1, min(1.0, value + 0.1), 80, positives)


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        (sensitivity("view AP", 0.95), sensitivity("view AP", 0.90), "view AP: 0.950 before, 0.900 now, 5.0 points"),
        (sensitivity("view AP", 0.95), sensitivity("sex F", 0.95), "view AP: 0.950 before, not shown now"),
        (sensitivity("view AP", 0.95), sensitivity("view AP", 0.93), None),
        (sensitivity("view AP", 0.95, 9), sensitivity("view AP", 0.50, 9), None),
    ],
    ids=["lost", "hidden", "two points", "too few"],
)
def test_a_planted_loss_of_a_subgroup_is_refused(tmp_path: Path, before: tuple, now: tuple, said: str | None) -> None:
    same = [AUROC, sensitivity("all", 0.95, 90)]
    lung(tmp_path, [*same, before], [*same, now])
    if said is None:
        promote(tmp_path, "lung", "1.1.0", **SIGNED)
        return
    with pytest.raises(NotDone, match=said) as refusal:
        promote(tmp_path, "lung", "1.1.0", **SIGNED)
    assert len(refusal.value.reasons) == 1
    assert not refusal.value.final


def test_an_override_is_logged_with_what_it_overrode(tmp_path: Path) -> None:
    lung(tmp_path, [AUROC, sensitivity("sex F", 0.95)], [AUROC, sensitivity("sex F", 0.80)])
    entry, _ = promote(tmp_path, "lung", "1.1.0", **SIGNED, override="the old films were mislabelled")
    (line,) = log(tmp_path)
    assert line["override"] == "the old films were mislabelled"
    assert "15.0 points lost" in line["overridden"][0]
    assert entry.overridden == tuple(line["overridden"])
    assert read_registry(tmp_path).in_service("lung") == "1.1.0"


def test_an_override_that_nothing_needed_is_not_claimed(kidney: Path) -> None:
    entry, _ = promote(kidney, "kidney", "1.1.0", **SIGNED, override="in case")
    assert (entry.override, entry.overridden) == (None, ())


def test_nothing_in_common_to_compare_on_is_refused(tmp_path: Path) -> None:
    lung(tmp_path, [AUROC], [("elsewhere", *AUROC[1:])])
    with pytest.raises(NotDone, match="no cohort in common: evaluated on adults, test persons; now on elsewhere"):
        promote(tmp_path, "lung", "1.1.0", **SIGNED)


def test_a_finding_that_is_no_longer_offered_is_refused(tmp_path: Path) -> None:
    shipped(tmp_path, "lung")
    version(tmp_path, "lung", "1.1.0", lambda m: m["findings"].pop())
    with pytest.raises(NotDone, match="no longer offered"):
        promote(tmp_path, "lung", "1.1.0", **SIGNED)


def test_a_finding_that_is_withheld_now_is_refused_with_the_reason_that_stands_there(tmp_path: Path) -> None:
    reason = "AUROC 0.640 (0.580 to 0.700) on 220 validation cases, 90 of them positive; its lower bound is too low"

    def withhold(manifest: dict[str, Any]) -> None:
        gone = manifest["findings"].pop()
        manifest["withheld"] = [
            {"name": gone["name"], "cohort": "adults", "reason": reason},
            {"name": "another", "cohort": "adults", "reason": "of no concern here"},
        ]

    shipped(tmp_path, "lung")
    version(tmp_path, "lung", "1.1.0", withhold)
    with pytest.raises(NotDone) as refusal:
        promote(tmp_path, "lung", "1.1.0", **SIGNED)
    (said,) = refusal.value.reasons
    assert said.endswith(f"no longer offered (adults: {reason})")
    assert not refusal.value.final
    promote(tmp_path, "lung", "1.1.0", **SIGNED, override="the old figure was by chance")
    assert reason in str(log(tmp_path)[0]["overridden"])


def imported(manifest: dict[str, Any]) -> None:
    manifest["imported"] = {
        "source": "torchvision", "architecture": "resnet18", "file": "weights.pt", "sha256": "0" * 64,
        "found_in": "", "classes": ["abnormal"], "left_out": [], "licence": "CC BY 4.0",
        "trained_on": "films elsewhere", "citation": "none",
    }  # fmt: skip
    for finding in manifest["findings"]:
        finding["calibration"] = None


def recalibrated(manifest: dict[str, Any]) -> None:
    imported(manifest)
    manifest["findings"][-1]["calibration"] = {"slope": 0.8, "intercept": -1.0}


def test_imported_weights_that_nobody_calibrated_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped(tmp_path, "kidney")
    version(tmp_path, "kidney", "1.1.0", recalibrated)
    promote(tmp_path, "kidney", "1.1.0", **SIGNED)
    # The only version, which is no worse than any; without calibration nothing of it may be served unawares.
    alone = tmp_path / "alone"
    shipped(alone, "kidney", edit=imported)
    with pytest.raises(NotDone, match=r"kidney 1\.0\.0 was imported and is uncalibrated.*recalibrate") as refusal:
        promote(alone, "kidney", "1.0.0", **SIGNED)
    assert not refusal.value.final
    command = ["--bundles", str(alone), "promote", "kidney", "1.0.0", "--who", "w", "--why", "y"]
    assert main(command) == 1
    assert "--override" in capsys.readouterr().err
    promote(alone, "kidney", "1.0.0", **SIGNED, override="a trial on a machine of ours")
    assert "uncalibrated" in str(log(alone)[0]["overridden"])


def test_a_gate_that_refuses_more_real_films_is_refused(tmp_path: Path) -> None:
    name = "not_a_chest_image"
    share = ("real films", "all", f"share with {name}", 0.0, 0.0, 0.006, 624, None)
    made = ("made-up pictures", "all", f"share with {name}", 1.0, 0.99, 1.0, 600, None)
    shipped(tmp_path, "cxr_gate", edit=figures(name, share, made))
    version(tmp_path, "cxr_gate", "1.1.0", figures(name, share, (*made[:3], 0.992, 0.98, 0.999, 600, None)))
    version(tmp_path, "cxr_gate", "1.2.0", figures(name, (*share[:3], 0.02, 0.01, 0.03, 624, None), made))
    promote(tmp_path, "cxr_gate", "1.0.0", **SIGNED)
    promote(tmp_path, "cxr_gate", "1.1.0", **SIGNED)
    with pytest.raises(NotDone, match=r"share with not_a_chest_image 0\.020, beyond the interval"):
        promote(tmp_path, "cxr_gate", "1.2.0", **SIGNED)


def test_a_version_that_was_logged_never_changes(kidney: Path, capsys: pytest.CaptureFixture[str]) -> None:
    promote(kidney, "kidney", "1.0.0", **SIGNED)
    promote(kidney, "kidney", "1.1.0", **SIGNED)
    old = kidney / "kidney-1.0.0" / "screening.json"
    old.write_text(old.read_text().replace('"limits": [', '"limits": ["none at all", '))
    with pytest.raises(NotDone, match="a version never changes"):
        rollback(kidney, "kidney", **SIGNED)
    assert main(["--bundles", str(kidney), "list"]) == 0
    assert "CHANGED since it was logged" in capsys.readouterr().out


def test_a_line_torn_at_any_byte_counts_for_nothing(kidney: Path) -> None:
    promote(kidney, "kidney", "1.0.0", **SIGNED)
    whole = (kidney / LOG).read_bytes()
    promote(kidney, "kidney", "1.1.0", **SIGNED)
    second = (kidney / LOG).read_bytes()[len(whole) :]
    for length in (*range(1, len(second), 37), len(second) - 1):
        (kidney / LOG).write_bytes(whole + second[:length])
        registry = read_registry(kidney)
        assert (registry.in_service("kidney"), registry.damaged) == ("1.0.0", (2,))
    # the longest one lacks nothing but its end: what is written next must not complete it
    set_shadow(kidney, "kidney", "1.1.0", **SIGNED)
    registry = read_registry(kidney)
    assert (registry.in_service("kidney"), registry.shadow("kidney"), registry.damaged) == ("1.0.0", "1.1.0", (2,))


def test_damage_in_the_midst_leaves_the_other_lines(kidney: Path, capsys: pytest.CaptureFixture[str]) -> None:
    promote(kidney, "kidney", "1.0.0", **SIGNED)
    promote(kidney, "kidney", "1.1.0", **SIGNED)
    lines = (kidney / LOG).read_bytes().splitlines(keepends=True)
    (kidney / LOG).write_bytes(lines[0] + b"\xff\x00{}\n" + lines[1])
    assert read_registry(kidney).in_service("kidney") == "1.1.0"
    main(["--bundles", str(kidney), "list"])
    assert "(incomplete or changed): 2" in capsys.readouterr().out


def _toggle(folder: Path, start: object, done: object) -> None:
    start.wait()  # type: ignore[attr-defined]
    for i in range(30):
        with deciding(folder) as (registry, append):
            template = registry.entries[0]
            before = registry.shadow("kidney")
            to = None if before else "1.1.0"
            append(template.model_copy(update={"action": "shadow", "from_version": before, "to_version": to,
                                               "why": f"{i} " + "long " * 200}))  # fmt: skip
    done.put(True)  # type: ignore[attr-defined]


def test_processes_that_write_at_once_lose_and_tear_nothing(kidney: Path) -> None:
    promote(kidney, "kidney", "1.0.0", **SIGNED)
    context = multiprocessing.get_context("spawn")
    start, done = context.Event(), context.Queue()
    writers = [context.Process(target=_toggle, args=(kidney, start, done)) for _ in range(2)]
    for each in writers:
        each.start()
    start.set()
    for each in writers:
        each.join(60)
        assert each.exitcode == 0
    registry = read_registry(kidney)
    assert (len(registry.entries), registry.damaged) == (61, ())
    # each saw what the other had decided: the shadow went on and off in turn, without a gap
    shadows = [(e.from_version, e.to_version) for e in registry.entries[1:]]
    assert shadows == [(None, "1.1.0"), ("1.1.0", None)] * 30


def test_of_two_commands_that_promote_the_same_one_is_told_it_is_done(kidney: Path) -> None:
    command = [sys.executable, "-m", "models", "--bundles", str(kidney), "promote", "kidney", "1.1.0"]
    command += ["--who", "somebody", "--why", "twice"]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    said = [each.communicate(timeout=60) for each in both]
    assert sorted(each.returncode for each in both) == [0, 1], said
    assert len(log(kidney)) == 1


def test_the_command_line(kidney: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*arguments: str) -> tuple[int, str, str]:
        code = main(["--bundles", str(kidney), *arguments])
        return code, *capsys.readouterr()

    signed = ["--who", "somebody", "--why", "a trial"]
    assert "1.1.0    in service (the highest; no log)" in run("list")[1]
    assert run("rollback", "kidney", *signed)[:2] == (
        0, "kidney 1.0.0 is in service again, in the place of 1.1.0.\n",
    )  # fmt: skip
    assert run("shadow", "kidney", "1.1.0")[:2] == (0, "kidney 1.1.0 runs in the shadow.\n")
    listed = run("list")[1]
    assert [line.split()[:4] for line in listed.splitlines()[2:]] == [
        ["kidney", "1.0.0", "in", "service"], ["kidney", "1.1.0", "shadow", listed.splitlines()[3].split()[3]],
    ]  # fmt: skip
    assert run("promote", "kidney", "1.1.0", *signed)[0] == 0
    shown = run("show", "kidney")[1]
    assert "kidney 1.1.0: in service" in shown
    assert "incident_ckd" in shown
    assert [line.split()[2] for line in shown.splitlines()[-3:]] == ["rollback", "shadow", "promote"]
    code, _, refusal = run("promote", "kidney", "2.0.0", *signed)
    assert (code, "there are: 1.0.0, 1.1.0" in refusal, "--override" in refusal) == (1, True, False)
    assert run("compare", "kidney", "--data-dir", str(kidney))[0] == 2


def test_the_commands_for_a_serving_machine_need_no_torch(kidney: Path) -> None:
    code = (
        "import sys; from models.__main__ import main\n"
        f"main(['--bundles', {str(kidney)!r}, 'promote', 'kidney', '1.1.0', '--who', 'w', '--why', 'y'])\n"
        "import models.compare\n"
        "print(sorted({'torch', 'monai', 'sklearn', 'pandas', 'training', 'service'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_kappa_is_cohens() -> None:
    rng = np.random.default_rng(3)
    served = rng.random(300) < 0.3
    shadow = np.where(rng.random(300) < 0.8, served, rng.random(300) < 0.5)
    comparison = Comparison()
    for a, b in zip(served.tolist(), shadow.tolist(), strict=True):
        comparison.add(Pair("v", "f", FindingAnswer(a, 0.6 if a else 0.4), FindingAnswer(b, 0.7 if b else 0.2)))
    comparison.add(Pair("v", "f", FindingAnswer(True, 0.6), None))
    assert comparison.kappa == pytest.approx(cohen_kappa_score(served, shadow))
    assert comparison.agreement == pytest.approx((served == shadow).mean())
    assert comparison.correlation == pytest.approx(np.corrcoef(served, shadow)[0, 1])
    assert (comparison.n, comparison.one_only) == (300, 1)
