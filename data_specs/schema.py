"""The base of every document that comes in, goes out or is stored."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Schema(BaseModel):
    """Members by name and type; an unknown member is refused, and none changes after it was read."""

    model_config = ConfigDict(extra="forbid", frozen=True)
