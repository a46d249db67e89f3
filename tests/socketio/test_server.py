"""The Socket.IO protocol, version 5, sentence by sentence, on a real server.

https://github.com/socketio/socket.io-protocol
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from random import Random
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError
from websockets.frames import Frame, Opcode

from steadcast.app import Steadcast
from steadcast.engines.memory import MemoryEngine
from steadcast.event import Event, Receipt
from steadcast.socketio.fanout import CARRIER
from steadcast.socketio.server import ATTACHMENTS, COUNTED, HELD_LIMIT, Server, own_server
from steadcast.socketio.websocket import DirectWebSocket
from tests.hostile.flood import Raw
from tests.support import house
from tests.support.delivery import until
from tests.support.engine import PATIENCE, Place, closed, listening, said


def made(**options: Any) -> Server:
    sio = own_server(**options)

    @sio.on("connect")
    async def connect(sid: str, environ: Any, auth: Any) -> None:
        await sio.emit("auth", auth or {}, to=sid)

    @sio.on("connect", namespace="/custom")
    async def connect_custom(sid: str, environ: Any, auth: Any) -> None:
        await sio.emit("auth", auth or {}, to=sid, namespace="/custom")

    @sio.on("message")
    async def message(sid: str, *args: Any) -> None:
        await sio.emit("message-back", args, to=sid)

    @sio.on("message-with-ack")
    async def message_with_ack(sid: str, *args: Any) -> Any:
        return args

    return sio


@pytest.fixture(params=["websockets-sansio", DirectWebSocket])
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    async with listening(made(), ws=request.param) as running:
        yield running


@asynccontextmanager
async def connected(place: Place) -> AsyncIterator[ClientConnection]:
    async with place.websocket() as socket:
        await said(socket)
        await socket.send("40")
        assert str(await said(socket)).startswith('40{"sid":"')
        assert await said(socket) == '42["auth",{}]'
        yield socket


# Connecting


async def test_the_default_namespace_is_connected_with_and_without_auth(place: Place) -> None:
    for auth in ({}, {"token": "123"}):
        async with place.websocket() as socket:
            await said(socket)
            await socket.send("40" + json.dumps(auth))
            answer = str(await said(socket))
            assert answer.startswith('40{"sid":"')
            assert json.loads(str(await said(socket))[2:]) == ["auth", auth]


async def test_another_namespace_is_connected(place: Place) -> None:
    async with place.websocket() as socket:
        await said(socket)
        await socket.send('40/custom,{"token":"abc"}')
        assert str(await said(socket)).startswith('40/custom,{"sid":"')
        assert await said(socket) == '42/custom,["auth",{"token":"abc"}]'


async def test_a_namespace_that_is_none_is_refused_in_words(place: Place) -> None:
    async with place.websocket() as socket:
        await said(socket)
        await socket.send("40/random")
        assert await said(socket) == '44/random,{"message":"Invalid namespace"}'


async def test_a_client_that_never_connects_is_cut() -> None:
    async with listening(made(connect_timeout=0.3)) as place:
        async with place.websocket() as socket:
            await said(socket)
            await closed(socket)
        assert place.sio.counts["connect_timeouts"] == 1


async def test_of_a_client_that_left_before_it_connected_no_timer_is_left_to_count_it_as_cut() -> None:
    async with listening(made()) as place:
        async with place.websocket() as socket:
            await said(socket)
            assert len(place.sio._unconnected) == 1
        await until(lambda: not place.sio.statistics()["connections"], "the end of the connection")
        await until(lambda: not place.sio._unconnected, "the end of its timer")


async def test_a_client_that_connected_is_not_cut() -> None:
    async with listening(made(connect_timeout=1.0)) as place, connected(place) as socket:
        await asyncio.sleep(1.2)
        await socket.send('421["message-with-ack"]')
        assert await said(socket) == "431[]"


async def test_a_client_inside_its_connect_gets_nothing_before_its_answer_and_then_all_in_order() -> None:
    sio = own_server()
    inside, go_on = asyncio.Event(), asyncio.Event()

    @sio.on("connect")
    async def connect(sid: str, environ: Any) -> None:
        await sio.emit("mine", to=sid)
        inside.set()
        await go_on.wait()

    async with listening(sio) as place, place.websocket() as socket:
        await said(socket)
        await socket.send("40")
        await inside.wait()
        for n in range(3):
            await sio.emit("news", n)
        await sio.emit("binary", b"\x00")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.1)
        go_on.set()
        assert str(await said(socket)).startswith('40{"sid":"')
        assert [await said(socket) for _ in range(6)] == [
            '42["mine"]',
            *(f'42["news",{n}]' for n in range(3)),
            '451-["binary",{"_placeholder":true,"num":0}]',
            b"\x00",
        ]


async def test_what_waits_for_a_connect_is_bounded_and_counted() -> None:
    sio = own_server()

    @sio.on("connect")
    async def connect(sid: str, environ: Any) -> None:
        for n in range(HELD_LIMIT + 5):
            await sio.emit("news", n, to=sid)

    async with listening(sio) as place, place.websocket() as socket:
        await said(socket)
        await socket.send("40")
        assert [await said(socket) for _ in range(HELD_LIMIT + 1)][-1] == f'42["news",{HELD_LIMIT - 1}]'
    assert sio.counts["held_dropped"] == 5


async def test_a_refused_client_gets_the_refusal_alone() -> None:
    sio = own_server()

    @sio.on("connect")
    async def connect(sid: str, environ: Any) -> bool:
        await sio.emit("secret", to=sid)
        return False

    async with listening(sio) as place, place.websocket() as socket:
        await said(socket)
        await socket.send("40")
        assert str(await said(socket)).startswith("44")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(socket.recv(), 0.1)


@pytest.mark.parametrize("lets_in", [True, False])
async def test_connecting_to_another_namespace_holds_back_nothing_of_the_first(lets_in: bool) -> None:
    sio, answer, inside, go_on = made(), asyncio.Event(), asyncio.Event(), asyncio.Event()

    @sio.on("slow")
    async def slow(sid: str) -> str:
        await answer.wait()
        return "done"

    @sio.on("connect", namespace="/custom")
    async def connect(sid: str, environ: Any) -> bool:
        inside.set()
        async with asyncio.timeout(PATIENCE):
            await go_on.wait()
        return lets_in

    async with listening(sio) as place, connected(place) as socket:
        await socket.send('427["slow"]')
        await socket.send("40/custom")
        await inside.wait()
        answer.set()
        assert await said(socket) == '437["done"]'
        await sio.emit("binary", b"\x01", namespace="/custom")
        await sio.emit("binary", b"\x00")
        assert str(await said(socket)).startswith('451-["binary",')
        assert await said(socket) == b"\x00"
        go_on.set()
        assert str(await said(socket)).startswith("40/custom," if lets_in else "44/custom,")
        if lets_in:
            assert str(await said(socket)).startswith('451-/custom,["binary",')
            assert await said(socket) == b"\x01"


# Messages


async def test_text_and_binary_events_come_back(place: Place) -> None:
    async with connected(place) as socket:
        await socket.send('42["message",1,"2",{"3":[true]}]')
        assert await said(socket) == '42["message-back",1,"2",{"3":[true]}]'
        await socket.send('452-["message",{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}]')
        await socket.send(b"\x01\x02")
        await socket.send(b"\x03")
        assert str(await said(socket)).startswith('452-["message-back",{"_placeholder":true,"num":0}')
        assert [await said(socket), await said(socket)] == [b"\x01\x02", b"\x03"]


async def test_an_event_with_an_acknowledgement_is_acknowledged(place: Place) -> None:
    async with connected(place) as socket:
        await socket.send('42456["message-with-ack",1,"2",{"3":[false]}]')
        assert await said(socket) == '43456[1,"2",{"3":[false]}]'


async def test_leaving_one_namespace_leaves_the_other(place: Place) -> None:
    async with connected(place) as socket:
        await socket.send("40/custom")
        assert str(await said(socket)).startswith("40/custom,")
        assert str(await said(socket)).startswith("42/custom,")
        await socket.send("41/custom,")
        await socket.send('42["message","still"]')
        assert await said(socket) == '42["message-back","still"]'


@pytest.mark.parametrize(
    "packets",
    [
        ["4abc"],
        ["4"],
        ["48"],
        ['44{"message":"no"}'],
        ['451-["message",{"_placeholder":true,"num":0}]', "42[]"],
        ['451-["message",{"_placeholder":true,"num":7}]', b"\x00"],
        ['459999999999-["message"]'],
        [f'45{ATTACHMENTS + 1}-["message"]'],
        [b"\x00"],
    ],
)
async def test_a_packet_that_is_none_ends_the_connection(place: Place, packets: list[str | bytes]) -> None:
    async with connected(place) as socket:
        for each in packets:
            await socket.send(each)
        await closed(socket)
    assert place.sio.counts["protocol_errors"] == 1
    assert place.sio.statistics()["connections"] == 0


@pytest.mark.parametrize("packet", ["42{}", "42[]", "42", "42[1]", '42["message"', '42{"a":1', "42null"])
async def test_an_event_of_the_wrong_form_is_told_in_words_and_the_connection_stays(packet: str) -> None:
    sio = made()
    cast = Steadcast(sio, engine=MemoryEngine())
    async with listening(sio) as place, place.websocket() as socket:
        await said(socket)
        await socket.send("40")
        await said(socket)
        await said(socket)
        assert str(await said(socket)).startswith('42["welcome"')
        await socket.send(packet)
        event, error = json.loads(str(await said(socket))[2:])
        assert (event, error["code"]) == ("error", "invalid_json")
        await socket.send('421["message-with-ack"]')
        assert await said(socket) == "431[]"
    await cast.aclose()


async def test_nothing_is_kept_for_a_client_that_was_served_and_left(place: Place) -> None:
    async with connected(place) as socket:
        await socket.send('421["message-with-ack"]')
        assert await said(socket) == "431[]"
        assert (place.sio._held, place.sio._attached, place.sio._unconnected) == ({}, {}, {})
    await until(lambda: not place.sio.statistics()["connections"], "the end of the connection")
    await until(lambda: not place.sio.eio._tasks, "the end of its tasks")
    assert place.sio.environ == {}


# Too large


@pytest.mark.parametrize("polling", [False, True])
async def test_a_message_over_the_limit_is_refused_in_words_and_the_connection_stays(polling: bool) -> None:
    sio = made(max_http_buffer_size=10_000)
    large = '427["message-with-ack","' + "x" * 11_000 + '"]'
    async with listening(sio) as place:
        if polling:
            _, text = await place.ask(EIO="4", transport="polling")
            sid = json.loads(text[1:])["sid"]
            for body in ("40", large, '428["message-with-ack"]'):
                assert await place.post(sid, body) == (200, "ok")
            heard: list[Any] = (await place.poll(sid))[1].split("\x1e")
        else:
            async with connected(place) as socket:
                await socket.send(large)
                await socket.send('428["message-with-ack"]')
                heard = [await said(socket) for _ in range(3)]
    refusal, told, after = heard[-3:]
    (failed,) = json.loads(refusal.removeprefix("437"))
    assert (failed["ok"], failed["error"]["code"], failed["error"]["limit"]) == (
        False,
        "body_too_large",
        10_000,
    )
    assert json.loads(told[2:])[1]["code"] == "body_too_large"
    assert after == "438[]"
    assert sio.statistics()["messages_too_large"] == 1


async def test_a_message_over_the_limit_before_the_connect_ends_the_connection() -> None:
    sio = made(max_http_buffer_size=10_000)
    async with listening(sio) as place, place.websocket() as socket:
        await said(socket)
        await socket.send("4" + "x" * 11_000)
        await closed(socket)


LARGE = f'42["message","{"x" * 100_000}"]'


@pytest.mark.parametrize("polls", [False, True])
async def test_who_has_connected_may_say_much_and_who_has_not_or_was_refused_may_not(polls: bool) -> None:
    sio = made()

    @sio.on("connect", namespace="/closed")
    async def refuse(sid: str, environ: Any, auth: Any) -> bool:
        return False

    async with listening(sio, ws=DirectWebSocket) as place:
        for before, known in ((), False), (("40/closed,",), False), (("40",), True):
            if polls:
                sid = json.loads((await place.ask(EIO="4", transport="polling"))[1][1:])["sid"]
                for body in before:
                    await place.post(sid, body)
                    await place.poll(sid)
                assert (await place.post(sid, LARGE))[0] == (200 if known else 400)
                continue
            async with place.websocket() as socket:
                await said(socket)
                for text in before:
                    await socket.send(text)
                    await said(socket)
                await socket.send(LARGE)
                if known:
                    assert await said(socket) == '42["auth",{}]'
                    assert str(await said(socket)).startswith('42["message-back"')
                else:
                    with pytest.raises(ConnectionClosedError):  # 1009, where the rest doesn't reset it first
                        await closed(socket)


class Noting(MemoryEngine):
    """Notes the number of each event that it is asked to append."""

    def __init__(self) -> None:
        super().__init__(epoch="e1")
        self.begun: list[int] = []

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        self.begun += [int(event.id) for event in events]
        return await super().append(stream, events)


def cut(message: str, how: str) -> bytes:
    """Frame a message of Socket.IO so that it is taken at once, or is put together by the library first."""
    text = f"4{message}".encode()
    if how == "whole":
        return Frame(Opcode.TEXT, text).serialize(mask=True)
    head, rest = Frame(Opcode.TEXT, text[:5], fin=False), Frame(Opcode.CONT, text[5:])
    return head.serialize(mask=True) + rest.serialize(mask=True)


@pytest.mark.parametrize("seed", range(5))
async def test_events_begin_in_the_order_in_which_they_came_whatever_way_each_takes(seed: int) -> None:
    """Applications' events and publishes; alone, several at once, in fragments; in one step or in many."""
    random = Random(seed)
    engine = Noting()
    sio = own_server()

    @sio.event
    async def note(sid: str, number: int) -> None:
        engine.begun.append(number)

    def message(number: int) -> str:
        if random.random() < 0.5:
            return f'2["note",{number}]'
        event = {"id": str(number), "source": "s", "type": "t"}
        return "27" + json.dumps(["publish", {"stream": "s", "events": [event]}])

    async with house.listening(house.House(engine=engine, sio=sio)) as home:
        client = await Raw.open(int(home.url.rpartition(":")[2]))
        (socket,) = sio.eio.sockets.values()
        number = 0
        while number < 200:
            chunk = b""
            for _ in range(random.choice([1, 1, 1, 2, 3])):
                chunk += cut(message(number), random.choice(["whole", "whole", "whole", "cut"]))
                number += 1
            socket._carrier.data_received(chunk)
            for _ in range(random.choice([0, 0, 1, 3])):
                await asyncio.sleep(0)
        await until(lambda: len(engine.begun) >= number, "every event begins")
        assert engine.begun == list(range(number))
        client.cut()


async def test_an_event_is_handled_in_the_context_of_its_connection_and_leaves_nothing_in_it() -> None:
    sio = own_server()
    carriers: list[object] = []
    seen: list[str] = []
    mark = ContextVar("mark", default="none")

    @sio.event
    async def look(sid: str) -> None:
        carriers.append(CARRIER.get())
        seen.append(mark.get())
        mark.set("left by the one before")

    async with house.listening(house.House(sio=sio)) as home:
        client = await Raw.open(int(home.url.rpartition(":")[2]))
        for _ in range(3):
            client.say('42["look"]')
        await until(lambda: len(seen) == 3, "three looks")
        (socket,) = sio.eio.sockets.values()
        assert carriers == [socket._carrier] * 3
        assert seen == ["none"] * 3
        client.cut()


def test_all_that_is_counted_of_connections_is_told_and_both_floors_add_up() -> None:
    server = own_server()
    sources = (inspect.getsource(sys.modules[type(each).__module__]) for each in (server, server.eio))
    counted = {name for source in sources for name in re.findall(r'counts\["(\w+)"\] \+=', source)}
    assert counted == set(COUNTED)
    server.counts["protocol_errors"] = 2
    server.eio.counts["protocol_errors"] = 3
    told = server.statistics()
    assert told == {"connections": 0, **dict.fromkeys(COUNTED, 0), "protocol_errors": 5}
