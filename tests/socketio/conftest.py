"""A house that listens, and a client in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.house import House, Peer, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with listening(House()) as running:
        yield running


@pytest.fixture
async def peer(house: House) -> AsyncIterator[Peer]:
    joined = Peer()
    await joined.connect(house.url, {"client": {"id": "peer-1", "version": "1"}})
    yield joined
    await joined.close()
