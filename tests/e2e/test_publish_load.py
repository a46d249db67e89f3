"""Many publishers at once, by both ways, against a real server: everything is counted, nothing timed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import socketio

from tests.support.plain import PLAIN
from tests.support.server import Server

BATCH = "application/cloudevents-batch+json"
PUBLISHERS = 4
BATCHES = 5
SIZE = 100
EVENTS = 2 * PUBLISHERS * BATCHES * SIZE


def batch(way: str, publisher: int, number: int) -> list[dict[str, Any]]:
    names = (f"{way}-{publisher}-{number}-{n}" for n in range(SIZE))
    return [
        {"id": name, "source": "/load", "type": "load", "data": {"of": way, "text": "x" * 50}}
        for name in names
    ]


async def over_http(client: httpx.AsyncClient, publisher: int) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for number in range(BATCHES):
        answer = await client.post(
            "/v1/streams/load/events",
            content=httpx.Request("POST", "http://_", json=batch("http", publisher, number)).content,
            headers={"content-type": BATCH},
        )
        results += answer.json()["results"]
    return results


async def over_socketio(url: str, publisher: int) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    async with socketio.AsyncSimpleClient() as client:
        await client.connect(url, transports=["websocket"])
        for number in range(BATCHES):
            sent = {"stream": "load", "events": batch("socketio", publisher, number)}
            answer = await client.call("publish", sent, timeout=30)
            results += answer["results"]
    return results


async def publish_all(url: str) -> list[list[dict[str, Any]]]:
    async with httpx.AsyncClient(verify=PLAIN, base_url=url, timeout=30) as client:
        return await asyncio.gather(
            *(over_http(client, publisher) for publisher in range(PUBLISHERS)),
            *(over_socketio(url, publisher) for publisher in range(PUBLISHERS)),
        )


def test_every_event_of_many_publishers_has_a_place_of_its_own_in_its_publishers_order(
    tmp_path: Path,
) -> None:
    with Server(tmp_path) as server:
        by_publisher = asyncio.run(publish_all(server.url))
        again = asyncio.run(publish_all(server.url))
        engine = httpx.get(f"{server.url}/v1/stats", verify=PLAIN).json()["engine"]["statistics"]["counts"]
    offsets = [[result["position"][1] for result in results] for results in by_publisher]
    assert sorted(offset for each in offsets for offset in each) == list(range(1, EVENTS + 1))
    assert all(each == sorted(each) for each in offsets)
    assert again == [[result | {"duplicate": True} for result in results] for results in by_publisher]
    assert (engine["duplicates"], engine["pending"], engine["failed"], engine["refused"]) == (EVENTS, 0, 0, 0)
    # The system's own streams have events as well.
    assert engine["accepted"] - engine["duplicates"] == engine["appended"] >= EVENTS
