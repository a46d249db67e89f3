"""Batches reach clients framed once for all, or the stock way: with the same results, and bounded alike."""

from __future__ import annotations

import asyncio
import json
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
from steadcast.socketio.fanout import WINDOW_BITS, Fanout, deflated_frame, text_frame
from steadcast.socketio.server import own_server
from steadcast.socketio.websocket import DirectWebSocket
from tests.support.house import House, Peer, event, listening

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

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


@pytest.fixture
async def joined() -> AsyncIterator[Peer]:
    peer = Peer()
    yield peer
    await peer.close()


WAYS: dict[str, dict[str, Any]] = {
    "preframed": {},
    "deflated": {"deflate": True},
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
        direct = how in {"preframed", "deflated"} and transport == "websocket"
        told = house.transport.fanout.statistics(list(house.connections), 0.005)
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
