"""``/export``: admins export visits without names as one file, take the answers, and see what left when."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Request, UploadFile
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from starlette.background import BackgroundTask

from data_specs.problems import Refused, message
from inference.readers.pool import ReadersFailed
from service.api.refusals import STATUS
from service.api.session import page_key
from service.errors import Busy, FieldFault, InvalidRequest, ServiceError, StorageUnavailable, Unavailable
from service.export.answers import take_answers
from service.export.making import Wanted, make_package
from service.export.names import read_key
from service.export.package import ANSWERS, MANIFEST, MAX_MANIFEST_BYTES
from service.export.record import latest
from service.keys import Key
from service.language.choice import language_of
from service.language.texts import text
from service.pages.frame import page, to_login
from service.state import Service, service_of
from service.storage.commands import NotDone
from service.storage.outages import disk_outages

MOST_VISITS = 200
"""A page waits for its answer; what is more goes by ``python -m service.export``."""
MOST_SHOWN = 50
MAX_LINE = 500
FOLDER = "exports"
ABANDONED_S = 86_400.0
_making = asyncio.Semaphore(1)
"""One package is made at a time: it needs all readers, and disk."""

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)
Field = Annotated[str, Form()]


@router.get("/export")
async def exports(request: Request) -> Response:
    return await _for_admin(request, lambda key: _page(request, key))


@router.post("/export")
async def write(
    request: Request,
    recipient: Field = "",
    legal_basis: Field = "",
    site: Field = "",
    since: Field = "",
    until: Field = "",
    visit: Field = "",
) -> Response:
    """Make a package, and send it as a zip, whose name has the beginning of the manifest's digest."""

    async def make(key: Key) -> Response:
        wanted = Wanted(
            recipient=_line("recipient", recipient),
            legal_basis=_line("legal_basis", legal_basis),
            who=_who(key),
            sites=(site.strip(),) if site.strip() else (),
            visits=tuple(visit.split()),
            since=_day("since", since),
            until=_end(until),
            at_most=MOST_VISITS,
        )
        async with _turn():
            path = await asyncio.to_thread(_zipped, service_of(request), wanted)
        return FileResponse(
            path,
            media_type="application/zip",
            filename=path.name,
            headers={"Cache-Control": "no-store"},
            background=BackgroundTask(shutil.rmtree, path.parent, ignore_errors=True),
        )

    return await _for_admin(request, make)


@router.post("/export/answers")
async def take(request: Request, package: UploadFile | None = None, manifest: Field = "") -> Response:
    """Take the answers to an export."""

    async def put(key: Key) -> Response:
        digest = manifest.strip().lower()
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise InvalidRequest(FieldFault("manifest", "field_invalid", "64 × 0-9 a-f"))
        if package is None or not package.size:
            raise InvalidRequest(FieldFault("package", "field_missing"))
        async with _turn():
            await asyncio.to_thread(_taken, service_of(request), package, digest, _who(key))
        return RedirectResponse("/export", 303)

    return await _for_admin(request, put)


async def _for_admin(request: Request, work: Callable[[Key], Awaitable[Response]]) -> Response:
    key = await page_key(request)
    if key is None:
        return to_login(request, "/export")
    if key.role != "admin":
        return page(request, "missing.html", 404, key=key)
    language = language_of(request)
    try:
        return await work(key)
    except StorageUnavailable:
        raise
    except ServiceError as error:
        problem = message(error.code, language, found=error.found, expected=error.expected)
        return await _page(request, key, problem, STATUS[type(error)].value)
    except Refused as refusal:
        return await _page(request, key, refusal.problem.message(language), 422)
    except NotDone:
        return await _page(request, key, text("export_nothing", language), 422)


async def _page(request: Request, key: Key, problem: str | None = None, status_code: int = 200) -> Response:
    rows = await service_of(request).database.read(lambda session: latest(session, MOST_SHOWN))
    posted = await request.form() if request.method == "POST" else {}
    return page(
        request,
        "export.html",
        status_code,
        key=key,
        rows=[(row, json.loads(row.counts)) for row in rows],
        problem=problem,
        typed={name: value for name, value in posted.items() if isinstance(value, str)},
        most=MOST_VISITS,
    )


@asynccontextmanager
async def _turn() -> AsyncIterator[None]:
    if _making.locked():
        raise Busy
    async with _making:
        yield


def _zipped(service: Service, wanted: Wanted) -> Path:
    """A package as one zip in a folder of its own, which whoever sends it removes."""
    with _own_folder(service, keep=True) as folder:
        inside = folder / "package"
        key = read_key(service.settings.data_dir)
        try:
            digest, manifest = make_package(
                service.database,
                service.store,
                service.readers,
                key,
                wanted,
                inside,
                service.settings.export_smallest_cell,
            )
        except ReadersFailed:
            raise Unavailable from None
        path = folder / f"export-{digest}.zip"
        with zipfile.ZipFile(path, "x", zipfile.ZIP_STORED) as made:
            for name in (MANIFEST, *manifest.files):
                entry = zipfile.ZipInfo(name)  # without the time of the file
                entry.external_attr = 0o600 << 16
                made.writestr(entry, (inside / name).read_bytes())
        shutil.rmtree(inside)
        return path


def _taken(service: Service, package: UploadFile, digest: str, who: str) -> None:
    """Take the two files of a zip of answers, and nothing else of it."""
    with _own_folder(service) as folder:
        inside = folder / "package"
        inside.mkdir()
        try:
            with zipfile.ZipFile(package.file) as posted:
                if sorted(posted.namelist()) != sorted((MANIFEST, ANSWERS)):
                    raise Refused("export_other_files", len(posted.namelist()), 2)
                for name in (MANIFEST, ANSWERS):
                    with posted.open(name) as opened:
                        content = opened.read(MAX_MANIFEST_BYTES + 1)
                    if len(content) > MAX_MANIFEST_BYTES:
                        raise Refused("export_other_files", ">", f"{MAX_MANIFEST_BYTES // 10**6} MB")
                    (inside / name).write_bytes(content)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError):
            raise Refused("export_no_package", "zip", MANIFEST) from None
        take_answers(service.database, read_key(service.settings.data_dir), inside, digest, who=who)


@contextmanager
def _own_folder(service: Service, *, keep: bool = False) -> Iterator[Path]:
    """A folder for one package; ``keep``: it stays where nothing fails."""
    with disk_outages():
        outside = service.settings.data_dir / FOLDER
        outside.mkdir(mode=0o700, exist_ok=True)
        for left in outside.iterdir():  # of a process that was killed
            if time.time() - left.stat().st_mtime > ABANDONED_S:
                shutil.rmtree(left, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(dir=outside))
    try:
        with disk_outages():
            yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if not keep:
        shutil.rmtree(folder, ignore_errors=True)


def _who(key: Key) -> str:
    return key.label or key.id


def _line(name: str, given: str) -> str:
    line = " ".join(given.split())
    if not 0 < len(line) <= MAX_LINE or not line.isprintable():
        raise InvalidRequest(FieldFault(name, "field_invalid", f"1 … {MAX_LINE} × U+"))
    return line


def _day(name: str, given: str) -> datetime | None:
    """The first moment of a day, UTC; ``None`` where none is given."""
    if not given.strip():
        return None
    try:
        return datetime.fromisoformat(given.strip()).replace(tzinfo=UTC)
    except ValueError:
        raise InvalidRequest(FieldFault(name, "field_invalid", "YYYY-MM-DD")) from None


def _end(given: str) -> datetime | None:
    """The end of the last day."""
    last = _day("until", given)
    try:
        return last + timedelta(days=1) if last else None
    except OverflowError:
        raise InvalidRequest(FieldFault("until", "field_invalid", "YYYY-MM-DD")) from None
