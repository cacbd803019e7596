"""A stored visit as a case of the random sample: the groups that it belongs to, and what was read in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from data_specs.dicom.reference import DicomReference
from data_specs.person import age_at_examination, age_band
from data_specs.visit.context import Context
from data_specs.visit.contract import Organ
from data_specs.visit.opinion import Opinion
from data_specs.vocabulary import is_reassuring, term_of

NOT_STATED = "not stated"
"""A group as any other: of films without a header nobody knows the device."""


def groups_of(context: Context, headers: Iterable[str | None]) -> dict[str, str]:
    """Sex, age band and device of a visit; ``headers`` are the ``DicomReference`` of its films, as JSON."""
    person = context.person
    age = age_at_examination(person.age_years, person.birth_date, context.visited_on)
    devices = sorted({_device(header) for header in headers})
    return {
        "sex": person.sex or NOT_STATED,
        "age": (None if age is None else age_band(age)) or NOT_STATED,
        "device": " + ".join(devices) or NOT_STATED,
    }


def _device(header: str | None) -> str:
    if header is None:
        return NOT_STATED
    made = DicomReference.model_validate_json(header)
    return " ".join(f"{made.Manufacturer} {made.ManufacturerModelName}".split()) or NOT_STATED


def reading(
    organ: Organ, opinions: Sequence[Opinion], outcomes: Mapping[str, str], *, blind_only: bool = False
) -> bool | None:
    """Whether a finding of the organ is there; ``None``: nobody has said so.

    A confirmed outcome counts more than any opinion. A refuted one counts where nobody has read the film: it is of one
    finding, and a doctor may have seen another. The latest opinion counts.

    Parameters
    ----------
    outcomes
        The latest outcome by finding.
    blind_only
        Whether only opinions count that were written without seeing what the machine found.
    """
    known = {outcome for name, outcome in outcomes.items() if _is_of(name, organ)}
    if "confirmed" in known:
        return True
    read = [opinion for opinion in opinions if opinion.blind or not blind_only]
    if not read:
        return False if "refuted" in known else None
    return any(is_there for name, is_there in read[-1].says({}).items() if _is_of(name, organ))


def _is_of(finding: str, organ: Organ) -> bool:
    return term_of(finding).organ == organ and not is_reassuring(finding)
