"""Prints what reading files takes: a script, because a process remembers its highest peak.

Each file is read in a child of this process, which has only loaded the readers. One JSON line a file: its name, the
most that :func:`data_specs.reading.require_memory` was asked for, and the most that the process grew by, in bytes.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import data_specs.cxr.dicom
import data_specs.cxr.raster
import data_specs.cxr.tiff  # noqa: F401
from data_specs.cxr.files import read_image
from data_specs.ecg.files import group_recordings, read_recording
from data_specs.ecg.posted import PostedFile
from data_specs.problems import Refused
from data_specs.reading import memory_limit


def status(key: str) -> int:
    found = re.search(rf"{key}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) * 1024


def read(path: Path) -> dict[str, int | str]:
    asked = [0]

    def grant(n_bytes: int) -> int:
        asked.append(n_bytes)
        return 1 << 40

    content = path.read_bytes()
    before = status("VmRSS")
    result = "read"
    with memory_limit(grant):
        try:
            if path.suffix == ".film":
                read_image(content)
            else:
                for group in group_recordings([PostedFile(0, path.name, content)]):
                    read_recording(group, ecg_unit="mV")
        except Refused as refused:
            result = refused.problem.code
    return {"name": path.stem, "result": result, "asked": max(asked), "peak": status("VmHWM") - before}


def main() -> None:
    for name in sys.argv[1:]:
        child = os.fork()
        if child == 0:
            print(json.dumps(read(Path(name))), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
