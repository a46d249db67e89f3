"""The gate of a connection: one timer, which ends it when the token ends."""

from __future__ import annotations

import asyncio
import weakref

import pytest

from steadcast.core.scopes import Grant, Identity, Scope
from steadcast.errors import NotAllowed, SteadcastError
from steadcast.gate import SHORTEST, Gate


class Wall:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def test_the_timer_tells_the_end_once() -> None:
    wall, told = Wall(), asyncio.Queue[SteadcastError](maxsize=5)
    gate = Gate(Identity(expires=1_000.02), wall=wall)
    gate.watch(told.put_nowait)
    gate.check(Scope.PUBLISH, "s")
    wall.now = 1_000.02
    error = await asyncio.wait_for(told.get(), 30)
    assert (error.code, error.temporary) == ("token_expired", True)
    assert (why := gate.ended) is not None
    assert why.code == "token_expired"
    with pytest.raises(NotAllowed):
        gate.check(Scope.PUBLISH, "s")
    await asyncio.sleep(0.05)
    assert told.empty()


async def test_a_wall_clock_that_was_set_back_is_looked_at_again() -> None:
    wall, told = Wall(), asyncio.Queue[SteadcastError](maxsize=5)
    gate = Gate(Identity(expires=1_000.02), wall=wall)
    gate.watch(told.put_nowait)
    await asyncio.sleep(0.06)
    assert told.empty(), "the wall clock stands still: the token has not expired"
    wall.now = 1_000.03
    await asyncio.wait_for(told.get(), 30)


async def test_a_rest_that_rounding_loses_is_no_circle() -> None:
    looks = 0

    def wall() -> float:
        nonlocal looks
        looks += 1
        return 1_000.0

    gate = Gate(Identity(expires=1_000.0 + 1e-12), wall=wall)
    loop = asyncio.get_running_loop()
    began = loop.time()
    gate.watch(lambda _: None)
    await asyncio.sleep(0.05)
    gate.close()
    assert looks <= 10 + 3 * (loop.time() - began) / SHORTEST


async def test_whoever_is_refused_for_an_ended_token_is_ended_though_the_timer_is_not_due() -> None:
    wall, told = Wall(), list[SteadcastError]()
    gate = Gate(Identity(expires=1_500.0), wall=wall)
    gate.watch(told.append)
    wall.now = 9_000.0
    with pytest.raises(NotAllowed):
        gate.check(Scope.PUBLISH, "s")
    assert [error.code for error in told] == ["token_expired"]


async def test_one_that_is_too_late_ends_at_once() -> None:
    told: list[SteadcastError] = []
    Gate(Identity(expires=999.0), wall=Wall()).watch(told.append)
    assert [error.code for error in told] == ["token_expired"]


async def test_a_closed_gate_tells_nothing_and_one_without_an_end_needs_no_timer() -> None:
    wall: Wall = Wall()
    told: list[SteadcastError] = []
    gate = Gate(Identity(expires=1_000.01), wall=wall)
    gate.watch(told.append)
    gate.close()
    Gate(wall=wall).watch(told.append)
    wall.now = 2_000.0
    await asyncio.sleep(0.03)
    assert told == []


async def test_a_closed_gate_is_held_by_no_timer_however_often_it_looked() -> None:
    gate = Gate(Identity(expires=1_500.0), wall=Wall())
    gate.watch(lambda _: None)
    for _ in range(3):
        gate.look()
    gate.close()
    gone = weakref.ref(gate)
    del gate
    assert gone() is None, "each client that left would cost memory for up to ten minutes"


async def test_a_token_that_was_taken_back_ends_at_the_next_look_and_once() -> None:
    told: list[SteadcastError] = []
    grants = [Grant(), Grant()]
    gates = [Gate(Identity(grant=grants[0])), Gate(Identity(expires=1_060.0, grant=grants[1]), wall=Wall())]
    for gate in gates:
        gate.watch(told.append)
        gate.look()
    assert told == []
    for gate, grant in zip(gates, grants, strict=True):
        grant.revoke()
        with pytest.raises(NotAllowed):
            gate.check(Scope.PUBLISH, "s")
        gate.look()
        gate.look()
    assert [(error.code, error.temporary) for error in told] == [("token_revoked", True)] * 2


async def test_who_comes_in_while_the_token_is_taken_back_ends_at_once() -> None:
    told: list[SteadcastError] = []
    grant = Grant()
    identity = Identity(grant=grant)
    grant.revoke()
    Gate(identity).watch(told.append)
    assert [error.code for error in told] == ["token_revoked"]
