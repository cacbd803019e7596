"""Children of one Python that has loaded what they run (that takes seconds): to train together, or to be killed.

``python children.py MODULE FUNCTION together N ARGUMENT…`` calls the function in N processes, as ``torchrun`` would;
``… apart ARGUMENT…`` calls it once for each argument. It prints how each process ended.
"""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable

from benchmarks.serving import free_port
from tests.conftest import ROOT

ALONE = {"PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


def ends(function: Callable[..., None], *how: str) -> tuple[list[int], str, str]:
    """Exit code of each process (a signal's number is negative), and what all wrote to stdout and stderr."""
    done = subprocess.run(
        [sys.executable, __file__, function.__module__, function.__name__, *how],
        env={**os.environ, **ALONE},
        capture_output=True,
        check=False,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    *said, codes = done.stdout.splitlines()
    return json.loads(codes), "\n".join(said), done.stderr


def main(module: str, name: str, how: str, *arguments: str) -> None:
    function = getattr(importlib.import_module(module), name)
    context = multiprocessing.get_context("fork")
    if how == "together":
        n, *arguments = arguments
        meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": n, "LOCAL_WORLD_SIZE": n}
        ranks = [{**meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(int(n))]
        children = [context.Process(target=_with, args=(rank, function, *arguments)) for rank in ranks]
    else:
        children = [context.Process(target=function, args=(argument,)) for argument in arguments]
    for child in children:
        child.start()
    for child in children:
        child.join()
    print(json.dumps([child.exitcode for child in children]))


def _with(environment: dict[str, str], function: Callable[..., None], *arguments: str) -> None:
    os.environ.update(environment)
    function(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
