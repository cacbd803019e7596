"""``python -m models certify``: which films a site may sign as normal in a batch, if its own sample proves it.

Only a representative sample says what is missed: outcomes are known mostly of those who were recalled. So either the
random tenth of the site's visits is read, of which nearly all have to have a blind reading or an outcome, or a file
with cases that somebody has drawn otherwise, and says how (:mod:`models.normals_sample`).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from data_specs.bundle import BundleManifest, FindingSpec
from data_specs.planning.normals import Limits, Proved, per_1000, prove
from inference.bundles.deciding import NotDone, changed, deciding, new_entry
from inference.bundles.registry import Certificate, Entry, finding_key, read_registry
from models.normals_sample import Sample, read_sample, read_scores
from models.on_visits import add_database, expect_database
from models.registry import read_manifest

Table = Callable[[Sequence[str], Sequence[Sequence[str]]], str]

READ_SHARE = 0.95
"""Of the sample at least this share has to have been read; the others are taken to be like these."""
HEAD = ("group", "persons", "with a finding", "needed", "released below")
DAYS = TERM_DAYS = 365
LIMITS = Limits()


def add_commands(command: Callable[[str, object, str], argparse.ArgumentParser], table: Table) -> None:
    """Add ``certify`` to ``python -m models``, whose tables are made by ``table``."""
    added = command(
        "certify",
        lambda given: _certify(given, table),
        "prove on a site's sample which films it may sign as normal in a batch, and log the certificate",
    )
    added.add_argument("name")
    added.add_argument("--site", required=True, help="the site, as the service names it")
    added.add_argument("--finding", help='whose probability decides, such as "abnormal (18-85)"')
    added.add_argument("--scores", type=Path, metavar="FILE", help="cases of a CSV instead of the random tenth")
    added.add_argument("--days", type=int, default=DAYS, help="the random tenth of the visits of so many days")
    share = {"type": _share, "metavar": "SHARE"}
    added.add_argument("--missed-at-most", default=LIMITS.missed, help="of the persons with a finding (0.05)", **share)
    added.add_argument("--abnormal-at-most", default=LIMITS.abnormal, help="of those released (0.01)", **share)
    added.add_argument("--confidence", default=LIMITS.confidence, help="of each of the two (0.95)", **share)
    added.add_argument(
        "--prevalence",
        type=_counts,
        metavar="WITH/OF",
        help="persons with a finding among those who come, where the cases do not show it: 24/800",
    )
    added.add_argument("--term-days", type=int, default=TERM_DAYS, help="the certificate ends after so many days")
    added.add_argument("--unread", action="store_true", help="list the visits of the sample that nobody has read")
    added.add_argument("--dry-run", action="store_true", help="log nothing")
    added.add_argument("--end", action="store_true", help="end the site's certificate")
    added.add_argument("--who", required=True, help="who decides")
    added.add_argument("--why", required=True, help="and why; with --scores, how the cases were drawn")
    add_database(added)


def _certify(given: argparse.Namespace, table: Table) -> None:
    if given.end:
        entry = end(given.bundles, given.name, given.site, who=given.who, why=given.why)
        print(f"{given.site}: the certificate for {entry.name} {entry.to_version} has ended.")
        return
    if given.scores is None:
        sample = partial(read_sample, expect_database(given), given.site, given.days)
    else:
        cases = read_scores(given.scores)
        sample = lambda _manifest, _spec: cases  # noqa: E731  the file says whose probability it has

    def show(drawn: Sample, proved: Proved) -> None:
        print(f"{len(drawn.cases)} cases read, {len(drawn.unread)} not read\n")
        print(table(HEAD, rows(proved)) + "\n")
        if given.unread:
            print("Not read:\n" + "".join(f"  {visit}\n" for visit in drawn.unread))
        released, of = proved.released
        print(f"Released: {released} of {of} persons without a finding.")

    limits = Limits(given.missed_at_most, given.abnormal_at_most, given.confidence, given.prevalence)
    entry_or_none = certify(
        given.bundles,
        given.name,
        given.site,
        given.finding or "",
        sample,
        limits,
        who=given.who,
        why=given.why,
        term_days=given.term_days,
        log=not given.dry_run,
        show=show,
    )
    print("It would be certified." if entry_or_none is None else said_of(entry_or_none))


def said_of(entry: Entry) -> str:
    """A certificate in plain words."""
    said = entry.certificate
    if said is None:
        return f"{entry.site}: ended"
    return (
        f"Certified for {entry.site}, {entry.name} {entry.to_version}, until {said.expires:%Y-%m-%d} "
        f"({100 * said.confidence:g}% confidence):\n"
        f"  of 1,000 persons with a finding at most {per_1000(said.missed_at_most)} are released, in each group;\n"
        f"  of 1,000 persons released at most {per_1000(said.abnormal_at_most)} have a finding."
    )


def certify(
    folder: Path,
    name: str,
    site: str,
    finding: str,
    sample: Callable[[BundleManifest, FindingSpec], Sample],
    limits: Limits,
    *,
    who: str,
    why: str,
    term_days: int = 365,
    log: bool = True,
    show: Callable[[Sample, Proved], object] = lambda _sample, _proved: None,
) -> Entry | None:
    """Prove thresholds on the site's sample and log the certificate; ``None`` where it is not to be logged.

    Parameters
    ----------
    finding
        By :func:`inference.bundles.registry.finding_key`.
    sample
        Gives the sample for the version in service and the finding.
    show
        Called with what the sample proves, also where that is too little.

    Raises
    ------
    NotDone
        The sample does not prove it, or the version in service has no such finding at the site.
    """
    registry = read_registry(folder)
    version = registry.in_service(name)
    if version is None:
        raise NotDone(f"{name}: no version is in service")
    manifest = read_manifest(registry, name, version)
    spec = next((each for each in manifest.findings if finding_key(each) == finding), None)
    if spec is None or spec.kind != "probability" or manifest.organ is None:
        known = ", ".join(finding_key(each) for each in manifest.findings if each.kind == "probability")
        raise NotDone(f"{name} {version} has no finding '{finding}'; it has: {known}")
    if registry.accepted(name, version, site).get(finding) == "not here":
        raise NotDone(f"{site} does not use {finding}: its acceptance says 'not here'")
    drawn = sample(manifest, spec)
    proved = prove(drawn.cases, limits)
    show(drawn, proved)
    reasons = [*_too_few_read(drawn), *_refused(proved, limits)]
    if reasons:
        raise NotDone(*reasons)
    said = Certificate(
        finding=spec.name,
        age_years=spec.age_years,
        groups=tuple(sorted({kind for case in drawn.cases for kind in case.groups})),
        thresholds=proved.thresholds,
        missed_at_most=limits.missed,
        abnormal_at_most=proved.abnormal_at_most,
        confidence=limits.confidence,
        persons=proved.whole.persons,
        events=proved.whole.events,
        expires=datetime.now(UTC) + timedelta(days=term_days),
    )
    if not log:
        return None
    return _log(folder, name, version, site, said, drawn.digest, who, why)


def end(folder: Path, name: str, site: str, *, who: str, why: str) -> Entry:
    """End the site's certificate.

    Raises
    ------
    NotDone
        It has none that holds.
    """
    held = read_registry(folder).certified(name, site, datetime.now(UTC))
    if held is None or held.to_version is None:
        raise NotDone(f"{site} has no certificate for the version of {name} in service")
    return _log(folder, name, held.to_version, site, None, None, who, why)


def _log(
    folder: Path,
    name: str,
    version: str,
    site: str,
    said: Certificate | None,
    cases: str | None,
    who: str,
    why: str,
) -> Entry:
    with deciding(folder) as (registry, append):
        if registry.in_service(name) != version:
            raise NotDone(f"{name} {version} is no longer in service")
        if changed(registry, name, version):
            raise NotDone(
                f"{name} {version} is no longer what it was when it was first logged; a version never changes"
            )
        more = {"site": site.strip(), "certificate": said, "cases": cases}
        entry = new_entry(registry, "certify", name, None, version, who, why, more)
        append(entry)
    return entry


def _too_few_read(sample: Sample) -> list[str]:
    read, unread = len(sample.cases), len(sample.unread)
    if read >= READ_SHARE * (read + unread):
        return []
    return [
        f"{unread} of {read + unread} visits of the sample have neither a blind reading nor an outcome; "
        f"at most {1 - READ_SHARE:.0%} may lack them (--unread lists them)"
    ]


def _refused(proved: Proved, limits: Limits) -> list[str]:
    few = [f"{group.name} has {group.events}" for group in proved.groups if group.threshold is None]
    if proved.refused == "too_few":
        return [f"too few to certify: each group needs {proved.needed} persons with a finding; {', '.join(few)}"]
    if proved.refused == "none_released":
        return ["nobody without a finding lies below the thresholds: the two are not told apart well enough"]
    if proved.refused == "too_often_abnormal":
        return [
            f"of 1,000 persons released up to {per_1000(proved.abnormal_at_most)} might have a finding; "
            f"allowed are {1000 * limits.abnormal:g}"
        ]
    return []


def rows(proved: Proved) -> Sequence[tuple[str, ...]]:
    """One row for each group, as :data:`HEAD` names the columns."""
    return [
        (
            group.name,
            str(group.persons),
            str(group.events),
            str(proved.needed),
            "too few" if group.threshold is None else f"{group.threshold:.4g}",
        )
        for group in proved.groups
    ]


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise argparse.ArgumentTypeError(f"{text}: a share between 0 and 1, such as 0.05")
    return share


def _counts(text: str) -> tuple[int, int]:
    with_it, _, of = text.partition("/")
    if not (with_it.isdigit() and of.isdigit() and 0 <= int(with_it) <= int(of) and int(of)):
        raise argparse.ArgumentTypeError(f"{text}: two numbers of persons, such as 24/800")
    return int(with_it), int(of)
