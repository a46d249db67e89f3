"""Who drips the head of a request, or sends what never ends, is cut; who has said what it wants is not."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from httptools import HttpRequestParser
from websockets.asyncio.client import connect
from websockets.server import ServerProtocol

from steadcast.http.patience import MOST_AHEAD, PatientProtocol, patient
from steadcast.socketio.websocket import DirectWebSocket, Frames
from tests.support.asgi import served

LIMIT = 0.3


async def slow(scope: Any, receive: Any, send: Any) -> None:
    """Answer after a while, longer than a head may take."""
    await receive()
    await asyncio.sleep(2 * LIMIT)
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


@asynccontextmanager
async def serving(
    counts: Counter[str], *, app: Any = slow, limit: float = LIMIT, body: float = 60
) -> AsyncIterator[int]:
    config = uvicorn.Config(app, port=0, http=patient(counts, limit, body), log_config=None, lifespan="off")
    async with served(config) as port:
        yield port


@pytest.mark.parametrize("begins", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: "])
async def test_a_head_that_never_ends_is_cut_and_counted(begins: bytes) -> None:
    counts: Counter[str] = Counter()
    async with serving(counts) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begins)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
    assert counts["slow_heads"] == 1


async def test_a_drip_does_not_prolong_the_time_for_a_head() -> None:
    counts: Counter[str] = Counter()
    async with serving(counts) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        ended = asyncio.create_task(reader.read())
        async with asyncio.timeout(30):
            for byte in b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000:
                if ended.done():
                    break
                writer.write(bytes([byte]))
                await asyncio.sleep(LIMIT / 10)
        assert await ended == b""
        writer.close()
    assert counts["slow_heads"] == 1


async def test_an_answer_may_take_longer_than_a_head_and_the_next_request_has_its_own_time() -> None:
    counts: Counter[str] = Counter()
    async with serving(counts) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"204" in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        writer.write(b"GET / HTTP/1.1\r\nHost")
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
    assert counts["slow_heads"] == 1


async def at_once(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer, whatever is still to come."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body"})


async def late(scope: Any, receive: Any, send: Any) -> None:
    """Read a body later than it may come, then answer with its size."""
    await asyncio.sleep(3 * LIMIT)
    await echo(scope, receive, send)


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the path, the names of the headers and the size of the body."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    names = b",".join(sorted(name for name, _ in scope["headers"]))
    body = b"%s %s %d" % (scope["raw_path"], names, size)
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-length", b"%d" % len(body))],
        }
    )
    await send({"type": "http.response.body", "body": body})


CHUNKED = b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("begins", "goes_on"),
    [
        (b"GET /", b"x" * 1000),
        (b"GET / HTTP/1.1\r\nX-Long: ", b"y" * 1000),
        (b"GET / HTTP/1.1\r\n", b"X-Short: y\r\n" * 100),
        (CHUNKED + b"1;", b"extension" * 100),
        (CHUNKED + b"1\r\n{\r\n0\r\nX-Trailer: ", b"z" * 1000),
        (CHUNKED + b"1\r\n{\r\n0\r\n", b"X-Trailer: z\r\n" * 100),
    ],
)
async def test_what_has_no_end_is_cut_and_counted(begins: bytes, goes_on: bytes) -> None:
    counts: Counter[str] = Counter()
    async with serving(counts, app=echo, limit=60) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begins)
        ended = asyncio.create_task(reader.read())
        async with asyncio.timeout(30):
            while not ended.done():
                writer.write(goes_on)
                await asyncio.sleep(0.001)
        await asyncio.gather(ended, return_exceptions=True)  # b"", or a reset where more was on its way
        writer.close()
    assert counts == {"endless_heads": 1}


@pytest.mark.parametrize("answers", ["at_once", "echo"])
async def test_a_body_that_never_ends_is_cut_and_counted_answered_or_not(answers: str) -> None:
    counts: Counter[str] = Counter()
    app = at_once if answers == "at_once" else echo
    async with serving(counts, app=app, limit=60, body=LIMIT) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n")
        ended = asyncio.create_task(reader.read())
        async with asyncio.timeout(30):
            while not ended.done():
                writer.write(b"z")  # uvicorn gives up who stands still behind an answer, and not who drips
                await asyncio.sleep(LIMIT / 10)
        told = (await asyncio.gather(ended, return_exceptions=True))[0]
        assert answers == "echo" or not isinstance(told, bytes) or told.startswith(b"HTTP/1.1 204")
        writer.close()
    assert counts == {"slow_bodies": 1}


async def test_a_later_body_of_a_connection_has_its_own_time_and_no_more() -> None:
    counts: Counter[str] = Counter()
    async with serving(counts, app=echo, limit=60, body=LIMIT) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n"
        for part in (head, b"z", b"z"):
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0.01)
        assert await asyncio.wait_for(reader.readuntil(b"host 2"), 20)
        writer.write(head)
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
    assert counts == {"slow_bodies": 1}


async def test_a_body_that_came_in_time_and_is_read_later_is_not_cut() -> None:
    counts: Counter[str] = Counter()
    async with serving(counts, app=late, limit=60, body=LIMIT) as port:
        for size in (10, 1_000_000):  # the larger one is not even taken from the socket before it is read
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % size)
            writer.write(b"z" * size)
            assert await asyncio.wait_for(reader.readuntil(b" %d" % size), 30)
            writer.close()
    assert counts == {}


async def test_a_head_that_is_long_and_ends_is_taken_and_so_is_a_long_body_in_pieces() -> None:
    counts: Counter[str] = Counter()
    async with serving(counts, app=echo, limit=60) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /long HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 12_000 + b"\r\n")
        writer.write(b"Content-Length: 100000\r\n\r\n")
        for _ in range(100):
            writer.write(b"z" * 1000)
            await writer.drain()
        answer = await asyncio.wait_for(reader.readuntil(b" 100000"), 20)
        assert b" 200 " in answer
        writer.close()
    assert counts == {}


async def test_what_is_no_request_is_refused_in_words_behind_an_answer_as_well() -> None:
    async with serving(Counter(), app=at_once, limit=60) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b" 204 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        writer.write(b"no request\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_what_stands_behind_a_chunked_body_is_no_header() -> None:
    counts: Counter[str] = Counter()
    async with serving(counts, app=echo, limit=60) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(CHUNKED + b"1\r\n{\r\n0\r\nAuthorization: forged\r\n\r\n")
        answer = await asyncio.wait_for(reader.readuntil(b"transfer-encoding 1"), 20)
        assert answer.endswith(b"/ host,transfer-encoding 1")
        writer.close()


async def test_requests_that_are_sent_ahead_are_answered_in_their_order() -> None:
    counts: Counter[str] = Counter()
    async with serving(counts, app=echo, limit=60) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.writelines(
            b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(MOST_AHEAD)
        )
        for number in range(MOST_AHEAD):
            answer = await asyncio.wait_for(reader.readuntil(b" host 0"), 20)
            assert b"\r\n\r\n/%d host" % number in answer
        writer.close()


@pytest.mark.parametrize("more", [b"", b"GET /more HT", b"GET /more HTTP/1.1\r\n\r\n" * 500])
async def test_of_too_many_requests_ahead_the_first_are_answered_and_then_it_closes(more: bytes) -> None:
    counts: Counter[str] = Counter()
    async with serving(counts, app=echo, limit=60) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.writelines(
            b"GET /%d HTTP/1.1\r\nHost: localhost\r\n\r\n" % number for number in range(3 * MOST_AHEAD)
        )
        await asyncio.sleep(0)
        writer.write(more)
        told = await asyncio.wait_for(reader.read(), 20)
        answers = told.split(b"HTTP/1.1 200 OK")[1:]
        assert len(answers) == MOST_AHEAD + 1
        assert all(b"\r\n\r\n/%d host 0" % number in each for number, each in enumerate(answers))
        writer.close()
    assert counts == {"too_far_ahead": 1}


async def test_who_answers_is_told_that_its_client_is_gone_whatever_was_sent_behind() -> None:
    told: list[str] = []

    async def feed(_scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        gone = asyncio.create_task(receive())
        while not gone.done():
            await send({"type": "http.response.body", "body": b"on and on", "more_body": True})
            await asyncio.sleep(0.01)
        told.append(gone.result()["type"])

    async with serving(Counter(), app=feed) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(2 * b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"on and on"), 30)
        writer.transport.abort()
        async with asyncio.timeout(30):
            while not told:
                await asyncio.sleep(0.01)
    assert told == ["http.disconnect"]


async def test_what_is_no_http_is_refused_in_words() -> None:
    counts: Counter[str] = Counter()
    async with serving(counts, limit=60) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"\x16\x03\x01 is TLS\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 20)).startswith(b"HTTP/1.1 400 ")
        writer.close()


async def test_a_websocket_outlives_the_time_for_a_head() -> None:
    async def greet(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await asyncio.sleep(3 * LIMIT)
        await send({"type": "websocket.send", "text": "still here"})
        await send({"type": "websocket.close"})

    counts: Counter[str] = Counter()
    async with serving(counts, app=greet) as port, connect(f"ws://127.0.0.1:{port}/") as socket:
        assert await asyncio.wait_for(socket.recv(), 20) == "still here"
    assert counts == {}


@pytest.mark.parametrize(
    ("begins", "more", "status"),
    [
        (b"GET / HTTP/1.1", b"Cookie: " + b"x" * 9_000 + b"\r\n", b"431"),
        (b"GET / HTTP/1.1", b"".join(b"X-%d: y\r\n" % n for n in range(300)), b"431"),
        (b"GET /" + b"x" * 9_000 + b" HTTP/1.1", b"", b"414"),
        (b"GET / HTTP/1.1", b"Content-Length: 4\r\n", b"400"),
        (b"POST / HTTP/1.1", b"Transfer-Encoding: chunked\r\n", b"400"),
    ],
)
async def test_a_handshake_that_cant_be_taken_is_refused_in_words_and_counted(
    begins: bytes, more: bytes, status: bytes
) -> None:
    counts: Counter[str] = Counter()
    key = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    asks = b"Host: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" + key
    config = uvicorn.Config(
        at_once, port=0, http=patient(counts), ws=DirectWebSocket, log_config=None, lifespan="off"
    )
    async with served(config) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begins + b"\r\n" + asks + more + b"\r\n")
        answer = await asyncio.wait_for(reader.read(), 20)
        writer.close()
    head, _, words = answer.partition(b"\r\n\r\n")
    assert head.split()[1] == status
    assert words.strip()
    assert counts["handshakes_refused"] == 1


async def test_an_upgrade_leaves_nothing_for_the_garbage_collector() -> None:
    """With a circle for each, a storm of connects has it run again and again."""

    async def greet(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "welcome"})
        await receive()

    config = uvicorn.Config(
        greet, port=0, http=patient(Counter()), ws=DirectWebSocket, log_config=None, lifespan="off"
    )
    gc.collect()
    gc.disable()
    try:
        async with served(config) as port, connect(f"ws://127.0.0.1:{port}/") as socket:
            assert await asyncio.wait_for(socket.recv(), 20) == "welcome"
            kinds = [type(each) for each in gc.get_objects()]
    finally:
        gc.enable()
    assert kinds.count(Frames) == 1
    assert not [kind for kind in kinds if issubclass(kind, (PatientProtocol, HttpRequestParser))]
    assert ServerProtocol not in kinds


async def test_the_answer_to_a_head_request_and_one_without_a_body_go_out() -> None:
    counts: Counter[str] = Counter()
    async with serving(counts, limit=60) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for method in (b"HEAD", b"GET", b"HEAD"):
            writer.write(method + b" / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b" 204 " in await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        writer.close()
