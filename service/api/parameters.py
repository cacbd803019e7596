"""Query parameters that an address does not have are refused: one that is misspelt would be no filter at all."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BeforeValidator

from service.api.session import current_key
from service.errors import FieldFault, InvalidRequest
from service.faults import BETWEEN, quoted_name


def _truth(given: Any) -> Any:
    """The value of a truth of JSON; of another text one that no truth is."""
    return {"true": True, "false": False}.get(given, "") if isinstance(given, str) else given


Truth = Annotated[bool, BeforeValidator(_truth)]
"""``true`` or ``false``, as the document says: ``0``, ``on`` or ``no`` is refused."""


async def known_parameters(request: Request) -> None:
    """Let a GET of ``/v1`` pass that has known query parameters only, each once.

    Raises
    ------
    Unauthorised, TooManyWrongKeys, Busy, Forbidden
        As :func:`current_key`: a caller without a key learns of the key first.
    InvalidRequest
        It names the first that is unknown, with the known ones, or that is repeated.
    """
    route = request.scope.get("route")
    if request.method != "GET" or not request.url.path.startswith("/v1/") or not isinstance(route, APIRoute):
        return
    known = _names(route.dependant)
    asked = [name for name, _ in request.query_params.multi_items()]
    if (set(asked) - set(known) or len(set(asked)) < len(asked)) and _asks_for_a_key(route.dependant):
        await current_key(request)
    for name in asked:
        if name not in known:
            raise InvalidRequest(FieldFault(f"query.{quoted_name(name)}", "field_unknown", BETWEEN.join(known)))
        if asked.count(name) > 1:
            raise InvalidRequest(FieldFault(f"query.{name}", "field_repeated"))


def _asks_for_a_key(dependant: Dependant) -> bool:
    return dependant.call is current_key or any(map(_asks_for_a_key, dependant.dependencies))


def _names(dependant: Dependant) -> list[str]:
    """The query parameters of an operation, and of what it depends on."""
    further = [name for each in dependant.dependencies for name in _names(each)]
    return [*(each.alias for each in dependant.query_params), *further]
