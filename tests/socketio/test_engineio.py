"""The Engine.IO protocol, version 4, sentence by sentence, on a real server.

https://github.com/socketio/engine.io-protocol
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from websockets.exceptions import InvalidStatus

from steadcast.socketio import engineio
from steadcast.socketio.engineio import QUEUE_LIMIT
from steadcast.socketio.server import Server, own_server
from steadcast.socketio.websocket import DirectWebSocket
from tests.hostile.flood import Raw
from tests.support.engine import Place, closed, listening, said

INTERVAL = 0.3
TIMEOUT = 0.4


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    sio = own_server(ping_interval=30, ping_timeout=30)
    sio.eio.on("message", _echo(sio))
    async with listening(sio) as running:
        yield running


@pytest.fixture
async def hasty() -> AsyncIterator[Place]:
    sio = own_server(ping_interval=INTERVAL, ping_timeout=TIMEOUT)
    async with listening(sio) as running:
        yield running


def _echo(sio: Server) -> Callable[[str, str | bytes], Awaitable[None]]:
    async def echo(sid: str, data: str | bytes) -> None:
        await sio.eio.send(sid, data)

    return echo


async def opened(place: Place) -> str:
    status, text = await place.ask(EIO="4", transport="polling")
    assert status == 200
    sid: str = json.loads(text[1:])["sid"]
    return sid


# Handshake


async def test_a_session_by_polling_is_opened_with_the_five_fields(place: Place) -> None:
    status, text = await place.ask(EIO="4", transport="polling")
    assert (status, text[0]) == (200, "0")
    told = json.loads(text[1:])
    assert set(told) == {"sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"}
    assert told["upgrades"] == ["websocket"]
    assert (told["pingInterval"], told["pingTimeout"]) == (30_000, 30_000)


async def test_an_interval_below_a_second_is_told_as_it_is(hasty: Place) -> None:
    _, text = await hasty.ask(EIO="4", transport="polling")
    assert json.loads(text[1:])["pingInterval"] == 1000 * INTERVAL


async def test_a_session_by_websocket_is_opened_without_upgrades(place: Place) -> None:
    async with place.websocket() as socket:
        told = str(await said(socket))
        assert told[0] == "0"
        assert json.loads(told[1:])["upgrades"] == []


@pytest.mark.parametrize(
    ("method", "query"),
    [
        ("GET", {"transport": "polling"}),
        ("GET", {"EIO": "abc", "transport": "polling"}),
        ("GET", {"EIO": "3", "transport": "polling"}),
        ("GET", {"EIO": "4"}),
        ("GET", {"EIO": "4", "transport": "abc"}),
        ("GET", {"EIO": "4", "transport": "polling", "sid": "unknown"}),
        ("POST", {"EIO": "4", "transport": "polling"}),
        ("PUT", {"EIO": "4", "transport": "polling"}),
    ],
)
async def test_a_handshake_of_the_wrong_form_is_answered_400(
    place: Place, method: str, query: dict[str, str]
) -> None:
    status, text = await place.ask(method, **query)
    assert status == 400
    assert text


@pytest.mark.parametrize(
    "query", ["transport=websocket", "EIO=abc&transport=websocket", "EIO=4", "EIO=4&transport=abc"]
)
async def test_a_websocket_of_the_wrong_form_is_refused(place: Place, query: str) -> None:
    with pytest.raises(InvalidStatus):
        async with place.websocket(query):
            pass


# Messages


@pytest.mark.parametrize("body", ["4hello", "4one\x1e4two\x1e4three", "4hello\x1ebAQIDBA=="])
async def test_a_payload_of_packets_is_taken_and_comes_back(place: Place, body: str) -> None:
    sid = await opened(place)
    assert await place.post(sid, body) == (200, "ok")
    assert await place.poll(sid) == (200, body)


async def test_a_payload_may_have_as_many_packets_as_fit_its_size(place: Place) -> None:
    sid = await opened(place)
    body = "\x1e".join(f"4{n}" for n in range(300))
    assert await place.post(sid, body) == (200, "ok")
    assert await place.poll(sid) == (200, body)


@pytest.mark.parametrize("body", ["abc", "4ok\x1eabc", "9", "\x1e"])
async def test_what_is_no_payload_is_refused_and_ends_the_session(place: Place, body: str) -> None:
    sid = await opened(place)
    assert (await place.post(sid, body))[0] == 400
    assert (await place.poll(sid))[0] == 400
    assert place.sio.eio.counts["protocol_errors"] == 1


async def test_a_body_that_is_no_text_is_refused(place: Place) -> None:
    sid = await opened(place)
    query = {"EIO": "4", "transport": "polling", "sid": sid}
    answer = await place.http.post("/socket.io/", params=query, content=b"4\xff\xfe")
    assert answer.status_code == 400


async def test_a_second_poll_at_the_same_time_ends_the_session(place: Place) -> None:
    sid = await opened(place)
    first = asyncio.create_task(place.poll(sid))
    await asyncio.sleep(0.5)
    assert (await place.poll(sid))[0] == 400
    assert await first == (200, "1")
    assert (await place.poll(sid))[0] == 400


async def test_a_poll_that_is_cut_ends_the_session_instead_of_losing_what_comes_next(place: Place) -> None:
    sid = await opened(place)
    reader, writer = await asyncio.open_connection("127.0.0.1", place.port)
    request = f"GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: localhost\r\n\r\n"
    writer.write(request.encode())
    await writer.drain()
    await asyncio.sleep(0.5)
    writer.close()
    async with asyncio.timeout(30):
        while not place.sio.eio.counts["polls_cut"]:
            await asyncio.sleep(0.01)
    assert (await place.poll(sid))[0] == 400
    assert reader.at_eof()


async def test_text_and_binary_messages_come_back_over_a_websocket(place: Place) -> None:
    async with place.websocket() as socket:
        await said(socket)
        await socket.send("4hello")
        assert await said(socket) == "4hello"
        await socket.send(b"\x01\x02\x03")
        assert await said(socket) == b"\x01\x02\x03"


@pytest.mark.parametrize("packet", ["abc", "", "9", "bA"])
async def test_what_is_no_packet_ends_a_websocket(place: Place, packet: str) -> None:
    async with place.websocket() as socket:
        await said(socket)
        await socket.send(packet)
        await closed(socket)
    assert place.sio.eio.counts["protocol_errors"] == 1


# Heartbeat


async def test_a_polling_client_is_pinged_and_lives_as_long_as_it_pongs(hasty: Place) -> None:
    sid = await opened(hasty)
    for _ in range(3):
        assert await hasty.poll(sid) == (200, "2")
        assert await hasty.post(sid, "3") == (200, "ok")


async def test_a_polling_client_that_does_not_pong_is_gone_after_interval_and_timeout(hasty: Place) -> None:
    sid = await opened(hasty)
    await asyncio.sleep(INTERVAL + TIMEOUT + 0.1)
    assert (await hasty.poll(sid))[0] == 400
    assert hasty.sio.eio.counts["ping_timeouts"] == 1


async def test_a_websocket_is_pinged_and_lives_as_long_as_it_pongs(hasty: Place) -> None:
    async with hasty.websocket() as socket:
        await said(socket)
        for _ in range(3):
            assert await said(socket) == "2"
            await socket.send("3")


async def test_a_websocket_that_does_not_pong_is_closed(hasty: Place) -> None:
    async with hasty.websocket() as socket:
        await said(socket)
        assert await said(socket) == "2"
        began = asyncio.get_running_loop().time()
        assert await said(socket) == "1"
        await closed(socket)
        assert asyncio.get_running_loop().time() - began < 15
    assert hasty.sio.eio.sockets == {}


async def test_messages_do_not_replace_the_pong(hasty: Place) -> None:
    hasty.sio.eio.on("message", lambda _sid, _data: None)
    async with hasty.websocket() as socket:
        await said(socket)
        async with asyncio.timeout(30):
            with contextlib.suppress(Exception):
                while True:
                    await socket.send("4still here")
                    await asyncio.sleep(0.02)
    assert hasty.sio.eio.counts["ping_timeouts"] == 1


# The end


async def test_a_client_that_closes_has_its_poll_answered(place: Place) -> None:
    sid = await opened(place)
    poll = asyncio.create_task(place.poll(sid))
    await asyncio.sleep(0.5)
    assert await place.post(sid, "1") == (200, "ok")
    assert await poll == (200, "6")
    assert (await place.poll(sid))[0] == 400


async def test_a_websocket_client_that_closes_is_closed(place: Place) -> None:
    async with place.websocket() as socket:
        await said(socket)
        await socket.send("1")
        await closed(socket)
    assert place.sio.eio.sockets == {}


# Upgrade


async def test_a_session_is_upgraded_and_its_poll_is_ended(place: Place) -> None:
    sid = await opened(place)
    poll = asyncio.create_task(place.poll(sid))
    async with place.websocket(f"EIO=4&transport=websocket&sid={sid}") as socket:
        await socket.send("2probe")
        assert await said(socket) == "3probe"
        assert await poll == (200, "6")
        await socket.send("5")
        await socket.send("4hello")
        assert await said(socket) == "4hello"
        assert (await place.poll(sid))[0] == 400
        assert (await place.post(sid, "4no"))[0] == 400
        with pytest.raises(InvalidStatus):
            async with place.websocket(f"EIO=4&transport=websocket&sid={sid}"):
                pass
        await socket.send("4still")
        assert await said(socket) == "4still"


async def test_what_was_queued_before_an_upgrade_comes_first_after_it(place: Place) -> None:
    sid = await opened(place)
    async with place.websocket(f"EIO=4&transport=websocket&sid={sid}") as socket:
        await socket.send("2probe")
        assert await said(socket) == "3probe"
        assert await place.poll(sid) == (200, "6")
        for n in range(50):
            await place.sio.eio.send(sid, str(n))
        await socket.send("5")
        seen = [await said(socket) for _ in range(51)]
        assert [each for each in seen if each != "6"] == [f"4{n}" for n in range(50)]


@pytest.mark.parametrize("says", ["2", "2wrong", "5", "4hello"])
async def test_a_probe_of_the_wrong_form_leaves_the_session_on_polling(place: Place, says: str) -> None:
    sid = await opened(place)
    async with place.websocket(f"EIO=4&transport=websocket&sid={sid}") as socket:
        await socket.send(says)
        await closed(socket)
    assert await place.post(sid, "4hello") == (200, "ok")
    assert await place.poll(sid) == (200, "4hello")


async def test_a_second_websocket_during_an_upgrade_is_refused(place: Place) -> None:
    sid = await opened(place)
    query = f"EIO=4&transport=websocket&sid={sid}"
    async with place.websocket(query) as socket:
        await socket.send("2probe")
        assert await said(socket) == "3probe"
        with pytest.raises(InvalidStatus):
            async with place.websocket(query):
                pass
        await socket.send("5")
        await socket.send("4hello")
        assert [await said(socket) for _ in range(2)] == ["6", "4hello"]


# Limits


async def test_a_client_that_takes_nothing_is_disconnected_when_its_queue_is_full(place: Place) -> None:
    sid = await opened(place)
    socket = place.sio.eio.sockets[sid]
    for n in range(QUEUE_LIMIT):
        await place.sio.eio.send(sid, str(n))
    assert socket.queue.qsize() == QUEUE_LIMIT
    await place.sio.eio.send(sid, "one too many")
    assert (socket.closed, socket.queue.qsize()) == (True, 0)
    assert place.sio.eio.counts["overflowing_clients"] == 1
    assert place.sio.eio.counts["packets_dropped"] == QUEUE_LIMIT


async def test_a_client_that_takes_nothing_is_disconnected_when_too_many_bytes_wait(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engineio, "QUEUE_BYTES", 1_000)
    sid = await opened(place)
    socket = place.sio.eio.sockets[sid]
    await place.sio.eio.send(sid, "x" * 1_500)  # one that is larger goes alone
    assert "x" * 1_500 in (await place.poll(sid))[1]
    for _ in range(3):  # what was taken counts no longer
        await place.sio.eio.send(sid, "y" * 400)
        await place.sio.eio.send(sid, b"z" * 400)
        assert len((await place.poll(sid))[1]) > 800
    for _ in range(2):
        await place.sio.eio.send(sid, "y" * 500)
    assert not socket.closed
    await place.sio.eio.send(sid, "y")
    assert (socket.closed, socket.queue.qsize()) == (True, 0)
    assert place.sio.eio.counts["overflowing_clients"] == 1
    assert place.sio.eio.counts["packets_dropped"] == 2


async def test_a_session_that_is_ended_twice_at_once_is_told_of_once(place: Place) -> None:
    told: list[str] = []

    async def gone(sid: str, _reason: str) -> None:
        told.append(sid)
        await asyncio.sleep(0.01)

    place.sio.eio.on("disconnect", gone)
    async with place.websocket() as socket:
        await said(socket)
        (session,) = place.sio.eio.sockets.values()
        await asyncio.gather(session.close(wait=False), session.close(wait=False))
        await closed(socket)
    assert told == [session.sid]


async def test_a_websocket_that_takes_nothing_is_cut_a_while_after_its_end(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("steadcast.socketio.engineio.CLOSE_TIMEOUT", 0.3)
    raw = await Raw.open(place.port, namespace=False)
    (sid,) = place.sio.eio.sockets
    socket = place.sio.eio.sockets[sid]
    raw.stop_reading()
    for _ in range(40):
        await place.sio.eio.send(sid, "x" * 1_000_000)
    await socket.close(wait=False)
    async with asyncio.timeout(30):
        while not place.sio.eio.counts["closes_timed_out"]:
            await asyncio.sleep(0.01)
        while socket._reading is not None:
            await asyncio.sleep(0.01)
    assert place.sio.eio.sockets == {}
    assert place.sio.eio.counts["packets_dropped"] > 0
    raw.cut()


async def test_what_is_written_at_once_and_what_had_to_wait_arrive_in_their_order() -> None:
    sio = own_server(ping_interval=30, ping_timeout=30)
    async with listening(sio, ws=DirectWebSocket) as place, place.websocket() as client:
        assert str(await said(client))[0] == "0"
        ((sid, socket),) = sio.eio.sockets.items()
        for n in range(3):
            await sio.eio.send(sid, f"{n}:")
        assert socket.queue.empty()  # it was written at once
        for n in range(3, 300):
            await sio.eio.send(sid, f"{n}:" + "x" * 100_000)
        assert not socket.queue.empty()  # nobody reads, and the transport is full
        for n in range(300):
            text = str(await said(client))
            assert text[1 : text.index(":")] == str(n)
            if n % 10 == 0:
                await sio.eio.send(sid, f"{300 + n // 10}:")
        for n in range(300, 330):
            assert await said(client) == f"4{n}:"


async def test_binary_messages_are_written_as_such() -> None:
    sio = own_server()
    async with listening(sio, ws=DirectWebSocket) as place, place.websocket() as client:
        await said(client)
        (sid,) = sio.eio.sockets
        await sio.eio.send(sid, b"\x00\xff")
        assert await said(client) == b"\x00\xff"


async def test_a_body_beyond_twice_the_limit_is_not_read(place: Place) -> None:
    sid = await opened(place)
    assert (await place.post(sid, "4" + "x" * place.sio.eio.hard_limit))[0] == 400
