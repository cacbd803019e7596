"""Traits of real films, unchanged and changed, by the shipped bundles' own way in; kept, because it takes minutes."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from benchmarks.drift.changes import CHANGES, UNCHANGED
from data_specs.visit.context import Context, Person
from inference.bundles.registry import read_registry
from inference.engine import Engine, PostedInput
from inference.readers.files import OpenFile
from inference.readers.job import Job, Read
from inference.readers.pool import Readers
from inference.runtime.session import Machine

AT_ONCE = 8
T = TypeVar("T")
SEXES = {"M": "male", "F": "female"}


@dataclass(frozen=True, slots=True)
class Film:
    """A film of a folder with a table ``labels.csv``: whose it is, and what is known of the person."""

    path: Path
    person: str
    context: Context


@dataclass(frozen=True, slots=True)
class Seen:
    """What the engine made of a film: codes of its problems, whether it was used, and its traits."""

    person: str
    accepted: bool
    codes: tuple[str, ...]
    traits: dict[str, float]


def films_of(folders: Sequence[Path], most: int) -> list[Film]:
    """Films of all persons in a fixed order of chance, whole persons at a time, until there are ``most``."""
    found: dict[str, list[Film]] = {}
    for folder in folders:
        at = {path.name: path for path in folder.rglob("*.jpg")}
        with (folder / "labels.csv").open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                if row["image"] not in at:
                    continue
                person = Person(age_years=float(row["age"]), sex=SEXES.get(row["sex"], "unknown"))  # type: ignore[arg-type]  # one of three
                film = Film(at[row["image"]], row["patient_id"], Context(person=person))
                found.setdefault(film.person, []).append(film)
    persons = sorted(found)
    np.random.default_rng(0).shuffle(persons)
    taken: list[Film] = []
    for person in persons:
        if len(taken) >= most:
            break
        taken += found[person]
    return taken


def seen(
    folders: Sequence[Path], bundles: Path, kept: Path, most: int, changes: Sequence[str]
) -> dict[str, list[Seen]]:
    """Each film as the engine sees it, as it is and by change; what ``kept`` has is not computed again."""
    registry = read_registry(bundles)
    versions = [f"{name} {registry.in_service(name)}" for name in ("cxr_gate", "lung")]
    found: dict[str, list[Seen]] = {}
    films = films_of(folders, most)
    for name in (UNCHANGED, *changes):
        file = kept / f"{name.replace(':', '').replace(' ', '-')}.json"
        key = {"versions": versions, "films": [film.path.name for film in films]}
        if file.exists() and (stored := json.loads(file.read_text()))["key"] == key:
            found[name] = [Seen(**each) for each in stored["seen"]]
            continue
        found[name] = asyncio.run(_all(films, name, bundles))
        kept.mkdir(parents=True, exist_ok=True)
        rows = [{"person": s.person, "accepted": s.accepted, "codes": s.codes, "traits": s.traits} for s in found[name]]
        file.write_text(json.dumps({"key": key, "seen": rows}))
        print(f"{name}: {len(rows)} films read", flush=True)
    return found


class HereReaders(Readers):
    """Reads in this process: the films are no strangers, and a process of its own for each would only take time."""

    async def run(
        self, job: Job[..., T], files: Sequence[Callable[[], OpenFile]], *arguments: Any, owner: Hashable = None
    ) -> Read[T]:
        contents = []
        for open_file in files:
            with os.fdopen(open_file().descriptor, "rb") as file:
                file.seek(0)
                contents.append(file.read())
        return await asyncio.to_thread(job, contents, *arguments)


async def _all(films: Sequence[Film], change: str, bundles: Path) -> list[Seen]:
    engine = Engine(bundles, Machine("cpu"), readers=HereReaders())
    places = asyncio.Semaphore(AT_ONCE)

    async def one(film: Film) -> Seen:
        async with places:
            content = await asyncio.to_thread(_content, film.path, change)
            posted = PostedInput(0, "image", "film.png", content)
            (found,) = (await engine.assess([posted], film.context)).inputs
            return Seen(film.person, found.accepted, tuple(p.code for p in found.problems), dict(found.traits))

    try:
        return list(await asyncio.gather(*map(one, films)))
    finally:
        await engine.aclose()


def _content(path: Path, change: str) -> bytes:
    """The film, changed, as PNG."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("L"))
    file = io.BytesIO()
    Image.fromarray(CHANGES[change](pixels)).save(file, "PNG")
    return file.getvalue()
