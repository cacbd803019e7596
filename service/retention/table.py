"""The table of what is deleted when, read from a TOML file. The head of ``retention.toml`` explains it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.storage.commands import NotDone

SHIPPED_TABLE = Path(__file__).parent / "retention.toml"
MAX_BYTES = 100_000
RULE_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")
Kind = Literal["visits", "orders", "shadow_answers", "deliveries", "sessions", "deletions"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OF_A_SITE: tuple[Kind, ...] = ("visits", "orders")


class Rule(BaseModel):
    """Delete what is older than ``after_days``; of these sites only, where it names some."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: Kind
    after_days: Annotated[int, Field(ge=0, le=36_500, strict=True)]
    sites: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] | None = None

    @model_validator(mode="after")
    def _has_sites(self) -> Self:
        if self.sites is not None and (self.what not in OF_A_SITE or not self.sites):
            raise ValueError(f"sites: one or more, and of {' and '.join(OF_A_SITE)} only")
        return self


def read_rules(path: Path | None = None) -> dict[str, Rule]:
    """The rules of a hospital's table, or of the shipped one, by name.

    Raises
    ------
    NotDone
        Something in it is unknown or impossible: the whole table is then refused.
    OSError
        It cannot be read.
    """
    path = path or SHIPPED_TABLE
    content = path.read_bytes()
    if len(content) > MAX_BYTES:
        raise NotDone(f"{path}: a table has at most {MAX_BYTES} bytes")
    try:
        rows = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise NotDone(f"{path}: is not TOML in UTF-8: {error}") from None
    rules = {}
    for name, row in rows.items():
        if not RULE_NAME.fullmatch(name):
            raise NotDone(f"{path}: rule {name!r}: the name of a rule has small letters, digits and _ only")
        try:
            rules[name] = Rule.model_validate(row)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            member = ".".join(map(str, first["loc"]))
            why = first["msg"].removeprefix("Value error, ")
            raise NotDone(f"{path}: rule {name}: {member + ': ' if member else ''}{why}") from None
    return rules
