"""What the service needs of an inference engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from data_specs.problems import Problem
from data_specs.visit.assessment import Assessment
from data_specs.visit.context import Context

if TYPE_CHECKING:
    from inference.engine import Input, ShadowAnswer


class Engine(Protocol):
    """What the service needs of ``inference.engine.Engine``.

    ``assess`` raises for no input whatsoever. ``before_decode`` is awaited with the index of a file before native code
    touches it, one file at a time: while it is given, the next file is not begun before the last one is decoded.
    """

    @property
    def ready(self) -> bool: ...

    async def assess(
        self,
        inputs: Sequence[Input],
        context: Context,
        *,
        before_decode: Callable[[int], Awaitable[None]] | None = None,
        refused: Mapping[int, Problem] = ...,
    ) -> Assessment: ...

    @property
    def has_shadows(self) -> bool: ...

    async def assess_shadows(self, inputs: Sequence[Input], context: Context) -> list[ShadowAnswer]: ...

    def models(self) -> list[dict[str, Any]]: ...

    async def aclose(self) -> None: ...
