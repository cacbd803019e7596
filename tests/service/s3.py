"""An S3 server on loopback (moto) that can be stopped and started again; it forgets what it held."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys

import pytest

from benchmarks.serving import free_port
from tests.service.serving import until

BUCKET = "visits"


class S3:
    """The running server, with one bucket."""

    def __init__(self):
        pytest.importorskip("moto.server", reason="moto is not installed: nothing is tried over S3 in this run")
        self._boto3 = pytest.importorskip(
            "boto3", reason="boto3 is not installed: nothing is tried over S3 in this run"
        )
        self._port = free_port()
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        self.start()

    def start(self):
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self._port)]
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._listens, 60)
        with contextlib.closing(self.client()) as client:
            client.create_bucket(Bucket=BUCKET)

    def stop(self):
        self._server.terminate()
        self._server.wait(20)

    def client(self):
        return self._boto3.client(
            "s3",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def names(self, prefix=""):
        """The names of the objects."""
        with contextlib.closing(self.client()) as client:
            found = client.list_objects_v2(Bucket=BUCKET, Prefix=prefix)
            return [each["Key"] for each in found.get("Contents", ())]

    def _listens(self):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
            return True
        return False
