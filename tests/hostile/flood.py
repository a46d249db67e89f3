"""What a flood is made of: raw WebSockets by the thousand, and a witness who must be served meanwhile."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

from steadcast.client.subscriber import Subscriber
from tests.support.server import event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.support.server import Server

SERVED = 20.0
"""Seconds in which a witness must see an event: a bound for a loaded machine, not a measure."""


CLOSE = 0x88
"""A WebSocket frame's first byte: the end."""


class Raw:
    """A Socket.IO connection of sockets and frames alone, cheap enough to have thousands."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._acks = 0

    @classmethod
    async def open(cls, port: int, *, namespace: bool = True) -> Self:
        """Open a WebSocket, and connect to the default namespace."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\n"
            f"Host: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in head, head
        raw = cls(reader, writer)
        assert (await raw.said())[0] == "0"
        if not namespace:
            return raw
        raw.say("40")
        assert (await raw.said()).startswith("40{")
        assert (await raw.said()).startswith('42["welcome"')
        return raw

    def say(self, text: str) -> None:
        """Send a text frame."""
        body = text.encode()
        size = len(body)
        head = bytes([0x81]) + (
            bytes([0x80 | size]) if size < 126 else bytes([0x80 | 126]) + struct.pack("!H", size)
        )
        self._writer.write(head + bytes(4) + body)  # masked with zeros: RFC 6455 allows any mask

    async def said(self) -> str:
        """Give the next text frame; raises IncompleteReadError at the end."""
        first, size = await self._reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack("!H", await self._reader.readexactly(2))
        elif size == 127:
            (size,) = struct.unpack("!Q", await self._reader.readexactly(8))
        body = await self._reader.readexactly(size)
        if first == CLOSE:
            raise asyncio.IncompleteReadError(body, None)
        return body.decode() if first == 0x81 else ""

    async def call(self, name: str, payload: Any) -> Any:
        """Emit an event and give what its acknowledgement says; batches between are passed over."""
        await self.emit_acked(name, payload)
        while not (text := await self.said()).startswith("43"):
            pass
        return json.loads(text[text.index("[") :])[0]

    async def emit_acked(self, name: str, payload: Any) -> None:
        """Emit an event that wants an acknowledgement."""
        self._acks += 1
        self.say(f"42{self._acks}" + json.dumps([name, payload]))
        await self._writer.drain()

    def stop_reading(self) -> None:
        """Take nothing more off the wire."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]

    def cut(self) -> None:
        """End it without a word."""
        self._writer.transport.abort()


async def open_many(port: int, count: int, at_once: int = 50) -> list[Raw]:
    """Open connections, some at a time."""
    gate = asyncio.Semaphore(at_once)

    async def one() -> Raw:
        async with gate:
            return await Raw.open(port)

    return list(await asyncio.gather(*(one() for _ in range(count))))


class Witness:
    """Somebody who has nothing to do with the flood."""

    def __init__(self, server: Server, subscriber: Subscriber) -> None:
        self._server = server
        self._subscriber = subscriber
        self._asked = 0
        self._seen: set[str] = set()

    async def follow(self) -> None:
        """Take what comes, as long as it comes."""
        async for delivery in self._subscriber:
            self._seen.add(delivery.event.id)

    async def is_served(self) -> None:
        """Publish, and see it come."""
        wanted = f"w{self._asked}"
        self._asked += 1
        answer = await asyncio.to_thread(self._server.publish, "witness", event(0) | {"id": wanted})
        assert answer.status_code == 200, answer.text
        async with asyncio.timeout(SERVED):
            while wanted not in self._seen:
                await asyncio.sleep(0.01)


@asynccontextmanager
async def witness(server: Server) -> AsyncIterator[Witness]:
    """Subscribe somebody, and see that it works before there is a flood and after it."""
    async with Subscriber(server.url, "witness", start="start") as subscriber:
        one = Witness(server, subscriber)
        following = asyncio.create_task(one.follow())
        await one.is_served()
        yield one
        await one.is_served()
        await subscriber.aclose()
        await following
