"""Runs what reads strangers' files in processes that may die, and says of each file what became of it.

Each reader process has a thread of the service, which hands it one call at a time and waits for the answer. A call
first goes to a quick reader. Where its time is not enough, it goes once more to a slow reader, which has more time and
yields to the others: so slow files never hold up the quick ones for long. Memory beyond a small part is granted from
one amount for all readers.

Who is blamed: a file is refused if its reader exceeded its time or memory, or died of a signal of its own twice;
nothing else was in the reader. A reader that was killed from outside (SIGKILL) says nothing about its file, and the
call is done again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from data_specs.problems import Refused
from inference.readers.files import OpenFile
from inference.readers.job import Array, Job, Read
from inference.readers.loading import JOBS
from inference.readers.processes import Reader, Zygote
from inference.readers.turns import Turns
from inference.readers.wire import Gone
from inference.readers.worker import MEMORY_BYTES, FileChanged

T = TypeVar("T")
MAX_DEATHS, MAX_KILLS = 2, 5
"""Deaths by a signal of its own, after which a file is refused; ends from outside, after which a call fails."""

WAIT_FOR_MEMORY_S = 30.0

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lane:
    """How long a call may take, and how much its reader yields to other processes.

    Parameters
    ----------
    cpu_s
        CPU time of one call.
    wall_s
        Long enough for a machine whose cores are all in use: a reader that waits for a core is not to blame.
    """

    cpu_s: float
    wall_s: float
    niceness: int


QUICK, SLOW = Lane(cpu_s=0.5, wall_s=5.0, niceness=0), Lane(cpu_s=6.0, wall_s=90.0, niceness=5)


class ReadersFailed(Exception):
    """Readers were ended from outside again and again, or cannot be started. It says nothing about the file."""


@dataclass(eq=False)
class _Task:
    job: Job[..., Any]
    files: Sequence[Callable[[], OpenFile]]
    arguments: tuple[Any, ...]
    owner: Hashable
    future: Future[Read[Any]] = field(default_factory=Future)
    deaths: int = 0
    kills: int = 0


class Readers:
    """A pool of as many reader processes as there are cores, two at least. Half of them may read slow files.

    Nothing is started before the first call, or :meth:`start`.

    Parameters
    ----------
    cores
        By default all of this machine.
    jobs
        Names of the modules in which the jobs are.
    quick, slow
        How long a call may take at first, and how long when it is tried again.
    """

    def __init__(
        self, cores: int | None = None, *, jobs: Sequence[str] = JOBS, quick: Lane = QUICK, slow: Lane = SLOW
    ) -> None:
        self.ended: Counter[str] = Counter()
        """How often reading ended otherwise than by a result or a refusal of its own: ``SIGSEGV`` or another signal,
        ``time``, ``memory``, ``outside`` (killed), ``fault`` (an error of the reader's code)."""
        self._cores = cores or os.cpu_count() or 1
        self._quick, self._slow = quick, slow
        self._zygote = Zygote(jobs)
        self._memory = _Memory(MEMORY_BYTES)
        self._turns: Turns[Lane, _Task] = Turns((quick, slow))
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._closed = False
        self._fenced = True

    def start(self) -> None:
        """Start the zygote, which takes a second, and the threads.

        Raises
        ------
        ReadersFailed
            It cannot be started.
        """
        self._start_threads()
        try:
            self._zygote.start()
        except Gone:
            raise ReadersFailed("the process that forks readers ended while it started") from None
        except OSError as error:
            raise ReadersFailed(f"the process that forks readers cannot be started: {error}") from None

    async def run(
        self, job: Job[..., T], files: Sequence[Callable[[], OpenFile]], *arguments: Any, owner: Hashable = None
    ) -> Read[T]:
        """As :meth:`submit`, awaited."""
        return await asyncio.wrap_future(self.submit(job, files, *arguments, owner=owner))

    def submit(
        self, job: Job[..., T], files: Sequence[Callable[[], OpenFile]], *arguments: Any, owner: Hashable = None
    ) -> Future[Read[T]]:
        """Run ``job(contents of the files, *arguments)`` in a reader.

        Parameters
        ----------
        files
            Each is called in a thread when its turn has come, and gives the open file. Waiting files take no memory.
        owner
            Whose call it is, for example a visit. Owners are served in rotation.

        Raises
        ------
        Refused
            What the job raises; ``too_costly`` where it exceeds its time or memory; ``unreadable`` where a reader died
            with it twice, or where it raises an error that is no refusal.
        FileChanged
            A file does not have the content that it has to have.
        ReadersFailed
            As it says. What ``files`` raise is raised too.
        """
        task = _Task(job, files, arguments, owner)
        self._start_threads()
        self._put(self._quick, task)
        return task.future

    def close(self) -> None:
        """End all readers; a call that waits or runs fails."""
        with self._lock:
            self._closed = True
        for task in self._turns.close():
            _fail(task)
        self._zygote.close()
        for thread in self._threads:
            thread.join()

    # ---------------------------------------------------------------- a thread and its reader
    def _start_threads(self) -> None:
        with self._lock:
            if self._threads or self._closed:
                return
            n = max(2, self._cores)
            lanes = [(self._slow, self._quick)] * (n // 2) + [(self._quick,)] * (n - n // 2)
            self._threads = [
                threading.Thread(target=self._serve, args=(kinds,), name="reader", daemon=True) for kinds in lanes
            ]
            for thread in self._threads:
                thread.start()

    def _put(self, lane: Lane, task: _Task) -> None:
        if not self._turns.put(lane, task.owner, task):
            _fail(task)

    def _serve(self, lanes: Sequence[Lane]) -> None:
        reader: Reader | None = None
        while (taken := self._turns.take(lanes)) is not None:
            lane, task = taken
            if not (task.future.running() or task.future.set_running_or_notify_cancel()):
                continue
            if reader is not None and reader.niceness != lane.niceness:  # a process cannot become less nice again
                self._end(reader)
                reader = None
            reader = self._try(task, lane, reader)
        if reader is not None:
            reader.close()

    def _try(self, task: _Task, lane: Lane, reader: Reader | None) -> Reader | None:
        """Run a task once, and give it its result or queue it again; the reader, if it can be used again."""
        opened: list[OpenFile] = []
        try:
            for open_file in task.files:
                opened.append(open_file())
            reader = reader or self._forked(lane)
        except Exception as error:
            task.future.set_exception(error)
        else:
            return self._read(task, lane, reader, opened)
        finally:
            for file in opened:
                os.close(file.descriptor)
        return reader

    def _read(self, task: _Task, lane: Lane, reader: Reader, opened: Sequence[OpenFile]) -> Reader | None:
        try:
            with self._memory.share() as share:
                answer, arrays = reader.call(task.job, task.arguments, opened, lane.cpu_s, lane.wall_s, share.grant)
            self._take(task, answer, arrays)
            is_last = bool(answer["last"])
        except TimeoutError:
            self._too_slow(task, lane, self._end(reader))
        except Gone:
            self._died(task, lane, self._end(reader))
        except Exception:  # an answer that no reader gives: a file has taken it over
            self._end(reader)
            self._blame(task, lane, "answer")
        else:
            if not is_last:
                return reader
            self._end(reader)
        return None

    def _forked(self, lane: Lane) -> Reader:
        for _ in range(MAX_KILLS):
            try:
                reader = self._zygote.fork(lane.niceness)
            except (Gone, OSError):
                self.ended["outside"] += 1
            else:
                self._note_fence(reader)
                return reader
        raise ReadersFailed

    def _note_fence(self, reader: Reader) -> None:
        with self._lock:
            if reader.fenced is False and self._fenced:
                log.warning("readers have no filter of system calls: this kernel or machine has none (seccomp)")
            self._fenced = reader.fenced

    def _take(self, task: _Task, answer: dict[str, Any], arrays: tuple[Array, ...]) -> None:
        if "document" in answer:
            task.future.set_result(Read(task.job.load(answer["document"]), arrays))
        elif "refused" in answer:
            task.future.set_exception(Refused(*map(str, answer["refused"])))
        elif "changed" in answer:
            task.future.set_exception(FileChanged())
        elif "memory" in answer:
            self._refuse(
                task, "memory", Refused("too_costly", f"> {MEMORY_BYTES >> 20} MB", f"≤ {MEMORY_BYTES >> 20} MB")
            )
        else:
            fault, at = str(answer["fault"])[:60], str(answer["at"])[:100]
            log.error("%s raised %s at %s", task.job.name, fault, at)
            self._refuse(task, "fault", Refused("unreadable", fault, "—"))

    def _end(self, reader: Reader) -> int:
        """End a reader; the negative number of the signal that ended it."""
        try:
            return self._zygote.end(reader)
        except (Gone, OSError):  # the zygote was ended, and its readers with it
            return -signal.SIGKILL

    def _died(self, task: _Task, lane: Lane, status: int) -> None:
        """A reader ended by itself while it ran a task."""
        if status == -signal.SIGPROF:
            self._too_slow(task, lane, status)
        elif status == -signal.SIGKILL:
            self.ended["outside"] += 1
            task.kills += 1
            if task.future.done():
                return
            if task.kills > MAX_KILLS:
                task.future.set_exception(ReadersFailed())
            else:
                self._put(lane, task)
        else:
            self._blame(task, lane, signal.Signals(-status).name if status < 0 else f"exit {status}")

    def _blame(self, task: _Task, lane: Lane, cause: str) -> None:
        """A file was the cause of a death; with the second one it is refused."""
        self.ended[cause] += 1
        task.deaths += 1
        if task.future.done():  # it died after its answer
            return
        if task.deaths < MAX_DEATHS:
            self._put(lane, task)
        else:
            task.future.set_exception(Refused("unreadable", f"{task.deaths} × {cause}", "—"))

    def _too_slow(self, task: _Task, lane: Lane, status: int) -> None:
        self.ended["time"] += 1
        if lane is self._quick:
            self._put(self._slow, task)
        else:
            limit = lane.cpu_s if status == -signal.SIGPROF else lane.wall_s
            task.future.set_exception(Refused("too_costly", f"> {limit:g} s", f"≤ {limit:g} s"))

    def _refuse(self, task: _Task, cause: str, refusal: Refused) -> None:
        self.ended[cause] += 1
        task.future.set_exception(refusal)


def _fail(task: _Task) -> None:
    if not task.future.cancel():  # it has begun
        task.future.set_exception(ReadersFailed())


class _Memory:
    """Bytes that the readers of this process may have together, beyond those that every call may take."""

    def __init__(self, n_bytes: int) -> None:
        self.free = self.total = n_bytes
        self.changed = threading.Condition()

    def share(self) -> _Share:
        return _Share(self)


class _Share:
    """What one call was granted; it is given back at its end."""

    def __init__(self, memory: _Memory) -> None:
        self._memory = memory
        self._granted = 0

    def __enter__(self) -> _Share:
        return self

    def __exit__(self, *_: object) -> None:
        with self._memory.changed:
            self._memory.free += self._granted
            self._memory.changed.notify_all()

    def grant(self, wanted: int) -> float:
        """Let the call have ``wanted`` bytes in all, at most everything; how long that had to wait, s."""
        began = time.monotonic()
        more = max(0, min(wanted, self._memory.total) - self._granted)
        with self._memory.changed:
            # two calls that each wait for what the other has would wait for ever
            if not self._memory.changed.wait_for(lambda: self._memory.free >= more, WAIT_FOR_MEMORY_S):
                raise TimeoutError
            self._memory.free -= more
        self._granted += more
        return time.monotonic() - began
