"""The bundles that serve at one moment, and the thread that follows the registry's log.

The same thread has the sessions of what is in service measured, and opens a bundle again where another is cheaper.

A serving set never changes: a visit keeps the one that it began with to its end. The thread loads and verifies what the
log newly asks for, puts a new set in the place of the old one by one assignment, and closes the batchers that no set in
use contains any more. A version that cannot be loaded is not taken; the version before it stays in service.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from inference.bundles.loading import NAMES, Bundle, BundleError, load_bundles, load_version
from inference.bundles.measuring import Measuring
from inference.bundles.registry import Registry, log_mark, read_registry
from inference.runtime.batcher import Batcher
from inference.runtime.session import DeviceError, Machine

POLL_S = 1.0
RETRY_S = 30.0
"""A version that could not be loaded is tried again after this time: its folder may still be being copied."""
SHADOW_THREADS = 1
SHADOW = "-shadow"

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class ServedBundle:
    """One bundle with the batcher that feeds it."""

    bundle: Bundle
    batcher: Batcher

    @classmethod
    def of(cls, bundle: Bundle, *, suffix: str = "") -> ServedBundle:
        name = bundle.manifest.name + suffix
        return cls(bundle, Batcher(bundle.session, name=name, finite=bundle.manifest.input.modality != "labs"))


@dataclass(eq=False)
class ServingSet:
    """Bundles by name: those in service, and those that run in the shadow.

    Parameters
    ----------
    problems
        Name to why the version that the log asks for could not be loaded; a shadow's name ends in :data:`SHADOW`.
    registry
        What folders and log said when the set was made.
    users
        Number of visits that use this set.
    """

    in_service: Mapping[str, ServedBundle]
    shadows: Mapping[str, ServedBundle]
    problems: Mapping[str, str]
    registry: Registry
    users: int = 0

    @property
    def batchers(self) -> set[Batcher]:
        return {served.batcher for served in (*self.in_service.values(), *self.shadows.values())}


class RegistryFollower:
    """The current serving set, kept as the registry's log says.

    Parameters
    ----------
    folder
        The folder of the bundles and of the log.
    machine
        For each bundle in service; a shadow has :data:`SHADOW_THREADS` instead of its threads.

    Raises
    ------
    BundleError, DeviceError
        What is in service cannot be loaded: there is nothing to start with.
    """

    def __init__(self, folder: Path, machine: Machine, *, poll_s: float = POLL_S) -> None:
        self._folder, self._machine, self._poll_s = folder, machine, poll_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._mark = log_mark(folder)
        bundles = load_bundles(folder, machine)
        registry = read_registry(folder)
        served = {name: ServedBundle.of(bundle) for name, bundle in bundles.items()}
        self._current = ServingSet(served, {}, {}, registry)
        self._old: list[ServingSet] = []
        self._retry_at = 0.0
        self._measuring = Measuring(machine)
        self._update(registry)
        self._thread = threading.Thread(target=self._follow, name="registry", daemon=True)
        self._thread.start()

    @property
    def current(self) -> ServingSet:
        return self._current

    @contextmanager
    def hold(self) -> Iterator[ServingSet]:
        """The current serving set; its batchers stay open until the end of the ``with`` block."""
        with self._lock:
            serving = self._current
            serving.users += 1
        try:
            yield serving
        finally:
            with self._lock:
                serving.users -= 1

    def close(self) -> None:
        """Stop following, finish what is queued and end the threads."""
        self._stop.set()
        self._thread.join()
        self._measuring.close()
        for batcher in self._in_use():
            batcher.close()

    def _follow(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                mark = log_mark(self._folder)
                if mark != self._mark or (self._current.problems and time.monotonic() >= self._retry_at):
                    self._update(read_registry(self._folder))
                    self._mark = mark
                self._measure_sessions()
                self._close_unused()
            except Exception:  # the folder may be missing for a moment: the bundles in memory go on serving
                log.exception("registry_not_followed")

    def _measure_sessions(self) -> None:
        """Have one bundle measured at a time, and put what was found in the place of what was expected."""
        if (measured := self._measuring.finished()) is not None:
            self._take(measured)
        if not self._measuring.is_busy:
            served = self._current.in_service.values()
            wanting = (each.bundle for each in served if self._measuring.wants(each.bundle, each.batcher.counts))
            if (bundle := next(wanting, None)) is not None:
                self._measuring.start(bundle)

    def _take(self, measured: Bundle) -> None:
        """Open the version again whose sessions were measured; its batcher stays where its session does."""
        name, version = measured.manifest.name, measured.manifest.version
        before = self._current
        have = before.in_service[name]
        if have.bundle.manifest.version != version:
            return
        try:
            bundle = load_version(self._folder, name, version, self._machine)
        except (BundleError, DeviceError) as error:
            log.warning("session_not_taken: %s %s: %s", name, version, error)
            return
        setup = bundle.session.setup
        if setup == have.bundle.session.setup:
            chosen = replace(have.bundle.chosen, measured=bundle.chosen.measured)
            served = replace(have, bundle=replace(have.bundle, chosen=chosen))
        else:
            served = ServedBundle.of(bundle)
            log.warning("session_changed: %s %s, session %s", name, version, setup)
        with self._lock:
            self._current = replace(before, in_service={**before.in_service, name: served}, users=0)
            self._old.append(before)

    def _update(self, registry: Registry) -> None:
        """Make what the registry asks for the current serving set, as far as it can be loaded."""
        before = self._current
        problems: dict[str, str] = {}
        in_service = {name: self._service(registry, name, problems) for name in NAMES}
        shadows = {name: shadow for name in NAMES if (shadow := self._shadow(registry, name, problems)) is not None}
        if problems:
            self._retry_at = time.monotonic() + RETRY_S
            if dict(before.problems) != problems:
                log.error("bundle_not_taken: %s", "; ".join(problems.values()))
        with self._lock:
            self._current = ServingSet(in_service, shadows, problems, registry)
            self._old.append(before)
        for name, served in in_service.items():
            if served is not before.in_service[name]:
                setup = served.bundle.session.setup
                log.warning("bundle_in_service: %s %s, session %s", name, served.bundle.manifest.version, setup)

    def _service(self, registry: Registry, name: str, problems: dict[str, str]) -> ServedBundle:
        have = self._current.in_service[name]
        want = registry.in_service(name) if registry.last(name) else have.bundle.manifest.version
        if want is None or want == have.bundle.manifest.version:
            return have
        return self._load(name, want, self._machine, "", problems) or have

    def _shadow(self, registry: Registry, name: str, problems: dict[str, str]) -> ServedBundle | None:
        have, want = self._current.shadows.get(name), registry.shadow(name)
        if want is None:
            return None
        if have is not None and want == have.bundle.manifest.version:
            return have
        return self._load(name, want, replace(self._machine, threads=SHADOW_THREADS), SHADOW, problems)

    def _load(
        self, name: str, version: str, machine: Machine, suffix: str, problems: dict[str, str]
    ) -> ServedBundle | None:
        try:
            bundle = load_version(self._folder, name, version, machine)
        except (BundleError, DeviceError) as error:
            problems[name + suffix] = str(error)
            return None
        return ServedBundle.of(bundle, suffix=suffix)

    def _close_unused(self) -> None:
        with self._lock:
            before = self._in_use()
            self._old = [serving for serving in self._old if serving.users]
            unused = before - self._in_use()
        for batcher in unused:
            batcher.close()

    def _in_use(self) -> set[Batcher]:
        return {batcher for serving in (self._current, *self._old) for batcher in serving.batchers}
