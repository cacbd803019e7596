"""The service compared with six serving frameworks: same weights, same bytes, same clients, measured alternately.

Each framework is a real server in a separate environment (``make bench-peers``). It is started, checked against the
answers of the session alone, warmed up, measured and stopped before the next one starts. Before the rounds the best of
several settings is chosen for each. A framework that could not be started is named with the reason.
"""

from benchmarks.peers.alternation import main

__all__ = ["main"]
