"""The pages that a reader can go to from every page: the one list of them, in its order."""

from __future__ import annotations

from typing import NamedTuple

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
    HEALTH_BOOK_PLACE,
    Place("/export", "export", ("admin",)),
    Place("/audit", "audit", ("admin",)),
)
"""For those who run a programme."""


def places_of(key: Key, *, is_node: bool, has_nodes: bool) -> list[Place]:
    """The pages for the work with visits that the owner of a key may go to."""
    first = [Place("/post", "post_visit")] if key.may_post else []
    exchange = [Place("/exchange", "exchange_place" if is_node else "exchange_nodes")] if is_node or has_nodes else []
    return [*first, *_allowed(PLACES[:-1], key), *exchange, PLACES[-1]]


def administration_of(key: Key, *, has_health_book: bool) -> list[Place]:
    """The pages for those who run a programme that the owner of a key may go to."""
    return [each for each in _allowed(ADMINISTRATION, key) if has_health_book or each is not HEALTH_BOOK_PLACE]


def _allowed(places: tuple[Place, ...], key: Key) -> list[Place]:
    return [place for place in places if not place.roles or key.role in place.roles]
