"""How a visit's page shows its recordings: speed, gain and order of the leads, as the address of the page asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

CHOICES = {"speed": ("25", "50"), "gain": ("5", "10", "20"), "layout": ("3x4", "12x1")}
"""What can be asked for; mm/s, mm/mV."""
USUAL = {"speed": "25", "gain": "10", "layout": "3x4"}
WIDTH_MM = {"25": 270, "50": 520}
"""Of the drawing (:mod:`inference.render.paper`): 10 s, and 20 mm beside them."""


@dataclass(frozen=True, slots=True)
class PaperChoice:
    """The paper that the page shows, and the addresses of the page with another one.

    Parameters
    ----------
    path
        Of the page.
    values
        By name, each one of :data:`CHOICES`.
    anchor
        The part of the page in which the recordings are.
    """

    path: str
    values: Mapping[str, str]
    anchor: str = "cardiac"

    @property
    def speed(self) -> str:
        return self.values["speed"]

    @property
    def gain(self) -> str:
        return self.values["gain"]

    @property
    def width_mm(self) -> int:
        return WIDTH_MM[self.speed]

    def address(self, name: str, value: str) -> str:
        """The page with another value of one choice."""
        return self.path + _query("?", {**self.values, name: value})

    def query(self, before: str) -> str:
        """What the address of a drawing asks for, after ``before``; empty for the usual paper."""
        return _query(before, self.values)


def paper_asked(path: str, asked: Mapping[str, str]) -> PaperChoice:
    """The paper that an address asks for; what is not offered is ignored."""
    values = {name: asked[name] if asked.get(name) in offered else USUAL[name] for name, offered in CHOICES.items()}
    return PaperChoice(path, values)


def _query(before: str, values: Mapping[str, str]) -> str:
    unusual = {name: value for name, value in values.items() if value != USUAL[name]}
    return before + urlencode(unusual) if unusual else ""
