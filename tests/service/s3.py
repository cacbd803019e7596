"""An S3 server on loopback (moto), with one bucket ``visits``."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys

import pytest

from benchmarks.serving import free_port
from tests.service.serving import until


@contextlib.contextmanager
def s3_server():
    """Start one, give the variables of the environment that lead to it, end it."""
    pytest.importorskip("moto.server", reason="moto is not installed: nothing is tried over S3")
    boto3 = pytest.importorskip("boto3")
    port = str(free_port())
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        stack.callback(server.terminate)
        until(lambda: _listens(int(port)), 60)
        client = boto3.client(
            "s3", endpoint_url=environment["AWS_ENDPOINT_URL"], region_name="us-east-1",
            aws_access_key_id="test", aws_secret_access_key="test",
        )  # fmt: skip
        stack.callback(client.close)
        client.create_bucket(Bucket="visits")
        yield environment


def _listens(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False
