"""A file of weights that may harm its reader is read in a process that may die: little memory, little time, no secrets.

``python -m training.imported.disposable FORMAT FILE OUT`` writes nothing but tensors, which the caller loads as such.
"""

from __future__ import annotations

import importlib
import os
import pickle
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

FORMATS = ("pickled", "keras")
CPU_S, WALL_S = 120, 300
MEMORY_PER_BYTE, MEMORY_BYTES = 4, 512 << 20
"""What reading may take beyond what the process has when it begins, by the size of the file and at least."""
REFUSED = 3


class Unreadable(ValueError):
    """The file was refused, or its reader died; ``wants`` is the name that was not on the list, if that is why."""

    def __init__(self, reason: str, wants: str | None = None) -> None:
        super().__init__(reason)
        self.wants = wants


def read_disposably(kind: str, path: Path) -> dict[str, Any]:
    """Tensors of a file in nested dictionaries, read in a process of its own.

    Raises
    ------
    Unreadable
        It was refused, or took too much time or memory.
    """
    environment = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    with tempfile.TemporaryDirectory(prefix="weights-") as folder:
        out = Path(folder) / "tensors.pt"
        command = [sys.executable, "-m", __name__, kind, str(path.absolute()), str(out)]
        try:
            done = subprocess.run(
                command,
                cwd=Path(__file__).parents[2],
                env={**environment, "OMP_NUM_THREADS": "1"},
                capture_output=True,
                text=True,
                timeout=WALL_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise Unreadable(f"reading it took more than {WALL_S} s") from None
        if done.returncode == REFUSED:
            wants, _, reason = done.stdout.partition("\n")
            raise Unreadable(reason.strip(), wants or None)
        if done.returncode:
            raise Unreadable("reading it took more time or memory than a file of its size may take")
        return dict(torch.load(out, map_location="cpu", weights_only=True))


def main(kind: str, path: Path, out: Path) -> int:
    """Read one file under limits; 0, or 3 after the name that it wanted and the reason on standard output."""
    if kind == "keras":
        try:
            importlib.import_module("h5py")
        except ImportError:
            print("\nreading Keras files needs the package h5py, which is not installed")
            return REFUSED
    readers = importlib.import_module(f"training.imported.{kind}")
    read = readers.read_modules if kind == "pickled" else readers.read_keras
    _limit(path.stat().st_size)
    try:
        torch.save(read(path), out)
    except MemoryError:
        raise
    except pickle.UnpicklingError as error:
        print(f"{getattr(error, 'name', '')}\n{error}")
        return REFUSED
    except Exception as error:  # a damaged file may raise anything
        print(f"\n{error if isinstance(error, ValueError) else type(error).__name__}")
        return REFUSED
    return 0


def _limit(size: int) -> None:
    """From here on: this much more memory, this much time, and no file larger than that."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    more = MEMORY_BYTES + MEMORY_PER_BYTE * size
    for limit, most in (
        (resource.RLIMIT_AS, pages * resource.getpagesize() + more),
        (resource.RLIMIT_CPU, CPU_S),
        (resource.RLIMIT_FSIZE, more),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(limit, (most, most))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])))
