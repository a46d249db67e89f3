"""200 events at 50/s while the subscriber is away, the server is killed, or both: the promises hold."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from steadcast.client.subscriber import Subscriber
from tests.support.histories import History, follow, publish_paced, until
from tests.support.server import Server

if TYPE_CHECKING:
    from steadcast.core.effects import Told


class Watcher:
    """A subscriber that can be away for a while, and comes back with its cursors."""

    def __init__(self, url: str, stream: str) -> None:
        self.url, self.stream = url, stream
        self.history = History()
        self.told: list[Told] = []
        self.cursors: dict[str, list[str | int]] = {}
        self.subscriber: Subscriber | None = None
        self.task: asyncio.Task[None] | None = None

    async def come(self) -> None:
        self.subscriber = Subscriber(
            self.url, self.stream, start="start", cursors=self.cursors, on_told=self.told.append
        )
        await self.subscriber.__aenter__()
        self.task = asyncio.create_task(follow(self.subscriber, self.history))

    async def wait(self, server: Server) -> None:
        """Wait until every acked event is applied; a failure tells how both sides stand."""
        try:
            await until(lambda: self.history.complete, what="every acked event is applied")
        except AssertionError as error:
            of = self.subscriber
            assert of is not None
            missing = [each for each in self.history.acked if each not in self.history.applied]
            error.add_note(f"missing {missing[:3]}… of {len(missing)}; told {self.told}, error {of._error}")
            error.add_note(f"connects {of.connects}, connected {of.connected}, {of.counts}, {of.cursors}")
            error.add_note(f"the follower: {self.task}; the connection: {of._task}")
            error.add_note(server.get("/v1/stats").text)
            error.add_note(server.get("/v1/clients").text)
            error.add_note(server.log()[-3000:])
            raise

    async def go(self) -> None:
        assert self.subscriber is not None
        assert self.task is not None
        await self.subscriber.aclose()
        await self.task
        self.cursors = self.subscriber.cursors


async def away(watcher: Watcher, seconds: float) -> None:
    await asyncio.sleep(1)
    await watcher.go()
    await asyncio.sleep(seconds)
    await watcher.come()


async def killed(server: Server) -> None:
    await asyncio.sleep(1.5)
    await asyncio.to_thread(server.kill)
    await asyncio.to_thread(server.start)


@pytest.mark.parametrize("story", ["away 2 s", "away 0.2 s", "killed", "both"])
async def test_nothing_is_lost_doubled_or_reordered(server: Server, story: str) -> None:
    watcher = Watcher(server.url, "orders")
    await watcher.come()
    happenings = [publish_paced(server.url, "orders", watcher.history)]
    if story.startswith("away"):
        happenings.append(away(watcher, float(story.split()[1])))
    else:
        happenings.append(killed(server))
    if story == "both":
        happenings.append(away(watcher, 2))
    await asyncio.gather(*happenings)
    await watcher.wait(server)
    await watcher.go()
    assert len(watcher.history.acked) == 200
    watcher.history.check()
    assert watcher.told == []
