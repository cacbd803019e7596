"""Networks that others trained: where each is, what it takes and gives, and under which licence (``catalog.toml``)."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from data_specs.schema import Schema

CATALOG = Path(__file__).with_name("catalog.toml")


class Source(Schema):
    """One network of the catalog.

    Parameters
    ----------
    name, title
        By which it is asked for, and what it is.
    bundle
        Whose place it may take.
    url, address_unknown
        Where its file is; or why that is not known, and where to ask.
    file, member
        Name of the file, and of the one file that is used where it is a zip archive.
    size, max_bytes
        Exact size where it is known; the largest that is received.
    sha256, sha256_from
        Digest of the file, and who states it.
    licence, forbids
        As its publishers state it; what of it stands against clinical or commercial use.
    trained_on, citation
        As its authors state them.
    confirmed
        What of this entry was read where, and what could not be.
    cannot
        Why it cannot be imported.
    spec
        ``import`` in the file: the YAML of ``python -m training import``.
    """

    name: str
    title: str
    bundle: Literal["lung", "cardiac"]
    url: Annotated[str, Field(pattern=r"^https://")] | None = None
    address_unknown: str | None = None
    file: Annotated[str, Field(pattern=r"^[\w.\-]+$")]
    member: str | None = None
    size: int | None = None
    max_bytes: Annotated[int, Field(gt=0, le=4 << 30)]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    sha256_from: str | None = None
    licence: str
    forbids: str = ""
    trained_on: str
    citation: str
    confirmed: str
    cannot: str | None = None
    spec: dict[str, Any] = Field(alias="import", default={})

    @model_validator(mode="after")
    def _has_a_place_or_says_why_not(self) -> Self:
        if (self.url is None) == (self.address_unknown is None):
            raise ValueError(f"{self.name}: either 'url' or 'address_unknown'")
        if not self.spec and self.cannot is None:
            raise ValueError(f"{self.name}: 'import', or 'cannot' and why")
        return self

    @property
    def state(self) -> str:
        """What can be done with it, in a word or two."""
        if self.cannot:
            return "cannot be imported"
        return "by one command" if self.url else "with --from"

    @property
    def takes(self) -> str:
        """Its input, for a table."""
        about = self.spec.get("input")
        if self.bundle == "lung":
            return f"film, {self.spec.get('input_size', 224)} px" if self.spec else "film"
        return f"12 leads, {about['fs_hz']} Hz, {about['n_samples']} samples" if about else "12 leads"


def read_catalog(path: Path = CATALOG) -> dict[str, Source]:
    """Every network of a catalog, by name."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    return {name: Source.model_validate({"name": name, **entry}) for name, entry in content.items()}


def describe(source: Source) -> str:
    """The whole entry of one network."""
    lines = [f"{source.name}: {source.title}", f"for the place of: {source.bundle}; {source.state}"]
    where = source.url or f"not known. {source.address_unknown}"
    digest = f"{source.sha256} ({source.sha256_from})" if source.sha256 else "nobody states one: pinned on first use"
    lines += [f"file: {source.file}" + (f", {source.member} in it" if source.member else "") + f", {size_of(source)}"]
    lines += [f"address: {where}", f"sha256: {digest}", f"licence: {source.licence}"]
    lines += [f"AGAINST ITS USE: {source.forbids}"] if source.forbids else []
    lines += [f"trained on: {source.trained_on}", f"citation: {source.citation}", f"confirmed: {source.confirmed}"]
    lines += [f"cannot be imported: {source.cannot}"] if source.cannot else []
    if source.spec:
        lines.append("import: " + json.dumps(source.spec, indent=1))
    return "\n".join(lines)


def size_of(source: Source) -> str:
    """``28 MB``, or what it may have at most."""
    return f"{source.size / 1e6:.0f} MB" if source.size else f"up to {source.max_bytes / 1e6:.0f} MB"
