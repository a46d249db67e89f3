"""Steadcast embedded: it attaches, publishes, and leaves the application's own handlers as they were."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import socketio
import uvicorn
from litestar import Litestar, asgi
from litestar.types import Receive, Scope, Send
from socketio.packet import Packet
from starlette.applications import Starlette
from starlette.routing import Mount

from steadcast import Steadcast, Subscriber
from steadcast.config import Settings
from steadcast.engines.memory import MemoryEngine
from steadcast.errors import Draining, EngineRefused, IdConflict, InvalidEvent, InvalidRequest, InvalidStream
from steadcast.testing import FaultyEngine
from tests.support.asgi import served
from tests.support.plain import PLAIN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from steadcast.engines.base import Description


@pytest.fixture
async def cast() -> AsyncIterator[Steadcast]:
    running = Steadcast(engine=MemoryEngine(epoch="e1"))
    yield running
    await running.aclose()


async def test_publishing_starts_it_and_returns_the_position(cast: Steadcast) -> None:
    receipt = await cast.publish("orders", type="order.paid", data={"order": 17})
    assert (receipt.lane, receipt.position.epoch, receipt.position.offset) == ("normal", "e1", 1)


async def test_a_critical_event_goes_into_its_own_lane(cast: Steadcast) -> None:
    await cast.publish("orders", type="a", data=1)
    receipt = await cast.publish("orders", type="b", data=2, priority="critical")
    assert (receipt.lane, receipt.position.offset) == ("critical", 1)


async def test_the_same_id_is_answered_with_the_first_position_and_another_body_refused(
    cast: Steadcast,
) -> None:
    first = await cast.publish("orders", type="a", data=1, id="x")
    again = await cast.publish("orders", type="a", data=1, id="x")
    assert (again.position, again.duplicate) == (first.position, True)
    with pytest.raises(IdConflict):
        await cast.publish("orders", type="a", data=2, id="x")


@pytest.mark.parametrize(
    ("stream", "more", "error"),
    [
        ("no spaces", {}, InvalidStream),
        ("steadcast.dead", {}, InvalidStream),
        ("s", {"data": object()}, InvalidEvent),
        ("s", {"priority": "urgent"}, InvalidEvent),
        ("s", {"time": "yesterday"}, InvalidEvent),
    ],
)
async def test_what_can_never_work_is_refused_at_once(
    cast: Steadcast, stream: str, more: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        await cast.publish(stream, type="t", **more)


async def test_broadcast_hands_over_and_the_event_arrives(cast: Steadcast) -> None:
    await cast.start()
    event_id = cast.broadcast("orders", type="a", data=1)
    async with asyncio.timeout(30):
        while not (await cast.engine.describe("orders")).streams["orders"]["normal"].head:  # type: ignore[index]
            await asyncio.sleep(0.005)
    again = await cast.publish("orders", type="a", data=1, id=event_id)
    assert again.duplicate


async def test_publish_waits_through_a_failing_engine() -> None:
    engine = FaultyEngine(MemoryEngine())
    settings = Settings(retry_interval=0.01, retry_delay=0.01)
    async with Steadcast(engine=engine, settings=settings) as cast:
        engine.fail_appends(times=2)
        receipt = await cast.publish("orders", type="a", data=1)
        assert receipt.position.offset == 1


async def test_an_engine_of_its_callers_stays_open() -> None:
    engine = MemoryEngine()
    async with Steadcast(engine=engine) as cast:
        await cast.publish("s", type="t")
    assert (await engine.describe("s")).streams["s"]


async def test_an_engine_that_can_never_be_opened_is_told_at_the_start(tmp_path: Path) -> None:
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"this is no database at all, whatever its name says" * 100)
    cast = Steadcast(engine=f"sqlite:///{broken}")
    with pytest.raises(EngineRefused):
        await cast.start()
    await cast.aclose()


async def test_closing_while_it_starts_leaves_no_work_behind() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    class Slow(MemoryEngine):
        async def describe(self, stream: str | None = None) -> Description:
            asked.set()
            await go_on.wait()
            return await super().describe(stream)

    cast = Steadcast(engine=Slow())
    starting = asyncio.create_task(cast.start())
    await asked.wait()
    closing = asyncio.create_task(cast.aclose())
    await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(starting, closing)
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("steadcast-")] == []


async def test_one_that_was_closed_says_that_it_starts_no_more() -> None:
    cast = Steadcast(engine=MemoryEngine())
    await cast.publish("s", type="t")
    await cast.aclose()
    with pytest.raises(Draining, match="new Steadcast"):
        await cast.start()
    with pytest.raises(Draining):
        await cast.publish("s", type="t")
    assert [task for task in asyncio.all_tasks() if task.get_name().startswith("steadcast-")] == []


async def test_from_a_threads_own_loop_and_from_none_it_is_refused_in_words(tmp_path: Path) -> None:
    """It would wait for ever for what only its own loop can tell it."""

    def with_a_loop_of_its_own(cast: Steadcast) -> None:
        asyncio.run(asyncio.wait_for(cast.publish("orders", type="a"), 30))

    async with Steadcast(engine=f"sqlite:///{tmp_path}/log.db") as cast:
        with pytest.raises(InvalidRequest, match="run_coroutine_threadsafe"):
            await asyncio.to_thread(with_a_loop_of_its_own, cast)
        with pytest.raises(InvalidRequest, match="run_coroutine_threadsafe"):
            await asyncio.to_thread(cast.broadcast, "orders", type="a")
        assert (await cast.publish("orders", type="a")).position.offset == 1


def test_in_a_second_loop_it_is_refused_in_words() -> None:
    cast = Steadcast(engine="memory:")
    asyncio.run(cast.start())
    with pytest.raises(InvalidRequest, match="a new one for each"):
        asyncio.run(cast.start())


async def test_after_one_was_closed_another_takes_its_place_on_the_same_server() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    config = uvicorn.Config(socketio.ASGIApp(sio), port=0, lifespan="off", log_config=None)
    async with served(config) as port, asyncio.timeout(30):
        for number in (1, 2, 3):
            async with Steadcast(sio, engine="memory:") as cast:
                await cast.publish("orders", type="order.paid", data=number)
                async with Subscriber(f"http://127.0.0.1:{port}", "orders", start="start") as deliveries:
                    async for delivery in deliveries:
                        assert delivery.event.data == number
                        break


async def test_a_server_that_has_one_takes_no_second() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    async with Steadcast(sio, engine="memory:"):
        with pytest.raises(InvalidRequest, match="has a Steadcast already"):
            Steadcast(sio, engine="memory:")


def test_what_is_no_async_server_is_refused() -> None:
    for sio in (socketio.Server(), socketio.ASGIApp(socketio.AsyncServer(async_mode="asgi"))):
        with pytest.raises(InvalidRequest, match=r"socketio\.AsyncServer"):
            Steadcast(sio, engine="memory:")


def test_a_server_that_speaks_no_json_is_refused() -> None:
    """Its clients would be sent batches that they can't read, and would never say so."""

    class Binary(Packet):  # type: ignore[misc]
        def encode(self) -> bytes:
            return b"as msgpack does"

    sio = socketio.AsyncServer(async_mode="asgi", serializer=Binary)
    with pytest.raises(InvalidRequest, match="JSON"):
        Steadcast(sio, engine="memory:")
    Steadcast(socketio.AsyncServer(async_mode="asgi", json=json), engine="memory:")


async def test_attaching_keeps_the_applications_handlers() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")

    @sio.event
    async def hello(sid: str, data: Any) -> str:
        return f"hello {data}"

    cast = Steadcast(sio, engine="memory:")
    assert sio.handlers["/"]["hello"] is hello
    assert cast.sio is sio
    await cast.aclose()


async def test_two_sqlite_files_do_not_meet(tmp_path: Path) -> None:
    first, second = (f"sqlite:///{tmp_path / name}" for name in ("a.db", "b.db"))
    async with Steadcast(engine=first) as one, Steadcast(engine=second) as other:
        await one.publish("s", type="t")
        assert (await other.engine.describe("s")).streams["s"]["normal"].head == 0  # type: ignore[index]


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "127.0.0.1:1"}, 200),
        ({"host": "localhost", "origin": "http://localhost"}, 200),
        ({"host": "evil.example", "origin": "http://evil.example"}, 421),
        ({"host": "127.0.0.1:1", "origin": "http://evil.example"}, 403),
    ],
)
async def test_a_handshake_under_a_foreign_name_or_from_a_foreign_page_is_refused(
    cast: Steadcast, headers: dict[str, str], status: int
) -> None:
    transport = httpx.ASGITransport(cast)
    async with httpx.AsyncClient(verify=PLAIN, transport=transport, base_url="http://127.0.0.1") as client:
        answer = await client.get("/socket.io/?EIO=4&transport=polling", headers=headers)
    assert answer.status_code == status


async def test_mounted_whole_under_a_path_it_is_followed_and_read_there(cast: Steadcast) -> None:
    api = Starlette(routes=[Mount("/live", cast)])
    config = uvicorn.Config(api, port=0, lifespan="off", log_config=None)
    async with served(config) as port, asyncio.timeout(30):
        url = f"http://127.0.0.1:{port}/live"
        receipt = await cast.publish("orders", type="order.paid", data={"order": 17})
        async with httpx.AsyncClient(verify=PLAIN) as client:
            page = await client.get(f"{url}/v1/streams/orders/events")
        assert page.json()["upto"] == receipt.position.offset
        async with Subscriber(url, "orders", start="start") as deliveries:
            async for delivery in deliveries:
                assert delivery.event.data == {"order": 17}
                break


async def test_what_it_tells_of_itself_stands_under_the_path_that_it_is_mounted_at() -> None:
    """The addresses of pages, the cookie, and the document of the routes: two stand beside each other."""
    guarded = Settings(engine="memory:", token="a-token-of-the-first")  # noqa: S106 - of this test alone
    async with Steadcast(settings=guarded) as first, Steadcast(engine="memory:") as second:
        api = Starlette(routes=[Mount("/its café", first), Mount("/live", second)])
        config = uvicorn.Config(api, port=0, lifespan="off", log_config=None)
        async with served(config) as port, asyncio.timeout(30):
            url = f"http://127.0.0.1:{port}"
            await second.publish("orders", type="order.paid", data=1)
            await second.publish("orders", type="order.paid", data=2)
            async with httpx.AsyncClient(verify=PLAIN, base_url=url) as client:
                page = (await client.get("/live/v1/streams/orders/events?limit=1")).json()
                assert [event["data"] for event in (await client.get(page["next"])).json()["events"]] == [2]
                assert (await client.get("/live/openapi.json")).json()["servers"] == [{"url": "/live"}]
                told = await client.post("/its café/v1/login", json={"token": guarded.token})
                assert "Path=/its%20caf%C3%A9;" in told.headers["set-cookie"]
                assert (await client.get("/its café/v1/streams")).status_code == 200


async def test_mounted_by_litestar_it_is_followed_and_read_there(cast: Steadcast) -> None:
    """It puts a slash behind each path, and tells what was asked for in `raw_path` alone."""
    api = Litestar([asgi("/live", is_mount=True, copy_scope=True)(mounted(cast))], logging_config=None)
    config = uvicorn.Config(api, port=0, lifespan="off", log_config=None)
    async with (
        served(config) as port,
        httpx.AsyncClient(verify=PLAIN, base_url=f"http://127.0.0.1:{port}") as client,
        asyncio.timeout(60),
    ):
        sent = {"id": "1", "source": "shop", "type": "order.paid", "data": {"order": 17}}
        assert (await client.post("/live/v1/streams/orders/events", json=sent)).status_code == 200
        page = await client.get("/live/v1/streams/orders/events?from=start")
        assert [event["id"] for event in page.json()["events"]] == ["1"]
        assert (await client.get("/live/healthz")).status_code == 200
        assert (await client.get("/live/nothing/")).status_code == 404
        assert (await client.get("/live/index.html")).status_code == 200
        bare = await client.get("/live")
        assert (bare.status_code, bare.headers["location"]) == (307, "./live/")
        assert (await client.get("/live", follow_redirects=True)).url.path == "/live/"
        async with Subscriber(f"http://127.0.0.1:{port}/live", "orders", start="start") as deliveries:
            async for delivery in deliveries:
                assert delivery.event.data == {"order": 17}
                break


def mounted(cast: Steadcast) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def live(scope: Scope, receive: Receive, send: Send) -> None:
        await cast(scope, receive, send)  # type: ignore[arg-type]  # Litestar has types of its own for these

    return live


async def test_the_first_request_over_http_starts_it_so_that_a_feed_is_told_what_comes(
    cast: Steadcast,
) -> None:
    config = uvicorn.Config(cast.http, port=0, lifespan="off", log_config=None)
    async with served(config) as port, httpx.AsyncClient(verify=PLAIN) as client, asyncio.timeout(30):
        address = f"http://127.0.0.1:{port}/v1/streams/orders"
        async with client.stream("GET", f"{address}/sse") as feed:
            lines = feed.aiter_lines()
            while await anext(lines) != "event: subscribed":
                pass
            event = {"id": "1", "source": "shop", "type": "order.paid"}
            assert (await client.post(f"{address}/events", json=event)).status_code == 200
            while '"order.paid"' not in await anext(lines):
                pass
