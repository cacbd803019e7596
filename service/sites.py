"""Which sites there are: those that somebody has a key for, and those whose devices the settings name.

What is sent to a mistyped site is seen by nobody. So whoever names a site names one of these, or is refused with them.
A site becomes known by its first key, and is unknown again when its last key is revoked; rows that name it stay.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.errors import FieldFault, InvalidRequest
from service.keys import ADMIN_SITE
from service.protocols.peers import read_callers
from service.settings import Settings
from service.storage.tables import THE_CENTRE, CentreRow, KeyRow

MAX_NAMED = 50
"""Sites that a refusal names."""


def with_key(session: Session) -> set[str]:
    """Sites of the keys that are valid; the first admin's own is always one of them."""
    return {ADMIN_SITE, *session.scalars(select(KeyRow.site).where(KeyRow.revoked_at.is_(None)).distinct())}


def with_specialists(session: Session) -> dict[str, tuple[str, ...]]:
    """Sites that can answer a question, in order, each with the names that its specialists sign with.

    At a node, those of its centre too.
    """
    query = select(KeyRow.site, KeyRow.label, KeyRow.doctor_id)
    query = query.where(KeyRow.role == "specialist", KeyRow.revoked_at.is_(None))
    names: dict[str, set[str]] = {}
    for site, label, doctor_id in session.execute(query):
        names.setdefault(site, set()).add(label or doctor_id or site)
    centre = session.get(CentreRow, THE_CENTRE)
    for site, there in json.loads(centre.specialists).items() if centre else ():
        names.setdefault(site, set()).update(there)
    return {site: tuple(sorted(names[site])) for site in sorted(names)}


def of_callers(settings: Settings) -> set[str]:
    """Sites whose devices and systems the settings let call; they may have no key."""
    callers = (
        *read_callers(settings.dicom_peers, with_ae_title=True),
        *read_callers(settings.hl7_peers, with_ae_title=False),
    )
    return {caller.site for caller in callers}


def expect_known(field: str, site: str, known: Collection[str]) -> None:
    """Refuse a site that is not one of ``known``.

    Raises
    ------
    InvalidRequest
        ``site_unknown``, with the names of those that are.
    """
    if site not in known:
        raise InvalidRequest(FieldFault(field, "site_unknown", listed(sorted(known))))


def listed(sites: Iterable[str]) -> str:
    """Names of sites for a sentence; of very many, the first."""
    names = list(sites)
    return ", ".join((*names[:MAX_NAMED], "…") if len(names) > MAX_NAMED else names)


def without_key(session: Session, named: Iterable[str]) -> list[str]:
    """Those of the named sites that nobody has a key for, in order."""
    return sorted(set(named) - with_key(session))
