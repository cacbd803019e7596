"""A loaded graph as the rest of the program sees it, in whichever runtime it is computed, and where it is computed."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]
Runtime = Literal["onnxruntime", "openvino"]
Precision = Literal["fp32", "fp16", "bf16"]


class DeviceError(RuntimeError):
    """The device or runtime that was asked for is not active; a silent fallback to another one would hide that."""


@dataclass(frozen=True)
class Setup:
    """How a graph is run.

    Parameters
    ----------
    batch
        Rows of every run, padding included; ``None``: any number.
    streams
        Runs that may be computed at the same time.
    """

    runtime: Runtime
    precision: Precision
    batch: int | None = None
    streams: int = 1

    def __str__(self) -> str:
        """``openvino:bf16:8x2``; a free batch is ``*``."""
        return f"{self.runtime}:{self.precision}:{self.batch or '*'}x{self.streams}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of ``str``.

        Raises
        ------
        ValueError
            ``text`` is not a setup.
        """
        found = re.fullmatch(r"(onnxruntime|openvino):(fp32|fp16|bf16):(\*|[1-9]\d{0,3})x([1-9]\d{0,2})", text)
        if found is None:
            raise ValueError(f"not a session's setup: {text[:40]!r}")
        runtime, precision, batch, streams = found.groups()
        return cls(
            cast(Runtime, runtime), cast(Precision, precision), None if batch == "*" else int(batch), int(streams)
        )


REFERENCE = Setup("onnxruntime", "fp32")
"""Every other setup has to give its results; used where no other setup opens."""

FIXED = "onnxruntime:fp32"
"""The session of a :class:`Machine` whose user asks for none; it is opened without measuring."""


@dataclass(frozen=True)
class Machine:
    """Where sessions compute.

    Parameters
    ----------
    device
        ``cpu``, ``cuda`` or ``auto``.
    threads
        On the CPU, for each bundle; by default one per core.
    session
        ``auto``: the cheapest one. ``RUNTIME:PRECISION``: that one, in fp32 where a manifest does not allow the
        precision.
    cache
        Folder of what sessions were measured to cost; without one, nothing is measured.
    """

    device: str = "auto"
    threads: int = field(default_factory=lambda: os.cpu_count() or 1)
    session: str = FIXED
    cache: Path | None = None


ONE_THREAD = Machine("cpu", threads=1)
"""For checking a bundle or reading what it contains, not for serving it."""


class Session(Protocol):
    """A loaded graph.

    Parameters
    ----------
    outputs
        Names of what :meth:`run` returns, in its order.
    provider
        Part of the runtime that computes, as the runtime names it.
    device
        ``cpu`` or ``cuda``.
    """

    outputs: tuple[str, ...]
    setup: Setup
    provider: str
    device: str

    def accepts(self, rows: Array) -> bool:
        """Whether ``rows`` has the graph's dtype and, behind the batch dimension, its shape."""

    def run(self, batch: Array) -> tuple[Array, ...]:
        """Outputs of any number of rows, each ``(n, ...)`` and the caller's own.

        Up to ``setup.streams`` threads may call it at once; it releases the GIL while it computes.
        """


@dataclass(frozen=True)
class RowShape:
    """Dtype and shape of one row; ``None``: any size."""

    dtype: np.dtype[np.generic]
    sizes: tuple[int | None, ...]

    def fits(self, rows: Array) -> bool:
        return (
            rows.dtype == self.dtype
            and rows.ndim == len(self.sizes) + 1
            and all(want in (None, have) for want, have in zip(self.sizes, rows.shape[1:], strict=True))
        )

    def fixed(self) -> tuple[int, ...]:
        """The sizes as numbers.

        Raises
        ------
        ValueError
            One of them is free.
        """
        if None in self.sizes:
            raise ValueError(f"a graph with free sizes {self.sizes} has no fixed shape")
        return cast(tuple[int, ...], self.sizes)


def in_runs(rows: Array, size: int, run: Callable[[Array], Sequence[Array]]) -> tuple[Array, ...]:
    """Outputs of ``rows``, computed at most ``size`` rows at a time."""
    if len(rows) <= size:
        return tuple(run(rows))
    parts = [run(rows[at : at + size]) for at in range(0, len(rows), size)]
    return tuple(np.concatenate(same) for same in zip(*parts, strict=True))


def fill(buffer: Array, rows: Array) -> None:
    """Put ``rows`` first in ``buffer`` and zeros, not the rows of an earlier run, behind them."""
    buffer[: len(rows)] = rows
    buffer[len(rows) :] = 0
