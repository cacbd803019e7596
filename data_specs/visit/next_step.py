"""What to do next, as a visit's assessment and its report hold it."""

from __future__ import annotations

from data_specs.schema import Schema
from data_specs.visit.opinion import Advice
from data_specs.vocabulary import Language


class NextStep(Schema):
    """What to do next, by the programme's table of rules (``data_specs/next_steps/next_steps.toml``).

    Parameters
    ----------
    rule
        Name of the rule in the table.
    because
        Names of the findings, values or organs that make the rule hold.
    text
        The table's sentence in each language.
    source
        Guideline or decision that the table cites.
    """

    step: Advice
    rule: str
    because: tuple[str, ...]
    within_days: int | None = None
    text: dict[Language, str]
    source: str
