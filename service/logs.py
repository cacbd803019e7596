"""Logs: one JSON object in each line on stderr, without anything that names a person.

No query string, no body, no filename and no message of an exception is logged: any of them may name a person, and a
message may quote a value. Visits are named by their random ids, addresses by their route.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from pathlib import Path
from typing import TextIO, cast

import structlog

FRAMES = 6
"""Innermost calls that are logged for an exception."""


class LeavesOut:
    """A text stream for logs: a line that cannot be written (full disk, its reader has ended) is left out.

    No request, visit or delivery may fail for its log.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        """Write ``text``, or leave it out."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        """Write what the stream holds back, if it can be written."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


def set_up_logs(level: int = logging.INFO) -> None:
    """Send structlog's events and the server's own to stderr as JSON."""
    lines = cast("TextIO", LeavesOut(sys.stderr))
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer(ensure_ascii=False)],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(lines),
        cache_logger_on_first_use=False,
    )
    stream = logging.StreamHandler(lines)
    stream.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _without_message_of_exception,
                structlog.processors.JSONRenderer(ensure_ascii=False),
            ],
        )
    )
    logging.basicConfig(handlers=[stream], level=logging.WARNING, force=True)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of each malformed body, which gets 422


def where_it_failed(error: BaseException) -> dict[str, object]:
    """The type of an exception and the innermost calls that it passed, without its message."""
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return {
        "error": type(error).__name__,
        "at": [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames],
    }


def _without_message_of_exception(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    info = event.pop("exc_info", None)
    if info is True:
        info = sys.exc_info()
    if isinstance(info, tuple) and info[1] is not None:
        event.update(where_it_failed(info[1]))
    event.pop("stack_info", None)
    if str(event.get("event", "")).startswith("Traceback"):  # Starlette's own message of a failed start
        event["event"] = "application did not start"
    return event
