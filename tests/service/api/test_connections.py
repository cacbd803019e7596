"""Which connections are admitted, and which idle one is closed for a new one."""

from __future__ import annotations

import itertools

import pytest

from service.api.connections import SPARE_PLACES, Connections
from service.metrics import Metrics


class Transport:
    """One end of a connection of which only two things are asked."""

    def __init__(self):
        self.aborted, self.unsent = False, 0

    def abort(self):
        self.aborted = True

    def get_write_buffer_size(self):
        return self.unsent


class Connection:
    def __init__(self, network):
        self.network, self.transport = network, Transport()


@pytest.fixture
def metrics():
    return Metrics()


def opened(connections, network, n, *, busy=False):
    made = [Connection(network) for _ in range(n)]
    for each in made:
        if connections.admit(each) and busy:
            connections.set_busy(each)
    return made


def value(metrics, name, **labels):
    return metrics._registry.get_sample_value(name, labels)


def test_an_address_keeps_the_newest_of_its_idle_connections(metrics):
    connections = Connections(100, 3, metrics)
    made = opened(connections, "a", 5)
    assert [each.transport.aborted for each in made] == [True, True, False, False, False]
    assert value(metrics, "sangloc_connections_open") == 3
    assert value(metrics, "sangloc_connections_total", outcome="replaced") == 2


def test_a_request_that_is_worked_on_is_not_cut_off(metrics):
    connections = Connections(100, 3, metrics)
    made = opened(connections, "a", 3, busy=True)
    (spare,) = opened(connections, "a", 1)
    assert not any(each.transport.aborted for each in made)
    assert connections.is_spare(spare)
    connections.set_idle(made[1])
    opened(connections, "a", 1)
    assert [each.transport.aborted for each in made] == [False, True, False]


def test_an_answer_that_is_still_read_is_not_cut_off(metrics):
    connections = Connections(100, 2, metrics)
    first, second = opened(connections, "a", 2)
    first.transport.unsent = 1
    opened(connections, "a", 1)
    assert (first.transport.aborted, second.transport.aborted) == (False, True)


def test_a_newcomer_takes_the_place_of_the_address_that_has_most(metrics):
    connections = Connections(8, 100, metrics)
    many = opened(connections, "many", 4)
    for network in "bcde":
        opened(connections, network, 2)
    before = value(metrics, "sangloc_connections_open")
    opened(connections, "new", 1, busy=True)
    assert sum(each.transport.aborted for each in many) >= 1
    assert value(metrics, "sangloc_connections_open") == before == 8


def test_the_total_is_bounded_whatever_comes(metrics):
    connections = Connections(50, 10, metrics)
    for i in range(1000):
        opened(connections, str(i % 300), 1, busy=i % 2 == 0)
    assert value(metrics, "sangloc_connections_open") <= 50 + SPARE_PLACES


def test_spare_places_are_shared_too_and_beyond_them_a_connection_is_refused(metrics):
    connections = Connections(4, 4, metrics)
    for network in "abcd":
        opened(connections, network, 4, busy=True)
    admitted = [connections.is_spare(each) for each in opened(connections, "z", SPARE_PLACES, busy=True)]
    assert 0 < sum(admitted) <= SPARE_PLACES // 2
    assert value(metrics, "sangloc_connections_total", outcome="refused") > 0
    assert connections.is_spare(opened(connections, "health", 1)[0])


def test_nothing_is_kept_of_connections_that_are_closed(metrics):
    connections = Connections(50, 10, metrics)
    made = list(itertools.chain.from_iterable(opened(connections, network, 30, busy=True) for network in "abcdefgh"))
    for each in made:
        connections.set_idle(each)
        connections.leave(each)
        connections.leave(each)
    assert value(metrics, "sangloc_connections_open") == 0
    assert not connections._rooms
    for room in (connections._usual, connections._spare):
        assert not room._idle
        assert not room._shares._held
