"""A Python subscriber in a process of its own, that stores its cursors together with what it applied.

Each line that it appends to its file is an effect and the cursors behind it in one: what a database's
transaction is elsewhere. Killed at any moment, it goes on from the last whole line.
Arguments: URL, stream, file.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from steadcast.client.subscriber import Subscriber
from steadcast.core.backoff import Backoff
from steadcast.core.effects import Told


def last_cursors(path: Path) -> dict[str, Any]:
    """Read the cursors of the last whole line; a line that the kill has cut is cut off."""
    content = path.read_bytes() if path.exists() else b""
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    lines = [json.loads(line) for line in whole.splitlines()]
    return next((line["cursors"] for line in reversed(lines) if "cursors" in line), {})


class Store:
    """The file, and what goes into it."""

    def __init__(self, url: str, stream: str, path: Path) -> None:
        cursors = last_cursors(path)
        self.known = set(cursors)
        self.file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self.subscriber = Subscriber(
            url,
            stream,
            start="start",
            cursors=cursors,
            on_told=self.told,
            ping_timeout=2.5,
            backoff=Backoff(base=0.1, cap=0.5),
        )

    def put(self, entry: list[Any], **more: Any) -> None:
        os.write(self.file, json.dumps({"entry": entry, **more}).encode() + b"\n")

    def told(self, told: Told) -> None:
        lane = str(told.lane)
        if told.kind == "trimmed" and told.lost is not None:
            self.put(["lost", lane, *told.lost, told.maybe])
        elif told.kind == "reset":
            self.put(["reset", lane, *self.subscriber.cursors[lane][:2]])
        else:
            self.put(["raised", f"told {told}"])

    async def follow(self) -> None:
        async with self.subscriber as deliveries:
            async for delivery in deliveries:
                for lane, cursor in self.subscriber.cursors.items():
                    if lane not in self.known:
                        self.known.add(lane)
                        self.put(["began", lane, *cursor[:2]])
                place = (delivery.position.epoch, delivery.position.offset)
                entry = ["applied", str(delivery.lane), *place, delivery.event.id]
                self.put(entry, cursors=delivery.cursors)

    def counted(self) -> None:
        c = self.subscriber.counts
        dropped = c.passed_over + c.duplicates_dropped + c.strays_dropped + c.cut_dropped + c.full_dropped
        self.put(["buffer", c.received, self.subscriber._receiver.pending, c.applied, dropped])


async def main(url: str, stream: str, path: Path) -> None:
    store = Store(url, stream, path)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    following = asyncio.create_task(store.follow())
    await asyncio.wait({following, asyncio.create_task(ended.wait())}, return_when=asyncio.FIRST_COMPLETED)
    if following.done():
        following.result()
    await store.subscriber.aclose()
    await asyncio.gather(following, return_exceptions=True)
    store.counted()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
