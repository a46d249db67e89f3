"""A real Engine.IO and Socket.IO server on a free port, and clients that speak raw packets."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import socketio
import uvicorn
from websockets.asyncio.client import ClientConnection, connect

from tests.support.asgi import served
from tests.support.plain import PLAIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from steadcast.socketio.server import Server

PATIENCE = 20.0


class Place:
    """Where a server listens."""

    def __init__(self, sio: Server, port: int, http: httpx.AsyncClient) -> None:
        self.sio = sio
        self.port = port
        self.http = http

    async def ask(
        self, method: str = "GET", body: str | None = None, path: str = "/socket.io/", **query: str
    ) -> tuple[int, str]:
        """Send a request with exactly these parameters."""
        answer = await self.http.request(method, path, params=query, content=body)
        return answer.status_code, answer.text

    async def poll(self, sid: str) -> tuple[int, str]:
        return await self.ask(EIO="4", transport="polling", sid=sid)

    async def post(self, sid: str, body: str) -> tuple[int, str]:
        return await self.ask("POST", body, EIO="4", transport="polling", sid=sid)

    def websocket(self, query: str = "EIO=4&transport=websocket") -> connect:
        url = f"ws://127.0.0.1:{self.port}/socket.io/?{query}"
        return connect(url, max_size=None, proxy=None, compression=None)


@asynccontextmanager
async def listening(sio: Server, *, ws: Any = "websockets-sansio", **options: Any) -> AsyncIterator[Place]:
    """Serve on a free port."""
    app = socketio.ASGIApp(sio)
    config = uvicorn.Config(app, port=0, ws=ws, log_config=None, lifespan="off", ws_max_size=2**24, **options)
    async with (
        served(config) as port,
        httpx.AsyncClient(verify=PLAIN, base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE) as http,
    ):
        yield Place(sio, port, http)


async def said(socket: ClientConnection) -> str | bytes:
    """Give the next message."""
    return await asyncio.wait_for(socket.recv(), PATIENCE)


async def closed(socket: ClientConnection) -> int | None:
    """Wait for the end of a connection, past what is still said; give its code."""
    async with asyncio.timeout(PATIENCE):
        async for _ in socket:
            pass
    return socket.close_code
