"""An S3 server on loopback (moto), a process of its own that can be stopped and started; it keeps nothing on disk."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import subprocess
import sys
import time
from typing import Any

from benchmarks.serving import free_port

START_S = 60.0
BUCKET, REGION, SECRET = "visits", "us-east-1", "test"


def installed() -> bool:
    """Whether the server (moto, of the extra ``test``) and the service's client (s3fs) are installed."""
    return all(importlib.util.find_spec(name) is not None for name in ("moto", "flask", "boto3", "s3fs"))


class S3:
    """The running server, with one bucket.

    Attributes
    ----------
    port
        Of loopback, where it listens.
    environment
        In which its clients find it.
    """

    def __init__(self) -> None:
        self.port = free_port()
        self.environment = environment_at(f"http://127.0.0.1:{self.port}")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Of the running process; 0 where none runs."""
        return self._process.pid if self._process is not None else 0

    def start(self) -> None:
        """Start it, with an empty bucket.

        Raises
        ------
        RuntimeError
            It did not listen in time.
        """
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + START_S
        while not self._listens():
            if time.monotonic() > end or self._process.poll() is not None:
                raise RuntimeError("the S3 server does not listen")
            time.sleep(0.05)
        with contextlib.closing(self.client()) as client:
            client.create_bucket(Bucket=BUCKET)

    def stop(self) -> None:
        """Stop it. What it held is gone."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(20)

    def client(self) -> Any:
        """A client of boto3."""
        import boto3  # type: ignore[import-untyped]  # noqa: PLC0415  comes with moto

        return boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name=REGION,
            aws_access_key_id=SECRET,
            aws_secret_access_key=SECRET,
        )

    def names(self, prefix: str = "") -> list[str]:
        """The names of the first thousand objects."""
        with contextlib.closing(self.client()) as client:
            found = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
            return [each["Key"] for each in found.get("Contents", ())]

    def _listens(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False


def environment_at(address: str) -> dict[str, str]:
    """The environment of a client that reaches the server at ``address``."""
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": SECRET,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": REGION,
    }
