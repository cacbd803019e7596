"""Work that goes on in threads while something else is done."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def beside(ended: threading.Event, *works: Callable[[], None]) -> Iterator[None]:
    """Run each of ``works`` in a thread meanwhile; at the end ``ended`` is set, and each is waited for."""
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()
