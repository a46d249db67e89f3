"""Who drips the head of a request is cut; who has said what it wants is not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from steadcast.http.patience import patient

LIMIT = 0.3


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer after a while, longer than a head may take."""
    await receive()
    await asyncio.sleep(2 * LIMIT)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@asynccontextmanager
async def serving(counts: Counter[str]) -> AsyncIterator[int]:
    config = uvicorn.Config(app, port=0, http=patient(counts, LIMIT), log_config=None, lifespan="off")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = server.force_exit = True
    await task


@pytest.mark.parametrize("begins", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
async def test_a_head_that_never_ends_is_cut_and_counted(begins: bytes) -> None:
    counts: Counter[str] = Counter()
    async with serving(counts) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begins)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
    assert counts["slow_heads"] == 1


async def test_a_drip_does_not_prolong_the_time_for_a_head() -> None:
    counts: Counter[str] = Counter()
    async with serving(counts) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ended = asyncio.create_task(reader.read())
        async with asyncio.timeout(30):
            for byte in b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000:
                if ended.done():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(LIMIT / 10)
        assert await ended == b""
        writer.close()
    assert counts["slow_heads"] == 1


async def test_an_answer_may_take_longer_than_a_head_and_the_next_request_has_its_own_time() -> None:
    counts: Counter[str] = Counter()
    async with serving(counts) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"204" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.write(b"GET / HTTP/1.1\r\nHost")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
    assert counts["slow_heads"] == 1
