"""Queues and flags that take no memory while nothing waits do what asyncio's do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast.socketio.queues import Flag, Queue


async def step(times: int = 3) -> None:
    for _ in range(times):
        await asyncio.sleep(0)


async def _played(queue: Any, moves: list[str]) -> list[object]:
    """Play moves on a queue; give what can be seen of it after each."""
    seen: list[object] = []
    getters: list[asyncio.Task[Any]] = []
    joiners: list[asyncio.Task[Any]] = []
    unfinished = 0
    for number, move in enumerate(moves):
        match move:
            case "put":
                unfinished += 1
                queue.put_nowait(number)
            case "take":
                seen.append(queue.get_nowait() if not queue.empty() else None)
            case "get" if not any(not getter.done() for getter in getters):
                getters.append(asyncio.create_task(queue.get()))
            case "leave" if getters:
                getters[-1].cancel()
            case "done" if unfinished > queue.qsize():
                queue.task_done()
                unfinished -= 1
            case "join":
                joiners.append(asyncio.create_task(queue.join()))
        await step()
        got = [getter.result() for getter in getters if getter.done() and not getter.cancelled()]
        seen.append((queue.qsize(), queue.empty(), got, [joiner.done() for joiner in joiners]))
    for task in (*getters, *joiners):
        task.cancel()
    return seen


@given(st.lists(st.sampled_from(["put", "put", "take", "get", "get", "leave", "done", "join"]), max_size=20))
def test_a_queue_does_what_asyncios_does(moves: list[str]) -> None:
    ours = asyncio.run(_played(Queue[int](), moves))
    assert ours == asyncio.run(_played(asyncio.Queue[int](), moves))


async def test_two_who_wait_get_one_each_in_the_order_in_which_they_came() -> None:
    queue: Queue[str] = Queue()
    first, second = asyncio.create_task(queue.get()), asyncio.create_task(queue.get())
    await step()
    queue.put_nowait("a")
    await step()
    assert (first.done(), second.done()) == (True, False)
    await queue.put("b")
    assert (await first, await second) == ("a", "b")


async def test_one_that_is_cancelled_as_it_is_woken_loses_nothing() -> None:
    queue: Queue[str] = Queue()
    gone = asyncio.create_task(queue.get())
    await step()
    queue.put_nowait("a")
    gone.cancel()
    await step()
    assert await asyncio.wait_for(queue.get(), 10) == "a"


async def test_an_empty_one_says_so() -> None:
    with pytest.raises(asyncio.QueueEmpty):
        Queue[str]().get_nowait()


async def test_a_flag_holds_back_who_comes_while_it_is_down() -> None:
    flag = Flag()
    await flag.wait()
    flag.clear()
    waits = [asyncio.create_task(flag.wait()) for _ in range(2)]
    await step()
    assert not any(wait.done() for wait in waits)
    flag.set()
    await step()
    assert all(wait.done() for wait in waits)
