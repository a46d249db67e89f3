"""Three JetStream servers, two nodes, publishers at both and subscribers that hop: servers end meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest

from tests.cluster.traffic import Acks, Hopper, publish
from tests.engine_nats import Cluster
from tests.support.histories import until
from tests.support.server import Server

SOAK = os.environ.get("STEADCAST_SOAK") == "1"
RATE = 200.0


@dataclass
class Deployment:
    """What a test may break."""

    cluster: Cluster
    nodes: list[Server]

    async def leader(self) -> str:
        """Ask who leads the log."""
        for server in self.cluster.servers:
            try:
                client = await nats.connect(
                    f"nats://{server.address}", connect_timeout=1, allow_reconnect=False
                )
            except (nats.errors.Error, OSError):
                continue
            try:
                told = await client.request("$JS.API.STREAM.INFO.log", b"", timeout=2)
            finally:
                await client.close()
            return str(json.loads(told.data)["cluster"]["leader"])
        raise AssertionError("no server answers")


@pytest.fixture
async def deployment(tmp_path: Path) -> AsyncIterator[Deployment]:
    cluster = Cluster(tmp_path)
    await asyncio.to_thread(cluster.start)
    url = f"nats://{cluster.addresses}?stream=log&replicas=3&sync=always"
    nodes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        nodes.append(Server(tmp_path / name, engine=url, STEADCAST_NODE=name))
    try:
        for node in nodes:
            await asyncio.to_thread(node.start)
        yield Deployment(cluster, nodes)
    finally:
        for node in nodes:
            node.__exit__()
        cluster.kill()


Story = Callable[[Deployment], Coroutine[Any, Any, None]]


async def leader_killed(deployment: Deployment) -> None:
    leader = deployment.cluster.named(await deployment.leader())
    await asyncio.to_thread(leader.kill)
    await asyncio.sleep(4)
    await asyncio.to_thread(leader.start)


async def follower_killed(deployment: Deployment) -> None:
    leads = await deployment.leader()
    follower = next(server for server in deployment.cluster.servers if server.name != leads)
    await asyncio.to_thread(follower.kill)
    await asyncio.sleep(4)
    await asyncio.to_thread(follower.start)


async def cluster_restarted(deployment: Deployment) -> None:
    for server in deployment.cluster.servers:
        await asyncio.to_thread(server.kill)
    await asyncio.sleep(1)
    await asyncio.gather(*(asyncio.to_thread(server.start) for server in deployment.cluster.servers))


async def node_killed(deployment: Deployment) -> None:
    node = deployment.nodes[0]
    await asyncio.to_thread(node.kill)
    await asyncio.sleep(1)
    await asyncio.to_thread(node.start)


async def leader_stopped(deployment: Deployment) -> None:
    """Freeze the leader: its connections stand, and nobody answers."""
    leader = deployment.cluster.named(await deployment.leader())
    await asyncio.to_thread(leader.freeze)
    await asyncio.sleep(8)
    await asyncio.to_thread(leader.thaw)


STORIES: dict[str, list[Story]] = {"leader and node": [leader_killed, node_killed]}
SOAKED: dict[str, list[Story]] = {
    "follower": [follower_killed],
    "whole cluster": [cluster_restarted],
    "frozen leader": [leader_stopped],
}


@pytest.mark.parametrize("story", [*STORIES, *(SOAKED if SOAK else ())])
async def test_nothing_acked_is_lost_doubled_or_reordered(deployment: Deployment, story: str) -> None:
    acks = Acks()
    hoppers = [Hopper([node.url for node in deployment.nodes], seed) for seed in range(3)]
    following = [asyncio.create_task(hopper.follow()) for hopper in hoppers]
    seconds = 12.0

    async def happen() -> None:
        await asyncio.sleep(2)
        for happening in (STORIES | SOAKED)[story]:
            await happening(deployment)
            await asyncio.sleep(2)

    await asyncio.gather(
        happen(),
        *(
            publish(node.url, name, acks, rate=RATE, seconds=seconds)
            for name, node in zip("ab", deployment.nodes, strict=True)
        ),
    )
    await until(
        lambda: all(acks.places.keys() <= hopper.ids for hopper in hoppers),
        within=60,
        what="everything acked is applied everywhere",
    )
    for task in following:
        task.cancel()
    await asyncio.gather(*following, return_exceptions=True)
    print(
        f"{story}: {len(acks.places)} acked, longest time without an ack {acks.stall:.1f} s,"
        f" {sum(hopper.hops for hopper in hoppers)} hops"
    )
    assert acks.failed == []
    assert len(acks.places) == 2 * int(RATE * seconds)
    for hopper in hoppers:
        hopper.check(acks)
