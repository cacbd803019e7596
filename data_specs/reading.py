"""What every reader of strangers' bytes keeps to: how much memory it may take, and that it raises refusals only.

A file that cannot be assessed may still be looked at (:func:`only_to_look`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from data_specs.problems import Refused

MEMORY_LIMIT_BYTES = 448 << 20
"""What reading one file may take beside its own bytes where no other limit is set. A film of 10,000 × 10,000 pixels of
16 bits takes 300 MB (``MAX_PIXELS``), and the same with a deflated data set 400 MB."""

Grant = Callable[[int], int]
"""Gets the bytes that a file needs, and gives the most that it may take. It may ask and wait for memory."""

_limit: ContextVar[int | Grant] = ContextVar("memory_limit", default=MEMORY_LIMIT_BYTES)


@contextmanager
def memory_limit(limit: int | Grant) -> Iterator[None]:
    """Set another limit for what is read inside, in this thread: so many bytes, or what a function grants."""
    token = _limit.set(limit)
    try:
        yield
    finally:
        _limit.reset(token)


def require_memory(n_bytes: int) -> None:
    """Called by a reader before it allocates.

    Parameters
    ----------
    n_bytes
        The most that it is about to have at once, beside the bytes of the file: arrays, and what a decoder takes for
        itself.

    Raises
    ------
    Refused
        ``too_costly`` where that is more than a file may take.
    """
    limit = _limit.get()
    most = limit if isinstance(limit, int) else limit(n_bytes)
    if n_bytes > most:
        raise Refused("too_costly", f"{-(-n_bytes >> 20)} MB", f"≤ {most >> 20} MB")


_to_assess: ContextVar[bool] = ContextVar("to_assess", default=True)


@contextmanager
def only_to_look() -> Iterator[None]:
    """Files are read inside to be looked at by a person: what can be decoded is not refused, in this thread."""
    token = _to_assess.set(False)
    try:
        yield
    finally:
        _to_assess.reset(token)


def refuse_to_assess(code: str, found: object = "", expected: object = "") -> None:
    """Refuse what can be decoded and cannot be assessed: another part of the body, too few leads, too small a film.

    Raises
    ------
    Refused
        Not inside :func:`only_to_look`.
    """
    if _to_assess.get():
        raise Refused(code, found, expected)


@contextmanager
def refusals_only(what: str, expected: str = "") -> Iterator[None]:
    """Let a parser raise nothing but :class:`Refused`. Parsers and decoders raise any kind of error on damaged bytes.

    Parameters
    ----------
    what, expected
        What is read, and what can be read, for the message. Of the error only the kind is shown: its text may quote the
        file, which may name the person.

    Raises
    ------
    Refused
        ``too_costly`` in place of a MemoryError, ``unreadable`` in place of any other error.
    """
    try:
        yield
    except Refused:
        raise
    except MemoryError as error:
        raise Refused("too_costly", f"{what}: MemoryError") from error
    except Exception as error:
        raise Refused("unreadable", f"{what}: {type(error).__name__}", expected) from error
