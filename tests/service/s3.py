"""The S3 server of the benchmarks (moto), for tests; where it is not installed they are skipped."""

from __future__ import annotations

import pytest

from benchmarks.chaos import s3
from benchmarks.chaos.s3 import BUCKET

__all__ = ["BUCKET", "S3"]


class S3(s3.S3):
    """The running server, with one bucket; it forgets what it held when it is stopped."""

    def __init__(self):
        if not s3.installed():
            pytest.skip("moto or s3fs is not installed: nothing is tried over S3 in this run")
        super().__init__()
        self.start()
