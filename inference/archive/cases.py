"""What an archive holds: cases, each one film or the files of one recording, with what is stated about it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from data_specs.person import Sex

MAX_FILE_MB = 64
"""Largest file that is read, 10^6 bytes: what the service accepts where nothing else is set."""


class BadSource(Exception):
    """A source cannot be used: ``str()`` says which and why."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file as its source lists it.

    Parameters
    ----------
    name
        Its own name: a WFDB header names its signals by theirs.
    place
        Where the source has it, from the source's address on.
    mark
        What changes when the content does, as far as the source tells it without the content: a time, an ETag.
    n_bytes
        ``None`` where the source does not say.
    """

    name: str
    place: str
    mark: str = ""
    n_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Case:
    """Files that are assessed together, and what the source states about them; empty or ``None``: not stated.

    Parameters
    ----------
    source
        Which of the sources has it, by its place among them.
    person
        The person's identifier in the table.
    made_on
        Day of the film or recording.
    """

    files: tuple[SourceFile, ...]
    source: int = 0
    site: str = ""
    person: str = ""
    age_years: float | None = None
    sex: Sex | None = None
    made_on: date | None = None

    @property
    def place(self) -> str:
        return self.files[0].place


class Source(Protocol):
    """Where cases come from. It travels to other processes, so it is pickled before it is used."""

    @property
    def address(self) -> str:
        """Of the folder, the bucket or the archive; with a file's place it names one file."""
        ...

    def cases(self) -> Iterator[Case]:
        """All cases. What cannot be listed is a case, too, which cannot be read.

        Raises
        ------
        BadSource
            The whole source cannot be listed.
        """
        ...

    def read(self, file: SourceFile) -> bytes:
        """The content of a file; threads may call it at the same time.

        Raises
        ------
        Refused
            ``file_missing``, ``over_limit``, ``not_reached``: it was not read, which says nothing about its content.
        """
        ...
