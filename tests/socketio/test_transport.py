"""The wire protocol, version 1, as a stock client sees it that was written from the table alone."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import socketio
from websockets.asyncio.client import connect

from steadcast.core.scopes import Identity
from steadcast.core.session import Window
from steadcast.errors import NotAllowed, RateLimited, SteadcastError
from steadcast.event import Lane
from steadcast.socketio.server import own_server
from steadcast.socketio.timeouts import Timeouts, timeout_handler
from tests.support.engine import closed, said
from tests.support.house import House, Peer, event, listening


async def test_a_welcome_follows_the_accepted_connect(peer: Peer) -> None:
    await peer.until(lambda: peer.named("welcome"))
    assert peer.heard[0] == ("welcome", {"version": 1, "node": "test"})


async def test_a_welcome_tells_of_pings_that_are_further_apart_than_clients_count_on() -> None:
    async with listening(House(ping_interval=60.0)) as house:
        client = Peer()
        await client.connect(house.url)
        await client.until(lambda: client.named("welcome"))
        assert client.heard[0] == ("welcome", {"version": 1, "node": "test", "ping_interval": 60.0})
        await client.close()


async def test_subscribing_from_the_end_is_answered_with_both_lanes(peer: Peer) -> None:
    answer = await peer.call("subscribe", {"stream": "s"})
    lane = {"status": "new", "cursor": ["e1", 0], "head": ["e1", 0], "behind": 0}
    assert answer == {"ok": True, "lanes": {"critical": lane, "normal": lane}}


async def test_what_is_published_is_answered_with_positions_and_delivered(peer: Peer) -> None:
    await peer.call("subscribe", {"stream": "s"})
    answer = await peer.call("publish", {"stream": "s", "events": [event(1), event(2, priority="critical")]})
    assert answer == {
        "ok": True,
        "results": [
            {"id": "e1", "lane": "normal", "position": ["e1", 1], "duplicate": False},
            {"id": "e2", "lane": "critical", "position": ["e1", 1], "duplicate": False},
        ],
    }
    await peer.until(lambda: len(peer.named("batch")) == 2)
    batch = next(b for b in peer.named("batch") if b["lane"] == "normal")
    assert {**batch, "events": None} == {
        "stream": "s", "lane": "normal", "epoch": "e1", "after": 0, "upto": 1, "events": None,
    }  # fmt: skip
    kept = batch["events"][0]
    assert kept.pop("time")
    assert kept == {
        "offset": 1, "id": "e1", "source": "test", "type": "t", "priority": "normal", "data": {"n": 1},
    }  # fmt: skip


async def test_the_answer_to_subscribe_goes_out_before_the_first_batch(house: House) -> None:
    reader, first = Peer(), []
    await reader.connect(house.url)
    await reader.call("publish", {"stream": "s", "events": [event(n) for n in range(50)]})
    reader.sio.on("batch", lambda _: first.append("batch"))
    await reader.sio.emit(
        "subscribe", {"stream": "s", "from": "start"}, callback=lambda _: first.append("answer")
    )
    await reader.until(lambda: len(first) >= 2)
    assert first[0] == "answer"
    await reader.close()


async def test_a_duplicate_is_answered_with_the_first_position_and_not_delivered_again(peer: Peer) -> None:
    await peer.call("subscribe", {"stream": "s"})
    await peer.call("publish", {"stream": "s", "events": [event(1)]})
    answer = await peer.call("publish", {"stream": "s", "events": [event(1), event(2)]})
    assert [(r["id"], r["position"][1], r["duplicate"]) for r in answer["results"]] == [
        ("e1", 1, True),
        ("e2", 2, False),
    ]
    await peer.until(lambda: len(peer.events()) == 2)
    assert [e["id"] for e in peer.events()] == ["e1", "e2"]


async def test_an_event_that_is_published_without_a_subscriber_is_kept(peer: Peer) -> None:
    await peer.call("publish", {"stream": "s", "events": [event(1)]})
    answer = await peer.call("subscribe", {"stream": "s", "from": {"last": 5}})
    assert answer["lanes"]["normal"]["behind"] == 1
    await peer.until(peer.events)


async def test_unsubscribing_ends_the_batches(peer: Peer) -> None:
    await peer.call("subscribe", {"stream": "s"})
    assert await peer.call("unsubscribe", {"stream": "s"}) == {"ok": True}
    await peer.call("publish", {"stream": "s", "events": [event(1)]})
    await peer.call("subscribe", {"stream": "s"})
    await peer.call("publish", {"stream": "s", "events": [event(2)]})
    await peer.until(peer.events)
    assert [e["id"] for e in peer.events()] == ["e2"]


async def test_a_new_subscribe_replaces_the_session(peer: Peer) -> None:
    await peer.call("publish", {"stream": "s", "events": [event(n) for n in range(3)]})
    await peer.call("subscribe", {"stream": "s", "from": "start"})
    await peer.until(lambda: len(peer.events()) == 3)
    answer = await peer.call("subscribe", {"stream": "s", "cursors": {"normal": ["e1", 1, "e0"]}})
    assert answer["lanes"]["normal"]["status"] == "resumed"
    await peer.until(lambda: len(peer.events()) == 5)
    assert [e["offset"] for e in peer.events()] == [1, 2, 3, 2, 3]


@pytest.mark.parametrize(
    "cursor", [["e0", 1], ["e1", 99], ["e1", 2, "another"]], ids=["epoch", "above the head", "another id"]
)
async def test_a_cursor_of_another_log_is_answered_reset(peer: Peer, cursor: list[Any]) -> None:
    await peer.call("publish", {"stream": "s", "events": [event(n) for n in range(3)]})
    answer = await peer.call("subscribe", {"stream": "s", "cursors": {"normal": cursor}})
    assert answer["lanes"]["normal"]["status"] == "reset"
    assert answer["lanes"]["normal"]["cursor"] == ["e1", 0]
    await peer.until(lambda: len(peer.events()) == 3)


async def test_a_cursor_that_retention_passed_is_answered_trimmed_with_the_range(
    house: House, peer: Peer
) -> None:
    await peer.call("publish", {"stream": "s", "events": [event(n) for n in range(5)]})
    await house.engine.trim("s", Lane.NORMAL, 3)
    answer = await peer.call("subscribe", {"stream": "s", "cursors": {"normal": ["e1", 1, "e0"]}})
    normal = answer["lanes"]["normal"]
    assert (normal["status"], normal["lost"], normal["cursor"]) == ("trimmed", [2, 3], ["e1", 3])
    await peer.until(lambda: [e["offset"] for e in peer.events()] == [4, 5])


@pytest.mark.parametrize(
    ("event_name", "payload", "code"),
    [
        ("subscribe", {"stream": "no spaces"}, "invalid_stream"),
        ("subscribe", {"stream": 7}, "invalid_stream"),
        ("subscribe", None, "invalid_request"),
        ("subscribe", {"stream": "s", "cursors": {"normal": ["e1", -1]}}, "invalid_request"),
        ("subscribe", {"stream": "s", "from": "middle"}, "invalid_request"),
        ("publish", {"stream": "s", "events": []}, "invalid_request"),
        ("publish", {"stream": "s", "events": [{"id": "x"}]}, "invalid_event"),
        ("publish", {"stream": "s", "events": [event(1, data="x" * 300_000)]}, "event_too_large"),
        ("publish", {"stream": "s", "events": [event(n) for n in range(1_001)]}, "batch_too_large"),
        ("publish", {"stream": "steadcast.dead", "events": [event(1)]}, "invalid_stream"),
    ],
)
async def test_bad_input_is_refused_with_its_code_and_the_connection_stays(
    peer: Peer, event_name: str, payload: Any, code: str
) -> None:
    answer = await peer.call(event_name, payload)
    assert answer["ok"] is False
    assert answer["error"]["code"] == code
    assert answer["error"]["temporary"] is False
    assert (await peer.call("subscribe", {"stream": "s"}))["ok"]


@pytest.mark.parametrize("event_name", ["subscribe", "unsubscribe", "publish"])
async def test_who_asks_for_no_acknowledgement_is_told_of_a_refusal_all_the_same(
    peer: Peer, event_name: str
) -> None:
    await peer.sio.emit(event_name, {"stream": "no stream", "events": []})
    await peer.until(lambda: peer.named("error"), "the refusal")
    await peer.call("unsubscribe", {"stream": "s"})
    (told,) = peer.named("error")
    assert (told["event"], told["code"], told["temporary"]) == (event_name, "invalid_stream", False)


async def test_deep_nesting_and_text_that_is_no_json_are_told(peer: Peer) -> None:
    deep: Any = []
    for _ in range(400):
        deep = [deep]
    answer = await peer.call("publish", {"stream": "s", "events": [event(1, data=deep)]})
    assert answer["error"]["code"] == "invalid_event"
    await peer.sio.eio.send('2["publish",{"stream":')
    await peer.until(lambda: peer.named("error"))
    assert peer.named("error")[0]["code"] == "invalid_json"
    assert (await peer.call("subscribe", {"stream": "s"}))["ok"]


async def test_the_same_id_with_another_body_is_refused(peer: Peer) -> None:
    await peer.call("publish", {"stream": "s", "events": [event(1)]})
    answer = await peer.call("publish", {"stream": "s", "events": [event(1, type="other")]})
    assert answer["error"]["code"] == "id_conflict"
    elsewhere = await peer.call("publish", {"stream": "s2", "events": [event(1, type="other")]})
    assert elsewhere["ok"]


async def test_an_ack_for_what_was_never_sent_is_ignored_and_counted(house: House, peer: Peer) -> None:
    await peer.call("subscribe", {"stream": "s"})
    for epoch, offset in (("e1", 9), ("e7", 0), ("e1", 0)):
        await peer.sio.emit("ack", {"stream": "s", "lane": "normal", "epoch": epoch, "offset": offset})
    await peer.until(lambda: house.hub.counts["acks_ignored"] == 3)
    assert not peer.named("error")


async def test_without_acks_the_window_bounds_what_is_sent(house: House, peer: Peer) -> None:
    for start in range(0, 3_000, 500):
        await peer.call("publish", {"stream": "s", "events": [event(n) for n in range(start, start + 500)]})
    await peer.call("subscribe", {"stream": "s", "from": "start"})
    await peer.until(lambda: len(peer.events()) >= 1_024)
    await asyncio.sleep(0.1)
    assert len(peer.events()) == 1_024
    await peer.sio.emit("ack", {"stream": "s", "lane": "normal", "epoch": "e1", "offset": 1_024})
    await peer.until(lambda: len(peer.events()) == 2_048)
    assert [e["offset"] for e in peer.events()] == list(range(1, 2_049))


async def test_the_window_bounds_a_live_session_too(peer: Peer) -> None:
    await peer.call("subscribe", {"stream": "s"})
    for start in range(0, 3_000, 500):
        await peer.call("publish", {"stream": "s", "events": [event(n) for n in range(start, start + 500)]})
    await peer.until(lambda: len(peer.events()) >= 768)
    await asyncio.sleep(0.1)
    assert 768 <= len(peer.events()) <= 1_024
    position = peer.events()[-1]["offset"]
    await peer.sio.emit("ack", {"stream": "s", "lane": "normal", "epoch": "e1", "offset": position})
    await peer.until(lambda: len(peer.events()) > 1_024)
    assert [e["offset"] for e in peer.events()] == list(range(1, len(peer.events()) + 1))


async def test_critical_events_overtake_a_backlog_of_normal_ones(peer: Peer) -> None:
    await peer.call("publish", {"stream": "s", "events": [event(n) for n in range(1_000)]})
    await peer.call("publish", {"stream": "s", "events": [event(5_000, priority="critical")]})
    await peer.call("subscribe", {"stream": "s", "from": "start"})
    await peer.until(lambda: len(peer.events()) == 1_000)
    assert peer.named("batch")[0]["lane"] == "critical"


async def test_a_client_that_acks_nothing_is_told_and_disconnected() -> None:
    from steadcast.hub import Timing

    async with listening(House(timing=Timing(ack_overdue=0.2, sweep_every=0.05))) as house:
        silent = Peer()
        await silent.connect(house.url)
        await silent.call("subscribe", {"stream": "s"})
        await silent.call("publish", {"stream": "s", "events": [event(1)]})
        await silent.until(lambda: silent.named("disconnect"))
        assert silent.named("error")[0]["code"] == "ack_overdue"
        assert silent.named("error")[0]["temporary"] is True


async def test_pings_tell_the_heads_and_pongs_are_counted() -> None:
    async with listening(House(ping_interval=0.05)) as house:
        client = Peer()
        await client.connect(house.url, {"client": {"id": "c", "version": "1"}})
        await client.call("subscribe", {"stream": "s"})
        await client.call("publish", {"stream": "s", "events": [event(1)]})
        await client.until(
            lambda: any(p["heads"].get("s", {}).get("normal") == ["e1", 1] for p in client.named("ping"))
        )
        ping = client.named("ping")[-1]
        await client.sio.emit("pong", {"time": ping["time"]})
        await client.until(lambda: house.connections.counts["pongs"] == 1)
        await client.close()


async def test_a_refused_connect_says_why() -> None:
    def never(_: object, __: object) -> None:
        raise NotAllowed("a token is needed", code="unauthorized")

    async with listening(House(authorize=never)) as house:
        client = Peer()
        with pytest.raises(socketio.exceptions.ConnectionError):
            await client.connect(house.url)
        refusal = client.named("connect_error")[0]
        assert refusal == {
            "message": "a token is needed",
            "data": {"code": "unauthorized", "temporary": False},
        }


@pytest.mark.parametrize(
    ("kind", "code", "stays"), [(NotAllowed, "unauthorized", True), (RateLimited, "rate_limited", False)]
)
async def test_who_is_refused_may_ask_again_and_who_came_too_often_may_not_even_stay(
    kind: type[SteadcastError], code: str, stays: bool
) -> None:
    def refuse(_: object, __: object) -> None:
        raise kind("no", code=code)

    async with listening(House(sio=own_server(), authorize=refuse)) as house:
        url = f"{house.url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket"
        async with connect(url, proxy=None) as socket:
            await said(socket)
            for _ in range(2 if stays else 1):
                await socket.send("40")
                assert code in str(await said(socket))
            if not stays:
                await closed(socket)


async def test_an_application_goes_on_as_before() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    seen: list[Any] = []

    @sio.event
    async def connect(sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        seen.append("connect")

    @sio.event
    async def add(sid: str, data: list[int]) -> int:
        return sum(data)

    @sio.on("subscribe")
    async def own(sid: str, data: Any) -> str:
        return f"own {data}"

    @sio.event
    async def disconnect(sid: str) -> None:
        seen.append("disconnect")

    async with listening(House(sio=sio)) as house:
        client = Peer()
        await client.connect(house.url)
        assert await client.call("add", [1, 2]) == 3
        assert await client.call("subscribe", "news") == "own news"
        assert (await client.call("subscribe", {"stream": "s"}))["ok"]
        await client.close()
        await client.until(lambda: "disconnect" in seen and len(house.connections) == 0)
        assert house.hub.statistics()["groups"] == 0


async def test_an_emission_is_handled_once_however_often_it_comes() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    seen: list[Any] = []

    @sio.event
    async def order(sid: str, data: Any) -> int:
        seen.append(data)
        return len(seen)

    async with listening(House(sio=sio)) as house:
        client = Peer()
        await client.connect(house.url, {"client": {"id": "c1", "version": "1"}})
        first = await client.call("order", ({"n": 1}, {"emission": "a"}))
        again = await client.call("order", ({"n": 1}, {"emission": "a"}))
        other = await client.call("order", ({"n": 2}, {"emission": "b"}))
        assert (first, again, other) == (1, 1, 2)
        assert seen == [{"n": 1}, {"n": 2}]
        nobody = await client.call("nothing", ({"n": 1}, {"emission": "c"}))
        assert nobody["error"]["code"] == "no_handler"
        await client.close()


@pytest.mark.parametrize("second", [{"emission": "a", "more": 1}, {"emission": ""}, {"emission": "x" * 129}])
async def test_a_second_argument_that_is_no_emission_is_the_handlers(second: dict[str, Any]) -> None:
    sio = socketio.AsyncServer(async_mode="asgi")

    @sio.event
    async def order(sid: str, *args: Any) -> list[Any]:
        return list(args)

    async with listening(House(sio=sio)) as house:
        client = Peer()
        await client.connect(house.url)
        for number in range(2):
            assert await client.call("order", (number, second)) == [number, second]
        await client.close()


async def test_an_emission_that_failed_for_now_is_handled_anew_when_it_comes_again() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    seen: list[Any] = []

    @sio.event
    @timeout_handler(0.05)
    async def order(sid: str, data: Any) -> int:
        seen.append(data)
        if len(seen) == 1:
            await asyncio.Event().wait()
        return len(seen)

    async with listening(House(sio=sio)) as house:
        client = Peer()
        await client.connect(house.url, {"client": {"id": "c1", "version": "1"}})
        first = await client.call("order", ({"n": 1}, {"emission": "a"}))
        assert (first["error"]["code"], first["error"]["temporary"]) == ("timeout", True)
        assert [await client.call("order", ({"n": 1}, {"emission": "a"})) for _ in range(2)] == [2, 2]
        assert len(seen) == 2
        await client.close()


async def test_what_is_kept_of_emissions_is_counted_in_bytes_and_a_long_name_takes_few() -> None:
    sio = socketio.AsyncServer(async_mode="asgi", max_http_buffer_size=5_000_000)

    @sio.event
    async def history(sid: str, data: Any) -> str:
        return "x" * 100_000

    async with listening(House(sio=sio)) as house:
        client = Peer()
        await client.connect(house.url)
        for number in range(3):
            nobody = await client.call("e" * 1_000_000, ({}, {"emission": str(number)}))
            assert len(nobody["error"]["message"]) < 200
        assert house.transport.emissions_statistics()["bytes"] < 20_000
        await client.call("history", ({}, {"emission": "a"}))
        kept = house.transport.emissions_statistics()
        assert (kept["kept"], kept["bytes"] > 100_000) == (4, True)
        await client.close()


async def test_an_emission_without_data_reaches_handlers_that_take_none() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")

    @sio.event
    async def beat(sid: str) -> str:
        return "beat"

    @sio.event
    @timeout_handler(timeout_seconds=3.0)
    async def timed(sid: str) -> str:
        return "timed"

    @sio.event
    async def told(sid: str, data: Any = "default") -> Any:
        return data

    class Space(socketio.AsyncNamespace):  # type: ignore[misc]  # the library has no types
        async def on_spaced(self, sid: str) -> str:  # noqa: ARG002 - what the library hands over
            return "spaced"

    sio.register_namespace(Space("/"))
    async with listening(House(sio=sio)) as house:
        client = Peer()
        await client.connect(house.url)
        for name in ("beat", "timed", "spaced"):
            assert await client.call(name, (None, {"emission": name})) == name
            assert await client.call(name, ()) == name
        assert await client.call("told", (None, {"emission": "t"})) is None
        await client.close()


async def test_an_emissions_id_counts_for_its_client_alone() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    seen: list[Any] = []

    @sio.event
    async def order(sid: str, data: Any) -> int:
        seen.append(data)
        return len(seen)

    def authorize(_environ: object, auth: Any) -> Identity:
        return Identity(name=auth["token"])

    shown = [
        {"token": "ann"},
        {"token": "ann", "client": {"id": "c1"}},
        {"token": "ann", "client": {"id": "c2"}},
        {"token": "bob", "client": {"id": "c1"}},
    ]
    async with listening(House(sio=sio, authorize=authorize)) as house:
        peers = [Peer() for _ in shown]
        for number, (peer, auth) in enumerate(zip(peers, shown, strict=True), 1):
            await peer.connect(house.url, auth)
            assert await peer.call("order", (number, {"emission": "1"})) == number
            assert await peer.call("order", (number, {"emission": "1"})) == number
        assert seen == [1, 2, 3, 4]
        again = Peer()
        await again.connect(house.url, shown[0])  # after a cut
        assert await again.call("order", (1, {"emission": "1"})) == 1
        peers.append(again)
        for peer in peers:
            await peer.close()


async def test_a_handler_that_hangs_is_cancelled_told_and_its_ack_fails() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    cancelled = asyncio.Event()

    @sio.event
    async def hang(sid: str, data: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.sleep(0.3)  # swallows its cancellation for a while

    async with listening(House(sio=sio, timeouts=Timeouts(0.05))) as house:
        client = Peer()
        await client.connect(house.url)
        answer = await client.call("hang", {})
        assert answer["ok"] is False
        assert answer["error"]["code"] == "timeout"
        assert answer["error"]["event"] == "hang"
        assert cancelled.is_set()
        error = client.named("error")[0]
        assert (error["code"], error["event"], error["timeout"]) == ("timeout", "hang", 0.05)
        assert house.transport.timeouts.counts.timeouts["hang"] == 1
        await client.close()


@pytest.mark.parametrize("transports", [["polling"], ["websocket"], ["polling", "websocket"]])
async def test_every_transport_gets_everything_in_order(house: House, transports: list[str]) -> None:
    client = Peer()
    await client.connect(house.url, transports=transports)
    await client.call("subscribe", {"stream": "s", "from": "start"})
    for start in range(0, 600, 100):
        await client.call("publish", {"stream": "s", "events": [event(n) for n in range(start, start + 100)]})
    await client.until(lambda: len(client.events()) == 600)
    assert [e["offset"] for e in client.events()] == list(range(1, 601))
    await client.close()


async def test_a_small_window_still_delivers_everything() -> None:
    async with listening(House(window=Window(10, 4_000))) as house:
        client = Peer()
        await client.connect(house.url)

        async def ack(batch: dict[str, Any]) -> None:
            client.heard.append(("batch", batch))
            told = {key: batch[key] for key in ("stream", "lane", "epoch")} | {"offset": batch["upto"]}
            await client.sio.emit("ack", told)

        client.sio.on("batch", ack)
        await client.call("subscribe", {"stream": "s"})
        for n in range(0, 100, 5):
            await client.call("publish", {"stream": "s", "events": [event(i) for i in range(n, n + 5)]})
        await client.until(lambda: len(client.events()) == 100)
        assert [e["offset"] for e in client.events()] == list(range(1, 101))
        await client.close()


async def test_goaway_is_told_and_new_connects_are_refused_for_now(house: House, peer: Peer) -> None:
    await house.transport.drain((1.0, 2.0))
    await peer.until(lambda: peer.named("goaway"))
    assert peer.named("goaway")[0]["reconnect_in"] == [1.0, 2.0]
    late = Peer()
    with pytest.raises(socketio.exceptions.ConnectionError):
        await late.connect(house.url)
    assert late.named("connect_error")[0]["data"] == {"code": "draining", "temporary": True}


async def test_who_is_still_being_let_in_when_the_server_drains_is_refused_for_now() -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def slowly(_: object, __: object) -> None:
        asked.set()
        await go_on.wait()

    async with listening(House(authorize=slowly)) as house:
        late = Peer()
        connecting = asyncio.create_task(late.connect(house.url))
        await asked.wait()
        await house.transport.drain((1.0, 2.0))
        go_on.set()
        with pytest.raises(socketio.exceptions.ConnectionError):
            await connecting
        assert late.named("connect_error")[0]["data"] == {"code": "draining", "temporary": True}


async def test_who_is_inside_its_connect_when_the_server_drains_is_told_when_to_come_back() -> None:
    sio = socketio.AsyncServer(async_mode="asgi")
    inside, go_on = asyncio.Event(), asyncio.Event()

    @sio.event
    async def connect(sid: str, environ: dict[str, Any], auth: Any = None) -> None:
        inside.set()
        await go_on.wait()

    async with listening(House(sio=sio)) as house:
        late = Peer()
        connecting = asyncio.create_task(late.connect(house.url))
        await inside.wait()
        await house.transport.drain((1.0, 2.0))
        go_on.set()
        await connecting
        await late.until(lambda: late.named("goaway"))
        assert late.named("goaway")[0]["reconnect_in"] == [1.0, 2.0]
        await late.close()
