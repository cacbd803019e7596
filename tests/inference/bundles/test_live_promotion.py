"""A running engine and the registry's log: promotion under load, rollback, what is not taken, and the shadow."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from data_specs.visit.assessment import Assessment
from data_specs.visit.context import Context
from inference.bundles.deciding import deciding
from inference.bundles.registry import LOG
from inference.engine import Engine
from inference.readers.files import OpenFile
from inference.runtime.batcher import Batcher
from inference.runtime.session import Machine
from models.registry import promote, rollback, set_shadow
from tests.inference.conftest import SAMPLES, posted, until
from tests.models.versions import shifted, shipped, version
from tests.readers import shared_readers

SIGNED = {"who": "the screening lead", "why": "a test"}
FORCED = {**SIGNED, "override": "a test"}
POLL_S = 0.05
CONTEXT = Context.model_validate_json((SAMPLES / "context.json").read_bytes())


@pytest.fixture
def bundles(tmp_path: Path) -> Path:
    """The shipped bundles as 1.0.0 in service, and a ``lung`` 1.1.0 that answers otherwise."""
    shipped(tmp_path)
    with deciding(tmp_path):
        pass
    promote(tmp_path, "lung", "1.0.0", **SIGNED)
    version(tmp_path, "lung", "1.1.0", shifted(-3.0))
    return tmp_path


@pytest.fixture
def running(bundles: Path) -> Iterator[Engine]:
    others = {*threading.enumerate()}
    engine = Engine(bundles, Machine("cpu"), readers=shared_readers(), poll_s=POLL_S)
    yield engine
    engine.close()
    left = {thread.name for thread in {*threading.enumerate()} - others}
    assert not {name for name in left if name.startswith(("registry", "batcher", "decode"))}


def served(engine: Engine, name: str = "lung") -> str:
    return engine.bundles[name].manifest.version


def used(assessment: Assessment) -> str:
    return next(m.version for m in assessment.models if m.name == "lung")


def abnormal(assessment: Assessment) -> float:
    return next(f.probability for f in assessment.organs["lung"].findings if f.name == "abnormal")  # type: ignore[return-value]


def closed(batcher: Batcher) -> bool:
    return not any(thread.is_alive() for thread in batcher._threads)


async def test_a_promotion_under_load_loses_no_visit(running: Engine, bundles: Path, abnormal_film: bytes) -> None:
    film = posted(("image", "film.jpg", abnormal_film))
    before = await running.assess(film, CONTEXT)
    old, kept = running.batchers["lung"], running.batchers["kidney"]
    begun = 0

    async def post() -> Assessment:
        nonlocal begun
        begun += 1
        return await running.assess(film, CONTEXT)

    async def clinic() -> list[Assessment]:
        """One visit after the other, until it has had ten with the new version."""
        answers: list[Assessment] = []
        while sum(used(each) == "1.1.0" for each in answers) < 10:
            answers.append(await post())
        return answers

    clinics = [asyncio.create_task(clinic()) for _ in range(8)]
    await until(lambda: begun >= 24)
    await asyncio.to_thread(promote, bundles, "lung", "1.1.0", **FORCED)
    answers = [each for answered in await asyncio.wait_for(asyncio.gather(*clinics), 60) for each in answered]
    assert len(answers) == begun >= 100
    assert [each.organs["lung"].status for each in answers] == ["assessed"] * begun
    # a visit is of one version throughout: the number is that of the version it names
    assert abnormal(before) == pytest.approx(next(abnormal(a) for a in answers if used(a) == "1.0.0"), abs=1e-5)
    numbers = {v: [abnormal(a) for a in answers if used(a) == v] for v in ("1.0.0", "1.1.0")}
    assert len(numbers["1.0.0"]) >= 16
    assert len(numbers["1.1.0"]) >= 80
    assert max(numbers["1.1.0"]) < min(numbers["1.0.0"]) - 0.1
    assert max(numbers["1.1.0"]) - min(numbers["1.1.0"]) < 1e-5
    await until(lambda: closed(old))
    assert running.batchers["kidney"] is kept
    assert not closed(kept)


class HeldBack:
    """A posted film that is opened only when the test lets it."""

    index, field, filename = 0, "image", "f.jpg"

    def __init__(self, content: bytes) -> None:
        self.content = content
        self.begun, self.go_on = threading.Event(), threading.Event()

    def open(self) -> OpenFile:
        self.begun.set()
        self.go_on.wait(30)
        return OpenFile.of(self.content)


async def test_a_visit_keeps_the_version_it_began_with(running: Engine, bundles: Path, abnormal_film: bytes) -> None:
    """Held in the midst of decoding while the version is replaced: its batcher waits for it, and closes after it."""
    old = running.batchers["lung"]
    film = HeldBack(abnormal_film)
    visit = asyncio.create_task(running.assess([film], CONTEXT))
    await asyncio.to_thread(film.begun.wait, 30)
    promote(bundles, "lung", "1.1.0", **FORCED)
    await until(lambda: served(running) == "1.1.0")
    await asyncio.sleep(4 * POLL_S)
    assert not closed(old)
    film.go_on.set()
    assert used(await visit) == "1.0.0"
    await until(lambda: closed(old))
    assert used(await running.assess(posted(("image", "f.jpg", abnormal_film)), CONTEXT)) == "1.1.0"


async def test_a_visit_that_was_abandoned_lets_go(running: Engine, bundles: Path, abnormal_film: bytes) -> None:
    old, film = running.batchers["lung"], HeldBack(abnormal_film)
    visit = asyncio.create_task(running.assess([film], CONTEXT))
    await asyncio.to_thread(film.begun.wait, 30)
    promote(bundles, "lung", "1.1.0", **FORCED)
    await until(lambda: served(running) == "1.1.0")
    visit.cancel()
    with pytest.raises(asyncio.CancelledError):
        await visit
    film.go_on.set()
    await until(lambda: closed(old))


async def test_a_rollback_is_taken_too(running: Engine, bundles: Path) -> None:
    promote(bundles, "lung", "1.1.0", **FORCED)
    await until(lambda: served(running) == "1.1.0")
    rollback(bundles, "lung", **SIGNED)
    await until(lambda: served(running) == "1.0.0")


async def test_what_fails_its_checks_is_not_taken_and_said(
    running: Engine, bundles: Path, abnormal_film: bytes
) -> None:
    weights = bundles / "lung-1.1.0" / "models" / "model.onnx"  # damaged on its way to this server
    version(bundles, "lung", "1.2.0", shifted(1.0))
    whole = weights.read_bytes()
    with deciding(bundles) as (registry, append):
        weights.write_bytes(whole[:-100])
        append(registry.entries[0].model_copy(update={"from_version": "1.0.0", "to_version": "1.1.0"}))
    await until(lambda: any(model["problems"] for model in running.models()))
    assert all(model["amiss"] == model["problems"] for model in running.models()), "the earlier name stays"
    found = {model["name"]: (model["version"], model["problems"]) for model in running.models()}
    assert found["lung"] == ("1.0.0", ["lung-1.1.0: model.onnx is not the file that the manifest names"])
    assert found["cardiac"][1] == []
    answer = await running.assess(posted(("image", "f.jpg", abnormal_film)), CONTEXT)
    assert (used(answer), answer.organs["lung"].status) == ("1.0.0", "assessed")
    promote(bundles, "lung", "1.2.0", **FORCED)
    await until(lambda: served(running) == "1.2.0")
    assert not any(model["problems"] for model in running.models())


async def test_a_graph_that_cannot_be_run_is_not_taken(running: Engine, bundles: Path) -> None:
    """Its hash is right, and the runtime cannot make anything of it: the thread that follows the log outlives that."""
    import hashlib

    folder = version(bundles, "lung", "1.2.0")
    (folder / "models" / "model.onnx").write_bytes(b"no graph")
    manifest = json.loads((folder / "screening.json").read_text())
    manifest["weights"]["sha256"] = hashlib.sha256(b"no graph").hexdigest()
    (folder / "screening.json").write_text(json.dumps(manifest))
    with deciding(bundles) as (registry, append):
        append(registry.entries[0].model_copy(update={"from_version": "1.0.0", "to_version": "1.2.0"}))
    await until(lambda: any("cannot be run" in said for model in running.models() for said in model["problems"]))
    assert served(running) == "1.0.0"
    rollback(bundles, "lung", **SIGNED)
    promote(bundles, "lung", "1.1.0", **FORCED)
    await until(lambda: served(running) == "1.1.0")


async def test_a_version_that_merely_lies_there_or_a_torn_line_changes_nothing(running: Engine, bundles: Path) -> None:
    version(bundles, "kidney", "9.0.0")
    with (bundles / LOG).open("ab") as log:
        log.write(b'{"at": "2026-11-22T00:00:00Z", "action": "promote", "name": "lung", "from": "1.0.0", "to": "1.1')
    await asyncio.sleep(6 * POLL_S)
    assert (served(running), served(running, "kidney")) == ("1.0.0", "1.0.0")


async def test_a_shadow_answers_beside_and_never_in_the_visit(
    running: Engine, bundles: Path, abnormal_film: bytes
) -> None:
    film = posted(("image", "film.jpg", abnormal_film))
    before = await running.assess(film, CONTEXT)
    assert not running.has_shadows
    assert await running.assess_shadows(film, CONTEXT) == []
    set_shadow(bundles, "lung", "1.1.0", **SIGNED)
    await until(lambda: running.has_shadows)
    assert {m["name"]: (m["version"], m["shadow"]) for m in running.models()}["lung"] == ("1.0.0", "1.1.0")
    again = await running.assess(film, CONTEXT)
    assert used(again) == "1.0.0"
    assert abnormal(again) == pytest.approx(abnormal(before), abs=1e-5)
    (answer,) = await running.assess_shadows(film, CONTEXT)
    assert (answer.model.name, answer.model.version, answer.in_service) == ("lung", "1.1.0", "1.0.0")
    assert abnormal(answer.assessment) < abnormal(again) - 0.1
    assert list(answer.assessment.organs) == ["lung"]
    assert not any(f.evidence for f in answer.assessment.organs["lung"].findings)
    assert await running.assess_shadows([], CONTEXT) == [], "a visit without a film says nothing of a film's bundle"
    set_shadow(bundles, "lung", None, **SIGNED)
    await until(lambda: not running.has_shadows)
