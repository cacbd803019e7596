"""Releases come down to a node: asked for, verified, fetched at night when no visit waits, checked, put in force.

Whatever is wrong with a release, what serves goes on serving, and the page of the node, the log, a metric and the
centre say why the release was refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.orm import Session

from service.delivery.message import NotDelivered
from service.exchange.centre import CHANGED, NOT_FOUND, Centre
from service.exchange.queue import centre_to_write
from service.exchange.record import NodeState
from service.language.zone import Hours, zone_named
from service.logs import where_it_failed
from service.protocols.public_keys import read_public_keys
from service.release.in_force import put_in_force
from service.release.incoming import Incoming, check_offer, working
from service.release.kept import last_release
from service.release.signed import NotTaken, Release, ReleasedBundle, ReleasedFile, SignedRelease

if TYPE_CHECKING:
    from service.parts import Parts

LOOK_S = 3600.0
"""How often the centre is asked when its news say nothing new, and a refused release is tried again."""
FAULT_S = 60.0
LONGEST_PAUSE_S = 300.0
GIVE_WAY_S = 1.0
"""How often it is looked whether visits wait."""

log = structlog.get_logger()


class Releases:
    """Follows what the centre offers.

    Parameters
    ----------
    is_idle
        Whether no visit is on its way to the centre, and none waits for it.
    """

    def __init__(self, parts: Parts, centre: Centre, is_idle: Callable[[], Awaitable[bool]]) -> None:
        settings = parts.settings
        self._parts, self._centre, self._is_idle = parts, centre, is_idle
        self._bundles = settings.bundles
        self._signers = read_public_keys(settings.upstream_signer)
        self._hours, self._zone = Hours.of(settings.upstream_hours), zone_named(settings.time_zone)
        self._wake = asyncio.Event()
        self._heard: int | None = None
        self._failures = 0
        self._refused: tuple[str, str, float] | None = None
        """Digest of the release that was refused, why, and until when it is not tried again."""

    def heard(self, number: int | None) -> None:
        """Note which release the centre offers."""
        if number != self._heard:
            self._heard = number
            self._wake.set()

    async def follow(self) -> None:
        """Ask for the release, and take it, again and again until this is cancelled."""
        while True:
            self._wake.clear()
            try:
                delay_s = await self._look()
                self._failures = 0
            except NotDelivered:  # the page says since when the centre has not answered
                self._failures += 1
                delay_s = random.uniform(0, min(LONGEST_PAUSE_S, 2.0 ** min(self._failures, 30)))  # noqa: S311  no secret
            except Exception as error:
                log.error("release_fault", **where_it_failed(error))
                delay_s = FAULT_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), delay_s)

    async def _look(self) -> float:
        """Ask once, and take what is offered; after how many seconds to ask again."""
        here = await asyncio.to_thread(last_release, self._bundles)
        state = NodeState(
            number=here.release.number if here else None,
            since=here.since if here else None,
            refused=self._refused[1] if self._refused else None,
        )
        sha256 = ""
        try:
            signed = await self._centre.release(state)
            if signed is None:
                await self._note(None)
                return LOOK_S
            sha256 = signed.sha256
            if self._refused and self._refused[0] == sha256 and time.monotonic() < self._refused[2]:
                return LOOK_S
            return await self._take(signed)
        except NotTaken as refusal:
            if refusal.code == "file_missing":  # perhaps another release has taken its place meanwhile
                now = await self._centre.release(state)
                if now is None or now.sha256 != sha256:
                    return 0.0
            return await self._refuse(sha256, refusal)
        except OSError as error:
            return await self._refuse(sha256, NotTaken("folder", f"{self._bundles}: {error.strerror}"))

    async def _take(self, signed: SignedRelease) -> float:
        release = signed.verified(self._signers)
        if not await asyncio.to_thread(check_offer, self._bundles, signed, release):
            self._refused = None
            await self._note(None)
            return LOOK_S
        await self._note(release.number)
        until_s = self._hours.seconds_until(datetime.now(UTC), self._zone)
        if until_s:
            return min(LOOK_S, until_s + 1)
        with working(self._bundles, wait=False) as is_alone:
            if not is_alone:  # another process of this node takes it
                return FAULT_S
            incoming = await asyncio.to_thread(Incoming, self._bundles, release)
            if not await self._fetch_all(incoming, release):
                return FAULT_S
            await asyncio.to_thread(self._check, incoming)
            await asyncio.to_thread(put_in_force, self._bundles, signed)
        log.warning("release_in_force", number=release.number, bundles=[bundle.folder for bundle in release.bundles])
        self._parts.metrics.releases.labels("in_force").inc()
        self._refused = None
        await self._note(None)
        return 0.0  # the centre is told

    def _check(self, incoming: Incoming) -> None:
        from inference.runtime.session import Machine  # noqa: PLC0415  the runtimes take seconds to load

        settings = self._parts.settings
        incoming.check(Machine(settings.device, session=settings.session))

    # ------------------------------------------------------------------ files
    async def _fetch_all(self, incoming: Incoming, release: Release) -> bool:
        """Fetch what is missing; ``False`` where the hours have ended before."""
        missing = await asyncio.to_thread(incoming.missing)
        left = sum(file.n_bytes for _, file in missing)
        # a file is beside its part for a moment
        needed = left + max((file.n_bytes for _, file in missing), default=0) + self._parts.settings.min_free_bytes
        if left and shutil.disk_usage(self._bundles).free < needed:
            raise NotTaken("room", f"{self._bundles}: {needed // 1_000_000} MB are needed")
        for bundle, file in missing:
            await self._note(release.number, left)
            if not await self._fetch(incoming, bundle, file):
                return False
            left -= file.n_bytes
        await self._note(release.number, left)
        return True

    async def _fetch(self, incoming: Incoming, bundle: ReleasedBundle, file: ReleasedFile) -> bool:
        name, at = await asyncio.to_thread(incoming.part_of, file)
        while await self._may_go_on():
            began = time.monotonic()
            try:
                piece = await self._centre.piece(file.sha256, name, at)
            except NotDelivered as refusal:
                if refusal.code == NOT_FOUND:
                    raise NotTaken("file_missing", f"{bundle.folder}/{file.path}") from None
                if refusal.code == CHANGED:
                    await asyncio.to_thread(incoming.drop, file)
                    name, at = file.sha256, 0
                    continue
                raise
            if piece is not None:
                await asyncio.to_thread(incoming.add, file, piece.name, at, piece.content)
                name, at = piece.name, at + len(piece.content)
            if piece is None or at >= piece.n_bytes:
                await asyncio.to_thread(incoming.finish, bundle, file)
                return True
            await asyncio.sleep(time.monotonic() - began)  # half of the link is left to those who read
        return False

    async def _may_go_on(self) -> bool:
        """Wait until no visit waits; whether it is still the time."""
        while self._hours.include(datetime.now(UTC), self._zone):
            if await self._is_idle():
                return True
            await asyncio.sleep(GIVE_WAY_S)
        return False

    # ------------------------------------------------------------------ what the page says
    async def _refuse(self, sha256: str, refusal: NotTaken) -> float:
        is_new = self._refused is None or self._refused[:2] != (sha256, refusal.code)
        self._refused = sha256, refusal.code, time.monotonic() + LOOK_S
        if is_new:
            log.error("release_refused", reason=refusal.code, detail=refusal.detail)
            self._parts.metrics.releases.labels("refused").inc()
        await self._note(self._heard, None, refusal)
        return 0.0 if is_new and sha256 else LOOK_S

    async def _note(self, offered: int | None, left: int | None = None, refusal: NotTaken | None = None) -> None:
        def write(session: Session) -> None:
            centre = centre_to_write(session)
            centre.offered, centre.offered_bytes = offered, left
            centre.refused, centre.refused_detail = (refusal.code, refusal.detail) if refusal else (None, None)

        await self._parts.database.write(write)
