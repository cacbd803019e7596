"""Places that clients share: nobody gets all, nobody is passed over, and nothing is kept of those who have left."""

from __future__ import annotations

import asyncio

import pytest

from service.places import Places, Shares

LONG = 30.0


def taken(shares, holder):
    n = 0
    while shares.fits(holder):
        shares.take(holder)
        n += 1
    return n


def test_each_holder_leaves_something_for_the_next():
    shares = Shares(32)
    assert [taken(shares, holder) for holder in "abcdef"] == [16, 8, 4, 2, 1, 1]
    assert not shares.fits("g")
    for _ in range(16):
        shares.give("a")
    assert taken(shares, "g") == 8


@pytest.mark.parametrize(("total", "alone"), [(1, 1), (2, 1), (3, 2), (4, 2)])
def test_a_holder_alone_gets_half_and_at_least_one(total, alone):
    assert taken(Shares(total), "a") == alone


def test_no_holder_gets_more_than_the_most():
    assert taken(Shares(100, most=3), "a") == 3


def test_amounts_are_shared_like_places():
    shares = Shares(100)
    assert shares.fits("a", 100)
    assert not shares.fits("a", 101)
    shares.take("a", 60)
    assert not shares.fits("a", 1)
    assert shares.fits("b", 40)
    shares.give("a", 60)
    assert (shares.free, shares.held("a")) == (100, 0)
    assert not shares._held


async def test_holders_are_served_in_turn():
    places, order = Places(1), []
    await places.take("a", LONG)

    async def work(holder):
        await places.take(holder, LONG)
        order.append(holder)
        places.give(holder)

    tasks = [asyncio.create_task(work(holder)) for holder in "aaaabbc"]
    await asyncio.sleep(0)
    assert not order
    places.give("a")
    await asyncio.gather(*tasks)
    assert "".join(order) == "abcabaa"


async def test_a_place_that_is_kept_for_others_is_not_given_to_the_one_who_has_most():
    places = Places(4)
    await places.take("a", LONG)
    await places.take("a", LONG)
    with pytest.raises(TimeoutError):
        await places.take("a", 0.01)
    await places.take("b", 0.01)
    await places.take("c", 0.01)


async def test_nothing_is_kept_of_those_who_left_while_they_waited():
    places = Places(1)
    await places.take("a", LONG)
    waiting = [asyncio.create_task(places.take(holder, LONG)) for holder in "abb"]
    await asyncio.sleep(0)
    waiting[0].cancel()
    places.give("a")  # the place goes to b at the moment in which b leaves
    waiting[1].cancel()
    waiting[2].cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not places._waiting
    await places.take("c", 0.01)
