"""Groups: one bad event costs the others nothing, and order is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast.client.delivery import deliver
from steadcast.client.post import ACCEPTED, PERMANENT, TEMPORARY, Outcome

if TYPE_CHECKING:
    from collections.abc import Sequence


class Server:
    """Takes batches all or nothing; `bad` ones are refused, and after `strength` requests it is away."""

    def __init__(self, bad: set[int], *, names_index: bool, strength: int = 10**6) -> None:
        self.bad = bad
        self.names_index = names_index
        self.strength = strength
        self.taken: list[int] = []
        self.requests = 0

    def __call__(self, group: Sequence[int]) -> Outcome:
        self.requests += 1
        if self.requests > self.strength:
            return Outcome(TEMPORARY, 503)
        wrong = [place for place, each in enumerate(group) if each in self.bad]
        if wrong:
            return Outcome(PERMANENT, 400, index=wrong[0] if self.names_index else None)
        self.taken += group
        return Outcome(ACCEPTED, 200)


def test_a_good_group_is_one_request() -> None:
    server = Server(set(), names_index=True)
    assert deliver(server, range(1000)).accepted == list(range(1000))
    assert server.requests == 1


def test_the_named_bad_event_costs_one_more_request() -> None:
    server = Server({500}, names_index=True)
    delivery = deliver(server, range(1000))
    assert [entry for entry, _ in delivery.refused] == [500]
    assert server.requests == 2


def test_an_unnamed_bad_event_is_found_by_halving() -> None:
    server = Server({500}, names_index=False)
    delivery = deliver(server, range(1000))
    assert [entry for entry, _ in delivery.refused] == [500]
    assert server.taken == [each for each in range(1000) if each != 500]
    assert server.requests <= 22


def test_an_index_outside_the_group_is_not_believed() -> None:
    outcomes = iter([Outcome(PERMANENT, 400, index=7), Outcome(ACCEPTED), Outcome(PERMANENT, 400, index=7)])
    delivery = deliver(lambda _group: next(outcomes), ["a", "b"])
    assert delivery.accepted == ["a"]
    assert [entry for entry, _ in delivery.refused] == ["b"]


def test_an_empty_group_asks_nobody() -> None:
    server = Server(set(), names_index=True)
    assert deliver(server, []).accepted == []
    assert server.requests == 0


@given(
    st.integers(0, 40),
    st.sets(st.integers(0, 40)),
    st.booleans(),
    st.integers(0, 30),
)
def test_each_event_is_accepted_refused_or_left_and_order_is_kept(
    size: int, bad: set[int], names_index: bool, strength: int
) -> None:
    server = Server(bad, names_index=names_index, strength=strength)
    delivery = deliver(server, range(size))
    refused = [entry for entry, _ in delivery.refused]
    assert sorted(delivery.accepted + refused + delivery.left) == list(range(size))
    assert set(refused) <= bad
    assert delivery.accepted == server.taken == sorted(server.taken)
    assert delivery.left == sorted(delivery.left)
    assert bool(delivery.left) == (delivery.stopped is not None)
    assert all(entry < left for entry in delivery.accepted for left in delivery.left[:1])


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_wrong_stops_the_line_and_kills_nothing(status: int) -> None:
    delivery = deliver(lambda _: Outcome(PERMANENT, status, code="unauthorized"), ["a", "b"])
    assert delivery.left == ["a", "b"]
    assert delivery.refused == []
    assert delivery.stopped is not None
