"""Three JetStream servers, two nodes, publishers at both and subscribers that hop: servers end meanwhile."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nats
import nats.errors
import pytest

from tests.cluster.traffic import Acks, Hopper, publish
from tests.cluster.wires import Wires
from tests.engine_nats import NAMES, Cluster
from tests.support.histories import until
from tests.support.server import Server

SOAK = os.environ.get("STEADCAST_SOAK") == "1"
NODES = ("a", "b")


@dataclass
class Deployment:
    """What a test may break, and what its publishers were told so far."""

    cluster: Cluster
    nodes: list[Server]
    wires: Wires | None = None
    acks: Acks = field(default_factory=Acks)

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


@asynccontextmanager
async def deployed(folder: Path, *, wired: bool) -> AsyncIterator[Deployment]:
    async with AsyncExitStack() as stack:
        wires = await stack.enter_async_context(Wires(folder, NODES)) if wired else None
        cluster = wires.cluster if wires else Cluster(folder)
        stack.callback(cluster.kill)
        await asyncio.to_thread(cluster.start)
        nodes = []
        for name in NODES:
            (folder / name).mkdir()
            addresses = wires.addresses(name) if wires else cluster.addresses
            url = f"nats://{addresses}?stream=log&replicas=3&sync=always"
            node = Server(folder / name, engine=url, STEADCAST_NODE=name)
            stack.callback(node.__exit__)
            await asyncio.to_thread(node.start)
            nodes.append(node)
        yield Deployment(cluster, nodes, wires)


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


async def server_parted(deployment: Deployment) -> None:
    """Cut the leader off from the other servers, with a node at it that could reach them all."""
    wires, acks = deployment.wires, deployment.acks
    assert wires is not None
    leader = await deployment.leader()
    others = set(NAMES) - {leader}
    await wires.seat("a", leader)
    await until(more(acks, "ab"), within=60, what="both nodes ack")
    for other in others:
        wires.proxies["a", other].refusing = False
    wires.part([leader], others)
    await asyncio.sleep(3)  # what was acked before is told by now
    await until(more(acks, "ab"), within=60, what="both nodes ack without the server that is cut off")
    await wires.heal()
    await until(more(acks, "ab"), within=60, what="both nodes ack with all servers")


async def side_parted(deployment: Deployment) -> None:
    """Cut the leader and a node off from everything else."""
    wires, acks = deployment.wires, deployment.acks
    assert wires is not None
    leader = await deployment.leader()
    wires.part([leader, "a"], [*(set(NAMES) - {leader}), "b"])
    await asyncio.sleep(3)
    await until(more(acks, "b"), within=60, what="the greater side acks")
    before = acks.by["a"]
    await asyncio.sleep(5)
    assert acks.by["a"] == before, "the lesser side acked"
    await wires.heal()
    await until(more(acks, "ab"), within=60, what="both nodes ack with all servers")


def more(acks: Acks, publishers: str) -> Callable[[], bool]:
    """Tell whether each of the publishers was acked something since now."""
    before = {name: acks.by[name] for name in publishers}
    return lambda: all(acks.by[name] > count for name, count in before.items())


@dataclass(frozen=True)
class Plan:
    """What happens, one after the other, while two publishers publish so many events a second."""

    happenings: list[Story]
    rate: float = 200.0
    wired: bool = False


STORIES = {"leader and node": Plan([leader_killed, node_killed])}
SOAKED = {
    "follower": Plan([follower_killed]),
    "whole cluster": Plan([cluster_restarted]),
    "frozen leader": Plan([leader_stopped]),
    "a server is parted": Plan([server_parted], rate=50.0, wired=True),
    "a side is parted": Plan([side_parted], rate=50.0, wired=True),
}


@pytest.mark.parametrize("story", [*STORIES, *(SOAKED if SOAK else ())])
async def test_nothing_acked_is_lost_doubled_or_reordered(tmp_path: Path, story: str) -> None:
    plan = (STORIES | SOAKED)[story]
    async with deployed(tmp_path, wired=plan.wired) as deployment:
        await played(deployment, plan, story)


async def played(deployment: Deployment, plan: Plan, story: str) -> None:
    acks = deployment.acks
    hoppers = [Hopper([node.url for node in deployment.nodes], seed) for seed in range(3)]
    following = [asyncio.create_task(hopper.follow()) for hopper in hoppers]

    over = asyncio.Event()

    async def happen() -> None:
        await asyncio.sleep(2)
        for happening in plan.happenings:
            await happening(deployment)
            await asyncio.sleep(2)
        over.set()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(happen())
        for name, node in zip(NODES, deployment.nodes, strict=True):
            tasks.create_task(publish(node.url, name, acks, rate=plan.rate, over=over))
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
    assert len(acks.places) == acks.published > 0
    for hopper in hoppers:
        hopper.check(acks)
