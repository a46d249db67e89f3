"""Tokens end to end: a real server, both clients, and tokens that expire in the middle of the stream."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import jwt
import pytest

from steadcast.client.async_publisher import AsyncPublisher
from steadcast.client.publisher import Publisher
from steadcast.client.subscriber import Subscriber
from steadcast.errors import NotAllowed
from tests.support.histories import History, follow, until
from tests.support.house import Peer
from tests.support.node import NodeSubscriber
from tests.support.plain import PLAIN
from tests.support.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "made-up-secret-of-this-test-0123456789"  # noqa: S105 - made up for these tests
ALL = "made-up-token-of-this-test"
LIFE = 1.0
COUNT = 80


def minted(life: float = LIFE, **claims: Any) -> str:
    rights = {"sub": "e2e", "scope": "publish subscribe", "streams": ["orders*"]}
    return jwt.encode(rights | {"exp": time.time() + life} | claims, SECRET)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(
        tmp_path_factory.mktemp("server"),
        STEADCAST_JWT_SECRET=SECRET,
        STEADCAST_TOKEN=ALL,
        STEADCAST_LOG_LEVEL="debug",
    )
    with running:
        yield running


async def publish_all(url: str, history: History) -> int:
    """Publish for three and a half lives of a token; returns how many tokens were asked for."""
    asked = 0

    def token() -> str:
        nonlocal asked
        asked += 1
        return minted()

    async with AsyncPublisher(url, token=token, source="test") as publisher:
        for n in range(COUNT):
            await publisher.publish("orders", type="t", id=f"e{n}", data=n)
            history.acked.append(f"e{n}")
            await asyncio.sleep(3.5 * LIFE / COUNT)
    return asked


async def refresh(path: Path) -> None:
    while True:
        fresh = path.with_suffix(".new")
        fresh.write_text(minted())
        fresh.replace(path)
        await asyncio.sleep(LIFE / 4)


async def test_tokens_that_expire_in_the_middle_cost_nothing_in_either_client(
    server: Server, tmp_path: Path
) -> None:
    python, node = History(), NodeSubscriber()
    path = tmp_path / "token"
    path.write_text(minted())
    refreshing = asyncio.create_task(refresh(path))
    async with Subscriber(server.url, "orders", start="start", token=minted) as subscriber:
        following = asyncio.create_task(follow(subscriber, python))
        await node.follow(server.url, STEADCAST_TOKEN_FILE=str(path))
        asked = await publish_all(server.url, python)
        node.history.acked = python.acked
        await until(lambda: python.complete and node.history.complete, what="all is applied in both")
        connects = subscriber.connects
    await following
    await node.end()
    refreshing.cancel()
    python.check()
    node.history.check()
    assert node.told == [], "nothing was lost, no log was new"
    assert asked >= 3, "the publisher's tokens expired"
    assert connects >= 3, "the subscriber's tokens expired"


async def test_a_token_that_expires_while_the_log_is_replayed_ends_the_replay_and_it_goes_on(
    server: Server,
) -> None:
    with Publisher(server.url, token=ALL, spool=False, source="test") as publisher:
        for n in range(3_000):
            publisher.publish("orders.long", type="t", id=f"e{n}", data="x" * 500)
        assert publisher.flush(20).acked == 3_000
    peer = Peer()
    await peer.connect(server.url, auth={"token": minted(1.5)})
    await peer.call("subscribe", {"stream": "orders.long", "from": "start"})
    await peer.until(lambda: peer.named("disconnect"), "the connection ends with its token")
    (told,) = peer.named("error")
    assert (told["code"], told["temporary"]) == ("token_expired", True)
    first = [event["offset"] for event in peer.events()]
    assert first == list(range(1, len(first) + 1))
    assert len(first) < 3_000, "unacknowledged, it isn't sent all"
    history = History(acked=[f"e{n}" for n in range(3_000)])
    async with Subscriber(server.url, "orders.long", start="start", token=minted) as subscriber:

        async def slowly() -> None:
            async for delivery in subscriber:
                history.applied.append(delivery.event.id)
                if len(history.applied) % 100 == 0:
                    await asyncio.sleep(0.06)

        following = asyncio.create_task(slowly())
        await until(lambda: history.complete, what="all is applied")
        assert subscriber.connects >= 2
    await following
    history.check()


async def test_what_a_token_does_not_cover_is_refused_everywhere(server: Server) -> None:
    peer = Peer()
    await peer.connect(server.url, auth={"token": minted(20, scope="subscribe")})
    subscribed = await peer.call("subscribe", {"stream": "orders"})
    assert subscribed["ok"]
    for event, payload in (
        ("subscribe", {"stream": "other"}),
        ("subscribe", {"stream": "steadcast.streams"}),
        ("publish", {"stream": "orders", "events": [{"id": "1", "source": "s", "type": "t"}]}),
    ):
        answer = await peer.call(event, payload)
        assert (answer["ok"], answer["error"]["code"], answer["error"]["temporary"]) == (
            False,
            "forbidden",
            False,
        )
    await peer.close()
    for wrong, code in ((minted(-1), "token_expired"), ("wrong", "unauthorized"), (None, "unauthorized")):
        refused = Peer()
        with contextlib.suppress(Exception):
            await refused.connect(server.url, auth={"token": wrong})
        (told,) = refused.named("connect_error")
        assert told["data"]["code"] == code
        await refused.close()
    with pytest.raises(NotAllowed):
        async with Subscriber(server.url, "other", token=minted) as subscriber:
            await anext(subscriber)


async def test_a_debug_log_of_a_whole_session_names_no_token(server: Server) -> None:
    long = minted(60)
    body, headers = {"token": long}, {"Authorization": f"Bearer {long}"}
    with Publisher(server.url, token=long, spool=False, source="test") as publisher:
        publisher.publish("orders.log", type="t", data={"password": "x"})
        assert publisher.flush().acked == 1
    for path in ("/v1/streams", f"/v1/streams?token={long}", f"/v1/nothing/{long}", "/v1/dead"):
        server.get(path, headers=headers)
        server.get(path, headers={"Cookie": f"steadcast_session={long}"})
        server.get(path, headers={"Authorization": f"Bearer {ALL}x"})
    async with httpx.AsyncClient(verify=PLAIN, base_url=server.url) as client:
        assert "HttpOnly" in (await client.post("/v1/login", json=body)).headers["set-cookie"]
        assert (await client.post("/v1/login", json={"token": f"{ALL}x"})).status_code == 401
    peer, short = Peer(), minted(2)
    await peer.connect(f"{server.url}?token={short}", auth={"token": short})
    await peer.call("subscribe", {"stream": "orders.log", "from": "start"})
    await peer.until(lambda: peer.named("disconnect"))
    log = server.log()
    assert "serving" in log
    for secret in (long, short, long.rpartition(".")[2], ALL, SECRET):
        assert secret not in log


async def test_the_servers_own_spool_gets_in_whatever_tokens_are_set(tmp_path: Path) -> None:
    from steadcast.client.address import parse_address
    from steadcast.client.drain import EVENT_TYPE
    from steadcast.client.spool import Spool
    from steadcast.client.spooled import Request

    running = Server(tmp_path, STEADCAST_JWT_SECRET=SECRET, STEADCAST_TOKEN="")
    spool = Spool(str(tmp_path / "spool" / parse_address(running.url).folder))
    event = b'{"specversion": "1.0", "id": "1", "source": "s", "type": "t"}'
    spool.put(Request("/v1/streams/orders/events", {"content-type": EVENT_TYPE}, event))
    await asyncio.to_thread(running.start)
    headers = {"Authorization": f"Bearer {minted(60)}"}
    page = "/v1/streams/orders/events"
    await until(lambda: running.get(page, headers=headers).json()["events"], what="the spooled event")
    running.__exit__()
