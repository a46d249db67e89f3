"""deploy/nginx.conf in a real nginx before two nodes: WebSockets, feeds, publishes, a node that is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from steadcast.client.subscriber import Subscriber
from steadcast.serve import RECONNECT_IN
from tests.engine_backends import nats_url
from tests.support.histories import History, follow, publish_paced, until
from tests.support.house import Peer
from tests.support.plain import PLAIN
from tests.support.ports import free_port
from tests.support.server import Server, event, wait_until

CONF = Path(__file__).parents[2] / "deploy" / "nginx.conf"


def nginx_binary() -> str:
    """Find nginx, or install Debian's; fails in words where neither works."""
    places = os.environ["PATH"] + ":/usr/sbin"
    if found := shutil.which("nginx", path=places):
        return found
    if os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run(["apt-get", "install", "-qy", "--no-install-recommends", "nginx-light"], check=False)
        if found := shutil.which("nginx", path=places):
            return found
    raise RuntimeError("this test needs nginx: apt-get install --no-install-recommends nginx-light")


@dataclass
class Front:
    url: str
    nodes: list[Server]


@pytest.fixture
def front(tmp_path: Path) -> Iterator[Front]:
    binary, log = nginx_binary(), nats_url()
    nodes = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        nodes.append(Server(tmp_path / name, engine=log, STEADCAST_NODE=name))
    port = free_port()
    site = CONF.read_text().replace("listen 80;", f"listen 127.0.0.1:{port};")
    for ours, theirs in zip(nodes, ("8765", "8766"), strict=True):
        assert site.count(f"127.0.0.1:{theirs}") == 1
        site = site.replace(f"127.0.0.1:{theirs}", f"127.0.0.1:{ours.port}")
    temporary = "".join(
        f"{kind}_temp_path {tmp_path}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    (tmp_path / "nginx.conf").write_text(
        f"daemon off;\nmaster_process off;\npid {tmp_path}/pid;\nerror_log {tmp_path}/error.log warn;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{temporary}{site}}}\n"
    )
    for node in nodes:
        node.start()
    process = subprocess.Popen([binary, "-p", tmp_path, "-c", tmp_path / "nginx.conf"])
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(url, process), what="nginx answers")
        yield Front(url, nodes)
    finally:
        process.terminate()
        process.wait(10)
        for node in nodes:
            node.__exit__()


def answers(url: str, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, "nginx ended"
    try:
        return httpx.get(f"{url}/readyz", verify=PLAIN, timeout=10).status_code == 200
    except httpx.TransportError:
        return False


async def feed_comes_through(front: Front) -> None:
    async with (
        httpx.AsyncClient(verify=PLAIN, timeout=20) as client,
        client.stream("GET", f"{front.url}/v1/streams/feeds/sse") as feed,
    ):
        assert feed.status_code == 200
        lines = feed.aiter_lines()
        await asyncio.to_thread(front.nodes[1].publish, "feeds", event(1))
        async with asyncio.timeout(20):
            async for line in lines:
                if line.startswith("data:") and '"e1"' in line:
                    return


def test_a_page_that_came_through_nginx_on_any_port_is_of_the_servers_own_origin(front: Front) -> None:
    handshake = f"{front.url}/socket.io/?EIO=4&transport=polling"
    statuses = {
        origin: httpx.get(handshake, headers={"Origin": origin}, verify=PLAIN, timeout=20).status_code
        for origin in (front.url, "http://evil.example", "http://127.0.0.1:1")
    }
    assert list(statuses.values()) == [200, 403, 403], statuses


async def test_through_nginx_feeds_come_when_written_and_a_killed_node_loses_nothing(
    front: Front,
) -> None:
    await feed_comes_through(front)
    history = History()
    async with Subscriber(front.url, "orders", start="start") as subscriber:
        following = asyncio.create_task(follow(subscriber, history))
        publishing = asyncio.create_task(publish_paced(front.url, "orders", history, count=100))
        await until(lambda: len(history.applied) > 20, what="the first events")
        await asyncio.to_thread(front.nodes[0].kill)
        await publishing
        await until(lambda: history.complete, what="every acked event")
    await following
    history.check()


async def test_a_node_that_is_told_to_stop_hands_its_clients_over_and_nothing_is_lost(front: Front) -> None:
    """As a deploy does, under publishing."""
    here, there = front.nodes
    published = History()
    peer = Peer()
    await peer.connect(here.url)
    async with contextlib.AsyncExitStack() as stack:
        subscribers = [
            await stack.enter_async_context(Subscriber(front.url, "orders", start="start")) for _ in range(12)
        ]
        histories = [History(acked=published.acked) for _ in subscribers]
        following = [asyncio.create_task(follow(*each)) for each in zip(subscribers, histories, strict=True)]
        publishing = asyncio.create_task(publish_paced(front.url, "orders", published, count=300))
        await until(lambda: all(len(each.applied) > 20 for each in histories), what="everybody follows")
        at_first = await clients_of(here)
        moving = [each for each in subscribers if each.client_id in at_first]
        began = asyncio.get_running_loop().time()
        stopping = asyncio.create_task(asyncio.to_thread(here.kill, signal.SIGTERM))
        waited = await asyncio.gather(*(back_again(each, began) for each in moving))
        assert await stopping == 0
        await publishing
        await until(lambda: all(each.complete for each in histories), within=60, what="every acked event")
        assert {each.client_id for each in subscribers} <= await clients_of(there)
    await asyncio.gather(*following)
    assert [told["reconnect_in"] for told in peer.named("goaway")] == [list(RECONNECT_IN)]
    await peer.close()
    assert 0 < len(moving) < len(subscribers)
    least, most = RECONNECT_IN
    assert all(least <= each < most + 15 for each in waited), waited  # the machine may be busy
    assert len(published.acked) == 300
    for each in histories:
        each.check()
    assert [each.told for each in subscribers] == [[]] * len(subscribers)


async def clients_of(node: Server) -> set[str]:
    """Give the ids of a node's clients."""
    stats = (await asyncio.to_thread(node.get, "/v1/stats")).json()
    return {each["client_id"] for each in stats["connections"]["clients"]}


async def back_again(subscriber: Subscriber, began: float) -> float:
    """Wait until a subscriber is connected once more; gives the seconds since `began`."""
    await until(lambda: subscriber.connects > 1, within=60, what="a client is back")
    return asyncio.get_running_loop().time() - began
