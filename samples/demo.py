"""``make demo``: start the server on loopback, post the sample visit, print its findings, keep serving."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path

from client.cases import Case, Field
from client.connection import Connection
from client.shown import text

SAMPLES = Path(__file__).resolve().parent
FILES: tuple[tuple[Field, str], ...] = (
    ("image", "film-normal.jpg"),
    ("image", "film-abnormal.jpg"),
    ("ecg", "E07517.hea"),
    ("ecg", "E07517.mat"),
    ("ecg", "recording.dcm"),
)


def wait_until_ready(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for ``/readyz``; leave with the server's log where it stopped, or after a minute."""
    for _ in range(600):
        if server.poll() is not None:
            sys.exit(log.read_text())
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(f"{address}/readyz"):
            return
        time.sleep(0.1)
    sys.exit("the server did not get ready within a minute")


def main() -> None:
    host, port = os.environ.get("SANGLOC_HOST", "127.0.0.1"), os.environ.get("SANGLOC_PORT", "8080")
    address = f"http://{host}:{port}"
    data_dir = Path(os.environ.get("SANGLOC_DATA_DIR", "var"))
    for number in (signal.SIGINT, signal.SIGTERM):
        # Both signals raise KeyboardInterrupt, so that the server is stopped with the demo.
        signal.signal(number, signal.default_int_handler)
    data_dir.mkdir(parents=True, exist_ok=True)
    log = data_dir / "server.log"
    with log.open("ab") as stream:
        server = subprocess.Popen([sys.executable, str(SAMPLES.parent / "server.py")], stdout=stream, stderr=stream)
    try:
        wait_until_ready(address, server, log)
        key = os.environ.get("SANGLOC_BOOTSTRAP_KEY") or (data_dir / "admin.key").read_text().strip()
        context = json.loads((SAMPLES / "context.json").read_text("utf-8"))
        case = Case("sample", tuple((field, SAMPLES / name) for field, name in FILES), context)
        with contextlib.closing(
            Connection(address, key, language=os.environ.get("LANGUAGE_OF_REPORT", "en"))
        ) as connection:
            visit = connection.wait(connection.post(case, uuid.uuid4().hex)["id"])
        print(f"\n{text(visit)}\n\nThe page: {address}/visits/{visit['id']}", flush=True)
        print(f"Its report: {address}/v1/visits/{visit['id']}/report.pdf (.html, .fhir.json, .hl7 …)", flush=True)
        print(f"Sign in with the key in {data_dir / 'admin.key'}. Log: {log}. Ctrl-C stops the server.", flush=True)
        server.wait()
    except KeyboardInterrupt:
        pass
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
