"""``python -m benchmarks.unlogged PYTHON SERVER``: the server without the audit log, to be measured beside it."""

from __future__ import annotations

import runpy
import sys
from typing import Any

from benchmarks.files import ROOT
from service.api import edge
from service.storage import database


def leave_out() -> None:
    """From now on this process appends nothing to the log, and records no look."""

    def nothing(*_: Any) -> None:
        return None

    vars(database)["append_noted"] = nothing
    vars(edge)["look_of"] = nothing


if __name__ == "__main__":
    leave_out()
    sys.argv = sys.argv[2:]
    runpy.run_path(str(ROOT / "server.py"), run_name="__main__")
