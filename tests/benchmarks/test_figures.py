"""The arithmetic of the measurements, against values worked out by hand and against the machine's own clocks."""

from __future__ import annotations

import math
import os
import statistics
import subprocess
import sys
import time

import pytest

from benchmarks.figures import CoreTime, median_ratio, parse_stat, percentiles, poisson_arrivals
from benchmarks.memory import memory_of, peak_memory, tree


def test_percentiles_are_values_that_were_measured():
    values = [5.0, 1.0, 3.0, 2.0, 4.0]
    assert percentiles(values, (50, 20, 21, 99, 100)) == [3.0, 1.0, 2.0, 5.0, 5.0]
    assert percentiles([float(v) for v in range(1, 101)], (50, 95, 99)) == [50.0, 95.0, 99.0]
    assert percentiles([7.0], (0, 50, 99)) == [7.0, 7.0, 7.0]
    assert math.isnan(percentiles([], (50,))[0])


def test_arrivals_are_a_poisson_process():
    times = poisson_arrivals(50.0, 200.0, seed=1)
    gaps = [b - a for a, b in zip([0.0, *times], times, strict=False)]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < 200
    assert len(times) == pytest.approx(10_000, abs=400)  # four standard deviations of a Poisson count
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.05)
    # an exponential's deviation is its mean, and a share 1/e of the gaps is longer than it
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert sum(gap > 1 / 50 for gap in gaps) / len(gaps) == pytest.approx(math.exp(-1), abs=0.02)


def test_arrivals_repeat_by_seed_and_refuse_no_rate():
    assert poisson_arrivals(10, 5, 3) == poisson_arrivals(10, 5, 3)
    assert poisson_arrivals(10, 5, 3) != poisson_arrivals(10, 5, 4)
    with pytest.raises(ValueError, match="no arrivals"):
        poisson_arrivals(0, 5, 3)


def test_a_ratio_is_of_pairs_not_of_medians():
    assert median_ratio([2.0, 40.0, 3.0], [1.0, 10.0, 3.0]) == 2.0


def test_stat_is_read_behind_whatever_name_the_process_has():
    line = "17 (a) b (c) R 1 2 3 4 5 6 7 8 9 10 150 50 30 20 20 0 1 0 99 0 0"
    assert parse_stat(line, ticks_per_s=100) == (1.8, 0.7)


def test_core_time_of_a_process_is_what_it_burnt():
    before = CoreTime.of(os.getpid())
    cpu, n = time.process_time(), 0
    while time.process_time() - cpu < 0.3:
        n += sum(range(1000)) > 0
    spent = before.ms_per(CoreTime.of(os.getpid()), 3)
    assert spent == pytest.approx(100, abs=30)  # the kernel's clock ticks every 10 ms
    assert math.isnan(before.ms_per(before, 0))


def test_core_time_and_memory_include_children():
    code = "import time\nx = bytearray(60_000_000)\nwhile time.process_time() < 0.4: pass\n"
    code += "print('done', flush=True)\ninput()"
    before, memory = CoreTime.of(os.getpid()), memory_of(list(tree(os.getpid()))).rss_mb
    child = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "done\n"
    living = before.ms_per(CoreTime.of(os.getpid()), 1)
    assert memory_of(list(tree(os.getpid()))).rss_mb > memory + 55
    child.communicate("\n")
    ended = before.ms_per(CoreTime.of(os.getpid()), 1)
    assert 380 <= living <= ended + 20


def test_shared_pages_count_once_and_the_peak_stays():
    """A page that two processes have since a fork is one page; what was freed was there."""
    code = "import os, signal, time\nx = bytearray(90_000_000)\nx[::4096] = b'x' * len(x[::4096])\n"
    code += "pid = os.fork()\nif not pid: time.sleep(60)\nprint('forked', flush=True)\ninput()\n"
    code += "os.kill(pid, signal.SIGKILL)\nos.wait()\n"
    with (
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as first,
        peak_memory(lambda: [first.pid], 0.02) as peak,
    ):
        assert first.stdout.readline() == "forked\n"
        now, end = memory_of(list(tree(first.pid))), time.monotonic() + 30
        while peak.pss_mb < 85 and time.monotonic() < end:
            time.sleep(0.01)
        first.communicate("\n")
        assert now.processes == 2
        assert 85 < now.pss_mb < 130
        assert now.rss_mb > 1.7 * now.pss_mb
    assert peak.pss_mb > 85
    assert memory_of(list(tree(first.pid))).processes == 0
