"""Readers that die, hang, swell or try to break out: their own file pays for it, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import pytest

from data_specs.problems import Refused
from inference.readers.files import OpenFile
from inference.readers.loading import JOBS
from inference.readers.pool import Lane, Readers, ReadersFailed
from inference.readers.worker import FREE_BYTES, MAX_CALLS, MEMORY_BYTES, FileChanged
from tests.conftest import ROOT
from tests.inference.readers import jobs

WITH_TEST_JOBS = (*JOBS, "tests.inference.readers.jobs")
QUICK, SLOW = Lane(cpu_s=0.3, wall_s=20.0, niceness=0), Lane(cpu_s=1.0, wall_s=40.0, niceness=10)


@pytest.fixture(scope="module")
def pool() -> Iterator[Readers]:
    readers = Readers(2, jobs=WITH_TEST_JOBS, quick=QUICK, slow=SLOW)
    readers.start()
    yield readers
    readers.close()


@pytest.fixture
def readers(pool: Readers) -> Readers:
    pool.ended.clear()
    return pool


def file(content: bytes = b"a file") -> OpenFile:
    return OpenFile.of(content)


def pids(readers: Readers) -> list[int]:
    """The reader processes that run."""
    zygote = readers._zygote._process
    assert zygote is not None
    children = Path(f"/proc/{zygote.pid}/task/{zygote.pid}/children").read_text().split()
    return [int(child) for child in children]


def problem(readers: Readers, *call: object) -> tuple[str, str]:
    with pytest.raises(Refused) as refused:
        readers.submit(*call).result(60)  # type: ignore[arg-type]
    return refused.value.problem.code, refused.value.problem.found


def test_documents_and_arrays_come_back(readers: Readers) -> None:
    read = readers.submit(jobs.echo, [file, lambda: file(b"another")], "Ị").result(60)
    assert read.document == "Ị"
    assert [array.tobytes() for array in read.arrays] == [b"a file", b"another"]
    with pytest.raises(ValueError, match="read-only"):
        read.arrays[0][0] = 0


def test_only_the_beginning_is_read_where_that_is_asked_for(readers: Readers) -> None:
    part = readers.submit(jobs.echo, [lambda: OpenFile(file().descriptor, None, 3)], "").result(60)
    assert part.arrays[0].tobytes() == b"a f"


def test_a_refusal_is_passed_on(readers: Readers) -> None:
    assert problem(readers, jobs.refuse, []) == ("truncated", "1 B")
    assert not readers.ended


def test_another_error_refuses_the_file_and_its_text_is_not_logged(
    readers: Readers, caplog: pytest.LogCaptureFixture
) -> None:
    assert problem(readers, jobs.fail, []) == ("unreadable", "ZeroDivisionError")
    assert "tests.inference.readers.jobs:" in caplog.text
    assert "a person" not in caplog.text


@pytest.mark.parametrize(("how", "cause"), [("segfault", "SIGSEGV"), ("abort", "SIG"), ("exit", "exit 0")])
def test_a_reader_that_dies_with_a_file_twice_convicts_it(readers: Readers, how: str, cause: str) -> None:
    innocent = [readers.submit(jobs.echo, [file], str(k)) for k in range(20)]
    code, found = problem(readers, jobs.end, [file], how)
    assert code == "unreadable"
    assert found.startswith(f"2 × {cause}")
    assert [each.result(60).document for each in innocent] == [str(k) for k in range(20)]
    assert sum(readers.ended.values()) == 2


def test_too_much_time_is_tried_with_more_and_then_refused(readers: Readers) -> None:
    assert readers.submit(jobs.compute, [file], 0.6).result(60)
    assert readers.ended == {"time": 1}
    assert problem(readers, jobs.compute, [file], 600.0) == ("too_costly", f"> {SLOW.cpu_s:g} s")


def test_waiting_without_computing_is_ended_too() -> None:
    quick, slow = Lane(cpu_s=5.0, wall_s=0.2, niceness=0), Lane(cpu_s=5.0, wall_s=0.4, niceness=10)
    readers = Readers(1, jobs=WITH_TEST_JOBS, quick=quick, slow=slow)
    assert problem(readers, jobs.sleep, [file], 600.0) == ("too_costly", "> 0.4 s")
    assert readers.ended == {"time": 2}
    readers.close()


def test_an_innocent_file_does_not_wait_for_slow_ones(readers: Readers) -> None:
    slow = [readers.submit(jobs.compute, [file], 600.0, owner="slow") for _ in range(4)]
    time.sleep(0.2)
    for k in range(3):
        readers.submit(jobs.echo, [file], "", owner=k).result(60)
        # Both take processor time, so a busy machine changes nothing.
        assert sum(each.done() for each in slow) <= 1
    for each in slow:
        each.cancel()
    codes = {"cancelled" if each.cancelled() else problem_of(each) for each in slow}
    assert codes <= {"cancelled", "too_costly"}


def problem_of(future: object) -> str:
    with pytest.raises(Refused) as refused:
        future.result(60)  # type: ignore[attr-defined]
    return refused.value.problem.code


def test_too_much_memory_is_refused(readers: Readers) -> None:
    assert problem(readers, jobs.allocate, [file], 4 * MEMORY_BYTES)[0] == "too_costly"
    assert readers.submit(jobs.allocate, [file], FREE_BYTES // 2).result(60).document == 1


def test_a_reader_reaches_nothing_but_its_files(readers: Readers) -> None:
    results = readers.submit(jobs.break_out, [file], os.getpid()).result(60).document
    assert {name for name, result in results.items() if result == "possible"} == set()
    assert readers.submit(jobs.descriptors, [file]).result(60).document <= 8


ARRAY = b'{"document": 1, "last": false, "arrays": [{"dtype": "%s", "shape": [%s], "at": %d}]}'


@pytest.mark.parametrize(
    "answer",
    [
        b"[" * 100_000,
        b"5",
        b"{}",
        b"\xff",
        b'{"document": {"a": 1}, "arrays": [], "last": false}',
        ARRAY % (b"uint8", b"99999999999999", 0),
        ARRAY % (b"uint8", b"-1", 0),
        ARRAY % (b"object", b"1", 0),
        ARRAY % (b"float64", b"1", 8 << 20),
        ARRAY % (b"uint8", b"1", -5),
    ],
)
def test_an_answer_that_no_reader_gives_convicts_the_file(readers: Readers, answer: bytes) -> None:
    code, found = problem(readers, jobs.lie, [file], answer, 1)
    assert (code, found) == ("unreadable", "2 × answer")
    assert readers.submit(jobs.echo, [file], "a").result(60).document == "a"


def test_what_a_reader_says_reaches_no_log(readers: Readers, capfd: pytest.CaptureFixture[str]) -> None:
    readers.submit(jobs.speak, []).result(60)
    assert "a name" not in "".join(capfd.readouterr())


def test_a_reader_that_is_killed_from_outside_blames_no_file(readers: Readers) -> None:
    waiting = [readers.submit(jobs.compute, [file], 0.2, owner=k) for k in range(8)]
    for _ in range(4):
        time.sleep(0.15)
        for pid in pids(readers):
            os.kill(pid, signal.SIGKILL)
    assert all(each.result(60).document for each in waiting)
    # On a busy machine a try may also use up its time; it is made again with more, and no file is refused.
    assert {"outside"} <= set(readers.ended) <= {"outside", "time"}


def test_readers_that_were_killed_while_they_waited_are_replaced(readers: Readers) -> None:
    for _ in range(3):
        assert readers.submit(jobs.echo, [file], "a").result(60).document == "a"
        for pid in pids(readers):
            os.kill(pid, signal.SIGKILL)
    assert set(readers.ended) <= {"outside"}


def test_a_reader_that_is_stopped_is_replaced() -> None:
    lane = Lane(cpu_s=5.0, wall_s=0.5, niceness=0)
    readers = Readers(1, jobs=WITH_TEST_JOBS, quick=lane, slow=Lane(cpu_s=5.0, wall_s=30.0, niceness=10))
    assert readers.submit(jobs.echo, [file], "a").result(60)
    for pid in pids(readers):
        os.kill(pid, signal.SIGSTOP)
    assert readers.submit(jobs.echo, [file], "b").result(60).document == "b"
    readers.close()


def test_a_zygote_that_is_killed_is_started_again(readers: Readers) -> None:
    waiting = [readers.submit(jobs.compute, [file], 0.2, owner=k) for k in range(4)]
    time.sleep(0.1)
    assert readers._zygote._process is not None
    readers._zygote._process.kill()
    assert all(each.result(60).document for each in waiting)


def test_a_reader_is_replaced_when_it_is_worn_out() -> None:
    readers = Readers(1, jobs=WITH_TEST_JOBS)
    seen = {readers.submit(jobs.sleep, [], 0.0).result(60).document for _ in range(MAX_CALLS + 1)}
    assert len(seen) == 2
    assert not readers.ended
    readers.close()


def test_a_changed_file_is_said(readers: Readers) -> None:
    with pytest.raises(FileChanged):
        readers.submit(jobs.echo, [lambda: OpenFile(file().descriptor, "0" * 64)], "").result(60)


def test_what_opening_raises_is_raised_and_nothing_stays_open(readers: Readers) -> None:
    def missing() -> OpenFile:
        raise LookupError

    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        with pytest.raises(LookupError):
            readers.submit(jobs.echo, [file, missing], "").result(60)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 4


def test_closing_fails_what_waits() -> None:
    readers = Readers(1, jobs=WITH_TEST_JOBS)
    running = [readers.submit(jobs.sleep, [file], 30.0) for _ in range(3)]
    while not pids_or_none(readers):
        time.sleep(0.02)
    readers.close()
    for each in running:
        with pytest.raises((ReadersFailed, CancelledError)):
            each.result(10)


def pids_or_none(readers: Readers) -> list[int]:
    return pids(readers) if readers._zygote._process is not None else []


def test_readers_end_with_the_process_that_uses_them() -> None:
    script = (
        "import os, sys, time; from inference.readers.pool import Readers; r = Readers(1); r.start();"
        "from inference.readers.header import read_dicom_reference as job;"
        "from inference.readers.files import OpenFile as F;"
        "print(r.submit(job, [lambda: F.of(b'')]).result(60).document, r._zygote._process.pid, flush=True);"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        zygote = int(process.stdout.readline().split()[1])
        children = [int(c) for c in Path(f"/proc/{zygote}/task/{zygote}/children").read_text().split()]
        assert children
        process.kill()
        end = time.monotonic() + 10
        while any(alive(pid) for pid in (zygote, *children)):
            assert time.monotonic() < end
            time.sleep(0.05)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_why_readers_cannot_be_started_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ReadersFailed, match=r"cannot be started: .*No such file"):
        Readers(1).start()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(ReadersFailed, match="ended while it started"):
        Readers(1).start()
