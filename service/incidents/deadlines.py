"""The table of deadlines, read from a TOML file. The head of ``deadlines.toml`` explains it."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_specs.vocabulary import Language
from service.settings import PREFIX, BadSettings

SHIPPED_TABLE = Path(__file__).parent / "deadlines.toml"
MAX_BYTES = 100_000
_NAME = re.compile(r"[a-z][a-z0-9_]{0,59}")

Words = Annotated[str, Field(min_length=1, max_length=200)]


class Deadline(BaseModel):
    """Within how many days an incident of one severity has to be reported, and by what rule."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    days: Annotated[int, Field(ge=1, le=365, strict=True)]
    source: Words
    en: Words
    fr: Words
    vi: Words

    def name(self, language: Language) -> str:
        """What the severity is called."""
        said: str = getattr(self, language)
        return said


def read_deadlines(path: Path | None = None) -> Mapping[str, Deadline]:
    """The deadlines of a programme's table, or of the shipped one, by severity.

    Raises
    ------
    BadSettings
        Something in it is missing, unknown or impossible: the whole table is then refused.
    """
    return _read(path or SHIPPED_TABLE)


@lru_cache(maxsize=4)
def _read(path: Path) -> Mapping[str, Deadline]:
    where = f"{PREFIX}INCIDENT_DEADLINES: {path}"
    try:
        content = path.read_bytes()
        if len(content) > MAX_BYTES:
            raise BadSettings(f"{where}: a table has at most {MAX_BYTES} bytes")
        rows = tomllib.loads(content.decode())
    except OSError as error:
        raise BadSettings(f"{where}: {error.strerror or 'cannot be read'}") from None
    except (ValueError, RecursionError):
        raise BadSettings(f"{where}: is not TOML in UTF-8") from None
    if not rows:
        raise BadSettings(f"{where}: it has no row")
    deadlines = {}
    for name, row in rows.items():
        if not _NAME.fullmatch(name):
            raise BadSettings(f"{where}: {name!r}: a name has small letters, digits and _ only")
        try:
            deadlines[name] = Deadline.model_validate(row)
        except ValidationError as error:
            first = error.errors(include_url=False, include_context=False, include_input=False)[0]
            member = ".".join(map(str, first["loc"]))
            raise BadSettings(f"{where}: {name}: {member}: {first['msg']}") from None
    return deadlines
