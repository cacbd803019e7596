"""``/docs``: ``/openapi.json`` as a page for people: operations, parameters, bodies, answers, schemas, examples.

It is rendered on the server, needs no script and no other host, and no key, as the document itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, Response
from markupsafe import Markup, escape

from service.api.session import page_key
from service.pages.frame import page

router = APIRouter(include_in_schema=False, default_response_class=HTMLResponse)


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one address; ``about`` is its part of the document."""

    method: str
    path: str
    about: dict[str, Any]


@router.get("/docs")
async def interface_page(request: Request) -> Response:
    document = request.app.openapi()
    found = list(operations(document))
    return page(
        request,
        "interface.html",
        key=await page_key(request),
        document=document,
        groups=[(tag, [each for each in found if tag["name"] in each.about["tags"]]) for tag in document["tags"]],
        schemas=dict(sorted(document["components"]["schemas"].items())),
        described=described,
        as_json=as_json,
        bounds=bounds,
    )


def operations(document: dict[str, Any]) -> Iterator[Operation]:
    """The operations, in the order of the document."""
    for path, methods in document["paths"].items():
        for method, about in methods.items():
            yield Operation(method.upper(), path, about)


def described(text: str) -> Markup:
    """A description as paragraphs and lists; what stands between backticks is code."""
    made = []
    for block in re.split(r"\n\s*\n", text.strip()):
        lines = [line.strip() for line in block.splitlines()]
        if all(line.startswith("- ") for line in lines):
            items = (f"<li>{_coded(line.removeprefix('- '))}</li>" for line in lines)
            made.append(f"<ul>{''.join(items)}</ul>")
        else:
            made.append(f"<p>{_coded(' '.join(lines))}</p>")
    return Markup("".join(made))  # noqa: S704  every part of it is escaped


def _coded(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text)))


def as_json(value: object) -> str:
    """An example as a reader would write it."""
    return json.dumps(value, ensure_ascii=False, indent=2)


def bounds(schema: dict[str, Any]) -> str:
    """What limits a number, a text or a list, in signs."""
    said = [
        f"{sign} {schema[name]:g}"
        for name, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if name in schema
    ]
    for least, most, unit in (("minLength", "maxLength", "U+"), ("minItems", "maxItems", "[…]")):
        if schema.get(least):
            said.append(f"≥ {schema[least]} × {unit}")
        if most in schema:
            said.append(f"≤ {schema[most]} × {unit}")
    return ", ".join([*said, *([schema["pattern"]] if "pattern" in schema else [])])
