from __future__ import annotations

import asyncio
import gc
from typing import TYPE_CHECKING, Any

import pytest

from steadcast.errors import EngineUnavailable
from steadcast.hub.reading import Looks

if TYPE_CHECKING:
    from collections.abc import Callable


class Counted:
    """An engine that is asked how its streams are, and answers when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.given_up: list[int] = []
        self.answer = asyncio.Event()
        self.error: Exception | None = None

    async def describe(self, stream: str) -> Any:
        self.asked.append(stream)
        number = len(self.asked)
        try:
            await self.answer.wait()
        except asyncio.CancelledError:
            self.given_up.append(number)
            raise
        if self.error is not None:
            raise self.error
        return number


def giving_up(task: asyncio.Task[Any]) -> Callable[[object], object]:
    return lambda _: task.cancel()


@pytest.fixture
def engine() -> Counted:
    return Counted()


@pytest.fixture
def looks(engine: Counted) -> Any:
    return Looks(engine)  # type: ignore[arg-type]


async def test_who_asks_in_the_same_step_shares_a_look(looks: Any, engine: Counted) -> None:
    engine.answer.set()
    assert await asyncio.gather(*(looks.describe("s") for _ in range(20))) == [1] * 20
    assert engine.asked == ["s"]


async def test_streams_are_looked_at_on_their_own(looks: Any, engine: Counted) -> None:
    engine.answer.set()
    await asyncio.gather(looks.describe("a"), looks.describe("b"))
    assert sorted(engine.asked) == ["a", "b"]


async def test_a_look_that_has_begun_answers_nobody_who_comes_after(looks: Any, engine: Counted) -> None:
    first = asyncio.create_task(looks.describe("s"))
    while not engine.asked:
        await asyncio.sleep(0)
    second = asyncio.create_task(looks.describe("s"))
    await asyncio.sleep(0)
    engine.answer.set()
    assert (await first, await second) == (1, 2)


async def test_what_the_engine_raises_reaches_everybody(looks: Any, engine: Counted) -> None:
    engine.error = EngineUnavailable("away")
    engine.answer.set()
    told = await asyncio.gather(*(looks.describe("s") for _ in range(3)), return_exceptions=True)
    assert told == [engine.error] * 3


async def test_who_gives_up_leaves_the_others_their_look_and_the_last_one_ends_it(
    looks: Any, engine: Counted
) -> None:
    asking = [asyncio.create_task(looks.describe("s")) for _ in range(2)]
    while not engine.asked:
        await asyncio.sleep(0)
    asking[0].cancel()
    await asyncio.wait({asking[0]})
    assert engine.given_up == []
    asking[1].cancel()
    await asyncio.wait({asking[1]})
    while not engine.given_up:
        await asyncio.sleep(0)
    engine.answer.set()
    assert await looks.describe("s") == 2


async def test_who_gives_up_before_the_look_has_begun_is_in_nobodys_way(looks: Any, engine: Counted) -> None:
    gone = asyncio.create_task(looks.describe("s"))
    await asyncio.sleep(0)
    gone.cancel()
    engine.answer.set()
    later = await looks.describe("s")
    await asyncio.wait({gone})
    assert gone.cancelled()
    assert later == len(engine.asked)


async def test_a_look_that_fails_in_the_step_in_which_its_asker_gives_up_is_not_reported_as_unheard(
    looks: Any, engine: Counted
) -> None:
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, told: unheard.append(told))
    engine.error = EngineUnavailable("away")
    asker = asyncio.create_task(looks.describe("s"))
    await asyncio.sleep(0)
    (look,) = asyncio.all_tasks() - {asker, asyncio.current_task()}
    look.add_done_callback(giving_up(asker))
    engine.answer.set()
    await asyncio.wait({asker})
    assert asker.cancelled()
    del asker, look
    gc.collect()
    assert unheard == []
