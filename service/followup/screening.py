"""What screening found and what became of it: flags, recalls, confirmations, and files that were refused."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict

from data_specs.vocabulary import is_reassuring
from service.followup.reads import ReadVisit

TOO_FEW = 10
"""Known outcomes, below which a share of them is not given."""


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Screening(Row):
    """Of one site: how many visits, and how many of them had an organ assessed, a finding flagged, a recall, and a
    finding that was confirmed later.

    A recall is the latest signed advice to ask a specialist or to refer; where nobody advised, a next step to do so.
    """

    site: str
    visits: int
    assessed: int
    flagged: int
    recalled: int
    confirmed: int


class ByFinding(Row):
    """One finding: visits on which it was judged, flagged, flagged and recalled; later confirmed and refuted.

    Parameters
    ----------
    confirmed, refuted
        By the latest outcome, among the visits on which it was flagged.
    missed
        Confirmed on visits on which it was judged and not flagged.
    ppv, low, high
        Share of confirmed among the known outcomes, with its 95 % interval (Wilson); ``None`` under :data:`TOO_FEW`.
    """

    finding: str
    judged: int
    flagged: int
    recalled: int
    confirmed: int
    refuted: int
    missed: int
    ppv: float | None
    low: float | None
    high: float | None


class Refusal(Row):
    """Films or recordings (``field``) with one reason for refusal, or of one device: how many, of how many.

    Parameters
    ----------
    name
        The code of the reason; or manufacturer and model, and where the file states neither, its format.
    """

    field: str
    name: str
    files: int
    refused: int
    share: float


def screening(reads: Sequence[ReadVisit]) -> tuple[Screening, ...]:
    by_site: dict[str, list[ReadVisit]] = defaultdict(list)
    for read in reads:
        by_site[read.site].append(read)
    return tuple(
        Screening(
            site=site,
            visits=len(visits),
            assessed=sum(read.assessed for read in visits),
            flagged=sum(read.flagged for read in visits),
            recalled=sum(read.recalled for read in visits),
            confirmed=sum("confirmed" in read.outcomes.values() for read in visits),
        )
        for site, visits in sorted(by_site.items())
    )


def by_finding(reads: Sequence[ReadVisit]) -> tuple[ByFinding, ...]:
    """The findings that were judged, those flagged most often first."""
    judged: dict[str, list[ReadVisit]] = defaultdict(list)
    for read in reads:
        for name in read.machine:
            if not is_reassuring(name):
                judged[name].append(read)
    rows = [_finding(name, visits) for name, visits in sorted(judged.items())]
    return tuple(sorted(rows, key=lambda row: -row.flagged))


def _finding(name: str, visits: Sequence[ReadVisit]) -> ByFinding:
    flagged = [read for read in visits if read.machine[name]]
    outcomes = Counter(read.outcomes.get(name) for read in flagged)
    confirmed, refuted = outcomes["confirmed"], outcomes["refuted"]
    known = confirmed + refuted
    low, high = interval(confirmed, known) if known >= TOO_FEW else (None, None)
    return ByFinding(
        finding=name,
        judged=len(visits),
        flagged=len(flagged),
        recalled=sum(read.recalled for read in flagged),
        confirmed=confirmed,
        refuted=refuted,
        missed=sum(read.outcomes.get(name) == "confirmed" for read in visits if not read.machine[name]),
        ppv=round(confirmed / known, 3) if known >= TOO_FEW else None,
        low=low,
        high=high,
    )


def by_reason(reads: Sequence[ReadVisit]) -> tuple[Refusal, ...]:
    """Reasons of refusal, the most frequent first. A file with two reasons counts for both."""
    files = [file for read in reads for file in read.files]
    posted = Counter(file.field for file in files)
    refused = Counter((file.field, code) for file in files for code in file.codes)
    return _refusals({(field, code): (posted[field], n) for (field, code), n in refused.items()})


def by_device(reads: Sequence[ReadVisit]) -> tuple[Refusal, ...]:
    """Devices, those with the most refused files first."""
    files = [file for read in reads for file in read.files]
    posted = Counter((file.field, file.device) for file in files)
    refused = Counter((file.field, file.device) for file in files if file.codes)
    return _refusals({each: (n, refused[each]) for each, n in posted.items()})


def _refusals(counts: dict[tuple[str, str], tuple[int, int]]) -> tuple[Refusal, ...]:
    rows = (
        Refusal(field=field, name=name, files=files, refused=refused, share=round(refused / files, 3))
        for (field, name), (files, refused) in sorted(counts.items())
    )
    return tuple(sorted(rows, key=lambda row: -row.refused))


def interval(n: int, of: int) -> tuple[float, float]:
    """95 % interval of a share.

    References
    ----------
    Wilson E.B., Probable inference, the law of succession, and statistical inference, J Am Stat Assoc 1927;22:209-212.
    """
    from scipy.stats import binomtest  # noqa: PLC0415  slow to load, and rarely needed

    found = binomtest(n, of).proportion_ci(method="wilson")
    return round(float(found.low), 3), round(float(found.high), 3)
