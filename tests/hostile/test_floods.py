"""Floods: each is bounded in memory, and whoever has nothing to do with it is served meanwhile."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from steadcast.socketio.admission import ENDS
from tests.hostile.flood import Raw, open_many, witness
from tests.support.server import Server, event

MIB = 1024 * 1024
IDLE = 2_000
STORM = 300
STREAMS = 10_000


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, STEADCAST_ACK_OVERDUE="3") as running:
        yield running


@pytest.fixture
def limited(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, STEADCAST_RATE_PUBLISHES="200/second") as running:
        yield running


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path, STEADCAST_ADMIT_AT_ONCE="1", STEADCAST_ADMIT_WAITING="20") as running:
        yield running


def admission_of(server: Server) -> dict[str, int]:
    """Give what the server counts of who came in, which must add up."""
    told: dict[str, int] = server.get("/v1/stats").json()["admission"]
    assert told["asked"] == sum(told[end] for end in (*ENDS, "waiting")), told
    return told


async def test_a_storm_of_connects_and_subscribes_comes_in_while_others_are_served(server: Server) -> None:
    async def come(raw: Raw) -> Any:
        raw.say("40")
        assert (await raw.said()).startswith("40{")
        return await raw.call("subscribe", {"stream": "storm"})

    async with witness(server) as somebody:
        before = admission_of(server)
        raws = await asyncio.gather(*(Raw.open(server.port, namespace=False) for _ in range(STORM)))
        storm = asyncio.gather(*(come(raw) for raw in raws))
        served = 0
        while not storm.done():
            await somebody.is_served()
            served += 1
        answers = await storm
        assert all(answer["ok"] for answer in answers), answers
        assert served > 1, "the witness waited until the storm was over"
        after = admission_of(server)
        assert after["admitted"] - before["admitted"] == 3 * STORM  # handshake, connect and subscribe
        assert after["waiting"] == 0
        for raw in raws:
            raw.cut()


async def test_more_than_may_wait_are_told_when_to_come_back_and_come_in_then(narrow: Server) -> None:
    refused = 0

    async def come() -> None:
        nonlocal refused
        while True:
            raw = await Raw.open(narrow.port, namespace=False)
            raw.say("40")
            answer = await raw.said()
            raw.cut()
            if answer.startswith("40{"):
                return
            assert answer.startswith("44{"), answer
            told = json.loads(answer[2:])["data"]
            assert (told["code"], told["temporary"]) == ("rate_limited", True)
            refused += 1
            await asyncio.sleep(told["retry_after"] * (0.5 + random.random()))

    async with witness(narrow) as somebody:
        await asyncio.gather(*(come() for _ in range(STORM)))
        await somebody.is_served()
        told = admission_of(narrow)
        # A handshake that too many wait before goes on: its connect asks again, and is refused in words.
        assert 0 < refused <= told["full"] + told["overdue"]


async def test_two_thousand_idle_connections_cost_little_and_starve_nobody(server: Server) -> None:
    async with witness(server) as somebody:
        before = server.rss()
        idle = await open_many(server.port, IDLE)
        await somebody.is_served()
        grown = server.rss() - before
        assert grown < 70 * 1024 * IDLE, f"{grown / IDLE / 1024:.0f} KiB a connection"
        for each in idle:
            each.cut()


async def test_heads_that_never_end_starve_nobody(server: Server) -> None:
    async with witness(server) as somebody:
        before = server.rss()
        dripping = []
        for _ in range(500):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"POST /v1/streams/s/events HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
            dripping.append(writer)
        await somebody.is_served()
        assert server.rss() - before < 30 * MIB
        for writer in dripping:
            writer.close()


async def test_bodies_that_never_end_starve_nobody(server: Server) -> None:
    async with witness(server) as somebody:
        before = server.rss()
        dripping = []
        for _ in range(200):
            _, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(
                b"POST /v1/streams/s/events HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/cloudevents+json\r\nContent-Length: 4000000\r\n\r\n{"
            )
            dripping.append(writer)
        await somebody.is_served()
        assert server.rss() - before < 30 * MIB
        for writer in dripping:
            writer.close()


async def test_a_subscriber_that_never_acks_gets_its_window_and_is_sent_away(server: Server) -> None:
    async with witness(server) as somebody:
        for start in range(0, 2_000, 100):
            body = [event(n, data={"pad": "x" * 1000}) for n in range(start, start + 100)]
            assert (await asyncio.to_thread(server.publish, "s", *body)).status_code == 200
        before = server.rss()
        silent = [await Raw.open(server.port) for _ in range(20)]
        for each in silent:
            await each.emit_acked("subscribe", {"stream": "s", "from": "start"})
        await somebody.is_served()
        for got, told in await asyncio.gather(*map(_until_the_end, silent)):
            assert 0 < got <= 1_024
            assert "ack_overdue" in told
        assert server.rss() - before < 60 * MIB


async def _until_the_end(raw: Raw) -> tuple[int, list[str]]:
    got = 0
    told: list[str] = []
    async with asyncio.timeout(30):
        while True:
            try:
                text = await raw.said()
            except asyncio.IncompleteReadError:
                raw.cut()
                return got, told
            if text.startswith('42["batch"'):
                got += len(json.loads(text[2:])[1]["events"])
            elif text.startswith('42["error"'):
                told.append(json.loads(text[2:])[1]["code"])


async def test_ten_thousand_streams_are_bounded_in_memory_and_listed(server: Server) -> None:
    async with witness(server) as somebody:
        before = server.rss()
        await asyncio.gather(*(_publish_to(server.port, range(n, STREAMS, 8)) for n in range(8)))
        await somebody.is_served()
        grown = server.rss() - before
        assert grown < 150 * MIB, f"{grown / STREAMS / 1024:.1f} KiB a stream"
        listed = await asyncio.to_thread(server.get, "/v1/streams")
        names = {each["stream"] for each in listed.json()["streams"]}
        assert {f"flood.{n}" for n in range(STREAMS)} <= names


async def _publish_to(port: int, streams: range) -> None:
    raw = await Raw.open(port)
    for n in streams:
        one = {"id": "1", "source": "flood", "type": "t", "data": n}
        answer = await raw.call("publish", {"stream": f"flood.{n}", "events": [one]})
        assert answer["ok"], answer
    raw.cut()


async def test_a_publisher_at_ten_times_its_rate_is_held_to_it_in_words(limited: Server) -> None:
    async with witness(limited) as somebody:
        before = limited.rss()
        began, accepted, refused = time.monotonic(), 0, 0
        for start in range(0, 4_000, 100):
            answer = await asyncio.to_thread(
                limited.publish, "s", *(event(n) for n in range(start, start + 100))
            )
            if answer.status_code == 200:
                accepted += 100
            else:
                refused += 1
                assert answer.status_code == 429
                assert answer.json()["code"] == "rate_limited"
                assert float(answer.headers["retry-after"]) > 0
        seconds = time.monotonic() - began
        assert refused
        assert accepted <= 200 * (seconds + 2)
        assert limited.rss() - before < 30 * MIB
        await asyncio.sleep(1.5)
        await somebody.is_served()
