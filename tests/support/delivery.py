"""All of Steadcast in this process, on an engine that fails on request, with every wait scaled down."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import uvicorn

from steadcast.app import Steadcast
from steadcast.client import connection as following
from steadcast.client.subscriber import Subscriber
from steadcast.config import Settings
from steadcast.core.backoff import Backoff
from steadcast.core.breaker import Breaker
from steadcast.engines.memory import MemoryEngine
from steadcast.testing import FaultyEngine
from tests.support.asgi import served
from tests.support.house import event
from tests.support.plain import PLAIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from steadcast.client.subscriber import Delivery
    from steadcast.engines.base import Engine

SCALED: dict[str, Any] = {
    "retry_interval": 0.05,
    "retry_delay": 0.02,
    "retry_delay_max": 0.1,
    "max_retries": 1_000,
    "handler_timeout": 0.6,
}
APPEND_TIMEOUT = 0.3
CONNECT_TIMEOUT = 2.0
"""A connection that breaks before the connect is answered is noticed by this alone."""


class Follower:
    """A subscriber, and what it applied."""

    def __init__(self, url: str, stream: str, start: object = "start") -> None:
        self.subscriber = Subscriber(url, stream, start=start, backoff=Backoff(base=0.05, cap=0.2))
        self.applied: list[Delivery] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def ids(self) -> list[str]:
        return [delivery.event.id for delivery in self.applied]

    async def come(self) -> None:
        await self.subscriber.__aenter__()
        self._task = asyncio.create_task(self._follow())

    async def go(self) -> None:
        await self.subscriber.aclose()
        if self._task is not None:
            await self._task

    async def _follow(self) -> None:
        async for delivery in self.subscriber:
            self.applied.append(delivery)


class Place:
    """A server with its HTTP client and its followers."""

    def __init__(self, engine: Engine | None, settings: dict[str, Any]) -> None:
        self.engine = FaultyEngine(engine or MemoryEngine(epoch="e1"))
        self.cast = Steadcast(engine=self.engine, settings=Settings(**SCALED | settings))
        self.cast.broadcaster.append_timeout = APPEND_TIMEOUT
        # Half open again after a moment, and not after the seconds of the default.
        self.cast.broadcaster.breaker = Breaker(open_for=Backoff(base=0.05, cap=0.2, spread=0.0))
        self.url = ""
        self.http = httpx.AsyncClient(verify=PLAIN)
        self.followers: list[Follower] = []

    async def follow(self, stream: str = "s", *, live: bool = True, via: str | None = None) -> Follower:
        follower = Follower(via or self.url, stream)
        self.followers.append(follower)
        await follower.come()
        if live:
            await until(lambda: follower.subscriber.connected and self.sessions["live"], "a live session")
        return follower

    @property
    def sessions(self) -> dict[str, int]:
        found: Any = self.cast.hub.statistics()["sessions"]
        return dict(found)

    async def post(self, *numbers: int, stream: str = "s", **more: Any) -> httpx.Response:
        batch = [event(n, specversion="1.0", **more) for n in numbers]
        kind = {"content-type": "application/cloudevents-batch+json"}
        return await self.http.post(f"{self.url}/v1/streams/{stream}/events", json=batch, headers=kind)

    async def ready(self) -> tuple[int, str]:
        answer = await self.http.get(f"{self.url}/readyz")
        return answer.status_code, answer.text

    async def stats(self) -> Any:
        return (await self.http.get(f"{self.url}/v1/stats")).json()


@asynccontextmanager
async def serving(engine: Engine | None = None, **settings: Any) -> AsyncIterator[Place]:
    """Serve on a free port."""
    place = Place(engine, settings)
    unscaled, following.CONNECT_TIMEOUT = following.CONNECT_TIMEOUT, CONNECT_TIMEOUT  # type: ignore[misc]
    config = uvicorn.Config(
        place.cast, port=0, ws="websockets-sansio", log_config=None, lifespan="off", access_log=False
    )
    await place.cast.start()
    try:
        async with served(config) as port:
            place.url = f"http://127.0.0.1:{port}"
            try:
                yield place
            finally:
                for follower in place.followers:
                    await follower.go()
                following.CONNECT_TIMEOUT = unscaled  # type: ignore[misc]
                await place.http.aclose()
                place.engine.heal()
    finally:
        await place.cast.aclose()
        await place.cast.sio.shutdown()
        await place.engine.aclose()


async def until(condition: Callable[[], object], what: str, within: float = 30.0) -> None:
    """Wait until something is true; fails in words."""
    deadline = asyncio.get_running_loop().time() + within
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"{what}: not within {within} s"
        await asyncio.sleep(0.005)
