"""The AsyncPublisher against a real server: a position for each event, or an error that says why."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import pytest

from steadcast.client.async_publisher import AsyncPublisher
from steadcast.client.post import Outcome
from steadcast.core.backoff import Backoff
from steadcast.errors import (
    IdConflict,
    InvalidEvent,
    InvalidRequest,
    InvalidStream,
    NotAllowed,
    QueueFull,
    SteadcastError,
    Unavailable,
)
from steadcast.event import Lane, Receipt
from tests.fake_ingest import Answer, FakeIngest, Received, events_of, problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

PATH = "/v1/streams/s/events"
QUICK = Backoff(base=0.01, cap=0.05)


@pytest.fixture
def server() -> Iterator[FakeIngest]:
    with FakeIngest() as fake:
        yield fake


@pytest.fixture
async def make(server: FakeIngest) -> AsyncIterator[Callable[..., AsyncPublisher]]:
    made: list[AsyncPublisher] = []

    def publisher(url: str = server.url, **more: Any) -> AsyncPublisher:
        settings: dict[str, Any] = {"backoff": QUICK} | more
        made.append(AsyncPublisher(url, **settings))
        return made[-1]

    yield publisher
    for each in made:
        await each.aclose(0.1)


async def publish(publisher: AsyncPublisher, number: int, stream: str = "s", **more: Any) -> Receipt:
    return await publisher.publish(stream, type="t", data=number, id=str(number), **more)


async def publish_all(publisher: AsyncPublisher, *numbers: int) -> list[Any]:
    return await asyncio.gather(*(publish(publisher, number) for number in numbers), return_exceptions=True)


def assert_nothing_uncounted(publisher: AsyncPublisher) -> None:
    told = publisher.statistics()
    assert told["published"] == told["acked"] + told["pending"] + sum(told["failed"].values())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.005)


async def test_a_publish_returns_lane_and_position(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    publisher = make()
    first = await publish(publisher, 1)
    second = await publish(publisher, 2, priority="critical")
    again = await publish(publisher, 1)
    assert (first.id, first.lane, first.duplicate) == ("1", Lane.NORMAL, False)
    assert (first.position.epoch, first.position.offset) == ("epoch", 1)
    assert (second.lane, second.position.offset) == (Lane.CRITICAL, 2)
    assert (again.position, again.duplicate) == (first.position, True)
    assert server.ids(PATH) == ["1", "2"]
    assert_nothing_uncounted(publisher)


async def test_what_is_published_at_once_travels_together_and_in_order(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    publisher = make(batch_events=100)
    receipts = await publish_all(publisher, *range(250))
    assert [receipt.id for receipt in receipts] == [str(number) for number in range(250)]
    assert [len(events_of(received)) for received in server.requests] == [100, 100, 50]
    assert server.ids() == [str(number) for number in range(250)]


async def test_under_load_as_many_requests_of_a_stream_are_on_their_way_as_may_be(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    held = asyncio.Event()
    on_their_way = 0
    most = 0

    class Slow(AsyncPublisher):
        async def _post(self, path: str, headers: dict[str, str], body: bytes) -> Outcome:
            nonlocal on_their_way, most
            on_their_way += 1
            most = max(most, on_their_way)
            await held.wait()
            try:
                return await super()._post(path, headers, body)
            finally:
                on_their_way -= 1

    async with Slow(server.url, batch_events=10, in_flight=3) as publisher:
        waiting = asyncio.ensure_future(publish_all(publisher, *range(95)))
        await until(lambda: most == 3)
        held.set()
        receipts = await waiting
        assert most == 3
        assert [receipt.id for receipt in receipts] == [str(number) for number in range(95)]
        assert sorted(server.ids(), key=int) == [str(number) for number in range(95)]
        assert len(server.requests) == 10
        assert_nothing_uncounted(publisher)


async def test_few_events_go_in_one_request_after_the_other(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    publisher = make(batch_events=100, in_flight=3)
    first = asyncio.ensure_future(publish(publisher, 0))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # its request is on its way
    await publish_all(publisher, *range(1, 60))
    await first
    assert [len(events_of(received)) for received in server.requests] == [1, 59]


async def test_a_request_stays_below_its_bytes(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    publisher = make(batch_bytes=5_000)
    await asyncio.gather(*(publisher.publish("s", type="t", data="x" * 1_000) for _ in range(20)))
    assert max(len(received.body) for received in server.requests) <= 5_002


async def test_nothing_is_kept_of_what_was_answered(make: Callable[..., AsyncPublisher]) -> None:
    publisher = make()
    await asyncio.gather(*(publish(publisher, number, f"s{number}") for number in range(20)))
    await until(lambda: not publisher._tasks)
    assert not publisher._streams


async def test_streams_do_not_wait_for_each_other(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    def slow(received: Received) -> Answer | None:
        return Answer(delay=30) if "slow" in received.path else None

    server.rule = slow
    publisher = make()
    held = asyncio.create_task(publish(publisher, 1, "slow"))
    await until(lambda: len(server.requests) == 1)
    assert (await publish(publisher, 2, "quick")).id == "2"
    assert not held.done()
    held.cancel()


async def test_a_temporary_failure_is_retried_with_the_same_id(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    server.then(Answer(503), Answer(cut=True), Answer(200, text="<html>"))
    publisher = make()
    assert (await publish(publisher, 1)).id == "1"
    assert len(server.requests) == 4
    assert len({received.body for received in server.requests}) == 1
    assert publisher.statistics()["retries"] == 3


async def test_used_up_retries_raise_what_the_server_said(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    server.rule = lambda _received: problem(503, "engine_full", temporary=True)
    publisher = make(retries=2)
    with pytest.raises(Unavailable) as raised:
        await publish(publisher, 1)
    assert (raised.value.code, raised.value.temporary) == ("engine_full", True)
    assert len(server.requests) == 3
    assert publisher.statistics()["failed"] == {"engine_full": 1}
    assert_nothing_uncounted(publisher)


async def test_nobody_listening_raises_unavailable(make: Callable[..., AsyncPublisher]) -> None:
    with FakeIngest() as gone:
        url = gone.url
    with pytest.raises(Unavailable):
        await publish(make(url, retries=1), 1)


async def test_a_server_that_comes_back_meanwhile_gets_the_event(make: Callable[..., AsyncPublisher]) -> None:
    with FakeIngest() as gone:
        port = gone.port
    publisher = make(gone.url, retries=200)
    task = asyncio.create_task(publish(publisher, 1))
    await until(lambda: publisher.statistics()["retries"] > 1)
    with FakeIngest(port) as server:
        assert (await task).id == "1"
        assert server.ids() == ["1"]
        await publisher.aclose()


async def test_a_server_that_hangs_is_given_up_after_the_request_timeout(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    server.rule = lambda _received: Answer(drip=0.05)
    began = time.monotonic()
    with pytest.raises(Unavailable) as raised:
        await publish(make(request_timeout=0.2, retries=1), 1)
    assert raised.value.code == "timeout"
    assert time.monotonic() - began < 15


async def test_it_waits_as_long_as_the_server_asks_but_not_longer_than_its_patience(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    server.then(problem(429, "rate_limited", temporary=True, retry_after=0.3))
    publisher = make(patience=1.0)
    began = time.monotonic()
    await publish(publisher, 1)
    assert time.monotonic() - began >= 0.3
    server.then(problem(429, "rate_limited", temporary=True, retry_after=60))
    with pytest.raises(SteadcastError) as raised:
        await publish(publisher, 2)
    assert (raised.value.code, raised.value.retry_after) == ("rate_limited", 60)


@pytest.mark.parametrize("names_index", [True, False])
async def test_of_a_refused_batch_only_the_bad_event_raises(
    server: FakeIngest, make: Callable[..., AsyncPublisher], names_index: bool
) -> None:
    def refuse(received: Received) -> Answer | None:
        ids = [event["id"] for event in events_of(received)]
        more = {"index": ids.index("3")} if names_index and "3" in ids else {}
        return problem(409, "id_conflict", temporary=False, **more) if "3" in ids else None

    server.rule = refuse
    publisher = make()
    results = await publish_all(publisher, *range(10))
    assert isinstance(results[3], IdConflict)
    assert [each.id for each in results if isinstance(each, Receipt)] == [*"012", *"456789"]
    assert server.ids() == [*"012", *"456789"]
    assert_nothing_uncounted(publisher)


async def test_a_missing_token_is_told_at_once(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    server.rule = lambda _received: problem(401, "unauthorized", temporary=False)
    with pytest.raises(NotAllowed):
        await publish(make(), 1)
    assert len(server.requests) == 1


async def test_the_token_travels(server: FakeIngest, make: Callable[..., AsyncPublisher]) -> None:
    await publish(make(token="abc"), 1)  # noqa: S106 - no secret of anybody
    assert server.requests[0].headers["authorization"] == "Bearer abc"


@pytest.mark.parametrize(
    "results",
    [
        None,
        [],
        [{"id": "other", "lane": "normal", "position": ["e", 1], "duplicate": False}],
        [{"id": "1", "lane": "fast", "position": ["e", 1], "duplicate": False}],
        [{"id": "1"}],
    ],
)
async def test_an_acceptance_without_a_receipt_for_each_event_is_none(
    server: FakeIngest, make: Callable[..., AsyncPublisher], results: Any
) -> None:
    server.rule = lambda _received: Answer(200, {"results": results})
    with pytest.raises(Unavailable) as raised:
        await publish(make(retries=0), 1)
    assert raised.value.code == "not_steadcast"


async def test_what_could_never_be_delivered_raises_without_asking(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    publisher = make()
    with pytest.raises(InvalidStream):
        await publisher.publish("not a name", type="t")
    with pytest.raises(InvalidEvent):
        await publisher.publish("s", type="")
    with pytest.raises(InvalidRequest):
        make("ftp://x")
    assert server.requests == []


async def test_a_full_buffer_says_so_and_counts_it(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    server.then(Answer(delay=0.2))
    publisher = make(buffer_limit=3)
    results = await publish_all(publisher, *range(5))
    assert [type(each) for each in results] == [Receipt] * 3 + [QueueFull] * 2
    assert publisher.statistics()["turned_away"] == 2
    assert (await publish(publisher, 9)).id == "9"
    assert_nothing_uncounted(publisher)


async def test_the_buffers_bytes_are_bounded_too(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    publisher = make(buffer_bytes=5_000)
    results = await asyncio.gather(
        *(publisher.publish("s", type="t", data="x" * 1_000) for _ in range(8)), return_exceptions=True
    )
    assert [type(each) for each in results] == [Receipt] * 4 + [QueueFull] * 4


async def test_a_publish_cancelled_before_it_went_out_is_not_sent(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    server.then(Answer(delay=0.1))
    publisher = make()
    first = asyncio.create_task(publish(publisher, 1))
    await until(lambda: len(server.requests) == 1)
    second, third = (asyncio.create_task(publish(publisher, number)) for number in (2, 3))
    await asyncio.sleep(0)
    second.cancel()
    assert [(await first).id, (await third).id] == ["1", "3"]
    assert server.ids() == ["1", "3"]
    assert publisher.statistics()["failed"] == {"cancelled": 1}
    assert_nothing_uncounted(publisher)


async def test_closing_waits_for_what_is_on_its_way(
    server: FakeIngest, make: Callable[..., AsyncPublisher]
) -> None:
    server.then(Answer(delay=0.1))
    async with make() as publisher:
        task = asyncio.create_task(publish(publisher, 1))
        await until(lambda: len(server.requests) == 1)
    assert (await task).id == "1"
    with pytest.raises(Unavailable):
        await publish(publisher, 2)


async def test_closing_leaves_nobody_waiting(server: FakeIngest, make: Callable[..., AsyncPublisher]) -> None:
    server.rule = lambda _received: Answer(delay=30)
    publisher = make()
    tasks = [asyncio.create_task(publish(publisher, number)) for number in range(3)]
    await until(lambda: len(server.requests) == 1)
    late = asyncio.create_task(publish(publisher, 4))
    await asyncio.sleep(0)
    await publisher.aclose(0.05)
    results = await asyncio.gather(*tasks, late, return_exceptions=True)
    assert [type(each) for each in results] == [Unavailable] * 4
    assert_nothing_uncounted(publisher)


def test_in_a_second_loop_it_is_refused_in_words(server: FakeIngest) -> None:
    publisher = AsyncPublisher(server.url)

    async def within() -> None:
        try:
            await publish(publisher, 1)
        finally:
            await publisher.aclose()

    asyncio.run(within())
    with pytest.raises(InvalidRequest, match="a new one for each"):
        asyncio.run(publish(publisher, 2))
    assert_nothing_uncounted(publisher)
