"""What stands on the command lines of exports and of cases to learn from."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime


def line(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > 500:
        raise argparse.ArgumentTypeError("one line of 1 to 500 characters")
    return text.strip()


def digest(text: str) -> str:
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise argparse.ArgumentTypeError("64 hexadecimal digits, as the other side was told them")
    return text


def moment(text: str) -> datetime:
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError("YYYY-MM-DD") from None
    return read if read.tzinfo else read.replace(tzinfo=UTC)


def site(text: str) -> str:
    if not 0 < len(text.strip()) <= 100 or not text.isprintable():
        raise argparse.ArgumentTypeError("1 to 100 characters")
    return text.strip()
