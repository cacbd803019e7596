"""Commands that are run beside a server, over its data."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from tests.conftest import ROOT


def without_log(text):
    """What a command in this process printed, without what a server in the same process logged."""
    return "".join(line for line in text.splitlines(True) if not re.match(r"[-0-9]{10} [:0-9]{8} \[", line))


def environment_of(folder, database_url="", **more):
    """The environment of a server over this data, and of the commands beside it."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("SANGLOC_")}
    return plain | {"SANGLOC_DATA_DIR": str(folder), "SANGLOC_DATABASE_URL": database_url, **more}


def started(module, *arguments, environment):
    """A command in a process of its own."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def done(module, *arguments, environment):
    """Exit code, output and messages of a command."""
    with started(module, *arguments, environment=environment) as process:
        out, err = process.communicate(timeout=120)
    return process.returncode, out, err
