"""uvicorn in this process, on a port of its own, which comes and goes without a wait of its own."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    import socket
    from collections.abc import AsyncIterator

LEAVING = 0.1
"""Seconds in which connections may close and their tasks end; uvicorn takes them all, and as many before."""

ACCEPTING = 8
"""Turns of the loop in which whoever came last is let in: asyncio forgets a socket whose listener is closed
between the accept and the three turns that make a connection of it."""


@asynccontextmanager
async def served(
    config: uvicorn.Config, *, sockets: list[socket.socket] | None = None, leaving: float = LEAVING
) -> AsyncIterator[int]:
    """Serve, and give the port; closes what is open at the end, and waits at most `leaving` seconds for it.

    `uvicorn.Server.serve` looks every 0.1 s whether it should end, and catches the test run's signals.
    """
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets)
    await server.on_tick(0)  # makes the headers that every answer has
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        await _leave(server, leaving)


async def _leave(server: uvicorn.Server, leaving: float) -> None:
    for _ in range(ACCEPTING):
        await asyncio.sleep(0)
    for listener in server.servers:
        listener.close()
    state, loop = server.server_state, asyncio.get_running_loop()
    for connection in list(state.connections):
        connection.shutdown()
    end = loop.time() + leaving
    while (state.connections or state.tasks) and loop.time() < end:
        await asyncio.sleep(0.001)
