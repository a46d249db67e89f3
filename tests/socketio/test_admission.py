from __future__ import annotations

import asyncio
from typing import Any

import pytest

from steadcast.errors import RateLimited
from steadcast.socketio.admission import LATEST, SOONEST, Admission


def add_up(admission: Admission) -> bool:
    told = admission.statistics()
    ends = ("admitted", "full", "overdue", "left", "waiting")
    return told["asked"] == sum(told[end] for end in ends)


async def step(times: int = 1) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def test_who_comes_while_nobody_waits_goes_straight_in() -> None:
    admission = Admission(at_once=2)
    entering = admission.enter()
    with pytest.raises(StopIteration):
        entering.send(None)  # without a step of the loop
    assert admission.counts["admitted"] == 1


async def test_a_crowd_is_let_in_by_turns_in_the_order_in_which_it_came() -> None:
    admission = Admission(at_once=3)
    order: list[int] = []
    waiting: list[int] = []

    async def come(number: int) -> None:
        await admission.enter()
        order.append(number)
        waiting.append(int(admission.statistics()["waiting"]))

    await asyncio.gather(*(come(number) for number in range(10)))
    assert order == list(range(10))
    assert set(waiting[3:]) == {4, 1, 0}, "three with each turn"
    assert add_up(admission)


async def test_the_pause_behind_a_turn_is_as_long_as_the_turn_was() -> None:
    now = 0.0
    admission = Admission(at_once=1, clock=lambda: now)
    loop = asyncio.get_running_loop()
    await admission.enter()
    second = asyncio.create_task(admission.enter())
    await step()
    now = 0.05  # the loop's steps took so long
    began = loop.time()
    await second
    assert loop.time() - began >= 0.045


async def test_more_than_may_wait_are_refused_for_now_and_the_others_come_in() -> None:
    admission = Admission(at_once=1, waiting=2)
    answers: list[Any] = await asyncio.gather(*(admission.enter() for _ in range(5)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, RateLimited)]
    assert answers[:3] == [None, None, None]
    assert len(refused) == 2
    assert refused[0].temporary
    assert SOONEST <= refused[0].as_wire()["retry_after"] <= LATEST
    assert admission.counts["full"] == 2
    assert add_up(admission)


async def test_who_has_waited_too_long_is_told_and_holds_no_place() -> None:
    now = 0.0
    admission = Admission(at_once=1, patience=0.02, clock=lambda: now)
    await admission.enter()
    late = asyncio.create_task(admission.enter())
    await step()
    now = 60.0  # a turn so long that the pause outlasts every patience
    with pytest.raises(RateLimited):
        await late
    assert admission.statistics()["waiting"] == 0
    assert admission.counts["overdue"] == 1
    assert add_up(admission)


async def test_who_leaves_while_waiting_is_counted_and_takes_nobodys_turn() -> None:
    admission = Admission(at_once=1)
    await admission.enter()
    gone, stays = asyncio.create_task(admission.enter()), asyncio.create_task(admission.enter())
    await step()
    gone.cancel()
    await asyncio.wait_for(stays, 30)
    assert gone.cancelled()
    assert admission.counts["left"] == 1
    assert add_up(admission)


@pytest.mark.parametrize("late", [False, True], ids=["as its turn comes", "as its patience ends"])
async def test_who_leaves_in_the_very_step_in_which_it_is_called_stops_nobody_behind_it(late: bool) -> None:
    admission = Admission(at_once=1)
    await admission.enter()
    gone, stays = asyncio.create_task(admission.enter()), asyncio.create_task(admission.enter())
    await step()
    gone.cancel()
    # As a timer would in the same round of the loop, before `gone` had a chance to say that it left:
    if late:
        admission._give_up(next(iter(admission._waiting)))
    else:
        admission._begin_turn()
    await asyncio.wait_for(stays, 30)
    assert gone.cancelled()
    assert (admission.counts["left"], admission.counts["overdue"]) == (1, 0)
    assert add_up(admission)
