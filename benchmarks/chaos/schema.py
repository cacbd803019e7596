"""Schemathesis against a running server: what the OpenAPI document says is what the service does."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.chaos.audit import sqlite_of, wait_until_done
from benchmarks.chaos.plan import Plan
from benchmarks.chaos.record import Figures
from benchmarks.chaos.servers import running
from benchmarks.report import Line
from benchmarks.serving import KEY

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "ignored_auth",
    "use_after_free",
)
CASES = 2_000
EXAMPLES = 20
"""Requests that are tried for an operation in each phase."""
UNMADE = "Serialization not possible"
"""How schemathesis calls that it has no writer for a media type: ``multipart/related``, pieces of uploads."""
DONE_S = 60.0
LEAST_S = 90.0
"""To ask every operation at least once, also in a short campaign on a slow machine."""
SPARE_S = 120.0
"""For its start and the phase that it is in when its time is over."""


def run(plan: Plan, figures: Figures) -> None:
    """Ask every operation with values that the document allows and forbids, alone and one after the other."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(Path(folder), errors=plan.errors) as (server,),
    ):
        plan.begin()
        path, seconds = Path(folder, "report.json"), max(LEAST_S, plan.left_s)
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "run", f"http://127.0.0.1:{server.port}/openapi.json",
            "--header", f"Authorization: Bearer {KEY}", "--checks", ",".join(CHECKS), "--continue-on-failure",
            "--max-examples", str(EXAMPLES), "--max-time", str(round(seconds)), "--seed", str(plan.seed),
            "--report-json-path", str(path), "--no-color",
        ]  # fmt: skip
        pid = server.pid
        limit_s = seconds + SPARE_S
        said = subprocess.run(command, cwd=folder, capture_output=True, timeout=limit_s, check=False).stdout
        _note(json.loads(path.read_text()), said, figures, plan)
        figures.counts["server ended"] += server.pid != pid
        if server.pid:
            wait_until_done(sqlite_of(server), DONE_S)


def _note(report: dict[str, Any], said: bytes, figures: Figures, plan: Plan) -> None:
    operations, faults = report["operations"], [*report["failures"]]
    figures.counts["cases"] += report["test_cases"]["generated"]
    figures.counts["operations"] = operations["tested"]
    figures.counts["not asked"] = operations["selected"] - operations["tested"]
    for error in report["errors"]:
        if error["title"] == UNMADE:
            figures.note(f"{error['count']} operations take bodies that schemathesis cannot make: asked without by it")
        else:
            faults.append(error)
    for fault in faults:
        figures.counts[f"fault {fault['title']}"] += fault["count"]
    if faults:
        plan.save("schema", said, {"part": "schema", "what": ", ".join(fault["title"] for fault in faults)})


def again(_: dict[str, Any], content: bytes) -> str:
    """What schemathesis said: it names the command that repeats each failure."""
    return content.decode()


def lines(figures: Figures, plan: Plan) -> list[Line]:
    """The rows of the table."""
    return [
        Line("requests of schemathesis", float(figures.counts["cases"]), at_least=plan.amount(CASES),
             note=f"{figures.counts['operations']} operations"),
        figures.none("operations not asked", "not asked"),
        Line("server errors, answers unlike the document", float(figures.total("fault ")), at_most=0,
             note=figures.listed("fault ")),
        figures.none("servers that ended", "server ended"),
    ]  # fmt: skip
