"""Behind a damaged event subscribers wait, until somebody trims it away: then each goes on where it is."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import httpx
import pytest

from steadcast.client.subscriber import Subscriber
from tests.support.command import Commands
from tests.support.histories import until
from tests.support.node import NodeSubscriber
from tests.support.plain import PLAIN
from tests.support.server import Server, event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

READER, KEEPER = "a reader's secret", "a keeper's secret"
TOKENS = [
    {"name": "reader", "token": READER, "scopes": ["subscribe", "publish"]},
    {"name": "keeper", "token": KEEPER, "scopes": ["admin"]},
]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    running = Server(tmp_path, STEADCAST_TOKENS=json.dumps(TOKENS))
    await asyncio.to_thread(running.start)
    yield running
    running.__exit__()


async def publish(server: Server, *events: dict[str, Any]) -> None:
    headers = {"content-type": "application/cloudevents-batch+json", "authorization": f"Bearer {READER}"}
    async with httpx.AsyncClient(verify=PLAIN, headers=headers, timeout=20) as http:
        answer = await http.post(f"{server.url}/v1/streams/orders/events", json=events)
    assert answer.status_code == 200, answer.text


async def connected(server: Server) -> set[str]:
    async with httpx.AsyncClient(verify=PLAIN, timeout=20) as http:
        answer = await http.get(f"{server.url}/v1/clients", headers={"authorization": f"Bearer {KEEPER}"})
    return {each["id"] for each in answer.json()["clients"]}


def damage(server: Server, **ids: str) -> None:
    log = apsw.Connection(str(server.folder / "steadcast.db"))
    for name, statement in ids.items():
        log.execute(f"{statement} WHERE instr(event, ?)", (f'"id":"{name}"',))
        assert log.changes() == 1
    log.close()


async def test_subscribers_go_on_behind_a_damaged_event_that_was_trimmed_and_are_told_once(
    server: Server, tmp_path: Path
) -> None:
    urgent = [event(n, priority="critical") for n in (100, 101)]
    await publish(server, *[event(n) for n in range(10)], *urgent)
    damage(server, e4="UPDATE events SET event = '{'", e5="DELETE FROM events", e101="DELETE FROM events")
    node, applied = NodeSubscriber(), list[str]()
    await node.start(server.url, STEADCAST_TOKEN=READER)
    async with Subscriber(server.url, "orders", start="start", token=READER) as deliveries:

        async def apply() -> None:
            async for delivery in deliveries:
                applied.append(delivery.event.id)

        applying = asyncio.create_task(apply())
        before = {"e0", "e1", "e2", "e3", "e100"}
        both = (applied, node.history.applied)
        await until(
            lambda: all(set(each) == before for each in both), what="what stands before it is applied"
        )
        await until(lambda: "reading the log failed" in server.log(), what="the log says where it stands")
        assert "the event at offset 5 of orders (normal) is damaged" in server.log()
        there = await connected(server)

        command = Commands(tmp_path, server.url, {"STEADCAST_TOKEN": KEEPER})
        for lane, upto in (("critical", "2"), ("normal", "6")):
            done = await asyncio.to_thread(
                command, "trim", "orders", "--lane", lane, "--upto", upto, "--yes", "--json"
            )
            assert done.code == 0, done.err
            assert done.objects[0]["lost"] == [1, int(upto)]
        after = ["e6", "e7", "e8", "e9", "e110"]
        await until(lambda: all(each[-4:] == after[:4] for each in both), what="it goes on behind it")
        await publish(server, event(110))
        await until(lambda: all(each[-1] == "e110" for each in both), what="it stays live")

        assert await connected(server) == there, "nobody had to come back"
        for each in both:
            assert [id_ for id_ in each if id_ != "e100"] == ["e0", "e1", "e2", "e3", *after]
        told = {(each.kind, each.lane, each.lost) for each in deliveries.told}
        assert told == {("trimmed", "normal", (5, 6)), ("trimmed", "critical", (2, 2))}
        assert len(deliveries.told) == len(node.told) == 2
        told = {(each["kind"], each["lane"], tuple(each["lost"])) for each in node.told}
        assert told == {("trimmed", "normal", (5, 6)), ("trimmed", "critical", (2, 2))}
        applying.cancel()
    await node.end()
    audit = [line for line in server.log().splitlines() if "trimmed by hand" in line]
    assert len(audit) == 2
    assert all("by=keeper" in line and "stream=orders" in line for line in audit), audit
