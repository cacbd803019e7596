"""Servers that are forked from a process which has loaded the service: its libraries alone take more than a second."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys

LOADED = ["service.app", "service.run", "service.receive.dicom.association", "tests.service.standin"]

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(LOADED)


class Forked:
    """A process that runs ``main`` as if it were started by itself; as much of ``subprocess.Popen`` as tests need.

    Parameters
    ----------
    main
        Function of a module, without arguments; gives the exit code.
    environment
        All variables that it finds.
    log
        File that its output is appended to.
    """

    def __init__(self, main, environment, log):
        self._process = CONTEXT.Process(target=_run, args=(main, environment, log))
        self._process.start()

    @property
    def pid(self):
        return self._process.pid

    def poll(self):
        return self._process.exitcode

    returncode = property(poll)

    def wait(self, seconds):
        self._process.join(seconds)
        if self.poll() is None:
            raise subprocess.TimeoutExpired("server.py", seconds)
        return self.poll()

    def send_signal(self, which):
        if self.poll() is None:
            os.kill(self.pid, which)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def terminate(self):
        self.send_signal(signal.SIGTERM)


def server():
    """What ``server.py`` does without arguments; its exit code."""
    from service.run import main

    return main([])


def _run(main, environment, log):
    os.environ.clear()
    os.environ.update(environment)
    written = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    for stream in (1, 2):
        os.dup2(written, stream)
    os.close(written)
    sys.exit(main())
