"""A file of weights from elsewhere onto this disk: whole, the right one, and no larger than it may be.

What was received of a file stays in ``FILE.part``; the same command goes on from there. The digest is that of the
catalog, or that given; a file without one is pinned in ``weights.lock`` when it is first used, and every later one has
to be the same.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import shutil
import time
import zipfile
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx

from models.catalog import Source

LOCK = "weights.lock"
ATTEMPTS, PAUSE_S = 5, 1.0
"""How often a download that was cut off goes on by itself, and the pause before, which grows."""
CONNECT_S, SILENCE_S = 20.0, 60.0
REDIRECTS = 5
KEPT = "They are kept; the same command goes on from there"
CHUNK = 1 << 20


class CannotFetch(Exception):
    """The file cannot be had or is not the right one; the message says why and what to do."""


@dataclass(frozen=True)
class Limits:
    """How long a download may take altogether, and the digest that its file has to have (``None``: the catalog's)."""

    seconds: float = 3600.0
    sha256: str | None = None


def fetch(source: Source, folder: Path, *, origin: str | None = None, limits: Limits | None = None) -> tuple[Path, str]:
    """The file of weights of a source, checked; and a sentence about its digest.

    Parameters
    ----------
    folder
        Where downloads and their lock are kept.
    origin
        Another place: a file at hand, or an address.

    Raises
    ------
    CannotFetch
        Nothing that was not checked is left under its name.
    """
    limits = limits or Limits()
    folder.mkdir(parents=True, exist_ok=True)
    place = origin or source.url
    if place is None:
        raise CannotFetch(f"{source.name}: {source.address_unknown} Give the file or its address with --from")
    if is_address(place):
        path = folder / source.file
        if not path.exists() or not _is_expected(path, source, folder, limits):
            download(place, path, source, known=_expected(source, folder, limits) is not None, seconds=limits.seconds)
    else:
        path = Path(place)
        if not path.is_file():
            raise CannotFetch(f"{path}: there is no such file")
        if path.stat().st_size > source.max_bytes:
            raise CannotFetch(f"{path.name}: {path.stat().st_size} bytes, at most {source.max_bytes} were expected")
    said = _check(path, source, folder, limits, place, disposable=is_address(place))
    return (path if source.member is None else extract(path, source.member, folder, source.max_bytes)), said


def is_address(place: str) -> bool:
    """Whether a place is an address, not a file."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.\-]*://", place) is not None


def download(url: str, path: Path, source: Source, *, known: bool, seconds: float) -> None:
    """Receive a file, going on where an earlier attempt ended.

    Parameters
    ----------
    known
        Whether the file's digest is known, so that whatever is received can be told from another file.

    Raises
    ------
    CannotFetch
        It cannot be reached, is too large, or takes too long.
    """
    until = time.monotonic() + seconds
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _receive(url, path, source, known, until)
        except httpx.TransportError as error:
            part = _part(path)
            have = part.stat().st_size if part.exists() else 0
            if attempt == ATTEMPTS or time.monotonic() > until:
                raise CannotFetch(f"{url}: {type(error).__name__} after {have} bytes. {KEPT}") from None
            time.sleep(PAUSE_S * attempt)
    return None


def _receive(url: str, path: Path, source: Source, known: bool, until: float) -> None:
    from tqdm import tqdm  # noqa: PLC0415  serving has none

    part, mark = _part(path), path.with_name(path.name + ".part.json")
    have, validator = _begun(part, mark, url, known)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": validator} if validator else {})
    timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
    with httpx.Client(timeout=timeout) as client, closing(_answer(client, url, headers, known)) as response:
        if response.status_code == 416 and response.headers.get("Content-Range") != f"bytes */{have}":
            part.unlink(missing_ok=True)
            raise httpx.ReadError("what was there is no part of this file")
        if response.status_code == 416:  # it was whole already
            part.replace(path)
            return
        if response.status_code not in (200, 206):
            raise CannotFetch(f"{url}: answered {response.status_code} {response.reason_phrase}")
        if response.status_code == 200:
            have = 0
        elif _starts_at(response) != have:
            part.unlink(missing_ok=True)
            raise httpx.ReadError("another part than was asked for")
        length = response.headers.get("Content-Length")
        total = have + int(length) if length and length.isdigit() else None
        if total is not None and source.size not in (None, total):
            raise CannotFetch(f"{url}: {total} bytes, {source.size} were expected. It is another file")
        _check_size(total, source, url, part)
        mark.write_text(json.dumps({"url": url, "validator": _validator(response)}))
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=source.file, disable=None) as bar,
        ):
            for chunk in response.iter_raw():
                file.write(chunk)
                have += len(chunk)
                bar.update(len(chunk))
                if have > source.max_bytes:
                    break
                if time.monotonic() > until:
                    raise CannotFetch(f"{url}: {have} bytes in the time that it had (--minutes). {KEPT}")
        _check_size(have, source, url, part)
    part.replace(path)
    mark.unlink()


def _answer(client: httpx.Client, url: str, headers: dict[str, str], known: bool) -> httpx.Response:
    """The answer to a request, after redirects; each address is checked before it is asked."""
    for _ in range(REDIRECTS + 1):
        _check_address(url, known)
        response = client.send(client.build_request("GET", url, headers=headers), stream=True)
        if not response.has_redirect_location:
            return response
        target = httpx.URL(url).join(response.headers["Location"])
        response.close()
        if httpx.URL(url).scheme == "https" and target.scheme != "https":
            raise CannotFetch(f"{url}: leads to {target}, which is not https")
        url = str(target)
    raise CannotFetch(f"{url}: more than {REDIRECTS} redirects")


def _check_address(url: str, known: bool) -> None:
    address = httpx.URL(url)
    if address.scheme not in ("https", "http"):
        raise CannotFetch(f"{url}: only https and http are fetched")
    if address.scheme == "http" and not known and not _is_loopback(address.host):
        raise CannotFetch(f"{url}: over http anybody on the way may change the file; give --sha256, or use https")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def _begun(part: Path, mark: Path, url: str, known: bool) -> tuple[int, str | None]:
    """How much is there of this very file, and what the server called it; nothing where that cannot be told."""
    try:
        begun = json.loads(mark.read_text())
        have, validator = part.stat().st_size, begun["validator"]
    except (OSError, ValueError, KeyError, TypeError):
        return 0, None
    same = begun["url"] == url and (validator is not None or known)
    return (have, validator) if same else (0, None)


def _validator(response: httpx.Response) -> str | None:
    """What tells one version of a file from another (RFC 9110, section 13.1.5: a strong ETag, or a date)."""
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):
        return str(etag)
    return response.headers.get("Last-Modified")


def _starts_at(response: httpx.Response) -> int:
    match = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
    return int(match[1]) if match else -1


def _check_size(size: int | None, source: Source, url: str, part: Path) -> None:
    if size is not None and size > source.max_bytes:
        part.unlink(missing_ok=True)
        raise CannotFetch(f"{url}: {size} bytes and more, at most {source.max_bytes} were expected")


def _expected(source: Source, folder: Path, limits: Limits) -> tuple[str, str] | None:
    """The digest that the file has to have, and who says so."""
    if limits.sha256:
        return limits.sha256.lower(), "given"
    if source.sha256:
        return source.sha256, source.sha256_from or "the catalog"
    pin = _pins(folder).get(source.name)
    return (pin["sha256"], f"pinned on {pin['on']} in {LOCK}") if pin else None


def _is_expected(path: Path, source: Source, folder: Path, limits: Limits) -> bool:
    expected = _expected(source, folder, limits)
    return expected is not None and digest(path) == expected[0]


def _check(path: Path, source: Source, folder: Path, limits: Limits, place: str, *, disposable: bool) -> str:
    found, expected = digest(path), _expected(source, folder, limits)
    if expected is None:
        pin = {"sha256": found, "size": path.stat().st_size, "from": place, "on": f"{datetime.now(UTC):%Y-%m-%d}"}
        pins = _pins(folder) | {source.name: pin}
        (folder / LOCK).write_text(json.dumps(pins, indent=1, sort_keys=True) + "\n")
        return f"sha256 {found}: nobody states one; pinned in {folder / LOCK}, and every later file has to be the same"
    if found != expected[0]:
        if disposable:
            path.unlink()
        raise CannotFetch(
            f"{path.name}: sha256 {found}, expected {expected[0]} ({expected[1]}). It is another file and is not used. "
            "Where its publisher has changed it, give the new digest with --sha256"
        )
    return f"sha256 {found}: as expected ({expected[1]})"


def _pins(folder: Path) -> dict[str, dict[str, str]]:
    try:
        return dict(json.loads((folder / LOCK).read_text()))
    except FileNotFoundError:
        return {}
    except ValueError:
        raise CannotFetch(f"{folder / LOCK} cannot be read; mend it, or move it away to pin anew") from None


def digest(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def extract(archive: Path, member: str, folder: Path, max_bytes: int) -> Path:
    """One member of a zip archive, and nothing else of it.

    Raises
    ------
    CannotFetch
        It is not there, or is too large.
    """
    target = folder / Path(member).name
    try:
        with zipfile.ZipFile(archive) as opened:
            about = opened.getinfo(member)
            if about.file_size > max_bytes or about.flag_bits & 1:
                raise CannotFetch(f"{archive.name}: {member} has {about.file_size} bytes, or is encrypted")
            with opened.open(member) as inside, target.open("wb") as outside:
                shutil.copyfileobj(inside, outside, CHUNK)
    except KeyError:
        raise CannotFetch(f"{archive.name}: there is no {member} in it") from None
    except (zipfile.BadZipFile, OSError, NotImplementedError) as error:
        raise CannotFetch(f"{archive.name}: cannot be opened as a zip archive ({type(error).__name__})") from None
    return target
