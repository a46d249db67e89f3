"""Publishers at every node and subscribers that hop between them, and what their histories must show."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from steadcast.client.async_publisher import AsyncPublisher
from steadcast.client.subscriber import Subscriber
from steadcast.core.backoff import Backoff
from steadcast.errors import SteadcastError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steadcast.core.effects import Told

STREAM = "orders"
BACKOFF = Backoff(base=0.1, cap=0.5)


@dataclass
class Acks:
    """What publishers were told: each event's lane and offset, and the longest time without an ack.

    `by` counts the acks of each publisher.
    """

    places: dict[str, tuple[str, int]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)
    stall: float = 0.0
    by: Counter[str] = field(default_factory=Counter)
    published: int = 0
    _last: float | None = None

    def note(self, publisher: str, name: str, lane: str, offset: int) -> None:
        now = asyncio.get_running_loop().time()
        self.stall = max(self.stall, now - (self._last or now))
        self._last = now
        self.places[name] = (lane, offset)
        self.by[publisher] += 1


async def publish(url: str, name: str, acks: Acks, *, rate: float, over: asyncio.Event) -> None:
    """Publish at a rate until it is over, each event until it is acked: every tenth is critical."""
    loop = asyncio.get_running_loop()
    began = loop.time()

    async def one(publisher: AsyncPublisher, n: int) -> None:
        priority = "normal" if n % 10 else "critical"
        event = f"{name}-{n}"
        while True:
            try:
                receipt = await publisher.publish(
                    STREAM, type="t", data={"n": n}, id=event, priority=priority
                )
            except SteadcastError as error:
                if not error.temporary:
                    acks.failed.append(f"{event}: {error.code}")
                    return
                await asyncio.sleep(0.2)
            else:
                acks.note(name, event, str(receipt.lane), receipt.position.offset)
                return

    async with (
        AsyncPublisher(url, source=f"/{name}", retries=5, backoff=BACKOFF) as publisher,
        asyncio.TaskGroup() as tasks,
    ):
        for n in itertools.count():
            await asyncio.sleep(max(0.0, began + n / rate - loop.time()))
            if over.is_set():
                break
            tasks.create_task(one(publisher, n))
            acks.published += 1


class Hopper:
    """A subscriber that goes from node to node with its cursors."""

    def __init__(self, urls: Sequence[str], seed: int) -> None:
        self.urls = urls
        self.applied: list[tuple[str, str, int]] = []
        self.told: list[Told] = []
        self.hops = 0
        self._random = random.Random(seed)
        self._cursors: dict[str, list[str | int]] = {}

    @property
    def ids(self) -> set[str]:
        return {name for name, _, _ in self.applied}

    async def follow(self) -> None:
        """Follow until cancelled, at each node for a while."""
        while True:
            url = self._random.choice(self.urls)
            async with Subscriber(
                url, STREAM, start="start", cursors=self._cursors, on_told=self.told.append, backoff=BACKOFF
            ) as subscriber:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._random.uniform(0.3, 2.0)):
                        async for each in subscriber:
                            self.applied.append((each.event.id, str(each.lane), each.position.offset))
                # Asking for the next one said that the one in hand was applied.
                self._cursors = subscriber.cursors
            self.hops += 1

    def check(self, acks: Acks) -> None:
        """Assert that nothing acked is lost, nothing is doubled, and each lane is in the log's order."""
        assert self.told == []
        assert len(self.ids) == len(self.applied), "doubled"
        lost = [name for name in acks.places if name not in self.ids]
        assert not lost, f"{len(lost)} lost: {lost[:5]}"
        for lane in ("critical", "normal"):
            offsets = [offset for _, where, offset in self.applied if where == lane]
            assert offsets == sorted(offsets), f"out of order in {lane}"
        there = {name: (lane, offset) for name, lane, offset in self.applied}
        moved = [name for name, place in acks.places.items() if there[name] != place]
        assert not moved, f"not where they were acked: {moved[:5]}"
