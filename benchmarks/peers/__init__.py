"""The service beside five serving frameworks: same weights, same bytes, same clients, in alternation.

Each framework is a real server in an environment of its own (``make bench-peers``), started, awaited, checked against
the bare session's answers, warmed up, measured and stopped before the next one gets the machine. Before the rounds each
tries the settings it is given and keeps its best one. What could not be started is named with its reason.
"""

from benchmarks.peers.alternation import main

__all__ = ["main"]
