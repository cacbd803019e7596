"""A campaign that tries to take the service down, and counts what was lost, done twice, refused wrongly, or late.

The servers are real (``server.py`` with the shipped bundles), and so are the files. ``docs/reference/reliability.md``
says what each part does and what it measured.
"""

from __future__ import annotations

from collections.abc import Sequence


def main(arguments: Sequence[str]) -> None:
    """As :func:`benchmarks.chaos.campaign.main`."""
    # here, because the process that watches a server's health is of this package and has to start quickly
    from benchmarks.chaos import campaign  # noqa: PLC0415

    campaign.main(arguments)
