"""What happened, and whether it kept the promises: nothing lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import httpx

from tests.support.plain import PLAIN
from tests.support.server import event

if TYPE_CHECKING:
    from collections.abc import Callable

    from steadcast.client.subscriber import Subscriber

PATIENCE = float(os.environ.get("STEADCAST_PATIENCE", "40"))
"""Seconds; a lower value shows what only a ping's heads, every 30 s, would repair."""


@dataclass
class History:
    """Which events were acked to the publisher, and which a subscriber applied, in order."""

    acked: list[str] = field(default_factory=list)
    applied: list[str] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return set(self.acked) <= set(self.applied)

    def check(self) -> None:
        doubled = len(self.applied) - len(set(self.applied))
        lost = [each for each in self.acked if each not in set(self.applied)]
        order = [each for each in self.applied if each in set(self.acked)]
        assert not lost, f"{len(lost)} lost: {lost[:5]}"
        assert doubled == 0, f"{doubled} doubled"
        assert order == [each for each in self.acked if each in set(order)], "out of order"


async def publish_paced(
    url: str, stream: str, history: History, *, count: int = 200, rate: float = 50.0
) -> None:
    """Publish one event at a time, again and again under the same id until it is acked."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    async with httpx.AsyncClient(verify=PLAIN, timeout=2) as client:
        for n in range(count):
            await asyncio.sleep(max(0.0, began + n / rate - loop.time()))
            while True:
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.post(
                        f"{url}/v1/streams/{stream}/events",
                        json=event(n),
                        headers={"content-type": "application/cloudevents+json"},
                    )
                    if answer.status_code == 200:
                        history.acked.append(f"e{n}")
                        break
                    assert answer.status_code in {429, 503}, answer.text
                await asyncio.sleep(0.05)


async def follow(subscriber: Subscriber, history: History) -> None:
    """Note what a subscriber applies, until it is closed."""
    async for delivery in subscriber:
        history.applied.append(delivery.event.id)


async def until(
    condition: Callable[[], object], *, within: float = PATIENCE, what: str = "the condition"
) -> None:
    """Wait until something is true; fails in words."""
    deadline = asyncio.get_running_loop().time() + within
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {within} s"
        await asyncio.sleep(0.02)
