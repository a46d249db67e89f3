"""The Publisher against a real server: it never hurts its program, and loses and reorders nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast.client.publisher import FlushResult, Publisher
from steadcast.client.spool import Spool
from steadcast.core.backoff import Backoff
from steadcast.errors import InvalidEvent, InvalidRequest, InvalidStream
from tests.fake_ingest import Answer, FakeIngest, Received, events_of, problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PATH = "/v1/streams/s/events"
QUICK = Backoff(base=0.02, cap=0.1)


@pytest.fixture
def server() -> Iterator[FakeIngest]:
    with FakeIngest() as fake:
        yield fake


@pytest.fixture
def make(server: FakeIngest, tmp_path: Path) -> Iterator[Callable[..., Publisher]]:
    made: list[Publisher] = []

    def publisher(url: str = server.url, **more: Any) -> Publisher:
        settings: dict[str, Any] = {"spool": str(tmp_path / "spool"), "backoff": QUICK} | more
        made.append(Publisher(url, **settings))
        return made[-1]

    yield publisher
    for each in made:
        each.close(0.1)


def publish(publisher: Publisher, *numbers: int, stream: str = "s", **more: Any) -> None:
    for number in numbers:
        publisher.publish(stream, type="t", data=number, id=str(number), **more)


def assert_nothing_uncounted(publisher: Publisher) -> None:
    told = publisher.statistics()
    assert told["published"] == (
        told["acked"] + told["spooled"] + told["pending"] + sum(told["dropped"].values())
    )


def away_port() -> int:
    with FakeIngest() as gone:
        return gone.port


def wait_until(condition: Callable[[], bool], timeout: float = 30.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def texts(*numbers: int) -> list[str]:
    return [str(number) for number in numbers]


# The server is there


def test_what_is_published_arrives_in_order_and_is_acked(
    server: FakeIngest, make: Callable[..., Publisher]
) -> None:
    publisher = make()
    publish(publisher, *range(500))
    assert publisher.flush() == FlushResult(acked=500, spooled=0, pending=0, dropped=0)
    assert server.ids(PATH) == texts(*range(500))
    assert_nothing_uncounted(publisher)


def test_an_event_goes_out_at_once_though_nobody_flushes(
    server: FakeIngest, make: Callable[..., Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steadcast.client.publisher._IDLE", 3_600.0)
    publisher = make()
    publish(publisher, 0)
    publisher.flush()
    publish(publisher, 1)
    wait_until(lambda: server.ids(PATH) == ["0", "1"])


def test_under_load_events_travel_in_batches(server: FakeIngest, make: Callable[..., Publisher]) -> None:
    server.then(Answer(delay=0.1))
    publisher = make(batch_events=100)
    publish(publisher, *range(350))
    publisher.flush()
    sizes = [len(events_of(received)) for received in server.requests]
    assert sum(sizes) == 350
    assert max(sizes) == 100
    assert len(sizes) <= 6


def test_a_request_stays_below_its_bytes(server: FakeIngest, make: Callable[..., Publisher]) -> None:
    server.then(Answer(delay=0.1))
    publisher = make(batch_bytes=5_000)
    for _ in range(20):
        publisher.publish("s", type="t", data="x" * 1_000)
    publisher.flush()
    assert max(len(received.body) for received in server.requests) <= 5_002
    assert len(server.applied) == 20


def test_each_stream_keeps_its_own_order(server: FakeIngest, make: Callable[..., Publisher]) -> None:
    publisher = make()
    for number in range(100):
        publish(publisher, number, stream=f"s{number % 3}")
    publisher.flush()
    for stream in range(3):
        expected = texts(*range(stream, 100, 3))
        assert server.ids(f"/v1/streams/s{stream}/events") == expected


def test_publishing_from_many_threads_loses_nothing(
    server: FakeIngest, make: Callable[..., Publisher]
) -> None:
    publisher = make()
    threads = [
        threading.Thread(target=publish, args=(publisher, *range(start, start + 50)))
        for start in range(0, 500, 50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert publisher.flush().acked == 500
    assert sorted(server.ids(), key=int) == texts(*range(500))


def test_of_a_stream_that_takes_nothing_the_refusal_is_logged_once_until_it_does(
    server: FakeIngest, make: Callable[..., Publisher], caplog: pytest.LogCaptureFixture
) -> None:
    publisher = make()
    forbidden = problem(403, "forbidden", temporary=False)
    too_large = problem(413, "event_too_large", temporary=False)
    for answer, numbers in (
        (forbidden, (1, 2, 3)),
        (too_large, (4, 5)),
        (forbidden, (6,)),
        (None, (7,)),
        (forbidden, (8, 9)),
    ):
        server.rule = lambda _, answer=answer: answer
        publish(publisher, *numbers)
        publisher.flush()
    publisher.close()
    assert [record.getMessage().split()[1] for record in caplog.records] == ["1", "4", "8"]
    told = publisher.statistics()
    assert (told["unsaid"], told["dropped"], told["acked"]) == (5, {"refused": 8}, 1)


@pytest.mark.parametrize("names_index", [True, False])
def test_of_a_refused_batch_only_the_bad_event_is_dropped(
    server: FakeIngest, make: Callable[..., Publisher], tmp_path: Path, names_index: bool
) -> None:
    def refuse(received: Received) -> Answer | None:
        ids = [event["id"] for event in events_of(received)]
        if "7" not in ids:
            return None
        more = {"index": ids.index("7")} if names_index else {}
        return problem(409, "id_conflict", temporary=False, **more)

    server.rule = refuse
    publisher = make()
    publish(publisher, *range(20))
    assert publisher.flush() == FlushResult(acked=19, spooled=0, pending=0, dropped=1)
    assert server.ids() == [str(number) for number in range(20) if number != 7]
    assert publisher.statistics()["dropped"] == {"refused": 1}
    (dead,) = Spool(str(tmp_path / "spool")).dead()
    assert dead.request is not None
    assert json.loads(dead.request.body)["id"] == "7"
    assert_nothing_uncounted(publisher)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"stream": "not a name", "type": "t"}, InvalidStream),
        ({"stream": "s", "type": ""}, InvalidEvent),
        ({"stream": "s", "type": "t", "data": object()}, InvalidEvent),
    ],
)
def test_what_could_never_be_delivered_raises_at_once(
    make: Callable[..., Publisher], arguments: dict[str, Any], error: type[Exception]
) -> None:
    publisher = make()
    with pytest.raises(error):
        publisher.publish(**arguments)
    assert publisher.statistics()["published"] == 0


def test_a_wrong_url_raises_at_once() -> None:
    with pytest.raises(InvalidRequest):
        Publisher("ftp://x")


def test_source_subject_priority_and_time_travel(server: FakeIngest, make: Callable[..., Publisher]) -> None:
    publisher = make(source="//here/test")
    given_id = publisher.publish(
        "s", type="t", subject="x", priority="critical", time="2026-01-31T12:00:00Z", data=None
    )
    publisher.flush()
    (event,) = server.bodies
    assert event == {
        "specversion": "1.0",
        "id": given_id,
        "source": "//here/test",
        "type": "t",
        "subject": "x",
        "priority": "critical",
        "time": "2026-01-31T12:00:00Z",
        "data": None,
    }


# The server is away


def test_while_the_server_is_away_events_are_spooled_and_arrive_in_order_when_it_is_back(
    make: Callable[..., Publisher], tmp_path: Path
) -> None:
    port = away_port()
    publisher = make(f"http://127.0.0.1:{port}")
    publish(publisher, *range(100))
    result = publisher.flush()
    assert result == FlushResult(acked=0, spooled=100, pending=0, dropped=0)
    assert len(Spool(str(tmp_path / "spool")).names()) == 100
    with FakeIngest(port) as server:
        publish(publisher, *range(100, 150))
        server.wait(lambda: len(server.applied) == 150)
        assert publisher.flush() == FlushResult(acked=150, spooled=0, pending=0, dropped=0)
        assert server.ids() == texts(*range(150))
    assert_nothing_uncounted(publisher)


def test_a_server_killed_in_the_middle_loses_and_reorders_nothing(make: Callable[..., Publisher]) -> None:
    with FakeIngest() as first:
        publisher = make(first.url)
        publish(publisher, *range(200))
        first.wait(lambda: len(first.requests) > 0)
        first.rule = lambda _received: Answer(cut=True)
        publish(publisher, *range(200, 400))
        first.wait(lambda: publisher.statistics()["failures"] > 0 or len(first.applied) == 400)
    publish(publisher, *range(400, 600))
    with FakeIngest(first.port) as second:
        assert publisher.flush(20).acked == 600
        arrived = first.ids() + [each for each in second.ids() if each not in first.ids()]
        assert arrived == texts(*range(600))


def test_a_new_publisher_sends_what_an_earlier_one_left_before_its_own(
    server: FakeIngest, make: Callable[..., Publisher]
) -> None:
    gone = make(f"http://127.0.0.1:{away_port()}")
    publish(gone, *range(50))
    assert gone.close().spooled == 50
    publisher = make()
    publish(publisher, 50, 51)
    assert publisher.flush() == FlushResult(acked=2, spooled=0, pending=0, dropped=0)
    assert server.ids() == texts(*range(52))


def test_publishing_never_waits_for_a_server_that_hangs(
    server: FakeIngest, make: Callable[..., Publisher]
) -> None:
    server.rule = lambda _received: Answer(delay=30)
    publisher = make(buffer_limit=50, request_timeout=30)
    publish(publisher, 0)
    server.wait(lambda: len(server.requests) == 1)
    longest = 0.0
    for number in range(1, 300):
        began = time.monotonic()
        publish(publisher, number)
        longest = max(longest, time.monotonic() - began)
    assert longest < 10
    told = publisher.statistics()
    assert (told["pending"], told["spooled"], told["dropped"]) == (50, 250, {})
    assert_nothing_uncounted(publisher)


def test_overflow_keeps_the_order(server: FakeIngest, make: Callable[..., Publisher]) -> None:
    release = threading.Event()

    def hold(_received: Received) -> Answer | None:
        return None if release.is_set() else Answer(503, delay=0.3)

    server.rule = hold
    publisher = make(buffer_limit=10, batch_events=5)
    publish(publisher, *range(200))
    release.set()
    server.wait(lambda: len(server.applied) == 200)
    assert publisher.flush(20) == FlushResult(acked=200, spooled=0, pending=0, dropped=0)
    assert server.ids() == texts(*range(200))


def test_a_publisher_that_overflowed_once_finds_back_to_sending_directly(
    server: FakeIngest, make: Callable[..., Publisher], tmp_path: Path
) -> None:
    server.then(Answer(delay=0.3))
    publisher = make(buffer_limit=100, batch_events=100)
    publish(publisher, *range(300))
    server.wait(lambda: len(server.applied) == 300)
    assert publisher.flush(20).acked == 300
    spooled = Spool(str(tmp_path / "spool")).statistics()["accepted"]
    assert spooled > 0
    for number in range(300, 600):
        publish(publisher, number)
        wait_until(lambda: publisher.statistics()["pending"] < 100)
    assert publisher.flush(20) == FlushResult(acked=600, spooled=0, pending=0, dropped=0)
    assert server.ids() == texts(*range(600))
    assert Spool(str(tmp_path / "spool")).statistics()["accepted"] == spooled


def test_the_buffers_bytes_are_bounded_too(server: FakeIngest, make: Callable[..., Publisher]) -> None:
    server.rule = lambda _received: Answer(delay=30)
    publisher = make(buffer_bytes=10_000, spool=False)
    for _ in range(100):
        publisher.publish("s", type="t", data="x" * 1_000)
    told = publisher.statistics()
    assert told["pending"] <= 10
    assert told["dropped"]["overflow"] >= 90
    assert_nothing_uncounted(publisher)


def test_without_a_spool_the_oldest_normal_events_are_dropped_and_counted(
    make: Callable[..., Publisher],
) -> None:
    port = away_port()
    patient = Backoff(base=60, cap=60)
    publisher = make(f"http://127.0.0.1:{port}", spool=False, buffer_limit=10, backoff=patient)
    publish(publisher, 0, 1, priority="critical")
    wait_until(lambda: publisher.statistics()["away"])
    publish(publisher, *range(2, 30))
    assert publisher.statistics()["dropped"] == {"overflow": 20}
    with FakeIngest(port) as server:
        assert publisher.flush(20) == FlushResult(acked=10, spooled=0, pending=0, dropped=20)
        assert server.ids() == texts(0, 1, *range(22, 30))


def test_a_full_spool_drops_its_oldest_normal_entries_and_they_are_counted(
    make: Callable[..., Publisher], tmp_path: Path
) -> None:
    spool = Spool(str(tmp_path / "spool"), max_entries=20)
    publisher = make(f"http://127.0.0.1:{away_port()}", spool=spool)
    publish(publisher, 0, 1, priority="critical")
    publish(publisher, *range(2, 60))
    assert publisher.flush() == FlushResult(acked=0, spooled=20, pending=0, dropped=40)
    assert publisher.statistics()["dropped"] == {"full": 40}
    kept = [spool.take(name) for name in spool.names()]
    assert [json.loads(each.body)["data"] for each in kept if each] == [0, 1, *range(42, 60)]
    assert_nothing_uncounted(publisher)


def test_a_disk_that_refuses_costs_events_only_when_the_buffer_is_full(
    make: Callable[..., Publisher], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    port = away_port()
    publisher = make(f"http://127.0.0.1:{port}", spool=str(tmp_path / "file" / "x"), buffer_limit=10)
    publish(publisher, *range(15))
    told = publisher.statistics()
    assert (told["pending"], told["dropped"]) == (10, {"overflow": 5})
    assert told["spool_errors"] > 0
    with FakeIngest(port) as server:
        assert publisher.flush(20).acked == 10
        assert server.ids() == sorted(server.ids(), key=int)
    assert_nothing_uncounted(publisher)


def test_it_waits_as_long_as_the_server_asks(server: FakeIngest, make: Callable[..., Publisher]) -> None:
    server.then(problem(429, "rate_limited", temporary=True, retry_after=0.4))
    publisher = make()
    publish(publisher, 1)
    began = time.monotonic()
    server.wait(lambda: server.ids() == ["1"])
    assert time.monotonic() - began > 0.35


def test_an_event_that_another_drainer_delivered_is_not_counted_as_lost(
    make: Callable[..., Publisher], tmp_path: Path
) -> None:
    port = away_port()
    publisher = make(f"http://127.0.0.1:{port}")
    publish(publisher, 1, 2)
    publisher.flush()
    other = Spool(str(tmp_path / "spool"))
    for name in other.names():
        other.delivered(name)
    with FakeIngest(port):
        publish(publisher, 3)
        assert publisher.flush(20) == FlushResult(acked=1, spooled=2, pending=0, dropped=0)
    assert_nothing_uncounted(publisher)


# The end


def test_the_end_of_a_with_block_is_the_publishers(server: FakeIngest, tmp_path: Path) -> None:
    with Publisher(server.url, spool=str(tmp_path / "spool")) as publisher:
        publish(publisher, 1)
    assert server.ids(PATH) == ["1"]
    publish(publisher, 2)
    assert publisher.flush().spooled == 1, "it was closed"


def test_closing_tells_what_is_acked_and_leaves_no_thread(
    server: FakeIngest, make: Callable[..., Publisher]
) -> None:
    with make() as publisher:
        publish(publisher, *range(10))
    assert publisher.close() == FlushResult(acked=10, spooled=0, pending=0, dropped=0)
    assert "steadcast-publisher" not in {thread.name for thread in threading.enumerate()}


def test_closing_while_the_server_hangs_spools_everything_in_time(
    server: FakeIngest, make: Callable[..., Publisher], tmp_path: Path
) -> None:
    server.rule = lambda _received: Answer(delay=30)
    publisher = make(request_timeout=30)
    publish(publisher, *range(20))
    began = time.monotonic()
    result = publisher.close(0.3)
    assert time.monotonic() - began < 15
    assert result == FlushResult(acked=0, spooled=20, pending=0, dropped=0)
    assert len(Spool(str(tmp_path / "spool")).names()) == 20
    assert_nothing_uncounted(publisher)


def test_what_is_published_after_closing_goes_to_the_spool(
    server: FakeIngest, make: Callable[..., Publisher]
) -> None:
    publisher = make()
    publisher.close()
    publish(publisher, 1)
    assert publisher.close() == FlushResult(acked=0, spooled=1, pending=0, dropped=0)


def test_what_is_published_after_closing_without_a_spool_is_counted(
    server: FakeIngest, make: Callable[..., Publisher]
) -> None:
    publisher = make(spool=False)
    publisher.close()
    publish(publisher, 1)
    assert publisher.statistics()["dropped"] == {"closed": 1}


def run_program(code: str, url: str, folder: Path) -> None:
    start = "import os, sys; from steadcast.client.publisher import Publisher; p = Publisher(sys.argv[1]);"
    environ = os.environ | {"STEADCAST_SPOOL": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", start + code, url],
        env=environ,
        capture_output=True,
        timeout=20,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_program_that_just_ends_still_delivers(server: FakeIngest, tmp_path: Path) -> None:
    run_program("[p.publish('s', type='t', id=str(n)) for n in range(50)]", server.url, tmp_path)
    assert server.ids() == texts(*range(50))


def test_a_program_that_ends_while_the_server_is_away_leaves_its_events_spooled(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{away_port()}"
    run_program("[p.publish('s', type='t', id=str(n)) for n in range(50)]", url, tmp_path)
    (folder,) = tmp_path.iterdir()
    assert len(Spool(str(folder)).names()) == 50


def test_a_forked_child_sends_its_own_events_and_not_its_parents(server: FakeIngest, tmp_path: Path) -> None:
    code = (
        "import warnings; warnings.simplefilter('ignore')\n"  # of Python 3.12: a fork beside threads
        "p.publish('s', type='t', id='parent'); child = os.fork()\n"
        "if child == 0:\n"
        "    p.publish('s', type='t', id='child'); told = p.close(); os._exit(told.acked != 1)\n"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    run_program(code, server.url, tmp_path)
    assert sorted(server.ids()) == ["child", "parent"]
    assert len(server.requests) == 2


@pytest.mark.parametrize("way", ["fork", "forkserver", "spawn"])
def test_a_process_of_multiprocessing_that_just_ends_still_delivers(
    server: FakeIngest, tmp_path: Path, way: str
) -> None:
    program = tmp_path / "program.py"
    program.write_text(WORKERS)
    done = subprocess.run(
        [sys.executable, str(program), server.url, way],
        env=os.environ | {"STEADCAST_SPOOL": str(tmp_path / "spool")},
        capture_output=True,
        timeout=60,
        check=False,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(server.ids()) == sorted(f"{worker}-{number}" for worker in range(2) for number in range(20))


WORKERS = """
import multiprocessing, sys
from steadcast.client.publisher import Publisher

publisher = Publisher(sys.argv[1])

def work(worker):
    for number in range(20):
        publisher.publish("s", type="t", id=f"{worker}-{number}")

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[2])
    workers = [context.Process(target=work, args=(worker,)) for worker in range(2)]
    for each in workers:
        each.start()
    for each in workers:
        each.join()
    sys.exit(sum(each.exitcode for each in workers))
"""


def no_thread(_: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_where_no_thread_can_be_started_events_are_spooled_and_sent_when_one_can(
    server: FakeIngest, make: Callable[..., Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = make()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        publish(publisher, 0, 1)
        assert publisher.flush() == FlushResult(acked=0, spooled=2, pending=0, dropped=0)
    publish(publisher, 2)
    assert publisher.flush() == FlushResult(acked=3, spooled=0, pending=0, dropped=0)
    assert server.ids() == texts(0, 1, 2)


def test_without_a_thread_and_a_spool_events_are_counted(
    make: Callable[..., Publisher], monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = make(spool=False)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        publish(publisher, 1)
    assert publisher.statistics()["dropped"] == {"no_thread": 1}


# Property


@given(
    st.lists(st.sampled_from(["ok", "503", "cut", "refuse", "html", "late"]), max_size=12),
    st.lists(st.tuples(st.sampled_from("ab"), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 12),
)
@hypothesis.settings(max_examples=15, deadline=None)
def test_whatever_the_server_does_every_event_is_acked_or_refused_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    moods: list[str],
    events: list[tuple[str, bool]],
    limit: int,
) -> None:
    answers = {
        "ok": Answer(),
        "503": Answer(503),
        "cut": Answer(cut=True),
        "refuse": problem(400, "invalid_event", temporary=False, index=0),
        "html": Answer(200, text="<html>"),
        "late": Answer(503, delay=0.05),
    }
    with FakeIngest() as server:
        server.then(*(answers[mood] for mood in moods))
        publisher = Publisher(
            server.url,
            spool=str(tmp_path_factory.mktemp("spool")),
            backoff=Backoff(base=0.001, cap=0.01),
            buffer_limit=limit,
            batch_events=5,
        )
        for number, (stream, critical) in enumerate(events):
            priority = "critical" if critical else "normal"
            publisher.publish(stream, type="t", id=str(number), priority=priority)
        result = publisher.flush(20)
        while result.spooled or result.pending:
            result = publisher.flush(20)
        publisher.close()
        assert result.acked + result.dropped == len(events)
        assert publisher.statistics()["dropped"].get("refused", 0) == result.dropped
        assert result.dropped <= moods.count("refuse")
        # A cut answer hides an acceptance, and the next answer may be a refusal.
        assert result.acked <= len(server.applied) <= len(events)
        for stream in "ab":
            arrived = [int(each) for each in server.ids(f"/v1/streams/{stream}/events")]
            assert arrived == sorted(arrived)
