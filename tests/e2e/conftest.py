"""What the end-to-end tests share: a server of their own, and a network before it that can be cut."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from steadcast.testing import FaultProxy
from tests.support.server import Server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    running = await asyncio.to_thread(Server(tmp_path).start)
    yield running
    running.__exit__()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[FaultProxy]:
    async with FaultProxy("127.0.0.1", server.port) as between:
        yield between
