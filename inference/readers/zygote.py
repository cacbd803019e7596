"""The process from which readers are forked: it has loaded everything that they need, and reads no file itself.

A fork takes milliseconds, where a new Python with its libraries takes a second, and forks share their memory. A reader
that has died is therefore replaced at once.

``python -m inference.readers.zygote DESCRIPTOR MODULE…`` loads the modules, then serves the socket of that number.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import socket
import sys

from inference.readers import worker
from inference.readers.fence import die_with_parent
from inference.readers.loading import load
from inference.readers.wire import Gone, receive, send


def main(descriptor: int, jobs: list[str]) -> None:
    """Fork readers, and say how they ended, until the service closes its end."""
    load(jobs)
    for interrupting in (signal.SIGINT, signal.SIGTERM):  # sent to a whole group; the service ends its readers itself
        signal.signal(interrupting, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # no collection in a fork touches, and so copies, what was loaded here
    with socket.socket(fileno=descriptor) as control:
        send(control, b"{}")
        readers: set[int] = set()
        while True:
            try:
                message, files = receive(control, with_files=True)
            except Gone:
                return
            if files:
                pid = _fork(control, socket.socket(fileno=files[0]))
                readers.add(pid)
                answer = {"pid": pid}
            else:
                pid = json.loads(message)["end"]
                answer = {"status": _end(pid) if pid in readers else -signal.SIGKILL}  # else of an earlier zygote
                readers.discard(pid)
            send(control, json.dumps(answer).encode())


def _fork(control: socket.socket, connection: socket.socket) -> int:
    parent = os.getpid()
    pid = os.fork()
    if pid:
        connection.close()
        return pid
    code = 1
    try:
        control.close()
        die_with_parent(parent)
        worker.serve(connection)
        code = 0
    finally:
        os._exit(code)


def _end(pid: int) -> int:
    """End a reader that may have ended by itself; its exit code, or the negative number of the signal that ended it."""
    os.kill(pid, signal.SIGKILL)  # it is not reaped before this, so the number is still its own
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
