"""What is in service at one moment, and the thread that keeps to the registry's log.

A line-up never changes: a visit holds the one that it began with to its end. The thread loads and verifies what the log
newly asks for, puts a new line-up in the old one's place by one assignment, and closes the batchers that no line-up in
use has any more. What cannot be loaded is not swapped in; the version before serves on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from inference.bundles.loading import NAMES, Bundle, BundleError, load_bundles, load_version
from inference.bundles.registry import Registry, log_mark, read_registry
from inference.runtime.batcher import Batcher
from inference.runtime.choice import FIXED
from inference.runtime.session import DeviceError

POLL_S = 1.0
RETRY_S = 30.0
"""A version that could not be loaded is tried again after this long: its folder may still be on its way."""
SHADOW_THREADS = 1
SHADOW = "-shadow"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Loaded:
    """One bundle with the batcher that feeds it."""

    bundle: Bundle
    batcher: Batcher

    @classmethod
    def of(cls, bundle: Bundle, *, suffix: str = "") -> Loaded:
        name = bundle.manifest.name + suffix
        return cls(bundle, Batcher(bundle.session, name=name, finite=bundle.manifest.input.modality != "labs"))


@dataclass(eq=False)
class Lineup:
    """Bundles by name: those in service, and those in their shadow.

    Parameters
    ----------
    amiss
        Name to what the log asks for and this process could not load.
    users
        Visits that hold it.
    """

    in_service: Mapping[str, Loaded]
    shadows: Mapping[str, Loaded]
    amiss: Mapping[str, str]
    users: int = 0

    @property
    def loaded(self) -> set[Loaded]:
        return {*self.in_service.values(), *self.shadows.values()}


class LineupFollower:
    """The current line-up, kept to the log.

    Parameters
    ----------
    folder
        Where bundles and log lie.
    threads
        Threads that one model in service has on the CPU; a shadow has :data:`SHADOW_THREADS`.
    session, cache
        How each session is chosen: see :func:`inference.runtime.choice.choose`.

    Raises
    ------
    BundleError, DeviceError
        What is in service cannot be loaded: there is nothing to start with.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: str,
        threads: int,
        poll_s: float = POLL_S,
        session: str = FIXED,
        cache: Path | None = None,
    ) -> None:
        self._folder, self._device, self._threads, self._poll_s = folder, device, threads, poll_s
        self._session, self._cache = session, cache
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._mark = log_mark(folder)
        bundles = load_bundles(folder, device=device, threads=threads, session=session, cache=cache)
        self._current = Lineup({name: Loaded.of(bundle) for name, bundle in bundles.items()}, {}, {})
        self._old: list[Lineup] = []
        self._retry_at = 0.0
        self._swap(read_registry(folder))
        self._thread = threading.Thread(target=self._follow, name="registry", daemon=True)
        self._thread.start()

    @property
    def current(self) -> Lineup:
        return self._current

    @contextmanager
    def hold(self) -> Iterator[Lineup]:
        """The line-up of this moment; none of its batchers closes before it is let go."""
        with self._lock:
            lineup = self._current
            lineup.users += 1
        try:
            yield lineup
        finally:
            with self._lock:
                lineup.users -= 1

    def close(self) -> None:
        """Stop following, finish what is queued and end the threads."""
        self._stop.set()
        self._thread.join()
        for loaded in {each for lineup in (self._current, *self._old) for each in lineup.loaded}:
            loaded.batcher.close()

    def _follow(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                mark = log_mark(self._folder)
                if mark != self._mark or (self._current.amiss and time.monotonic() >= self._retry_at):
                    self._swap(read_registry(self._folder))
                    self._mark = mark
                self._close_unused()
            except Exception:  # the folder may be away for a moment: what is loaded serves on, and this thread with it
                log.exception("registry_not_followed")

    def _swap(self, registry: Registry) -> None:
        """Put what the registry asks for in the place of what is there, as far as it can be loaded."""
        was = self._current
        amiss: dict[str, str] = {}
        in_service = {name: self._service(registry, name, amiss) for name in NAMES}
        shadows = {name: shadow for name in NAMES if (shadow := self._shadow(registry, name, amiss)) is not None}
        if amiss:
            self._retry_at = time.monotonic() + RETRY_S
            if dict(was.amiss) != amiss:
                log.error("bundle_not_taken: %s", "; ".join(amiss.values()))
        with self._lock:
            self._current = Lineup(in_service, shadows, amiss)
            self._old.append(was)
        for name, loaded in in_service.items():
            if loaded is not was.in_service[name]:
                setup = loaded.bundle.session.setup
                log.warning("bundle_in_service: %s %s, session %s", name, loaded.bundle.manifest.version, setup)

    def _service(self, registry: Registry, name: str, amiss: dict[str, str]) -> Loaded:
        have = self._current.in_service[name]
        want = registry.in_service(name) if registry.last(name) else have.bundle.manifest.version
        if want is None or want == have.bundle.manifest.version:
            return have
        return self._load(name, want, self._threads, "", amiss) or have

    def _shadow(self, registry: Registry, name: str, amiss: dict[str, str]) -> Loaded | None:
        have, want = self._current.shadows.get(name), registry.shadow(name)
        if want is None:
            return None
        if have is not None and want == have.bundle.manifest.version:
            return have
        return self._load(name, want, SHADOW_THREADS, SHADOW, amiss)

    def _load(self, name: str, version: str, threads: int, suffix: str, amiss: dict[str, str]) -> Loaded | None:
        try:
            bundle = load_version(
                self._folder,
                name,
                version,
                device=self._device,
                threads=threads,
                session=self._session,
                cache=self._cache,
            )
        except (BundleError, DeviceError) as error:
            amiss[name + suffix] = str(error)
            return None
        return Loaded.of(bundle, suffix=suffix)

    def _close_unused(self) -> None:
        with self._lock:
            old, self._old = self._old, [lineup for lineup in self._old if lineup.users]
            used = {each for lineup in (self._current, *self._old) for each in lineup.loaded}
            unused = {each for lineup in old for each in lineup.loaded} - used
        for loaded in unused:
            loaded.batcher.close()
