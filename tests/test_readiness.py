"""Readiness: what is wrong is told in words, and by one look for all who ask at once."""

from __future__ import annotations

import asyncio
from collections import Counter

from steadcast.engines.memory import MemoryEngine
from steadcast.readiness import Readiness
from steadcast.testing import FaultyEngine


def readiness(engine: FaultyEngine, known: list[str], handler_timeout: float | None = None) -> Readiness:
    return Readiness(engine, Counter(), known=lambda: known, handler_timeout=handler_timeout)


async def test_those_who_ask_at_once_share_one_look_and_the_next_is_a_new_one() -> None:
    engine = FaultyEngine(MemoryEngine())
    ready = readiness(engine, [])
    assert await asyncio.gather(*(ready.problems() for _ in range(50))) == [[]] * 50
    assert engine.counts["appends"] == 1
    engine.fill_disk()
    assert "engine_full" in " ".join(await ready.problems())


async def test_what_is_known_comes_before_what_the_log_says() -> None:
    engine = FaultyEngine(MemoryEngine())
    engine.fill_disk()
    first, second = await readiness(engine, ["draining: the server is going away"]).problems()
    assert first == "draining: the server is going away"
    assert second.startswith("engine_full: ")


async def test_a_log_that_does_not_answer_is_told_before_the_handler_would_time_out() -> None:
    engine = FaultyEngine(MemoryEngine())
    engine.append_hangs = True
    told = await readiness(engine, [], handler_timeout=0.2).problems()
    assert told == ["timeout: the log doesn't answer to append within 0.18 s"]


async def test_who_stops_asking_ends_the_look_of_nobody_else() -> None:
    ready = readiness(FaultyEngine(MemoryEngine()), ["known"])
    leaves, stays = (asyncio.create_task(ready.problems()) for _ in range(2))
    await asyncio.sleep(0)
    leaves.cancel()
    assert await stays == ["known"]
