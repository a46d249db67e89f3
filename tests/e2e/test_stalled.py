"""A subscriber that is stopped costs a cursor, not memory, and slows nobody else."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from steadcast.client.subscriber import Subscriber
from tests.support.histories import History, follow, until
from tests.support.plain import PLAIN
from tests.support.server import Server, event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

COUNT, WARM, GROUP = 200_000, 30_000, 1_000
MIB = 1024 * 1024
SUBSCRIBER = Path(__file__).parents[1] / "support" / "subscriber.py"


async def publish(url: str, start: int, stop: int) -> None:
    async with httpx.AsyncClient(verify=PLAIN, timeout=30) as client:
        for n in range(start, stop, GROUP):
            events = [event(i, data="x" * 1_000) for i in range(n, n + GROUP)]
            answer = await client.post(
                f"{url}/v1/streams/big/events",
                content=json.dumps(events),
                headers={"content-type": "application/cloudevents-batch+json"},
            )
            assert answer.status_code == 200, answer.text


async def lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    assert process.stdout is not None
    async for line in process.stdout:
        yield json.loads(line)["id"]


async def test_a_stopped_subscriber_costs_a_cursor_and_gets_everything_when_it_goes_on(
    tmp_path: Path,
) -> None:
    with Server(tmp_path) as server:
        stalled = await asyncio.create_subprocess_exec(
            sys.executable, SUBSCRIBER, server.url, "big", '"start"', stdout=subprocess.PIPE
        )
        got: list[str] = []

        async def note() -> None:
            async for each in lines(stalled):
                got.append(each)  # noqa: PERF401 - others look at it meanwhile

        noting = asyncio.create_task(note())
        history = History()
        quick = Subscriber(server.url, "big", start="start")
        async with quick:
            following = asyncio.create_task(follow(quick, history))
            await publish(server.url, 0, WARM)
            await until(lambda: len(got) == len(history.applied) == WARM, within=60, what="both are warm")
            stalled.send_signal(signal.SIGSTOP)
            await publish(server.url, WARM, 2 * WARM)
            await until(lambda: len(history.applied) == 2 * WARM, within=60, what="the quick one has all")
            warm = server.rss()
            await publish(server.url, 2 * WARM, COUNT)
            await until(lambda: len(history.applied) == COUNT, within=20, what="the quick one isn't slowed")
            growth = (server.rss() - warm) / MIB
            assert len(got) < 2 * WARM
            stalled.send_signal(signal.SIGCONT)
            await until(lambda: len(got) == COUNT, within=90, what="the stopped one has everything")
        await following
        stalled.terminate()
        await asyncio.gather(stalled.wait(), noting)
        everything = [f"e{n}" for n in range(COUNT)]
        assert history.applied == everything
        assert got == everything
        assert growth <= 8, f"the server grew by {growth:.1f} MiB"
