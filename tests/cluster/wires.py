"""A cluster, each of whose connections goes through a fault proxy, so that a side of it can be cut off."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Self

from steadcast.testing import FaultProxy
from tests.engine_nats import NAMES, Cluster
from tests.support.histories import until
from tests.support.ports import free_ports

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Wires:
    """Proxies by who connects to whom: from server to server, and from each node to each server."""

    def __init__(self, folder: Path, nodes: Iterable[str]) -> None:
        self.nodes = list(nodes)
        self.proxies: dict[tuple[str, str], FaultProxy] = {}
        self._folder = folder
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        routes = dict(zip(NAMES, free_ports(len(NAMES)), strict=True))
        for here, there in [(a, b) for a in NAMES for b in NAMES if a != b]:
            await self._lay(here, there, routes[there])
        ways = {pair: proxy.port for pair, proxy in self.proxies.items()}
        self.cluster = Cluster(self._folder, routes=routes, ways=ways)
        for node in self.nodes:
            for server in self.cluster.servers:
                await self._lay(node, server.name, server.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _lay(self, here: str, there: str, port: int) -> None:
        self.proxies[here, there] = await self._stack.enter_async_context(FaultProxy("127.0.0.1", port))

    def addresses(self, node: str) -> str:
        """Give the servers as a node reaches them."""
        return ",".join(f"127.0.0.1:{self.proxies[node, name].port}" for name in NAMES)

    async def seat(self, node: str, server: str) -> None:
        """Move a node to a server, with no other to connect to until `heal`."""
        way = self.proxies[node, server]
        before = way.counts["connections"]
        for name in NAMES:
            self.proxies[node, name].refusing = name != server
            await self.proxies[node, name].cut()
        await until(lambda: way.counts["connections"] > before, within=60, what=f"{node} is at {server}")

    def part(self, here: Iterable[str], there: Iterable[str]) -> None:
        """Let nothing more through between two sides; no end learns of it."""
        sides = set(here), set(there)
        for (one, other), proxy in self.proxies.items():
            if any(one in side and other in rest for side, rest in (sides, sides[::-1])):
                proxy.blackhole = True

    async def heal(self) -> None:
        """Let everything through again; connections whose bytes were swallowed end."""
        for proxy in self.proxies.values():
            proxy.refusing = False
            if proxy.blackhole:
                proxy.blackhole = False
                await proxy.cut()
