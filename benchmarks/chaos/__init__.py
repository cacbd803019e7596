"""A campaign that tries to take the service down, and counts what was lost, done twice, refused wrongly, or late.

The servers are real (``server.py`` with the shipped bundles), and so are the files. ``docs/reference/reliability.md``
says what each part does and what it measured.
"""

from benchmarks.chaos.campaign import main

__all__ = ["main"]
