"""One history under real faults: server, subscribers and publishers as they are, on files and sockets."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from steadcast.client.address import parse_address
from steadcast.client.publisher import Publisher
from steadcast.testing import FaultProxy
from tests.faults.faults import FAULTS
from tests.support.plain import PLAIN
from tests.support.promises import Checker, Violation
from tests.support.record import Record
from tests.support.server import Server

ROOT = Path(__file__).parents[2]
STREAM = "s"
WITHIN = 60.0
"""Seconds for everybody to have everything once the faults are over."""
QUICK = {
    "STEADCAST_PING_INTERVAL": "1",
    "STEADCAST_PING_TIMEOUT": "1",
    "STEADCAST_STALE_CHECK_INTERVAL": "1",
    "STEADCAST_ACK_OVERDUE": "4",
    "STEADCAST_WINDOW_EVENTS": "256",
    "STEADCAST_DRAIN_LIMIT": "4",
    "STEADCAST_LOG_LEVEL": "warning",
}
"""The specification's numbers, turned down: a history lasts seconds."""


def kinds_of(seed: int) -> list[str]:
    """Give a history's faults: three at a time out of all of them in turn, in the order of a shuffle."""
    turns = list(FAULTS)
    at = 3 * seed
    picked = []
    for place in range(at, at + 3):
        random.Random(place // len(turns)).shuffle(order := turns.copy())
        picked.append(order[place % len(turns)])
    return picked


class Late(AssertionError):
    """Something didn't come in time."""


class Follower:
    """A subscriber's process and its file."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        self.name, self.url = name, url
        self.path = folder / f"{name}.jsonl"
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._read = 0
        self._entries: list[list[Any]] = []

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.faults.subscriber", self.url, STREAM, str(self.path)]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(command, stdout=out, stderr=out, cwd=ROOT)

    def send(self, how: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(how)

    async def kill(self, how: signal.Signals = signal.SIGKILL) -> None:
        if self.process is not None and self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.send(how)
            await asyncio.to_thread(self.process.wait, 20)

    def entries(self) -> list[list[Any]]:
        """Read what it has written so far."""
        if self.path.exists():
            with self.path.open("rb") as file:
                file.seek(self._read)
                content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            self._read += len(whole)
            self._entries += [json.loads(line)["entry"] for line in whole.splitlines()]
        return self._entries

    def applied(self) -> set[str]:
        return {entry[4] for entry in self.entries() if entry[0] == "applied"}


class History:
    """A server behind a proxy, with what happens to it drawn from a seed."""

    def __init__(
        self, seed: int, folder: Path, kinds: list[str] | None = None, *, engine: str | None = None
    ) -> None:
        self.rng = random.Random(seed)
        self.kinds = kinds or kinds_of(seed)
        self.record = Record(time.monotonic)
        self.folder = folder
        self.server = Server(folder, engine=engine)
        self.server.env |= QUICK
        self.within = WITHIN
        self.ids: list[str] = []
        self.publishing = True
        self.followers: list[Follower] = []

    async def run(self) -> list[Violation]:
        """Live through it, and check what was written down."""
        await asyncio.to_thread(self.server.start)
        try:
            async with FaultProxy("127.0.0.1", self.server.port) as self.proxy:
                await self._live()
        finally:
            for follower in self.followers:
                await follower.kill()
            await asyncio.to_thread(self.server.__exit__)
        return Checker(self.record, window=sys.maxsize).check()

    async def _live(self) -> None:
        urls = [self.proxy.url, self.server.url] if self.rng.random() < 0.5 else [self.proxy.url]
        self.followers = [Follower(f"sub{n}", url, self.folder) for n, url in enumerate(urls)]
        for follower in self.followers:
            follower.start()
        publishers = [asyncio.create_task(self._publish(n, url)) for n, url in enumerate(urls)]
        hook = asyncio.create_task(self._publish_by_spool())
        await self._until("the first answer", self._answered, WITHIN)
        for kind in self.kinds:
            await asyncio.sleep(self.rng.uniform(0.1, 0.6))
            await FAULTS[kind](self, self.rng)
        await asyncio.sleep(0.3)
        self.publishing = False
        await asyncio.gather(*publishers, hook)
        try:
            await self._until("everybody has everything", self._everywhere, self.within)
        except Late as late:
            self.record.add("raised", str(late))
        for follower in self.followers:
            await follower.kill(signal.SIGTERM)
        await self._write_down()

    async def _answered(self) -> bool:
        return any(entry[1] == "acked" for entry in self.record.entries)

    async def _everywhere(self) -> bool:
        expected = set(self.ids)
        return all(expected <= follower.applied() for follower in self.followers)

    # Publishers

    async def _publish(self, number: int, url: str) -> None:
        """Publish one group after the other, each under its ids until it is answered."""
        count = itertools.count()
        rng = random.Random(self.rng.random())
        async with httpx.AsyncClient(verify=PLAIN, timeout=2.0, trust_env=False) as client:
            while self.publishing:
                ids = [f"p{number}-{next(count)}" for _ in range(rng.choice((1, 1, 5, 40)))]
                events = [event(each, rng) for each in ids]
                self.record.add("asked", f"p{number}", tuple(ids))
                await self._until_answered(client, url, events, f"p{number}")
                self.ids += ids
                await asyncio.sleep(rng.uniform(0.0, 0.05))

    async def _until_answered(
        self, client: httpx.AsyncClient, url: str, events: list[dict[str, Any]], who: str
    ) -> None:
        headers = {"content-type": "application/cloudevents-batch+json"}
        deadline = time.monotonic() + WITHIN
        while time.monotonic() < deadline:
            try:
                answer = await client.post(
                    f"{url}/v1/streams/{STREAM}/events", content=json.dumps(events), headers=headers
                )
            except httpx.TransportError as error:
                self.record.add("unanswered", type(error).__name__)
            else:
                if answer.status_code == 200:
                    for each in answer.json()["results"]:
                        place = (*each["position"], each["duplicate"])
                        self.record.add("acked", who, each["id"], place[0], each["lane"], *place[1:])
                    return
                if answer.status_code not in {429, 503}:
                    self.record.add("raised", f"{who} was answered {answer.status_code} {answer.text}")
                    return
            await asyncio.sleep(0.05)
        raise Late(f"{who}: no answer within {WITHIN:g} s\n{self.server.log()[-2000:]}")

    async def _publish_by_spool(self) -> None:
        """Publish as a program does that never waits; the server drains the same folder."""
        spool = self.folder / "spool" / parse_address(self.server.url).folder
        publisher = Publisher(self.server.url, spool=spool, request_timeout=2.0)
        count = itertools.count()
        while self.publishing:
            name = f"hook-{next(count)}"
            publisher.publish(STREAM, type="t", id=name, data={"n": 1})
            self.record.add("spooled", name)
            self.ids.append(name)
            await asyncio.sleep(0.02)
        await asyncio.to_thread(publisher.close, WITHIN)

    # The end

    async def _write_down(self) -> None:
        """Put what the log holds in front of what was seen of it, and the subscribers' accounts behind."""
        log: list[tuple[Any, ...]] = []
        async with httpx.AsyncClient(verify=PLAIN, timeout=10, trust_env=False) as client:
            for lane in ("critical", "normal"):
                address = f"{self.server.url}/v1/streams/{STREAM}/events?lane={lane}&from=start"
                head = 0
                while address:
                    page = (await client.get(address)).raise_for_status().json()
                    for each in page["events"]:
                        head = each["offset"]
                        log.append((0.0, "kept", page["epoch"], lane, head, each["id"]))
                    address = page["next"] and self.server.url + page["next"].removeprefix(self.server.url)
                    epoch = page["epoch"]
                self.record.add("head", lane, epoch, head)
        self.record.entries[:0] = log
        for follower in self.followers:
            for kind, *fields in follower.entries():
                if kind == "buffer":
                    self.record.add(kind, f"{follower.name} life", *fields)
                elif kind == "raised":
                    self.record.add(kind, f"{follower.name} {fields[0]}")
                else:
                    self.record.add(kind, follower.name, *fields)

    async def _until(self, what: str, condition: Any, within: float) -> None:
        deadline = time.monotonic() + within
        while not await condition():
            if time.monotonic() > deadline:
                missing = {f.name: len(set(self.ids) - f.applied()) for f in self.followers}
                raise Late(f"{what}: not within {within:g} s; missing {missing}; {self.server.log()[-2000:]}")
            await asyncio.sleep(0.05)

    async def ready(self) -> int:
        """Ask whether the server is ready; gives the status, 0 without an answer."""
        try:
            async with httpx.AsyncClient(verify=PLAIN, timeout=5, trust_env=False) as client:
                return (await client.get(f"{self.server.url}/readyz")).status_code
        except httpx.TransportError:
            return 0

    async def until_ready(self, status: int = 200) -> None:
        async def is_it() -> bool:
            return await self.ready() == status

        await self._until(f"/readyz says {status}", is_it, 20)

    def wal(self) -> int:
        """Give the size of the log's file that grows with each commit, in bytes."""
        path = self.folder / "steadcast.db-wal"
        return os.stat(path).st_size if path.exists() else 0  # noqa: PTH116 - one stat


def event(name: str, rng: random.Random) -> dict[str, Any]:
    return {
        "specversion": "1.0",
        "id": name,
        "source": "faults",
        "type": "t",
        "data": {"text": "x" * rng.choice((10, 100, 1_000))},
        "priority": "critical" if rng.random() < 0.2 else "normal",
    }
