"""What only a log in JetStream can meet: several nodes, and a server that ends, forgets or is another one."""

from __future__ import annotations

import asyncio
import gc
import json
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import count, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import nats
import pytest
from structlog.testing import capture_logs

from steadcast.engines import jetstream_link, jetstream_log
from steadcast.engines.base import Retention
from steadcast.engines.clocks import MAX_DRIFT
from steadcast.engines.jetstream import FETCHES, JetStreamEngine
from steadcast.engines.jetstream_append import Appender
from steadcast.engines.jetstream_link import ANSWER_LIMIT, ID_IN_PROCESS, Answered, Link, away
from steadcast.engines.jetstream_records import Subjects
from steadcast.engines.jetstream_url import Options, parse_url, without_secrets
from steadcast.errors import EngineRefused, EngineUnavailable, IdConflict, PositionLost, TooLarge
from steadcast.testing import ManualClock
from tests.engine_backends import DAY, NORMAL, Clock, event, events, ids, nats_url, open_jetstream
from tests.engine_nats import NatsServer
from tests.engine_operator import Operator
from tests.support.certificates import make_certificate


class Nodes:
    """Engines on one log, all closed in the end."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.name = parse_url(url).stream
        self.opened: list[JetStreamEngine] = []

    def open(self, url: str | None = None, **settings: Any) -> JetStreamEngine:
        self.opened.append(open_jetstream(url or self.url, **settings))
        return self.opened[-1]

    async def api(self, call: str, body: bytes = b"") -> bytes:
        client = await nats.connect(parse_url(self.url).servers[0])
        try:
            return (await client.request(f"$JS.API.{call}", body, timeout=5)).data
        finally:
            await client.close()

    async def aclose(self) -> None:
        for engine in self.opened:
            await engine.aclose()


@pytest.fixture
async def nodes() -> AsyncIterator[Nodes]:
    """Give nodes on a log of their own, on the server that all tests share."""
    made = Nodes(nats_url())
    yield made
    await made.aclose()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """Give a server that the test may end."""
    made = NatsServer(tmp_path / "nats")
    made.start()
    yield made
    made.kill()


@pytest.fixture
async def own(server: NatsServer) -> AsyncIterator[Nodes]:
    """Give nodes on a server that the test may end."""
    made = Nodes(f"nats://{server.address}?stream=own&sync=always")
    yield made
    await made.aclose()


async def healed(engine: JetStreamEngine) -> Any:
    """Describe an engine as soon as it can be."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await engine.describe()
            except EngineUnavailable:
                await asyncio.sleep(0.02)


# Several nodes


async def test_nodes_that_start_at_once_on_nothing_agree_on_one_epoch(nodes: Nodes) -> None:
    engines = [nodes.open() for _ in range(4)]
    epochs = {(await healed(engine)).epoch for engine in engines}
    told = await asyncio.gather(*(healed(engine) for engine in engines))
    assert epochs == {description.epoch for description in told}
    assert len(epochs) == 1


async def test_what_one_node_acked_every_other_tells_as_head_at_once_and_delivers(nodes: Nodes) -> None:
    here, there = nodes.open(), nodes.open()
    await asyncio.gather(here.describe(), there.describe())
    watch = there.watch()
    for n in range(20):
        [receipt] = await here.append("s", [event(n)])
        assert (await there.describe("s")).streams["s"][NORMAL].head == receipt.position.offset
    seen: list[str] = []
    while len(seen) < 20:
        seen += ids(await anext(watch))
    assert seen == [str(n) for n in range(20)]
    assert ids(await there.read("s", NORMAL, 0)) == seen


async def test_a_position_that_only_another_node_knows_yet_is_not_told_as_reset(nodes: Nodes) -> None:
    here, there = nodes.open(), nodes.open()
    await asyncio.gather(here.describe(), there.describe())
    for n in range(20):
        [receipt] = await here.append("s", [event(n)])
        page = await there.read("s", NORMAL, receipt.position.offset)
        assert page.events == ()


@pytest.mark.parametrize("more", [0, 3])
async def test_an_id_that_comes_to_all_nodes_at_once_is_one_event(nodes: Nodes, more: int) -> None:
    """Alone and as part of a batch, where the batches of different nodes overlap."""
    engines = [nodes.open() for _ in range(3)]
    await asyncio.gather(*(engine.describe() for engine in engines))
    for n in range(0, 60, more + 1):
        some = events(range(n, n + more + 1 + more))
        answers = await asyncio.gather(*(engine.append("s", some) for engine in engines))
        assert all([r.position for r in told] == [r.position for r in answers[0]] for told in answers)
    heads = [(await engine.describe("s")).streams["s"][NORMAL] for engine in engines]
    assert heads[0].events == 60 + more
    assert heads.count(heads[0]) == 3


@pytest.mark.parametrize("more", [[], [event("beside")]])
async def test_of_two_bodies_under_one_id_one_wins_and_the_other_is_refused_whole(
    nodes: Nodes, more: list[Any]
) -> None:
    here, there = nodes.open(), nodes.open()
    await asyncio.gather(here.describe(), there.describe())
    for n in range(10):
        stream = f"s{n}"
        told = await asyncio.gather(
            here.append(stream, [event("id", "one")]),
            there.append(stream, [*more, event("id", "other")]),
            return_exceptions=True,
        )
        assert sorted(isinstance(answer, IdConflict) for answer in told) == [False, True]
        lane = (await here.describe(stream)).streams[stream][NORMAL]
        assert lane.events == (1 if isinstance(told[1], IdConflict) else 1 + len(more))


async def test_one_nodes_trim_is_every_nodes_trim_and_counted_once(nodes: Nodes) -> None:
    here, there = (nodes.open(retention=Retention(events=5)) for _ in range(2))
    await here.append("s", events(range(50)))
    await there.describe()
    assert sum(await asyncio.gather(here.trim(), there.trim())) == 45
    assert (await here.describe()) == (await there.describe())
    again = await there.append("s", [event(3)])
    assert again[0].duplicate


async def test_the_watch_follows_the_log_from_where_this_node_began(nodes: Nodes) -> None:
    first = nodes.open()
    before = await first.append("s", events(range(3)))
    second = nodes.open()
    watch = second.watch()
    await second.describe()
    await first.append("other", [event("elsewhere")])
    await first.append("s", [event("new")])
    batches = [await anext(watch), await anext(watch)]
    assert [(b.stream, b.after) for b in batches] == [("other", 0), ("s", before[-1].position.offset)]


# Ids


async def test_an_id_is_known_long_after_jetstream_forgot_it(nodes: Nodes) -> None:
    options = parse_url(nodes.url)
    short = Options(servers=options.servers, stream=options.stream, window=1.2)
    engine = JetStreamEngine(short)
    nodes.opened.append(engine)
    first = await engine.append("s", events(range(3)))
    subject, key = Subjects(nodes.name).event("other", NORMAL), "00" * 16
    client = await nats.connect(options.servers[0])
    # A message of our own shows when the window is over: its id is new again.
    while True:
        ack = await client.jetstream().publish(subject, b"", headers={"Nats-Msg-Id": key})
        if ack.seq > first[-1].position.offset + 1:
            break
        await asyncio.sleep(0.1)
    await client.close()
    again = await engine.append("s", events(range(4)))
    assert [(r.position, r.duplicate) for r in again[:3]] == [(r.position, True) for r in first]
    assert not again[3].duplicate


async def test_an_append_is_refused_for_now_while_the_node_lags_too_far_behind(nodes: Nodes) -> None:
    engine = nodes.open()
    await engine.append("s", [event(1)])
    engine._log.caught_up = asyncio.get_running_loop().time() - engine._log.options.window
    with pytest.raises(EngineUnavailable) as caught:
        await engine.append("s", [event(2)])
    assert caught.value.temporary
    await engine.describe()
    await asyncio.sleep(0)
    while engine._log.caught_up < asyncio.get_running_loop().time() - 10:
        await asyncio.sleep(0.05)
    assert not (await engine.append("s", [event(2)]))[0].duplicate


async def test_the_window_that_the_stream_has_tells_how_far_a_node_may_lag(nodes: Nodes) -> None:
    """A node that was told of a longer one would take ids that JetStream has forgotten meanwhile."""
    first = nodes.open(nodes.url + "&window=20")
    await first.append("s", [event(1)])
    later = nodes.open()
    await healed(later)
    later._log.caught_up = asyncio.get_running_loop().time() - 15
    with pytest.raises(EngineUnavailable, match="lags more than 10 s"):
        await later.append("s", [event(2)])


async def test_an_id_that_is_under_way_is_asked_for_again_and_is_no_success() -> None:
    class InProcess(Link):
        def __init__(self) -> None:
            pass

        async def answer(self, _waiting: Any) -> dict[str, Any]:
            raise Answered({"err_code": ID_IN_PROCESS, "description": "duplicate message id is in process"})

    assert await Appender._acked(None, InProcess(), None) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [8 * DAY, -8 * DAY])
async def test_a_node_whose_clock_is_not_the_servers_takes_nothing_by_age(nodes: Nodes, wrong: float) -> None:
    clock = Clock(wall=time.time() + wrong)
    rule = Retention(age=3600.0, events=5)
    right, other = nodes.open(), nodes.open(clock=clock, max_skew=MAX_DRIFT, retention=rule)
    await right.append("s", events(range(10)))
    assert await other.trim() == 5, "what is over another limit goes all the same"
    clock.advance(9 * DAY)
    assert await other.trim() == 0
    assert other.statistics().age_waits
    blind = nodes.open(clock=clock, retention=rule)
    assert await blind.trim() == 5


async def test_ids_that_outlive_their_events_are_swept_from_the_log_too(nodes: Nodes) -> None:
    clock = Clock(wall=Clock().wall + 10 * DAY)
    engine = nodes.open(clock=clock, ids_age=100.0, retention=Retention(age=10.0))
    await engine.append("s", events(range(30)))
    clock.advance(20)
    assert await engine.trim() == 30
    clock.advance(100)
    await engine.trim()
    again = nodes.open(clock=clock)
    await again.describe()
    assert not again._log.index.ids_records
    assert not (await again.append("s", [event(1)]))[0].duplicate


async def test_what_was_trimmed_while_a_node_was_away_is_a_gap_in_what_it_follows(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events behind it stand in the log before the mark that tells of it."""
    here, away = nodes.open(), nodes.open()
    seen = await here.append("s", events(range(3)))
    await away.describe()
    watch, back, connect = away.watch(), asyncio.Event(), Link.connect

    async def connect_later(options: Options, server: str, *, name: str) -> Link:
        await back.wait()
        return await connect(options, server, name=name)

    monkeypatch.setattr(Link, "connect", connect_later)
    assert away._log._link is not None
    await away._log._link.aclose()
    more = await here.append("s", events(range(3, 10)))
    new = await here.append("new", events(range(10)))
    for stream, upto in (("s", more[3]), ("new", new[3])):
        await here.trim(stream, NORMAL, upto.position.offset)
    back.set()
    first: dict[str, int] = {}
    while len(first) < 2:  # what comes first of each: the rest may come apart from it
        batch = await anext(watch)
        first.setdefault(batch.stream, batch.after)
    assert first == {"s": more[3].position.offset, "new": new[3].position.offset}
    await healed(away)
    with pytest.raises(PositionLost) as caught:
        await away.read("s", NORMAL, seen[-1].position.offset)
    assert caught.value.lost == (seen[-1].position.offset + 1, more[3].position.offset)


# A server that ends


async def test_a_server_that_was_killed_costs_nothing_that_was_acked(own: Nodes, server: NatsServer) -> None:
    engine = own.open()
    epoch = (await engine.describe()).epoch
    watch = engine.watch()
    acked = [(await engine.append("s", [event(n)]))[0].position.offset for n in range(50)]
    server.kill()
    with pytest.raises(EngineUnavailable) as caught:
        await engine.append("s", [event("lost?")])
    assert caught.value.temporary
    server.start()
    assert (await healed(engine)).epoch == epoch
    receipts = await engine.append("s", [event("lost?"), event(7), event("new")])
    assert receipts[1].position.offset == acked[7]
    seen: list[int] = []
    while not seen or seen[-1] < receipts[2].position.offset:
        batch = await anext(watch)
        assert batch.after == (seen[-1] if seen else 0)
        seen += [entry.offset for entry in batch.events]
    assert seen[:50] == acked
    assert engine.statistics().log.rewound == 0


async def test_while_the_server_is_away_calls_fail_soon_and_together(own: Nodes, server: NatsServer) -> None:
    engine = own.open()
    await engine.append("s", [event(1)])
    server.kill()
    began = asyncio.get_running_loop().time()
    calls = [engine.append("s", [event(n)]) for n in range(100, 150)]
    told = await asyncio.gather(
        *calls, engine.describe(), engine.read("s", NORMAL, 0), return_exceptions=True
    )
    assert all(isinstance(answer, EngineUnavailable) for answer in told)
    # One wait for all of them, not one each.
    assert asyncio.get_running_loop().time() - began < 20
    assert engine.statistics().counts.pending == 0


async def test_a_connection_on_which_nothing_is_answered_for_long_is_mute(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    monkeypatch.setattr(Link, "_now", staticmethod(clock))
    options = parse_url(nodes.url)
    await nodes.open().append("s", [event(1)])
    link = await Link.connect(options, options.servers[0], name="test")

    async def asked_in_vain() -> bool:
        with pytest.raises(EngineUnavailable):
            await link.ask("nobody.listens", b"")
        return link.mute.is_set()

    assert not await asked_in_vain()
    clock.advance(ANSWER_LIMIT - 1)
    assert not await asked_in_vain()
    await link.api("INFO")  # which a server that is cut off answers too
    await link.ask(Subjects(nodes.name).probe, b"")  # a write makes it good
    clock.advance(ANSWER_LIMIT - 1)
    assert not await asked_in_vain()
    clock.advance(ANSWER_LIMIT)
    assert await asked_in_vain()
    await link.aclose()


async def test_a_log_that_was_rewound_gets_a_new_epoch_from_whoever_knew_better(
    own: Nodes, server: NatsServer, tmp_path: Path
) -> None:
    """A backup put back: the positions behind it are given a second time, under another epoch."""
    engine, other = own.open(), own.open()
    await engine.append("s", events(range(5)))
    old = (await other.describe()).epoch
    server.stop()
    shutil.copytree(server.folder / "store", tmp_path / "backup")
    server.start()
    await healed(engine)
    await healed(other)
    lost = (await engine.append("s", [event("lost")]))[0].position
    await other.describe()
    server.kill()
    shutil.rmtree(server.folder / "store")
    shutil.copytree(tmp_path / "backup", server.folder / "store")
    server.start()
    async with asyncio.timeout(30):
        while (await healed(engine)).epoch == old or (await healed(other)).epoch == old:
            await asyncio.sleep(0.05)
    epochs = {(await healed(one)).epoch for one in (engine, other)}
    assert len(epochs) == 1
    assert ids(await engine.read("s", NORMAL, 0)) == ["0", "1", "2", "3", "4"]
    [receipt] = await other.append("s", [event("instead")])
    assert receipt.position.epoch != lost.epoch
    fresh = own.open()
    assert {(await fresh.describe()).epoch} == epochs


async def test_a_log_that_was_made_anew_has_another_epoch(own: Nodes, server: NatsServer) -> None:
    engine = own.open()
    old = (await engine.append("s", [event(1)]))[0].position.epoch
    await own.api("STREAM.DELETE.own")
    server.restart()
    async with asyncio.timeout(30):
        while (await healed(engine)).epoch == old:
            await asyncio.sleep(0.05)
    assert (await engine.describe()).streams == {}
    assert not (await engine.append("s", [event(1)]))[0].duplicate


async def test_a_log_whose_epoch_was_taken_away_gets_a_new_one_and_keeps_its_events(nodes: Nodes) -> None:
    """As a restored backup does, by hand."""
    engine = nodes.open()
    [receipt] = await engine.append("s", [event(1)])
    await engine.aclose()
    subject = Subjects(nodes.name).epoch
    await nodes.api(f"STREAM.PURGE.{nodes.name}", f'{{"filter": "{subject}"}}'.encode())
    again = nodes.open()
    described = await again.describe()
    assert described.epoch != receipt.position.epoch
    assert described.streams["s"][NORMAL].head == receipt.position.offset
    assert (await again.append("s", [event(1)]))[0].duplicate


async def test_a_consumer_that_is_gone_is_made_anew_and_nothing_is_missed(nodes: Nodes) -> None:
    engine = nodes.open()
    await engine.describe()
    watch = engine.watch()
    listed = await nodes.api(f"CONSUMER.NAMES.{nodes.name}")
    [name] = [text for text in listed.decode().split('"') if text.startswith("node-")]
    await nodes.api(f"CONSUMER.DELETE.{nodes.name}.{name}")
    other = nodes.open()
    await other.append("s", events(range(5)))
    seen: list[str] = []
    async with asyncio.timeout(20):
        while len(seen) < 5:
            seen += ids(await anext(watch))
    assert engine.statistics().log.consumers == 2
    assert engine.statistics().log.connects == 1


async def test_a_question_that_fails_when_all_who_asked_have_gone_is_no_complaint(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, asked, fails, complaints = nodes.open(), asyncio.Event(), asyncio.Event(), list[Any]()
    await engine.describe()
    asyncio.get_running_loop().set_exception_handler(lambda _loop, told: complaints.append(told))

    async def nothing(_link: Link, _name: str, _body: Any = None) -> Any:
        asked.set()
        await fails.wait()
        raise away("JetStream didn't answer")

    monkeypatch.setattr(Link, "api", nothing)
    asking = asyncio.create_task(engine.describe())
    await asked.wait()
    asking.cancel()
    await asyncio.wait({asking})
    question = engine._log._asking
    assert question is not None
    fails.set()
    await asyncio.wait({question})
    engine._log._asking = question = None
    gc.collect()
    assert not complaints


@pytest.mark.parametrize("lagging", range(FETCHES))
async def test_a_page_is_given_as_soon_as_a_server_that_lags_has_all_of_it(
    nodes: Nodes, monkeypatch: pytest.MonkeyPatch, lagging: int
) -> None:
    engine, fetches, collect = nodes.open(), count(), Link.collect
    await engine.append("s", events(range(3)))

    async def behind(link: Link, subject: str, body: Any) -> list[Any]:
        found = await collect(link, subject, body)
        return found[:-1] if next(fetches) < lagging else found

    monkeypatch.setattr(Link, "collect", behind)
    assert ids(await engine.read("s", NORMAL, 0)) == ["0", "1", "2"]


# A stream that is not as it should be


async def test_what_was_purged_by_hand_is_told_as_trimmed(nodes: Nodes) -> None:
    engine = nodes.open()
    receipts = await engine.append("s", events(range(10)))
    gone = receipts[5].position.offset
    subject = Subjects(nodes.name).event("s", NORMAL)
    await nodes.api(f"STREAM.PURGE.{nodes.name}", f'{{"filter": "{subject}", "seq": {gone + 1}}}'.encode())
    for _ in range(6):
        with pytest.raises((PositionLost, EngineUnavailable)) as caught:
            await engine.read("s", NORMAL, 0)
        if isinstance(caught.value, PositionLost) and caught.value.lost == (1, gone):
            break
    assert isinstance(caught.value, PositionLost)
    assert caught.value.lost == (1, gone)
    assert ids(await engine.read("s", NORMAL, gone)) == ["6", "7", "8", "9"]
    assert (await engine.append("s", [event(2)]))[0].duplicate


async def test_a_message_of_somebody_else_is_no_event_and_does_no_harm(nodes: Nodes) -> None:
    engine = nodes.open()
    await engine.append("s", [event(1)])
    client = await nats.connect(parse_url(nodes.url).servers[0])
    await client.jetstream().publish(Subjects(nodes.name).event("s", NORMAL), b"not ours")
    await client.close()
    await engine.append("s", [event(2)])
    for one in (engine, nodes.open()):
        assert ids(await one.read("s", NORMAL, 0)) == ["1", "2"]
        assert one.statistics().malformed == 1


async def test_messages_of_somebody_else_between_events_keep_nobody_from_a_page(nodes: Nodes) -> None:
    engine = nodes.open()
    client = await nats.connect(parse_url(nodes.url).servers[0])
    for n in range(3 * FETCHES):
        await engine.append("s", [event(n)])
        await client.jetstream().publish(Subjects(nodes.name).event("s", NORMAL), b"not ours")
    await client.close()
    assert ids(await engine.read("s", NORMAL, 0)) == [str(n) for n in range(3 * FETCHES)]


async def test_a_record_of_nonsense_is_passed_over_and_keeps_no_node_from_the_log(nodes: Nodes) -> None:
    engine = nodes.open()
    (first,) = await engine.append("s", [event(1)])
    subjects = Subjects(nodes.name)
    mark, ids_head = subjects.mark("s", NORMAL), b'["s","normal"]\n'
    strays = [
        *((subjects.event("s", NORMAL), b"{}", at) for at in ("soon", "-1", "9" * 30, "9" * 5_000)),
        *((mark, upto, None) for upto in (b"", b"soon", b"-1", b"1000000", b"9" * 30)),
        *((subjects.ids, body, None) for body in (b"", b"nonsense", ids_head + b"half", b"\xff\n")),
        *((subjects.epoch, body, None) for body in (b"", b"nonsense", b"[]", b"\xff")),
    ]
    client = await nats.connect(parse_url(nodes.url).servers[0])
    for number, (subject, body, at) in enumerate(strays):
        headers = {"Nats-Msg-Id": f"{number:032x}", "Steadcast-Print": "00"}
        await client.jetstream().publish(
            subject, body, headers=headers | ({} if at is None else {"Steadcast-At": at})
        )
    await client.close()
    await engine.append("s", [event(2)])
    for one in (engine, nodes.open()):
        assert ids(await one.read("s", NORMAL, 0)) == ["1", "2"]
        assert one.statistics().malformed == len(strays)
    assert await engine.trim("s", NORMAL, first.position.offset) == 1
    assert ids(await engine.read("s", NORMAL, first.position.offset)) == ["2"]


async def test_a_damaged_event_is_told_not_served_and_passed_by_trimming(nodes: Nodes) -> None:
    engine = nodes.open()
    await engine.append("s", events(range(3)))
    watch = engine.watch()
    client = await nats.connect(parse_url(nodes.url).servers[0])
    headers = {"Nats-Msg-Id": f"{1:032x}", "Steadcast-Print": "00"}
    subject = Subjects(nodes.name).event("s", NORMAL)
    damaged = (await client.jetstream().publish(subject, b"{", headers=headers)).seq
    await client.close()
    bookmark = await asyncio.wait_for(anext(watch), 30)
    assert (bookmark.after, bookmark.upto, bookmark.events) == (damaged, damaged, ())
    (last,) = await engine.append("s", [event(3)])
    assert ids(await asyncio.wait_for(anext(watch), 30)) == ["3"]
    for one in (engine, nodes.open()):
        page = await one.read("s", NORMAL, 0, kept=True)
        assert ids(page) == ["0", "1", "2"]
        assert all(entry.kept for entry in page.events)
        with pytest.raises(EngineRefused, match=rf"at offset {damaged} of s \(normal\)") as caught:
            await one.read("s", NORMAL, page.upto)
        assert caught.value.code == "engine_invalid"
    assert await engine.trim("s", NORMAL, damaged, dry_run=True) == 4
    assert await engine.trim("s", NORMAL, damaged) == 4
    with pytest.raises(PositionLost) as lost:
        await engine.read("s", NORMAL, page.upto)
    assert lost.value.lost == (page.upto + 1, damaged)
    assert ids(await engine.read("s", NORMAL, damaged)) == ["3"]
    assert engine.statistics().log.failures == 0
    assert (await engine.append("s", [event(0), event(3)]))[1].position == last.position


@pytest.mark.parametrize(
    "config",
    [
        '"max_age": 1000000000, "discard": "new", "allow_atomic": true',
        '"max_msg_size": 1000, "discard": "new", "allow_atomic": true',
        '"discard": "new"',
    ],
)
async def test_a_stream_that_would_lose_events_or_break_batches_is_refused_in_words(
    nodes: Nodes, config: str
) -> None:
    body = (
        f'{{"name": "{nodes.name}", "subjects": ["steadcast.{nodes.name}.>"], "allow_direct": true,'
        f' "allow_rollup_hdrs": true, {config}}}'
    )
    await nodes.api(f"STREAM.CREATE.{nodes.name}", body.encode())
    engine = nodes.open()
    with pytest.raises(EngineRefused, match=r"nats-server 2\.12"):
        await healed(engine)


async def test_a_full_log_refuses_events_for_now_and_can_still_be_read(nodes: Nodes) -> None:
    engine = nodes.open(nodes.url + "&max_bytes=20000")
    kept = 0
    with pytest.raises(EngineUnavailable) as caught:  # noqa: PT012 - it is full after some of them
        for kept in range(100):
            await engine.append("s", [event(kept, "x" * 1000)])
    assert (caught.value.code, caught.value.temporary) == ("engine_full", True)
    again = nodes.open()
    assert len((await again.read("s", NORMAL, 0)).events) == kept


async def test_a_full_log_is_trimmed_by_its_retention_and_takes_events_again(nodes: Nodes) -> None:
    engine = nodes.open(nodes.url + "&max_bytes=400000", retention=Retention(events=20))
    numbers = count()
    for size in (1000, 300, 1):
        with suppress(EngineUnavailable):
            while True:
                await engine.append("s", [event(next(numbers), "x" * size)])
    await engine.trim()
    assert (await engine.describe("s")).streams["s"][NORMAL].events == 20
    assert (await engine.append("s", [event(0, "x" * 1000)]))[0].duplicate
    assert not (await engine.append("s", [event("more", "x" * 1000)]))[0].duplicate
    again = nodes.open()
    assert ids(await again.read("s", NORMAL, -1)) == ["more"]
    info = json.loads(await nodes.api(f"STREAM.INFO.{nodes.name}", b'{"subjects_filter": ">"}'))
    assert info["state"]["subjects"][Subjects(nodes.name).spare] == 1, "kept for the next time"


@pytest.mark.parametrize(
    ("who", "settings"),
    [
        ("u:p@", {"extra": "accounts { A { jetstream { max_file: 400000 }, users: [{user: u, pass: p}] } }"}),
        ("", {"room": "max_file_store: 400000"}),
    ],
    ids=["account", "server"],
)
async def test_a_log_that_has_filled_what_nats_gives_it_is_trimmed_and_takes_events_again(
    tmp_path: Path, who: str, settings: dict[str, str]
) -> None:
    """Without a `max_bytes` it is the account's or the server's room that is met."""
    server = NatsServer(tmp_path / "nats", **settings)
    server.start()
    nodes = Nodes(f"nats://{who}{server.address}?stream=own&sync=always")
    try:
        engine = nodes.open(retention=Retention(events=20))
        numbers = count()
        for size in (1000, 300, 1):
            async with asyncio.timeout(60):
                code = ""
                while code != "engine_full":
                    try:
                        await engine.append("s", [event(next(numbers), "x" * size)])
                    except EngineUnavailable as error:
                        code = error.code
        again = nodes.open()
        await healed(again)
        assert ids(await again.read("s", NORMAL, 0, 1)) == ["0"]
        await engine.trim()
        assert (await engine.describe("s")).streams["s"][NORMAL].events == 20
        assert not (await engine.append("s", [event("more", "x" * 1000)]))[0].duplicate
    finally:
        await nodes.aclose()
        server.kill()


async def test_more_than_jetstream_takes_as_one_is_refused(nodes: Nodes) -> None:
    with pytest.raises(TooLarge):
        await nodes.open().append("s", events(range(1001)))


async def test_whoever_is_not_let_in_is_told_and_does_not_wait(tmp_path: Path) -> None:
    guarded = NatsServer(tmp_path / "nats", extra='authorization { user: "u", password: "right" }')
    guarded.start()
    try:
        nodes = Nodes(f"nats://u:wrong@{guarded.address}")
        engine = nodes.open()
        with pytest.raises(EngineRefused):
            await healed(engine)
        right = nodes.open(f"nats://u:right@{guarded.address}")
        assert (await right.append("s", [event(1)]))[0].position.offset > 0
        await nodes.aclose()
    finally:
        guarded.kill()


async def test_a_server_that_refuses_ends_no_start_while_another_may_let_the_node_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that wasn't given the new password yet, say, while another is being restarted with it."""
    monkeypatch.setattr(jetstream_log, "READY_LIMIT", 0.3)
    monkeypatch.setattr(jetstream_log, "RETRY_LAST", 0.2)
    only = 'authorization {{ user: "u", password: "{}" }}'
    refusing, later, other = (
        NatsServer(tmp_path / name, extra=only.format(word))
        for name, word in (("refusing", "old"), ("later", "right"), ("other", "old"))
    )
    refusing.start()
    other.start()
    nodes = Nodes(f"nats://u:right@{refusing.address},{later.address}?stream=own")
    try:
        engine = nodes.open()
        with capture_logs() as lines:
            while engine.statistics().log.failures < 5:
                with pytest.raises(EngineUnavailable):
                    await engine.describe()
        said = [line["detail"] for line in lines if line.get("server") == refusing.address]
        assert any("doesn't let us in" in detail for detail in said)
        assert all(one != next_one for one, next_one in pairwise(said)), "the same is told once"
        later.start()
        assert (await healed(engine)).epoch
        with pytest.raises(EngineRefused):
            await healed(nodes.open(f"nats://u:right@{refusing.address},{other.address}?stream=own"))
    finally:
        await nodes.aclose()
        for each in (refusing, later, other):
            each.kill()


# URLs


async def refusal(engine: JetStreamEngine) -> EngineRefused:
    """Wait until a node isn't let in any more; it is served until then."""
    with pytest.raises(EngineRefused) as caught:  # noqa: PT012 - as it says
        async with asyncio.timeout(30):
            while True:
                await healed(engine)
    return caught.value


async def taken_again(engine: JetStreamEngine, epoch: str) -> None:
    """Wait until a node is let in again, to the same log."""
    async with asyncio.timeout(30):
        while True:
            with suppress(EngineUnavailable, EngineRefused):
                assert (await engine.append("s", [event(1)]))[0].position.epoch == epoch
                return
            await asyncio.sleep(0.02)


async def test_a_node_that_is_not_let_in_for_a_while_refuses_for_now_and_heals(tmp_path: Path) -> None:
    """Its credentials have expired, or its account has lost JetStream: that is mended while it runs."""
    account = "accounts {{ A {{ jetstream: {js}, users: [{{user: u, pass: {word}}}] }} }}"
    guarded = NatsServer(tmp_path / "nats", extra=account.format(js="enabled", word="old"))
    guarded.start()
    nodes = Nodes(f"nats://u:old@{guarded.address}?stream=own")
    try:
        engine = nodes.open()
        epoch = (await engine.append("s", [event(1)]))[0].position.epoch
        for js, word in (("enabled", "new"), ("disabled", "old")):
            guarded.reload(account.format(js=js, word=word))
            assert (await refusal(engine)).temporary
            guarded.reload(account.format(js="enabled", word="old"))
            await taken_again(engine, epoch)
    finally:
        await nodes.aclose()
        guarded.kill()


async def test_credentials_of_a_file_let_a_node_in_and_are_read_anew_when_they_end(tmp_path: Path) -> None:
    operator, creds = Operator(), tmp_path / "node.creds"
    guarded = NatsServer(tmp_path / "nats", extra=operator.config)
    guarded.start()
    nodes = Nodes(f"nats://{guarded.address}?stream=own&creds={creds}")
    try:
        engine = nodes.open()
        async with asyncio.timeout(30):
            while True:
                operator.let_in(creds, expires=time.time() + 3)
                with suppress(EngineUnavailable, EngineRefused):
                    epoch = (await engine.describe()).epoch
                    break
                await asyncio.sleep(0.1)
        await refusal(engine)
        operator.let_in(creds)
        await taken_again(engine, epoch)
    finally:
        await nodes.aclose()
        guarded.kill()


async def test_credentials_that_are_not_there_are_told(nodes: Nodes, tmp_path: Path) -> None:
    with pytest.raises(EngineRefused, match=r"credentials can't be read"):
        await healed(nodes.open(f"{nodes.url}&creds={tmp_path}/node.creds"))


async def test_certificates_that_are_not_there_are_told(nodes: Nodes, tmp_path: Path) -> None:
    with pytest.raises(EngineRefused, match="certificates for JetStream can't be used"):
        await healed(nodes.open(f"{nodes.url}&ca={tmp_path}/ca.pem"))


async def test_what_a_node_has_no_right_to_is_named_instead_of_a_server_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NATS answers nothing to what isn't allowed, and says why beside it."""
    monkeypatch.setattr(jetstream_link, "ANSWER_LIMIT", 2.0)
    rights = "authorization {{ users: [{{ user: u, pass: p, permissions: {{ publish: {may} }} }}] }}"
    guarded = NatsServer(tmp_path / "nats", extra=rights.format(may='">"'))
    guarded.start()
    nodes = Nodes(f"nats://u:p@{guarded.address}?stream=own")
    try:
        engine, numbers, words = nodes.open(), count(), ""
        await healed(engine)
        guarded.reload(rights.format(may='["$JS.API.>", "_INBOX.>"]'))
        async with asyncio.timeout(60):
            while "permissions violation for publish" not in words:
                try:
                    await engine.append("s", [event(next(numbers))])
                except EngineUnavailable as error:
                    words = error.message
    finally:
        await nodes.aclose()
        guarded.kill()


async def test_a_server_with_a_bad_certificate_is_told_and_the_next_one_serves(tmp_path: Path) -> None:
    cert, key = make_certificate(tmp_path, "localhost")
    guarded = NatsServer(tmp_path / "nats", extra=f'tls {{ cert_file: "{cert}", key_file: "{key}" }}')
    guarded.start()
    bad, good = f"127.0.0.1:{guarded.port}", f"localhost:{guarded.port}"
    nodes = Nodes(f"tls://{bad}?ca={cert}")
    try:
        async with asyncio.timeout(30):
            engine, words = nodes.open(), ""
            while "certificate verify failed" not in words:
                with pytest.raises(EngineUnavailable) as caught:
                    await engine.describe()
                words = caught.value.message
        assert (await healed(nodes.open(f"tls://{bad},{good}?ca={cert}"))).epoch
    finally:
        await nodes.aclose()
        guarded.kill()


@pytest.mark.parametrize("asked", ["tls://user:secret@{}?stream=s", "nats://user:secret@{}?stream=s&ca={}"])
async def test_a_server_without_tls_is_told_nothing_where_an_encrypted_connection_was_asked_for(
    tmp_path: Path, asked: str
) -> None:
    cert, _ = make_certificate(tmp_path, "localhost")
    heard = bytearray()

    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(
            b'INFO {"server_id": "n", "version": "2.12.0", "headers": true, "auth_required": true}\r\n'
        )
        while more := await reader.read(1_000):
            heard.extend(more)
        writer.close()

    listening = await asyncio.start_server(plain, "127.0.0.1", 0)
    nodes = Nodes(asked.format(f"127.0.0.1:{listening.sockets[0].getsockname()[1]}", cert))
    try:
        async with asyncio.timeout(30):
            engine, words = nodes.open(), ""
            while "offers no TLS" not in words:
                with pytest.raises(EngineUnavailable) as caught:
                    await engine.describe()
                words = caught.value.message
        assert not heard
    finally:
        await nodes.aclose()
        listening.close()


ODD = "p@ss:w/o?r#d%41 ü"


@pytest.mark.parametrize(
    ("asked", "who"),
    [
        (f'user: "u@1", password: "{ODD}"', f"u%401:{quote(ODD, safe='')}"),
        (f'token: "{ODD}"', quote(ODD, safe="")),
    ],
    ids=["password", "token"],
)
async def test_any_password_or_token_lets_a_node_in_as_a_url_writes_it(
    tmp_path: Path, asked: str, who: str
) -> None:
    guarded = NatsServer(tmp_path / "nats", extra=f"authorization {{ {asked} }}")
    guarded.start()
    nodes = Nodes(f"nats://{who}@{guarded.address}?stream=own")
    try:
        assert (await healed(nodes.open())).epoch
    finally:
        await nodes.aclose()
        guarded.kill()


def test_who_connects_is_said_once_for_all_servers_and_never_shown() -> None:
    url = "nats://user:secret@one:4222,two:4222?stream=events&replicas=3"
    options = parse_url(url)
    assert options.servers == ("nats://user:secret@one:4222", "nats://user:secret@two:4222")
    assert (options.stream, options.replicas) == ("events", 3)
    assert without_secrets(url) == "nats://one:4222,two:4222?stream=events&replicas=3"
    assert without_secrets("nats://token@one") == "nats://one"
    assert without_secrets("nats://user:sec,ret@one,two") == "nats://one,two"
    assert without_secrets("sqlite:///a.db") == "sqlite:///a.db"


def test_streams_with_dots_have_subjects_of_their_own() -> None:
    subjects = Subjects("n")
    for stream in ("a", "a.b", "a..b", "a.", "x:y-z_1"):
        kind, back, lane = subjects.parse(subjects.event(stream, NORMAL))
        assert (kind, back, lane) == ("event", stream, NORMAL)
        assert "" not in subjects.event(stream, NORMAL).split(".")
