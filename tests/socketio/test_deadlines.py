"""Time limits that share a timer: each ends in its time, none in another's, and nothing is left behind."""

from __future__ import annotations

import asyncio
import threading
import time
from asyncio import CancelledError, Event
from typing import Any

import pytest

from steadcast.socketio.deadlines import STILL, Deadlines


class Timers:
    """Counts the timers that are set on a loop and not yet cancelled, however they are set."""

    def __init__(self) -> None:
        self.set = 0
        self._call_at = asyncio.get_running_loop().call_at

    def __call__(self, *args: Any, **more: Any) -> asyncio.TimerHandle:
        self.set += 1
        return self._call_at(*args, **more)


async def hang() -> None:
    await Event().wait()


async def under(deadlines: Deadlines, seconds: float | None, work: Any) -> Any:
    with deadlines.within(seconds):
        return await work


async def test_what_is_done_in_time_gives_its_result_and_leaves_the_task_as_it_was() -> None:
    assert await under(Deadlines(), 30.0, asyncio.sleep(0, "done")) == "done"
    assert await under(Deadlines(), None, asyncio.sleep(0, "done")) == "done"
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_each_is_cut_off_after_its_own_time_and_the_others_go_on() -> None:
    deadlines, free = Deadlines(), Event()
    short = [asyncio.create_task(under(deadlines, 0.02, hang())) for _ in range(3)]
    long = [asyncio.create_task(under(deadlines, seconds, free.wait())) for seconds in (60.0, None)]
    cut = await asyncio.gather(*short, return_exceptions=True)
    assert [type(error) for error in cut] == [TimeoutError] * 3
    later = asyncio.create_task(under(deadlines, 0.02, hang()))
    with pytest.raises(TimeoutError):
        await later
    assert not any(task.done() for task in long)
    free.set()
    assert await asyncio.gather(*long) == [True, True]


async def test_those_that_begin_later_end_later_also_behind_one_that_gave_up() -> None:
    deadlines = Deadlines()
    ended: list[int] = []

    async def one(number: int) -> None:
        with pytest.raises(TimeoutError):
            await under(deadlines, 0.05, hang())
        ended.append(number)

    tasks = []
    for number in range(4):
        tasks.append(asyncio.create_task(one(number)))
        await asyncio.sleep(0.002)
    tasks[0].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [number for number in ended if number] == [1, 2, 3]


async def test_a_thousand_at_a_time_set_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    timers = Timers()
    monkeypatch.setattr(asyncio.get_running_loop(), "call_at", timers)
    deadlines, free = Deadlines(), Event()
    tasks = [asyncio.create_task(under(deadlines, 60.0, free.wait())) for _ in range(1000)]
    await asyncio.sleep(0)
    free.set()
    await asyncio.gather(*tasks)
    assert timers.set == 1


async def test_with_nothing_under_way_no_timer_is_left_for_the_next_loop() -> None:
    deadlines = Deadlines()
    for _ in range(2):
        await under(deadlines, 60.0, asyncio.sleep(0))

    def elsewhere() -> str:
        with asyncio.Runner() as runner, pytest.raises(TimeoutError):
            runner.run(under(deadlines, 0.01, hang()))
        return "cut off"

    assert await asyncio.to_thread(elsewhere) == "cut off"


async def test_who_begins_while_the_last_one_before_is_being_cut_off_has_its_own_end() -> None:
    deadlines, begun = Deadlines(), Event()

    async def later() -> None:
        await begun.wait()
        await under(deadlines, 0.02, hang())

    async def cut_off() -> None:
        try:
            await hang()
        except CancelledError:
            begun.set()
            await asyncio.sleep(0.01)
            raise

    tasks = [asyncio.create_task(work) for work in (under(deadlines, 0.02, cut_off()), later())]
    _, hangs = await asyncio.wait(tasks, timeout=20)
    for task in hangs:
        task.cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [TimeoutError, TimeoutError]


async def test_a_cancellation_from_outside_goes_through_even_when_the_time_is_over() -> None:
    deadlines, begun = Deadlines(), Event()

    async def stubborn() -> None:
        try:
            await hang()
        except CancelledError:
            begun.set()
            await hang()

    task = asyncio.create_task(under(deadlines, 0.01, stubborn()))
    await begun.wait()
    task.cancel()
    with pytest.raises(CancelledError):
        await task


async def test_a_limit_inside_another_ends_alone() -> None:
    deadlines = Deadlines()
    with deadlines.within(60.0) as outer:
        with pytest.raises(TimeoutError):
            await under(deadlines, 0.01, hang())
        await asyncio.sleep(0)
    assert not outer.over


async def test_a_timeout_error_from_inside_is_not_the_limits_own() -> None:
    limit = Deadlines().within(60.0)
    with pytest.raises(TimeoutError, match="its own"), limit:
        raise TimeoutError("its own")
    assert not limit.over


async def test_what_was_done_while_the_loop_stood_still_counts_and_what_hangs_ends_all_the_same() -> None:
    loop, deadlines = asyncio.get_running_loop(), Deadlines()
    answer: asyncio.Future[str] = loop.create_future()

    async def wait() -> str:
        return await answer

    answered = asyncio.create_task(under(deadlines, 0.05, wait()))
    hanging = asyncio.create_task(under(deadlines, 0.05, hang()))
    await asyncio.sleep(0)
    threading.Timer(0.01, loop.call_soon_threadsafe, (answer.set_result, "done")).start()
    time.sleep(2 * STILL)  # noqa: ASYNC251 - as a handler of an application's might
    assert await answered == "done"
    with pytest.raises(TimeoutError):
        await hanging
