"""The pages that a reader can go to from every page: the one list of them, in its order."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from data_specs.visit.teaching import teaches
from service.keys import Key, Role


class Place(NamedTuple):
    """A page of the navigation.

    Parameters
    ----------
    words
        Its name, as a key of ``texts.toml``.
    roles
        Who may go there; empty: everybody who has signed in.
    """

    href: str
    words: str
    roles: tuple[Role, ...] = ()


READERS: tuple[Role, ...] = ("doctor", "specialist", "admin")
PLACES = (
    Place("/worklist", "worklist"),
    Place("/questions", "questions"),
    Place("/statistics", "statistics"),
    Place("/incidents", "incidents", READERS),
    Place("/sessions", "sessions_link"),
)
"""For the work with visits. What depends on more than the role is added by :func:`places_of`."""
HEALTH_BOOK_PLACE = Place("/health-book", "health_book", ("admin",))
ADMINISTRATION = (
    Place("/keys", "access_keys", ("admin",)),
    Place("/planning", "planning", ("admin",)),
    Place("/drift", "drift", ("admin",)),
    HEALTH_BOOK_PLACE,
    Place("/export", "export", ("admin",)),
    Place("/learning", "learning", ("admin",)),
    Place("/audit", "audit", ("admin",)),
)
"""For those who run a programme."""
LEARNING = Place("/learning", "learning")


def places_of(key: Key, *, is_node: bool, has_nodes: bool, certified: Collection[str] = ()) -> list[Place]:
    """The pages for the work with visits that the owner of a key may go to; for a trainee, those to learn.

    Parameters
    ----------
    certified
        Sites that have a certificate of normals.
    """
    if teaches(key.site):
        return [LEARNING, PLACES[-1]]
    first = [Place("/post", "post_visit")] if key.may_post else []
    signs = (key.role == "doctor" and key.site in certified) or (key.role == "admin" and bool(certified))
    normals = [Place("/normals", "normals")] if signs else []
    exchange = [Place("/exchange", "exchange_place" if is_node else "exchange_nodes")] if is_node or has_nodes else []
    return [*first, PLACES[0], *normals, *_allowed(PLACES[1:-1], key), *exchange, PLACES[-1]]


def administration_of(key: Key, *, has_health_book: bool) -> list[Place]:
    """The pages for those who run a programme that the owner of a key may go to."""
    return [each for each in _allowed(ADMINISTRATION, key) if has_health_book or each is not HEALTH_BOOK_PLACE]


def _allowed(places: tuple[Place, ...], key: Key) -> list[Place]:
    return [place for place in places if not place.roles or key.role in place.roles]
