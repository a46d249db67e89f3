"""The Python subscriber against a real server: it comes back by itself, and applies each event once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import uvicorn
from websockets.utils import accept_key

from steadcast import AsyncPublisher, Steadcast
from steadcast.client.subscriber import Delivery, Subscriber
from steadcast.config import Settings
from steadcast.core.backoff import Backoff
from steadcast.engines.memory import MemoryEngine
from steadcast.errors import EngineRefused, InvalidRequest, InvalidStream, NotAllowed, RateLimited
from steadcast.event import Lane
from steadcast.socketio.websocket import DirectWebSocket
from steadcast.testing import FaultProxy, FaultyEngine
from tests.support.asgi import served
from tests.support.delivery import until
from tests.support.house import House, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from steadcast.core.effects import Told

QUICK = Backoff(base=0.01, cap=0.05)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with listening(House()) as running:
        yield running


async def publish(house: House, start: int, stop: int, **more: Any) -> None:
    from steadcast.wire import check_events

    raw = [{"id": f"e{n}", "source": "t", "type": "t", "data": {"n": n}} | more for n in range(start, stop)]
    await house.hub.append("s", check_events(raw, now="2026-01-01T00:00:00Z"))


async def take(subscriber: Subscriber, count: int) -> list[Delivery]:
    got: list[Delivery] = []
    async with asyncio.timeout(30):
        async for delivery in subscriber:
            got.append(delivery)
            if len(got) == count:
                return got
    return got


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.event.id for delivery in deliveries]


async def test_events_are_delivered_in_order_with_their_places(house: House) -> None:
    await publish(house, 0, 3)
    async with Subscriber(house.url, "s", start="start") as subscriber:
        got = await take(subscriber, 3)
    assert ids(got) == ["e0", "e1", "e2"]
    assert got[2].event.data == {"n": 2}
    assert (got[2].lane, got[2].position.epoch, got[2].position.offset) == (Lane.NORMAL, "e1", 3)
    assert got[2].cursors["normal"] == ["e1", 3, "e2"]


async def test_an_event_counts_as_applied_when_the_next_one_is_asked_for(house: House) -> None:
    await publish(house, 0, 3)
    async with Subscriber(house.url, "s", start="start") as subscriber:
        await take(subscriber, 2)
        assert subscriber.cursors["normal"] == ["e1", 1, "e0"]
        assert subscriber.counts.applied == 1


async def test_a_kept_cursor_goes_on_where_it_stood(house: House) -> None:
    await publish(house, 0, 5)
    async with Subscriber(house.url, "s", start="start") as first:
        kept = (await take(first, 2))[-1].cursors
    async with Subscriber(house.url, "s", start="start", cursors=kept) as second:
        assert ids(await take(second, 3)) == ["e2", "e3", "e4"]


async def test_after_a_cut_nothing_is_missing_or_doubled(house: House) -> None:
    port = int(house.url.rsplit(":", 1)[1])
    async with FaultProxy("127.0.0.1", port) as proxy:  # noqa: SIM117 - one stands before the other
        async with Subscriber(proxy.url, "s", start="start", backoff=QUICK) as subscriber:
            await publish(house, 0, 10)
            got = await take(subscriber, 10)
            await proxy.cut()
            await publish(house, 10, 20)
            got += await take(subscriber, 10)
            await proxy.cut(reset=False)
            await publish(house, 20, 30)
            got += await take(subscriber, 10)
            assert subscriber.connects >= 2
            assert subscriber.counts.lost == 0
    assert ids(got) == [f"e{n}" for n in range(30)]


async def test_a_server_that_falls_silent_is_left(house: House) -> None:
    port = int(house.url.rsplit(":", 1)[1])
    async with FaultProxy("127.0.0.1", port) as proxy:  # noqa: SIM117 - one stands before the other
        async with Subscriber(proxy.url, "s", start="start", ping_timeout=0.3, backoff=QUICK) as subscriber:
            await publish(house, 0, 1)
            await take(subscriber, 1)
            proxy.blackhole = True
            async with asyncio.timeout(30):
                while subscriber.connects < 2:
                    await asyncio.sleep(0.02)
                    if not subscriber.connected:
                        proxy.blackhole = False


async def test_a_server_that_pings_seldom_is_given_the_time_that_it_told() -> None:
    async with listening(House(ping_interval=60.0)) as house:  # noqa: SIM117 - one stands before the other
        async with Subscriber(house.url, "s", start="start", ping_timeout=0.2, backoff=QUICK) as subscriber:
            await publish(house, 0, 1)
            await take(subscriber, 1)
            await asyncio.sleep(1.0)  # without a ping: five times what it waits elsewhere
            await publish(house, 1, 2)
            await take(subscriber, 1)
            assert subscriber.connects == 1


async def test_a_handshake_that_nobody_answers_is_given_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steadcast.client.connection.CONNECT_TIMEOUT", 1.0)
    await publish(house, 0, 1)
    port = int(house.url.rsplit(":", 1)[1])
    async with FaultProxy("127.0.0.1", port) as proxy:
        proxy.blackhole = True
        async with Subscriber(proxy.url, "s", start="start", backoff=QUICK) as subscriber:
            async with asyncio.timeout(30):
                while not proxy.counts["connections"]:
                    await asyncio.sleep(0.01)
            proxy.blackhole = False  # what was swallowed stays swallowed: only another connection helps
            assert ids(await take(subscriber, 1)) == ["e0"]


async def test_a_server_that_closes_before_its_first_packet_is_tried_again(house: House) -> None:
    await publish(house, 0, 1)
    refused = 0

    async def upgrade_and_close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        head = await reader.readuntil(b"\r\n\r\n")
        key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key:"))
        accepted = f"Sec-WebSocket-Accept: {accept_key(key.split(b':', 1)[1].strip().decode())}\r\n\r\n"
        writer.write(b"HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" + accepted.encode())
        writer.write(b"\x88\x02\x03\xe9")  # a close frame: 1001, going away
        await writer.drain()
        writer.close()
        refused += 1

    closing = await asyncio.start_server(upgrade_and_close, "127.0.0.1", 0)
    door = closing.sockets[0].getsockname()[1]
    async with Subscriber(f"http://127.0.0.1:{door}", "s", start="start", backoff=QUICK) as subscriber:
        async with asyncio.timeout(30):
            while refused < 3:
                await asyncio.sleep(0.01)
        subscriber.url = house.url
        assert ids(await take(subscriber, 1)) == ["e0"]
    closing.close()


async def test_a_last_batch_that_got_lost_is_seen_by_the_heads_of_a_ping(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("steadcast.core.cursor.TAIL_DELAY", 0.1)
    lost: list[object] = []
    got: list[str] = []

    async def handle(delivery: Delivery) -> None:
        got.append(delivery.event.id)

    async with listening(House(ping_interval=0.1)) as house:
        await publish(house, 0, 1)
        async with Subscriber(house.url, "s", start="start") as subscriber:
            running = asyncio.create_task(subscriber.run(handle))
            await until(lambda: got == ["e0"], "the first event")
            with monkeypatch.context() as swallow:
                swallow.setattr(subscriber, "received", lost.append)
                await publish(house, 1, 2)
                await until(lambda: lost, "the batch that gets lost")
            await until(lambda: got == ["e0", "e1"], "the event that got lost")
            assert subscriber.connects == 1
            running.cancel()


async def test_an_on_told_that_fails_stops_nothing(house: House) -> None:
    await publish(house, 0, 10)
    await house.engine.trim("s", Lane.NORMAL, 6)

    def broken(told: Told) -> None:
        raise ValueError(told)

    kept: dict[str, list[str | int]] = {"normal": ["e1", 2, "e1"]}
    async with Subscriber(house.url, "s", cursors=kept, on_told=broken) as subscriber:
        assert ids(await take(subscriber, 4)) == ["e6", "e7", "e8", "e9"]
        assert subscriber.tellings_failed == 1
        assert [told.kind for told in subscriber.told] == ["trimmed"]


async def test_a_handler_that_fails_three_times_is_passed_over_and_told(house: House) -> None:
    await publish(house, 0, 3)
    told: list[Told] = []
    tried: list[str] = []

    async def handler(delivery: Delivery) -> None:
        tried.append(delivery.event.id)
        if delivery.event.id == "e1":
            msg = "no"
            raise ValueError(msg)

    async with Subscriber(house.url, "s", start="start", on_told=told.append) as subscriber:
        running = asyncio.create_task(subscriber.run(handler))
        async with asyncio.timeout(30):
            while "e2" not in tried:
                await asyncio.sleep(0.01)
    await running
    assert tried == ["e0", "e1", "e1", "e1", "e2"]
    assert [(t.kind, t.id) for t in told] == [("passed_over", "e1")]


async def test_a_run_that_is_cancelled_in_its_handler_is_gone_on_with_by_the_next(house: House) -> None:
    await publish(house, 0, 3)
    began = asyncio.Event()
    got: list[Delivery] = []

    async def hang(_: Delivery) -> None:
        began.set()
        await asyncio.Event().wait()

    async def keep(delivery: Delivery) -> None:
        got.append(delivery)
        if len(got) == 3:
            await subscriber.aclose()

    async with Subscriber(house.url, "s", start="start") as subscriber, asyncio.timeout(30):
        first = asyncio.create_task(subscriber.run(hang))
        await began.wait()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert subscriber.counts.applied == 0
        await subscriber.run(keep)
    assert ids(got) == ["e0", "e1", "e2"]


async def test_a_run_goes_on_behind_what_was_taken_by_iteration(house: House) -> None:
    await publish(house, 0, 3)
    got: list[Delivery] = []

    async def keep(delivery: Delivery) -> None:
        got.append(delivery)
        if len(got) == 2:
            await subscriber.aclose()

    async with Subscriber(house.url, "s", start="start") as subscriber, asyncio.timeout(30):
        assert ids(await take(subscriber, 1)) == ["e0"]
        await subscriber.run(keep)
    assert ids(got) == ["e1", "e2"]


async def test_what_retention_took_is_told_with_its_range(house: House) -> None:
    await publish(house, 0, 10)
    await house.engine.trim("s", Lane.NORMAL, 6)
    told: list[Told] = []
    kept: dict[str, list[str | int]] = {"normal": ["e1", 2, "e1"]}
    async with Subscriber(house.url, "s", cursors=kept, on_told=told.append) as subscriber:
        assert ids(await take(subscriber, 4)) == ["e6", "e7", "e8", "e9"]
    assert [(t.kind, t.lost) for t in told] == [("trimmed", (3, 6))]
    assert subscriber.counts.lost == 4


async def test_a_cursor_of_another_log_is_told_and_starts_anew(house: House) -> None:
    await publish(house, 0, 2)
    told: list[Told] = []
    kept: dict[str, list[str | int]] = {"normal": ["gone", 7], "critical": ["gone", 0]}
    async with Subscriber(house.url, "s", cursors=kept, on_told=told.append) as subscriber:
        assert ids(await take(subscriber, 2)) == ["e0", "e1"]
    assert {t.kind for t in told} == {"reset"}


async def test_critical_events_come_first(house: House) -> None:
    await publish(house, 0, 300)
    await publish(house, 300, 302, priority="critical")
    async with Subscriber(house.url, "s", start="start") as subscriber:
        assert {d.lane for d in await take(subscriber, 2)} == {Lane.CRITICAL}


async def test_a_server_under_a_base_path_is_followed_by_the_url_that_publishers_take() -> None:
    async with Steadcast(settings=Settings(engine="memory:", base_path="/live")) as cast:
        config = uvicorn.Config(cast, port=0, ws=DirectWebSocket, log_config=None, lifespan="off")
        async with served(config) as port:
            url = f"http://127.0.0.1:{port}/live/"
            async with AsyncPublisher(url) as publisher, Subscriber(url, "s", start="start") as subscriber:
                receipt = await publisher.publish("s", type="t")
                (delivery,) = await take(subscriber, 1)
    assert delivery.event.id == receipt.id


async def test_a_permanent_refusal_is_raised_to_the_reader() -> None:
    def never(_: object, __: object) -> None:
        raise NotAllowed("a token is needed", code="unauthorized")

    async with listening(House(authorize=never)) as house, Subscriber(house.url, "s") as subscriber:
        with pytest.raises(Exception, match="a token is needed"):
            await take(subscriber, 1)


async def test_a_log_that_refuses_its_server_for_a_while_costs_no_subscriber() -> None:
    """As where its credentials have expired, or its file was moved: whoever runs it mends that."""
    engine = FaultyEngine(MemoryEngine(epoch="e1"))
    async with listening(House(engine=engine)) as house:
        await publish(house, 0, 3)
        engine.describe_error = EngineRefused("JetStream doesn't let us in")
        async with Subscriber(house.url, "s", start="start", backoff=QUICK) as subscriber:
            async with asyncio.timeout(30):
                while engine.counts["describes_failed"] < 2:
                    await asyncio.sleep(0.01)
            engine.heal()
            assert ids(await take(subscriber, 3)) == ["e0", "e1", "e2"]


async def test_who_is_refused_for_a_while_comes_back_when_it_was_told_to_and_not_sooner() -> None:
    asked: list[float] = []

    def authorize(_: object, __: object) -> None:
        asked.append(asyncio.get_running_loop().time())
        if len(asked) == 1:
            raise RateLimited("too many connects", retry_after=1.0)

    async with listening(House(authorize=authorize)) as house:
        await publish(house, 0, 1)
        async with Subscriber(house.url, "s", start="start", backoff=QUICK) as subscriber:
            assert ids(await take(subscriber, 1)) == ["e0"]
    assert asked[1] - asked[0] >= 1.0


async def test_a_token_may_be_a_function_that_is_asked_each_time(house: House) -> None:
    asked: list[int] = []

    async def token() -> str:
        asked.append(1)
        return "t"

    port = int(house.url.rsplit(":", 1)[1])
    async with FaultProxy("127.0.0.1", port) as proxy:  # noqa: SIM117 - one stands before the other
        async with Subscriber(proxy.url, "s", start="start", token=token, backoff=QUICK) as subscriber:
            await publish(house, 0, 1)
            await take(subscriber, 1)
            await proxy.cut()
            await publish(house, 1, 2)
            await take(subscriber, 1)
    assert len(asked) >= 2


async def test_a_goaway_is_followed_by_a_reconnect_in_its_range(house: House) -> None:
    async with Subscriber(house.url, "s", start="start", backoff=QUICK) as subscriber:
        await publish(house, 0, 1)
        await take(subscriber, 1)
        began = asyncio.get_running_loop().time()
        for client in house.connections:
            await client.send("goaway", {"reason": "drain", "reconnect_in": [0.3, 0.4]})
            client.kick(NotAllowed("gone", code="draining"))
        async with asyncio.timeout(30):
            while subscriber.connects < 2:
                await asyncio.sleep(0.01)
        assert asyncio.get_running_loop().time() - began >= 0.3


@pytest.mark.parametrize(
    ("stream", "start", "error"),
    [
        ("no spaces", "end", InvalidStream),
        ("s", "middle", InvalidRequest),
        ("s", {"last": -1}, InvalidRequest),
    ],
)
def test_what_no_server_would_take_is_refused_at_once(
    stream: str, start: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        Subscriber("http://127.0.0.1:1", stream, start=start)


def test_a_url_of_no_server_is_refused_at_once() -> None:
    with pytest.raises(InvalidRequest):
        Subscriber("127.0.0.1:port", "s")


@pytest.mark.parametrize("steps", range(1, 6))
async def test_a_close_that_was_cancelled_is_finished_by_the_next_one(house: House, steps: int) -> None:
    """As where a task that closes is cancelled by who then leaves the `async with`."""
    subscriber = Subscriber(house.url, "s")
    async with subscriber:
        async with asyncio.timeout(30):
            while subscriber._connection is None:
                await asyncio.sleep(0.01)
        session = subscriber._connection._http
        closing = asyncio.create_task(subscriber.aclose())
        for _ in range(steps):
            await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
    assert session.closed
    await subscriber.aclose()
