"""Why retrying `emit` can't help: what the README says of a Socket.IO server without Steadcast."""

from __future__ import annotations

from collections.abc import AsyncIterator

import aiohttp
import pytest
import socketio
import uvicorn

from tests.support.asgi import served
from tests.support.histories import until


class Plain:
    """A stock Socket.IO server, and where it listens."""

    def __init__(self, sio: socketio.AsyncServer, url: str) -> None:
        self.sio = sio
        self.url = url


@pytest.fixture
async def plain() -> AsyncIterator[Plain]:
    sio = socketio.AsyncServer(async_mode="asgi")
    config = uvicorn.Config(
        socketio.ASGIApp(sio), port=0, ws="websockets-sansio", log_config=None, lifespan="off"
    )
    async with served(config) as port:
        yield Plain(sio, f"http://127.0.0.1:{port}")
    await sio.shutdown()


async def test_emit_to_a_client_that_has_vanished_returns_none(plain: Plain) -> None:
    client = socketio.AsyncClient(reconnection=False)
    await client.connect(plain.url, transports=["websocket"])
    sid = client.get_sid()
    assert await plain.sio.emit("event", {"n": 1}, to=sid) is None
    await client.disconnect()
    await until(lambda: not plain.sio.eio.sockets, what="the server has noticed")
    assert await plain.sio.emit("event", {"n": 2}, to=sid) is None


async def test_what_a_stalled_client_does_not_take_is_queued_without_a_limit(plain: Plain) -> None:
    url = f"{plain.url}/socket.io/?EIO=4&transport=websocket"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as stalled:
        await stalled.receive()
        await stalled.send_str("40")
        await stalled.receive()
        transport = stalled._conn.transport  # type: ignore[union-attr]
        assert transport is not None
        transport.pause_reading()
        for n in range(20_000):
            await plain.sio.emit("event", {"n": n, "text": "x" * 1_000})
        (socket,) = plain.sio.eio.sockets.values()
        assert socket.queue.maxsize == 0
        assert socket.queue.qsize() > 10_000
        transport.abort()
