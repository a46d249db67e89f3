"""A server for all tests that leave it as it is, a connection of one's own, and a stream of one's own."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from steadcast.http.context import Limits
from tests.support.http_serving import Client, Server

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    """Give one server for all tests that leave it as it is."""
    limits = Limits(keep_alive=0.2, park_after=0.3, body_timeout=5.0)
    with Server(limits=limits) as server:
        yield server


@pytest.fixture
def client(shared_server: Server) -> Iterator[Client]:
    """Give a fresh connection to the shared server."""
    client = Client(shared_server.port)
    yield client
    client.close()


@pytest.fixture
def stream(request: pytest.FixtureRequest) -> str:
    """Give a stream that no other test uses."""
    name: str = re.sub(r"[^A-Za-z0-9]", "-", request.node.name)
    return f"s-{name}"[:120]
