"""Uploads, studies and sessions that a campaign sends to a real server, and what it counts of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from benchmarks.chaos.arriving import Arriving
from benchmarks.chaos.asking import Client
from benchmarks.chaos.record import Figures
from benchmarks.chaos.signing import BrowserSession, audit_sessions
from benchmarks.chaos.visits import Load
from tests.service.serving import ADMIN, Served, serving, settings_for, until

DONE_S = 20.0


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(settings_for(tmp_path_factory.mktemp("arriving"), dicom_gather_seconds=0.2)) as it:
        yield it


@pytest.fixture
def client(served: Served) -> Iterator[Callable[..., Client]]:
    """Makes clients, which are closed at the end."""
    with ExitStack() as stack:
        yield lambda key=ADMIN: stack.enter_context(Client(served.port, key, timeout_s=20))


def test_uploads_and_objects_that_were_taken_and_are_not_there_are_counted(
    served: Served, client: Callable[..., Client]
) -> None:
    figures, key = Figures(), served.key("site", "clinic")
    load = Load(figures, [served.port], key, {}, 1)
    arriving = Arriving(load, lambda: [client(key), client(key)])
    with arriving.going_on(n_uploaders=1, n_archives=1):
        until(lambda: len(arriving.uploaded) >= 2 and len(arriving.stored) >= 2, 60)
    url = served.app.state.service.settings.database
    arriving.audit(figures, url, client(), DONE_S)
    counts = figures.counts
    assert (counts["uploads lost"], counts["objects lost"], counts["wrong answers"]) == (0, 0, 0)
    assert counts["uploads"] == len(arriving.uploaded) == len(load.accepted)
    assert counts["pieces"] > 2 * counts["uploads"]

    visit = next(iter(arriving.uploaded))
    arriving.uploaded[visit] += b"more"
    arriving.stored.append("1.2.3")
    arriving.audit(again := Figures(), url, client(), DONE_S)
    assert (again.counts["uploads lost"], again.counts["objects lost"]) == (1, 1)


def test_sessions_that_are_lost_or_go_on_are_counted(served: Served, client: Callable[..., Client]) -> None:
    def opened(figures: Figures) -> BrowserSession:
        return BrowserSession(figures, client(""), served.address, ADMIN)

    figures = Figures()
    audit_sessions(figures, [opened(figures), opened(figures)], [client("")])
    assert (figures.counts["sessions"], figures.total("sessions ")) == (2, 0)

    lost = opened(figures := Figures())
    lost.close()
    audit_sessions(figures, [lost], [client("")])
    assert figures.counts["sessions lost"] >= 1

    kept = opened(figures := Figures())
    kept.close = lambda: None  # type: ignore[method-assign]  # as a service that says so and does not
    audit_sessions(figures, [kept], [client("")])
    assert figures.counts["sessions that went on"] == 1
