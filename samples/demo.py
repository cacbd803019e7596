"""``make demo``: start the server on loopback, post the sample visit, print its findings, keep serving.

The client uses the standard library only, so that it shows what a site's own script needs.
"""

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
from typing import Any

SAMPLES = Path(__file__).resolve().parent
FILES = (
    ("image", "film-normal.jpg", "image/jpeg"),
    ("image", "film-abnormal.jpg", "image/jpeg"),
    ("ecg", "E07517.hea", "application/octet-stream"),
    ("ecg", "E07517.mat", "application/octet-stream"),
    ("ecg", "recording.dcm", "application/dicom"),
    ("context", "context.json", "application/json"),
)


def multipart() -> tuple[bytes, str]:
    """Body and content type of the sample visit (RFC 7578)."""
    boundary = uuid.uuid4().hex
    parts = []
    for field, name, content_type in FILES:
        head = (
            f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
            f"Content-Type: {content_type}\r\n\r\n"
        )
        parts.append(head.encode() + (SAMPLES / name).read_bytes() + b"\r\n")
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"


def wait_until_ready(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for ``/readyz``; leave with the server's log where it stopped, or after a minute."""
    for _ in range(600):
        if server.poll() is not None:
            sys.exit(log.read_text())
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(f"{address}/readyz"):
            return
        time.sleep(0.1)
    sys.exit("the server did not get ready within a minute")


def post_visit(address: str, key: str, language: str) -> dict[str, Any]:
    """Post the sample visit and wait for its result."""
    body, content_type = multipart()
    headers = {
        "Authorization": f"Bearer {key}",
        "Content-Type": content_type,
        "Accept-Language": language,
        "Prefer": "wait=60",
    }
    request = urllib.request.Request(f"{address}/v1/visits", data=body, headers=headers, method="POST")
    with urllib.request.urlopen(request) as response:
        visit: dict[str, Any] = json.load(response)
        return visit


def table(visit: dict[str, Any]) -> str:
    """The visit as lines of text."""
    lines = [f"Priority: {visit['priority']}"]
    lines += [f"  - {reason['message']}" for reason in visit["priority_reasons"]]
    for name, organ in visit["organs"].items():
        risk = "" if organ["risk"] is None else f", risk {organ['risk']:.0%}"
        lines += [
            "",
            f"{name.upper()}: {organ['status'].replace('_', ' ')}, {organ['category'] or 'no category'}{risk}",
        ]
        for found in organ["findings"]:
            lines.append(f"  {found['display']:<44} {answer(found)}")
        lines += [f"  - {reason['message']}" for reason in organ["reasons"]]
    lines += ["", "Files:"]
    for posted in visit["inputs"]:
        if posted["field"] != "context":
            lines.append(
                f"  {posted['filename']:<20} {posted['format'] or '?':<8} "
                f"{'used' if posted['accepted'] else 'NOT USED'}"
            )
            lines += [f"    - {problem['message']}" for problem in posted["problems"]]
    lines += ["", "Models: " + ", ".join(f"{m['name']} {m['version']}" for m in visit["models"])]
    lines += ["Decision support, never a diagnosis. A doctor decides."]
    return "\n".join(lines)


def answer(found: dict[str, Any]) -> str:
    """A finding's value with its unit, or its probability with the operating point that decided."""
    if found["probability"] is None:
        value = f"{found['value']:g}" if isinstance(found["value"], float) else found["value"]
        return f"{value} {found['unit'] or ''}".rstrip()
    point = found["operating_point"]
    if point is None:
        return f"{found['probability']:>6.1%}"
    verdict = "POSITIVE" if found["positive"] else "negative"
    return f"{found['probability']:>6.1%}  {verdict} at '{point['name']}' (from {point['threshold']:.1%})"


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
        visit = post_visit(address, key, os.environ.get("LANGUAGE_OF_REPORT", "en"))
        print(f"\n{table(visit)}\n\nThe page: {address}/visits/{visit['id']}", flush=True)
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
