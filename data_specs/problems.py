"""Why an input, an organ or a request could not be used: a code, and a sentence in the reader's language.

The sentences stand in ``messages.toml``; the code of the program raises codes only.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from data_specs.vocabulary import Language, localise

Severity = Literal["reject", "warn"]


@dataclass(frozen=True, slots=True)
class Problem:
    """One coded reason.

    Parameters
    ----------
    code
        A key of ``messages.toml``.
    severity
        ``reject``: the input was not used. ``warn``: it was used, and the reader has to know this.
    found, expected
        What the message quotes: numbers with units, tags, lead names, terms of the vocabulary (which are shown in the
        reader's language). Never words of one language, never anything that names the person.
    """

    code: str
    severity: Severity
    found: str = ""
    expected: str = ""

    def message(self, language: Language) -> str:
        """The sentence, as :func:`message` gives it."""
        return message(self.code, language, found=self.found, expected=self.expected)


class Refused(Exception):
    """The input cannot be used, for one coded reason. This is no error of the program."""

    def __init__(self, code: str, found: object = "", expected: object = "") -> None:
        super().__init__(code)
        self.problem = Problem(code, "reject", str(found), str(expected))


@cache
def _messages() -> dict[str, dict[str, str]]:
    with (Path(__file__).parent / "messages.toml").open("rb") as f:
        return tomllib.load(f)


def sentences(language: Language) -> dict[str, str]:
    """Every code with its sentence, in which ``{found}`` and ``{expected}`` stand for what the message quotes."""
    return {code: by_language[language] for code, by_language in _messages().items()}


def message(code: str, language: Language, *, found: str = "", expected: str = "") -> str:
    """Sentence for ``code`` in ``language``; ``CODE_FOUND`` of the table, where one kind of ``found`` has its own.

    Raises
    ------
    KeyError
        The code has no sentence; a test enumerates the codes that the source raises.
    """
    messages = _messages()
    template = (messages.get(f"{code}_{found}") or messages[code])[language]
    return template.format(found=localise(found, language) or "—", expected=localise(expected, language) or "—")
