"""Batches reach clients framed once for all, or the stock way: with the same results, and bounded alike."""

from __future__ import annotations

import asyncio
import json
import select
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

import aiohttp
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.protocol import Protocol, Side
from websockets.protocol import State as Connected

from steadcast.core.session import State, Window
from steadcast.event import Batch, Entry, Event, Lane
from steadcast.hub import Frame
from steadcast.socketio.aio import Aio
from steadcast.socketio.fanout import (
    MANY,
    WINDOW_BITS,
    Door,
    Fanout,
    FanoutCounts,
    Preframed,
    deflated_frame,
    text_frame,
)
from steadcast.socketio.server import own_server
from steadcast.socketio.websocket import DirectWebSocket
from tests.support.house import House, Peer, event, listening
from tests.support.kernel import needs_aio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

NORMAL = Lane.NORMAL


def frame(size: int) -> Frame:
    data = msgspec.Raw(json.dumps("ä" * size, ensure_ascii=False).encode())
    made = Event("e1", "test", "t", "2026-01-01T00:00:00Z", data)
    return Frame(Batch("s", NORMAL, "e1", 0, 1, (Entry(1, made),)))


def read(data: bytes, *, deflate: bool) -> list[str]:
    """Read frames as a WebSocket client does, one that checks what the standard says."""
    client = Protocol(Side.CLIENT, state=Connected.OPEN, max_size=None)
    if deflate:
        client.extensions = [PerMessageDeflate(True, True, WINDOW_BITS, WINDOW_BITS)]
    client.receive_data(data)
    assert client.parser_exc is None
    return [bytes(message.data).decode() for message in client.events_received()]  # type: ignore[union-attr]


@given(st.sampled_from([0, 1, 5, 60, 125, 126, 1_000, 32_700, 32_768, 70_000]), st.booleans())
def test_a_frame_is_a_text_message_with_socketios_event(size: int, deflate: bool) -> None:
    made = frame(size)
    data = (deflated_frame if deflate else text_frame)(made)
    (first, second) = read(data + data, deflate=deflate)
    assert first == second == f'42["batch",{made.payload.decode()}]'


def test_a_compressed_frame_is_smaller() -> None:
    made = frame(5_000)
    assert len(deflated_frame(made)) * 10 < len(text_frame(made))


def test_what_is_overridden_is_there_to_be_overridden() -> None:
    """Uvicorn is pinned to a minor version; a new one that names these otherwise says so here."""
    ours = {name for name, value in vars(DirectWebSocket).items() if callable(value)}
    own = {"open", "say", "listen", "limit", "leave", "abort", "_end", "_take"}
    assert ours - own <= set(vars(WebSocketsSansIOProtocol))


async def published(house: House, start: int, stop: int, **more: Any) -> None:
    for n in range(start, stop, 100):
        events = [event(i, **more) for i in range(n, min(n + 100, stop))]
        await house.hub.append("s", [_event(each) for each in events])


def _event(raw: dict[str, Any]) -> Event:
    data = msgspec.Raw(msgspec.json.encode(raw["data"]))
    return Event(raw["id"], raw["source"], raw["type"], "2026-01-01T00:00:00Z", data)


def ids(peer: Peer) -> list[str]:
    return [each["id"] for each in peer.events()]


def _has(peer: Peer, count: int) -> bool:
    return len(peer.events()) == count


@pytest.fixture
async def joined() -> AsyncIterator[Peer]:
    peer = Peer()
    yield peer
    await peer.close()


class Wire:
    """A connection whose writes that waited, if any, are out only when the test says so."""

    def __init__(self) -> None:
        self.near, self.far = socket.socketpair()
        self.near.setblocking(False)
        self.held = b""
        self.by_transport: list[bytes] = []
        self.door = Door(self.write, lambda: len(self.held), self.near.fileno())

    def write(self, data: bytes | memoryview) -> None:
        if self.near.fileno() < 0:
            raise RuntimeError("closed")
        self.by_transport.append(bytes(data))
        self.held += data

    def read(self) -> bytes:
        data = self.far.recv(1 << 20, socket.MSG_DONTWAIT) if select.select([self.far], [], [], 0)[0] else b""
        held, self.held = self.held, b""
        return data + held

    def close(self) -> None:
        self.near.close()
        self.far.close()


@pytest.fixture
def wires() -> Iterator[list[Wire]]:
    made = [Wire() for _ in range(MANY)]
    yield made
    for wire in made:
        wire.close()


def many() -> tuple[Preframed, FanoutCounts]:
    counts = FanoutCounts()
    return Preframed(text_frame, counts, Aio()), counts


@needs_aio
def test_many_are_written_to_at_once_and_nothing_overtakes_what_waits(wires: list[Wire]) -> None:
    way, counts = many()
    first, second = frame(10), frame(20)
    wires[3].write(b"queued before")
    for each in (first, second):
        way.write(each, [wire.door for wire in wires])
    both = text_frame(first) + text_frame(second)
    assert [wire.read() for wire in wires] == [
        (b"queued before" if n == 3 else b"") + both for n in range(MANY)
    ]
    assert (counts.writes, counts.submitted, counts.short) == (2 * MANY, 2 * MANY - 2, 0)


@needs_aio
def test_what_a_socket_has_no_room_for_goes_on_by_its_transport(wires: list[Wire]) -> None:
    way, counts = many()
    wires[5].near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    big = frame(500_000)
    way.write(big, [wire.door for wire in wires])
    way.write(big, [wires[5].door])
    assert wires[5].by_transport[-1] == text_frame(big)
    begun, *_ = wires[5].by_transport
    assert wires[5].read().startswith(text_frame(big)[: -len(begun)] + begun)
    assert counts.short >= 1


def test_a_client_that_may_have_nothing_is_asked_and_written_nothing(wires: list[Wire]) -> None:
    way, counts = many()
    asked: list[int] = []

    def shut(number: int) -> bool:
        asked.append(number)
        return number == 2

    wires[2].door.shut = partial(shut, 2)
    wires[4].door.shut = partial(shut, 4)
    doors = [wire.door for wire in wires]
    way.write(frame(10), [*doors, *doors])
    assert asked == [2, 4, 2, 4]
    data = text_frame(frame(10))
    assert [wire.read() for wire in wires] == [b"" if n == 2 else data * 2 for n in range(MANY)]
    assert counts.writes == 2 * MANY - 2


@needs_aio
def test_a_few_and_those_without_a_bare_socket_are_written_to_by_their_transports(wires: list[Wire]) -> None:
    way, counts = many()
    for wire in wires[:2]:
        wire.door.descriptor = None  # as with TLS
    way.write(frame(10), [wire.door for wire in wires])
    way.write(frame(10), [wire.door for wire in wires[2:]])
    assert [len(wire.by_transport) for wire in wires] == [1, 1, *[1] * (MANY - 2)]
    assert counts.submitted == MANY - 2
    assert all(wire.read() for wire in wires)


def test_a_transport_that_is_closed_is_counted_and_keeps_nothing_from_the_others(wires: list[Wire]) -> None:
    way, counts = many()
    doors = [wire.door for wire in wires]
    doors[1].descriptor = None
    wires[1].near.close()
    way.write(frame(10), doors)
    assert counts.late == 1
    assert [bool(wire.read()) for wire in wires if wire is not wires[1]] == [True] * (MANY - 1)


@needs_aio
@pytest.mark.parametrize("way", ["preframed", "single"])
@pytest.mark.parametrize("deflate", [False, True])
async def test_many_clients_get_the_same_at_once_or_one_by_one(way: Any, deflate: bool) -> None:
    house = House(fanout=Fanout(way))
    peers = [Peer() for _ in range(MANY + 2)]
    async with listening(house, deflate=deflate) as serving:
        for peer in peers:
            await peer.connect(serving.url)
            await peer.call("subscribe", {"stream": "s"})
        for n in range(0, 400, 4):
            await published(house, n, n + 4)
        for peer in peers:
            await peer.until(partial(_has, peer, 400))
            assert ids(peer) == [f"e{n}" for n in range(400)]
        counts = house.transport.fanout.counts
        assert counts.submitted > len(peers) if way == "preframed" else counts.submitted == 0
        for peer in peers:
            await peer.close()


WAYS: dict[str, dict[str, Any]] = {
    "preframed": {},
    "deflated": {"deflate": True},
    "single": {"way": "single"},
    "stock by setting": {"way": "stock"},
    "stock under websockets": {"ws": "websockets-sansio"},
    "stock under wsproto": {"ws": "wsproto"},
}


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_every_way_brings_the_same(how: str, transport: str, joined: Peer) -> None:
    options = dict(WAYS[how])
    house = House(fanout=Fanout(options.pop("way", "preframed")))
    async with listening(house, **options) as serving:
        await published(house, 0, 300)
        await joined.connect(serving.url, transports=[transport])
        answer = await joined.call("subscribe", {"stream": "s", "from": "start"})
        assert answer["ok"]
        await joined.until(lambda: len(joined.events()) == 300)
        for n in range(300, 340):
            await published(house, n, n + 1)
        await joined.until(lambda: len(joined.events()) == 340)
        assert ids(joined) == [f"e{n}" for n in range(340)]
        direct = how in {"preframed", "deflated", "single"} and transport == "websocket"
        told = house.transport.fanout.statistics([client.direct for client in house.connections], 0.005)
        assert (told["preframed"], told["stock"]) == ((1, 0) if direct else (0, 1))
        assert (told["writes"] > 0) is direct
        await joined.close()


class Engine:
    """A client that speaks Engine.IO by hand, so that it can choose the moment of each step."""

    def __init__(self, url: str, **options: Any) -> None:
        self.url = f"{url}/socket.io/?EIO=4&transport="
        self.http = aiohttp.ClientSession()
        self.options = options
        self.sid = ""
        self.said: list[str] = []
        self.ws: aiohttp.ClientWebSocketResponse

    async def poll(self) -> list[str]:
        async with self.http.get(f"{self.url}polling&sid={self.sid}") as answer:
            said = (await answer.text()).split("\x1e")
        self.said += said
        return said

    async def post(self, text: str) -> None:
        async with self.http.post(f"{self.url}polling&sid={self.sid}", data=text) as answer:
            assert answer.status == 200

    async def polling(self) -> None:
        async with self.http.get(f"{self.url}polling") as answer:
            self.sid = json.loads((await answer.text())[1:])["sid"]
        await self.post("40")

    async def upgrade(self) -> None:
        self.ws = await self.http.ws_connect(f"{self.url}websocket&sid={self.sid}", **self.options)
        await self.ws.send_str("2probe")
        assert await self.ws.receive_str() == "3probe"
        await self.ws.send_str("5")

    async def websocket(self) -> None:
        self.ws = await self.http.ws_connect(f"{self.url}websocket", **self.options)
        await self.ws.send_str("40")

    async def read_until(self, text: str) -> None:
        async with asyncio.timeout(30):
            while not self.said or text not in self.said[-1]:
                self.said.append(await self.ws.receive_str())

    def offsets(self) -> list[int]:
        batches = [json.loads(said[2:])[1] for said in self.said if said.startswith('42["batch"')]
        return [each["offset"] for batch in batches for each in batch["events"]]

    async def close(self) -> None:
        await self.http.close()


async def test_a_subscriber_that_upgrades_goes_the_direct_way_and_nothing_overtakes() -> None:
    house = House()
    async with listening(house) as serving:
        client = Engine(serving.url)
        await client.polling()
        await client.post('420["subscribe",{"stream":"s"}]')
        while not any(said.startswith("430") for said in client.said):
            await client.poll()
        await published(house, 0, 50)  # waits in Engine.IO's queue while the client upgrades
        await asyncio.sleep(0.05)
        await client.upgrade()
        await published(house, 50, 60)
        await client.ws.send_str('42["pong",{"time":1}]')
        (joined,) = house.connections
        last = 60
        while not joined.direct:
            await published(house, last, last + 1)
            last += 1
            await asyncio.sleep(0.002)
            assert last < 2_000
        await published(house, last, last + 30)
        await client.read_until(f'"offset":{last + 30},')
        assert client.offsets() == list(range(1, last + 31))
        assert "6" in client.said  # Engine.IO's no-operation, behind which the direct way began
        await client.close()


@pytest.mark.parametrize("make", [lambda: None, own_server])
async def test_the_answer_to_subscribe_is_there_before_what_is_written_directly(make: Any) -> None:
    house = House(sio=make())
    async with listening(house) as serving:
        await published(house, 0, 300)
        client = Engine(serving.url)
        await client.websocket()
        await client.read_until("welcome")
        for n in range(5):
            await client.ws.send_str(f'42{n}["subscribe",{{"stream":"s","from":"start"}}]')
            await client.read_until('"offset":300,')
            answer = next(k for k, said in enumerate(client.said) if said.startswith(f"43{n}"))
            first = next(k for k, said in enumerate(client.said) if said.startswith('42["batch"'))
            assert answer < first
            assert client.offsets() == list(range(1, 301))
            client.said.clear()
        await client.close()


async def test_a_client_that_stands_still_pauses_and_gets_everything_when_it_reads_again() -> None:
    house = House(window=Window(100_000, 100_000_000))
    async with listening(house) as serving:
        stalled, quick = Engine(serving.url, max_msg_size=0), Peer()
        await stalled.websocket()
        await stalled.read_until("welcome")
        await stalled.ws.send_str('420["subscribe",{"stream":"s"}]')
        await stalled.read_until("430")
        stalled.ws._conn.protocol.pause_reading()  # type: ignore[union-attr]
        await quick.connect(serving.url)
        await quick.call("subscribe", {"stream": "s"})
        await published(house, 0, 8_000, data="x" * 1_000)
        await quick.until(lambda: len(quick.events()) == 8_000)
        flow = house.hub.sessions(next(iter(house.connections)))["s"].flows[NORMAL]
        assert flow.state is State.LAGGING
        assert flow.sent < 8_000
        assert house.transport.fanout.counts.pauses >= 1
        stalled.ws._conn.protocol.resume_reading()  # type: ignore[union-attr]
        await stalled.read_until('"offset":8000,')
        assert stalled.offsets() == list(range(1, 8_001))
        await quick.close()
        await stalled.close()


async def test_behind_a_close_nothing_is_written() -> None:
    house = House(sio=own_server())
    async with listening(house) as serving:
        client = Engine(serving.url, autoclose=False)
        await client.websocket()
        await client.read_until("welcome")
        await client.ws.send_str('420["subscribe",{"stream":"s"}]')
        await client.read_until("430")
        await published(house, 0, 10)
        await client.read_until('"offset":10,')
        await house.sio.eio.disconnect()
        writes = house.transport.fanout.counts.writes
        await published(house, 10, 20)
        await asyncio.sleep(0.05)
        assert house.transport.fanout.counts.writes == writes
        while (message := await client.ws.receive()).type is aiohttp.WSMsgType.TEXT:
            client.said.append(message.data)
        assert message.type is aiohttp.WSMsgType.CLOSE
        assert client.offsets() == list(range(1, 11))
        await client.close()


async def test_acks_are_taken_where_they_come_in_and_bad_ones_are_told() -> None:
    house = House()
    async with listening(house) as serving:
        client = Engine(serving.url)
        await client.websocket()
        await client.read_until("welcome")
        await client.ws.send_str('420["subscribe",{"stream":"s"}]')
        await client.read_until("430")
        await published(house, 0, 5)
        await client.read_until('"offset":5,')
        await client.ws.send_str('42["ack",{"stream":"s","lane":"normal","epoch":"e1","offset":5}]')
        await client.ws.send_str('42["ack",{"stream":"s","lane":"normal","epoch":"e1","offset":"5"}]')
        await client.read_until('42["error"')
        assert json.loads(client.said[-1][2:])[1]["event"] == "ack"
        assert house.hub.counts["acks"] == 1
        assert house.transport.timeouts.counts.runs["ack"] == 1  # the bad one alone came that far
        await client.close()


async def test_a_client_that_follows_nothing_is_sent_nothing_extra() -> None:
    house = House()
    async with listening(house) as serving:
        client = Engine(serving.url)
        await client.websocket()
        await client.read_until("welcome")
        await client.ws.send_str('42["pong",{"time":1}]')
        await client.ws.send_str('420["unsubscribe",{"stream":"s"}]')
        await client.read_until("430")
        assert [said[:2] for said in client.said] == ["0{", "40", "42", "43"]
        await client.close()


async def test_a_reconnect_on_the_same_websocket_is_another_client() -> None:
    house = House()
    async with listening(house) as serving:
        client = Engine(serving.url)
        await client.websocket()
        for _ in range(2):
            client.said.clear()
            await client.read_until("welcome")
            await client.ws.send_str('420["subscribe",{"stream":"s","from":"start"}]')
            await client.read_until("430")
            await published(house, 0, 5)
            await client.read_until('"offset":5,')
            assert client.offsets() == [1, 2, 3, 4, 5]
            await client.ws.send_str("41")
            await client.ws.send_str("40")
        await client.close()
