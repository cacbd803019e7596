"""Readers that all tests of a process share: to start them takes a second."""

from __future__ import annotations

import atexit
from functools import cache

from inference.readers.pool import Readers


@cache
def shared_readers() -> Readers:
    readers = Readers()
    atexit.register(readers.close)
    return readers
