"""A real server in this process, on a free port: uvicorn, python-socketio, the transport, a hub."""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import socketio
import uvicorn

from steadcast.core.session import Window
from steadcast.engines.memory import MemoryEngine
from steadcast.hub import Hub, Timing
from steadcast.socketio.codec import JsonPacket
from steadcast.socketio.connections import ConnectionEventHandler
from steadcast.socketio.fanout import Fanout
from steadcast.socketio.transport import Transport
from steadcast.socketio.websocket import DirectWebSocket
from tests.support.asgi import served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from steadcast.socketio.timeouts import Timeouts


class House:
    """A hub with its Socket.IO transport, listening."""

    def __init__(
        self,
        *,
        engine: Any = None,
        sio: socketio.AsyncServer | None = None,
        window: Window | None = None,
        timing: Timing | None = None,
        timeouts: Timeouts | None = None,
        authorize: Callable[[dict[str, Any], object], Any] | None = None,
        fanout: Fanout | None = None,
        **connections: Any,
    ) -> None:
        self.engine = engine or MemoryEngine(epoch="e1")
        self.hub = Hub(self.engine, window=window, timing=timing)
        self.sio = sio or socketio.AsyncServer(
            async_mode="asgi", serializer=JsonPacket, max_http_buffer_size=5_000_000, cors_allowed_origins="*"
        )
        self.connections = ConnectionEventHandler(self.hub, **connections)
        self.transport = Transport(
            self.sio,
            self.hub,
            self.connections,
            node="test",
            publish=self.hub.append,
            wall=lambda: "2026-01-01T00:00:00Z",
            begin=self.begin,
            timeouts=timeouts,
            authorize=authorize,
            fanout=fanout,
        )
        self.url = ""

    async def begin(self) -> None:
        """Be ready already."""


@asynccontextmanager
async def listening(
    house: House, *, ws: Any = DirectWebSocket, deflate: bool = False
) -> AsyncIterator[House]:
    """Serve a house on a free port, with uvicorn's WebSockets or ours."""
    app = socketio.ASGIApp(house.sio)
    config = uvicorn.Config(
        app,
        port=0,
        ws=ws,
        ws_per_message_deflate=deflate,
        log_config=None,
        lifespan="off",
        ws_max_size=6_000_000,
    )
    try:
        async with served(config) as port:
            house.url = f"http://127.0.0.1:{port}"
            await house.hub.start()
            house.connections.start()
            try:
                yield house
            finally:
                await house.connections.aclose()
                await house.hub.aclose()
    finally:
        await house.sio.shutdown()
        await house.engine.aclose()


class Peer:
    """A client written from the design's table: nothing but a stock Socket.IO client."""

    def __init__(self) -> None:
        self.sio = socketio.AsyncClient(reconnection=False)
        self.heard: list[tuple[str, Any]] = []
        self.sio.on("*", self._hear)
        self.sio.on("connect_error", self._refused)
        self.sio.on("disconnect", self._gone)

    def _hear(self, event: str, *args: Any) -> None:
        self.heard.append((event, args[0] if args else None))

    def _refused(self, data: Any = None) -> None:
        self.heard.append(("connect_error", data))

    def _gone(self, *_: Any) -> None:
        self.heard.append(("disconnect", None))

    def named(self, event: str) -> list[Any]:
        return [payload for name, payload in self.heard if name == event]

    def events(self, lane: str = "normal") -> list[Any]:
        return [e for batch in self.named("batch") if batch["lane"] == lane for e in batch["events"]]

    async def connect(self, url: str, auth: Any = None, transports: list[str] | None = None) -> None:
        await self.sio.connect(url, auth=auth, transports=transports or ["websocket"], wait_timeout=30)

    async def call(self, event: str, payload: Any) -> Any:
        return await self.sio.call(event, payload, timeout=30)

    async def until(self, condition: Callable[[], object], what: str = "what was to come") -> None:
        deadline = asyncio.get_running_loop().time() + 30
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, f"{what}: {self.heard[-5:]}"
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        with contextlib.suppress(TimeoutError):  # on polling, this client waits for its last poll to end
            await asyncio.wait_for(self.sio.disconnect(), 0.5)


def event(n: int, **more: Any) -> dict[str, Any]:
    return {"id": f"e{n}", "source": "test", "type": "t", "data": {"n": n}} | more
