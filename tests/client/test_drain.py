"""Draining: oldest first, in groups, stopping at a temporary failure, past what is refused."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from steadcast.client.drain import BATCH_TYPE, EMPTY, EVENT_TYPE, SENT, STOPPED, Drain
from steadcast.client.post import Connection
from steadcast.client.spool import REFUSED, Spool
from steadcast.client.spooled import Request
from tests.fake_ingest import Answer, FakeIngest, Received, events_of, problem
from tests.support.descriptors import no_descriptors_left
from tests.support.server import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE = "/v1/streams/one/events"
TWO = "/v1/streams/two/events"
HOOK = "/v1/hooks/claude"


@pytest.fixture
def server() -> Iterator[FakeIngest]:
    with FakeIngest() as fake:
        yield fake


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(str(tmp_path))


@pytest.fixture
def drain(server: FakeIngest, spool: Spool) -> Iterator[Drain]:
    connection = Connection(server.url)
    yield Drain(spool, connection)
    connection.close()


def put_event(spool: Spool, path: str, event_id: str, **more: Any) -> None:
    body = json.dumps({"id": event_id, **more}).encode()
    spool.put(Request(path, {"content-type": EVENT_TYPE}, body))


def put_hook(spool: Spool, event_id: str) -> None:
    spool.put(Request(HOOK, {"content-type": "application/json", "ce-id": event_id}, b'{"a":1}'))


def steps(drain: Drain) -> list[str]:
    kinds = []
    while True:
        step = drain.step(5)
        kinds.append(step.kind)
        if step.kind != SENT:
            return kinds


def test_an_empty_spool_asks_nobody(server: FakeIngest, drain: Drain) -> None:
    assert steps(drain) == [EMPTY]
    assert server.requests == []


def test_events_that_follow_each_other_to_one_stream_travel_as_one_batch(
    server: FakeIngest, spool: Spool, drain: Drain
) -> None:
    for number in range(50):
        put_event(spool, ONE, str(number))
    assert steps(drain) == [SENT, EMPTY]
    assert server.ids() == [str(number) for number in range(50)]
    assert server.requests[0].headers["content-type"] == BATCH_TYPE
    assert spool.names() == []


def test_a_single_event_travels_as_it_was_spooled(server: FakeIngest, spool: Spool, drain: Drain) -> None:
    put_event(spool, ONE, "1")
    assert steps(drain) == [SENT, EMPTY]
    assert server.requests[0].headers["content-type"] == EVENT_TYPE


def test_order_is_kept_across_streams_and_hooks(server: FakeIngest, spool: Spool, drain: Drain) -> None:
    put_event(spool, ONE, "1")
    put_event(spool, ONE, "2")
    put_hook(spool, "3")
    put_hook(spool, "4")
    put_event(spool, TWO, "5")
    put_event(spool, ONE, "6")
    assert steps(drain) == [SENT] * 5 + [EMPTY]
    assert server.ids() == ["1", "2", "3", "4", "5", "6"]
    assert [len(events_of(received)) for received in server.requests] == [2, 1, 1, 1, 1]
    assert server.requests[1].headers["ce-id"] == "3"


def test_a_group_has_at_most_so_many_events_and_bytes(server: FakeIngest, spool: Spool) -> None:
    connection = Connection(server.url)
    drain = Drain(spool, connection, max_events=4, max_bytes=200)
    for number in range(9):
        put_event(spool, ONE, str(number))
    for number in range(3):
        put_event(spool, TWO, str(number), data="x" * 90)
    steps(drain)
    connection.close()
    assert [len(events_of(received)) for received in server.requests] == [4, 4, 1, 1, 1, 1]
    assert server.ids() == [*"012345678", *"012"]


def test_a_temporary_failure_stops_and_nothing_is_overtaken(
    server: FakeIngest, spool: Spool, drain: Drain
) -> None:
    put_event(spool, ONE, "1")
    put_hook(spool, "2")
    server.then(problem(503, "engine_unavailable", temporary=True, retry_after=2.5))
    step = drain.step(5)
    assert (step.kind, len(server.requests)) == (STOPPED, 1)
    assert step.outcome is not None
    assert step.outcome.retry_after == 2.5
    put_hook(spool, "3")
    assert steps(drain) == [SENT, SENT, SENT, EMPTY]
    assert server.ids() == ["1", "2", "3"]


def test_something_older_that_came_meanwhile_goes_first_after_a_failure(
    server: FakeIngest, spool: Spool, drain: Drain
) -> None:
    from steadcast.client.spooled import stamp

    early = stamp()
    put_hook(spool, "2")
    server.then(Answer(503))
    drain.step(5)
    spool.put(Request(HOOK, {"ce-id": "1"}, b"{}"), early)
    steps(drain)
    assert server.ids() == ["1", "2"]


@pytest.mark.parametrize("names_index", [True, False])
def test_only_the_refused_event_of_a_batch_goes_dead(
    server: FakeIngest, spool: Spool, drain: Drain, names_index: bool
) -> None:
    def refuse(received: Received) -> Answer | None:
        ids = [event["id"] for event in events_of(received)]
        if "3" not in ids:
            return None
        more = {"index": ids.index("3")} if names_index else {}
        return problem(400, "invalid_event", temporary=False, **more)

    server.rule = refuse
    for number in range(7):
        put_event(spool, ONE, str(number))
    assert steps(drain) == [SENT, EMPTY]
    assert server.ids() == [*"012", *"456"]
    (dead,) = spool.dead()
    assert dead.request is not None
    assert json.loads(dead.request.body)["id"] == "3"
    assert dead.reason == "refused: 400 invalid_event it is invalid_event"
    assert spool.statistics()["dropped"][REFUSED] == 1


def test_a_cut_in_the_middle_of_the_answer_sends_again_and_nothing_is_doubled(
    server: FakeIngest, spool: Spool, drain: Drain
) -> None:
    applied: list[Received] = []

    def cut_once(received: Received) -> Answer | None:
        if applied:
            return None
        applied.append(received)
        server._apply(received, events_of(received)[0])
        return Answer(cut=True)

    server.rule = cut_once
    put_hook(spool, "1")
    assert drain.step(5).kind == STOPPED
    assert drain.step(5).kind == SENT
    assert server.ids() == ["1"]
    assert len(server.requests) == 2


def test_two_drainers_at_once_deliver_everything_and_count_it_once(server: FakeIngest, spool: Spool) -> None:
    for number in range(60):
        put_hook(spool, str(number))
    connections = [Connection(server.url) for _ in range(2)]
    drains = [Drain(Spool(spool.folder), connection) for connection in connections]
    threads = [threading.Thread(target=steps, args=(drain,)) for drain in drains]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for connection in connections:
        connection.close()
    assert sorted(server.ids(), key=int) == [str(number) for number in range(60)]
    told = spool.statistics()
    assert (told["delivered"], told["pending"]) == (60, 0)


def test_a_deadline_ends_the_drain_in_the_middle(server: FakeIngest, spool: Spool, drain: Drain) -> None:
    for number in range(5):
        put_hook(spool, str(number))
    server.then(Answer(), Answer(), Answer(delay=30))
    began = time.monotonic()
    assert drain.until(began + 0.5).kind == STOPPED
    assert time.monotonic() - began < 15
    assert len(spool.names()) == 3


def test_running_drains_what_comes_until_it_is_stopped(
    server: FakeIngest, spool: Spool, drain: Drain
) -> None:
    stop = threading.Event()
    thread = threading.Thread(target=drain.run, args=(stop,), kwargs={"idle": 0.01})
    thread.start()
    put_hook(spool, "1")
    server.wait(lambda: server.ids() == ["1"])
    put_event(spool, ONE, "2")
    server.wait(lambda: server.ids() == ["1", "2"])
    stop.set()
    thread.join(5)
    assert not thread.is_alive()


def test_running_comes_back_to_a_server_that_was_away(spool: Spool) -> None:
    with FakeIngest() as gone:
        port = gone.port
    put_hook(spool, "1")
    drain = Drain(spool, Connection(f"http://127.0.0.1:{port}"))
    stop = threading.Event()
    thread = threading.Thread(target=drain.run, args=(stop,), kwargs={"idle": 0.01})
    thread.start()
    with FakeIngest(port) as server:
        server.wait(lambda: server.ids() == ["1"])
        stop.set()
        thread.join(5)
    assert not thread.is_alive()


def test_running_waits_at_least_as_long_as_the_server_asks(
    server: FakeIngest, spool: Spool, drain: Drain
) -> None:
    put_hook(spool, "1")
    server.then(problem(429, "rate_limited", temporary=True, retry_after=0.4))
    stop = threading.Event()
    began = time.monotonic()
    thread = threading.Thread(target=drain.run, args=(stop,), kwargs={"idle": 0.01})
    thread.start()
    server.wait(lambda: server.ids() == ["1"])
    assert time.monotonic() - began >= 0.4
    stop.set()
    thread.join(5)


def test_running_survives_a_disk_that_refuses(
    server: FakeIngest, spool: Spool, drain: Drain, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_hook(spool, "1")
    asked = threading.Event()

    def broken() -> list[str]:
        asked.set()
        monkeypatch.undo()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(spool, "names", broken)
    stop = threading.Event()
    thread = threading.Thread(target=drain.run, args=(stop,), kwargs={"idle": 0.01})
    thread.start()
    assert asked.wait(5)
    server.wait(lambda: server.ids() == ["1"])
    stop.set()
    thread.join(5)


def test_a_moment_without_file_descriptors_gives_up_nothing_and_keeps_the_order(
    server: FakeIngest, spool: Spool, drain: Drain
) -> None:
    for number in range(3):
        put_event(spool, ONE, str(number))
    assert drain.head() is not None
    with no_descriptors_left(), pytest.raises(OSError, match="Too many open files"):
        drain.step()
    assert steps(drain) == [SENT, EMPTY]
    assert server.ids() == ["0", "1", "2"]


def test_running_tells_of_each_trouble_once(server: FakeIngest, spool: Spool) -> None:
    put_event(spool, ONE, "1")
    server.then(*[problem(503, "away", temporary=True)] * 3, *[problem(429, "much", temporary=True)] * 2)
    stop = threading.Event()
    told: list[str] = []
    drain = Drain(spool, Connection(server.url))
    kept = {"idle": 0.01, "jitter": lambda: 0.0, "told": lambda outcome: told.append(outcome.code)}
    running = threading.Thread(target=drain.run, args=(stop,), kwargs=kept)
    running.start()
    wait_until(lambda: spool.statistics()["delivered"] == 1, what="it is delivered")
    stop.set()
    running.join()
    assert told == ["away", "much"]
