"""What the service needs of an inference engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from data_specs.visit.assessment import Assessment
from data_specs.visit.context import Context

if TYPE_CHECKING:
    from inference.bundles.loading import Bundle
    from inference.engine import Input, ShadowAnswer
    from inference.runtime.batcher import Batcher


class Engine(Protocol):
    """What the service needs of ``inference.engine.Engine``.

    ``assess`` raises for no input, whatever its content.
    """

    async def assess(self, inputs: Sequence[Input], context: Context, site: str) -> Assessment: ...

    @property
    def bundles(self) -> Mapping[str, Bundle]: ...

    @property
    def batchers(self) -> Mapping[str, Batcher]: ...

    @property
    def has_shadows(self) -> bool: ...

    async def assess_shadows(self, inputs: Sequence[Input], context: Context) -> list[ShadowAnswer]: ...

    def models(self) -> list[dict[str, Any]]: ...

    async def aclose(self) -> None: ...
