"""What a reader process may do: its memory, its CPU time, and the system calls that reading needs.

The filter lists what is allowed. Everything else fails with EPERM: opening a file by its name, sockets, new processes,
new programs, signals to other processes. What a reader needs is handed to it as open files.

References
----------
seccomp(2) and Linux ``Documentation/userspace-api/seccomp_filter.rst``; bpf instructions: ``linux/filter.h``,
``linux/bpf_common.h``, ``linux/seccomp.h``, ``linux/audit.h``. Numbers of system calls: ``asm/unistd_64.h`` (x86-64)
and ``asm-generic/unistd.h`` (arm64).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import signal
import struct

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
SECCOMP_MODE_FILTER = 2
LOAD_WORD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
RETURN_ALLOW, RETURN_ERROR, RETURN_KILL = 0x7FFF0000, 0x00050000, 0x80000000
AT_NUMBER, AT_ARCHITECTURE = 0, 4
"""Offsets of ``nr`` and ``arch`` in ``struct seccomp_data``."""

OPEN_FILES = 256
"""More than a visit has files."""

CALLS: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67), "lseek": (8, 62),
    "close": (3, 57), "fstat": (5, 80), "fcntl": (72, 25), "dup": (32, 23), "ftruncate": (77, 46),
    "poll": (7, None), "ppoll": (271, 73), "select": (23, None), "pselect6": (270, 72),
    "recvmsg": (47, 212), "recvfrom": (45, 207), "sendmsg": (46, 211), "sendto": (44, 206),
    "mmap": (9, 222), "munmap": (11, 215), "mremap": (25, 216), "mprotect": (10, 226), "madvise": (28, 233),
    "brk": (12, 214), "futex": (202, 98), "sched_yield": (24, 124), "sched_getaffinity": (204, 123),
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sigaltstack": (131, 132),
    "setitimer": (38, 103), "getrusage": (98, 165), "prlimit64": (302, 261), "getrlimit": (97, 163),
    "setrlimit": (160, 164), "clock_gettime": (228, 113), "clock_getres": (229, 114), "gettimeofday": (96, 169),
    "clock_nanosleep": (230, 115), "nanosleep": (35, 101), "getrandom": (318, 278),
    "getpid": (39, 172), "gettid": (186, 178), "getuid": (102, 174), "geteuid": (107, 175),
    "restart_syscall": (219, 128),
    "membarrier": (324, 283), "rseq": (334, 293), "exit": (60, 93), "exit_group": (231, 94),
}  # fmt: skip
"""Name to number on x86-64 and on arm64. ``tgkill`` is not among them: an aborting decoder then ends by an illegal
instruction, which is a death too."""
ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""Machine to the column of :data:`CALLS` and to its AUDIT_ARCH value."""


def limit_resources() -> None:
    """No core file, no file that grows, few open files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    few = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))


def die_with_parent(parent: int) -> None:
    """Be killed when the process that forked this one ends, however it ends."""
    _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the call
        os._exit(0)


def close_fence() -> bool:
    """Install the filter of system calls; ``False`` where this kernel or machine has none."""
    known = ARCHITECTURES.get(platform.machine())
    if known is None:
        return False
    column, architecture = known
    numbers = [call[column] for call in CALLS.values() if call[column] is not None]
    program = [
        _instruction(LOAD_WORD, 0, 0, AT_ARCHITECTURE),
        _instruction(JUMP_IF_EQUAL, 1, 0, architecture),
        _instruction(RETURN, 0, 0, RETURN_KILL),
        _instruction(LOAD_WORD, 0, 0, AT_NUMBER),
        *(_instruction(JUMP_IF_EQUAL, len(numbers) - k, 0, number) for k, number in enumerate(numbers)),
        _instruction(RETURN, 0, 0, RETURN_ERROR | errno.EPERM),
        _instruction(RETURN, 0, 0, RETURN_ALLOW),
    ]
    instructions = ctypes.create_string_buffer(b"".join(program), 8 * len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program), ctypes.addressof(instructions)))
    try:
        _prctl(PR_SET_NO_NEW_PRIVS, 1)
        _prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(header))
    except OSError:
        return False
    return True


def _instruction(code: int, if_true: int, if_false: int, value: int | None) -> bytes:
    return struct.pack("@HBBI", code, if_true, if_false, value or 0)


def _prctl(option: int, *values: int) -> None:
    arguments = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    if ctypes.CDLL(None, use_errno=True).prctl(option, *arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


class MemoryLimit:
    """How much more memory this process may take than it has at the beginning of a call.

    It counts private memory that can be written (``VmData``), so files and shared memory are not in it.

    References
    ----------
    getrlimit(2): RLIMIT_DATA (since Linux 4.7 with private mappings); proc(5): ``/proc/self/statm``.
    """

    def __init__(self) -> None:
        self._statm = os.open("/proc/self/statm", os.O_RDONLY)  # opened before the fence is closed
        self._at_first = self._at_begin = self._bytes()

    def begin(self) -> None:
        """A call begins."""
        self._at_begin = self._bytes()

    def allow(self, n_bytes: int) -> None:
        """Let the process have ``n_bytes`` more than when the call began."""
        resource.setrlimit(resource.RLIMIT_DATA, (self._at_begin + n_bytes, resource.RLIM_INFINITY))

    @property
    def grown_bytes(self) -> int:
        """How much memory it has taken since this object was made, and has not given back."""
        return self._bytes() - self._at_first

    def _bytes(self) -> int:
        return int(os.pread(self._statm, 200, 0).split()[5]) * resource.getpagesize()
