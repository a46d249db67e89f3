"""Behind a damaged event subscribers wait, until somebody trims it away: then each goes on where it is."""

from __future__ import annotations

import asyncio
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import apsw
import httpx
import nats
import pytest

from steadcast.client.subscriber import Subscriber
from steadcast.engines.jetstream_records import Subjects
from steadcast.engines.jetstream_url import parse_url
from steadcast.event import Lane
from tests.engine_backends import nats_url
from tests.support.command import Commands
from tests.support.histories import until
from tests.support.node import NodeSubscriber
from tests.support.plain import PLAIN
from tests.support.server import Server, event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

READER, KEEPER = "a reader's secret", "a keeper's secret"
TOKENS = [
    {"name": "reader", "token": READER, "scopes": ["subscribe", "publish"]},
    {"name": "keeper", "token": KEEPER, "scopes": ["admin"]},
]


SPOIL, DELETE = "UPDATE events SET event = '{'", "DELETE FROM events"
Damage = dict[str, tuple[int, int]]
"""By lane, the offsets from the last sound event before it to the damaged one."""


@contextmanager
def serving(folder: Path, engine: str | None = None) -> Iterator[Server]:
    with Server(folder, engine=engine, STEADCAST_TOKENS=json.dumps(TOKENS)) as running:
        yield running


def publish(server: Server, *events: dict[str, Any]) -> tuple[str, int]:
    """Publish, and give the last one's position."""
    headers = {"content-type": "application/cloudevents-batch+json", "authorization": f"Bearer {READER}"}
    address = f"{server.url}/v1/streams/orders/events"
    answer = httpx.post(address, verify=PLAIN, headers=headers, json=events, timeout=20)
    assert answer.status_code == 200, answer.text
    epoch, offset = answer.json()["results"][-1]["position"]
    return epoch, offset


def damage_rows(server: Server, *damaged: tuple[str, str]) -> None:
    log = apsw.Connection(str(server.folder / "steadcast.db"))
    log.set_busy_timeout(20_000)  # its server writes as well
    for name, statement in damaged:
        log.execute(f"{statement} WHERE instr(event, ?)", (f'"id":"{name}"',))
        assert log.changes() == 1
    log.close()


async def damage_sqlite(server: Server) -> Damage:
    publish(server, *[event(n) for n in range(10)])
    publish(server, *[event(n, priority="critical") for n in (100, 101)])
    damage_rows(server, ("e4", SPOIL), ("e5", DELETE), ("e101", DELETE))
    return {"normal": (4, 6), "critical": (1, 2)}


async def damage_jetstream(server: Server) -> Damage:
    sound = {
        "normal": publish(server, *[event(n) for n in range(4)])[1],
        "critical": publish(server, event(100, priority="critical"))[1],
    }
    options = parse_url(server.engine)
    client = await nats.connect(options.servers[0])
    found: Damage = {}
    for number, (lane, offset) in enumerate(sound.items()):
        headers = {"Nats-Msg-Id": f"{number:032x}", "Steadcast-Print": "00"}
        subject = Subjects(options.stream).event("orders", Lane(lane))
        found[lane] = (offset, (await client.jetstream().publish(subject, b"{", headers=headers)).seq)
    await client.close()
    publish(server, *[event(n) for n in range(6, 10)])
    return found


async def connected(server: Server) -> set[str]:
    async with httpx.AsyncClient(verify=PLAIN, timeout=20) as http:
        answer = await http.get(f"{server.url}/v1/clients", headers={"authorization": f"Bearer {KEEPER}"})
    return {each["id"] for each in answer.json()["clients"]}


@pytest.fixture
async def node() -> AsyncIterator[NodeSubscriber]:
    made = NodeSubscriber()
    yield made
    await made.end()


@pytest.mark.parametrize("log", ["sqlite", "jetstream"])
async def test_subscribers_go_on_behind_a_damaged_event_that_was_trimmed_and_are_told_once(
    tmp_path: Path, node: NodeSubscriber, log: str
) -> None:
    with serving(tmp_path, nats_url() if log == "jetstream" else None) as server:
        damage = await (damage_sqlite if log == "sqlite" else damage_jetstream)(server)
        told = {("trimmed", lane, (last + 1, upto)) for lane, (last, upto) in damage.items()}
        applied = list[str]()
        await node.start(server.url, STEADCAST_TOKEN=READER)
        both = (applied, node.history.applied)
        async with Subscriber(server.url, "orders", start="start", token=READER) as deliveries:
            applying = asyncio.create_task(apply(deliveries, applied))
            before = {"e0", "e1", "e2", "e3", "e100"}
            await until(lambda: all(set(each) == before for each in both), what="what stands before it came")
            await until(lambda: named(server.log(), damage), what="the log names one of them")
            there = await connected(server)

            for lane in ("critical", "normal"):
                await trim(server, lane, damage[lane][1])
            after = ["e6", "e7", "e8", "e9", "e110"]
            await until(lambda: all(each[-4:] == after[:4] for each in both), what="they go on behind it")
            await asyncio.to_thread(publish, server, event(110))
            await until(lambda: all(each[-1] == "e110" for each in both), what="they stay live")

            assert await connected(server) == there, "nobody had to come back"
            for each in both:
                assert [id_ for id_ in each if id_ != "e100"] == ["e0", "e1", "e2", "e3", *after]
            assert {(each.kind, each.lane, each.lost) for each in deliveries.told} == told
            assert {(each["kind"], each["lane"], tuple(each["lost"])) for each in node.told} == told
            assert len(deliveries.told) == len(node.told) == 2
            applying.cancel()
        audit = [line for line in server.log().splitlines() if "trimmed by hand" in line]
        assert len(audit) == 2
        assert all("by=keeper" in line and "stream=orders" in line for line in audit), audit


def named(log: str, damage: Damage) -> bool:
    """Whether a line says where readers wait: the first event that is missing, or a damaged one."""
    waits = [(lane, offset) for lane, (last, upto) in damage.items() for offset in (last + 1, upto)]
    where = [f"the event at offset {offset} of orders ({lane}) is " for lane, offset in waits]
    return any(
        "reading the log failed" in line and any(each in line for each in where) for line in log.splitlines()
    )


async def apply(deliveries: Subscriber, applied: list[str]) -> None:
    async for delivery in deliveries:
        applied.append(delivery.event.id)  # noqa: PERF401 - each when it comes


async def trim(server: Server, lane: str, upto: int) -> None:
    command = Commands(server.folder, server.url, {"STEADCAST_TOKEN": KEEPER})
    args = ("trim", "orders", "--lane", lane, "--upto", str(upto), "--yes", "--json")
    done = await asyncio.to_thread(command, *args)
    assert done.code == 0, done.err
    assert done.objects[0]["lost"] == [1, upto]


@pytest.mark.parametrize(("offset", "name", "last"), [(5, "e4", "e6"), (8, "e7", "e9")])
async def test_who_applied_an_event_before_it_was_damaged_comes_back_and_is_told_nothing(
    tmp_path: Path, offset: int, name: str, last: str
) -> None:
    with serving(tmp_path) as server:
        epoch, _ = await asyncio.to_thread(publish, server, *[event(n) for n in range(10)])
        damage_rows(server, ("e4", SPOIL), ("e7", DELETE))
        cursors: dict[str, list[str | int]] = {"normal": [epoch, offset, name]}
        applied = list[str]()
        async with Subscriber(server.url, "orders", cursors=cursors, token=READER) as deliveries:
            applying = asyncio.create_task(apply(deliveries, applied))
            await until(lambda: last in applied, what="what is sound behind it is applied")
            assert deliveries.told == []
            applying.cancel()
