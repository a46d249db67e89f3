"""Processes that write a log and are killed: at any moment by a signal, or before their nth statement.

Run as a program: `append PATH SEED` appends until it is killed and prints what was acked;
`statements PATH FROM TO MIGRATE` forks a child for each n, which ends itself before its nth statement.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import apsw

from steadcast.engines.base import Retention
from steadcast.event import Event, Receipt
from tests.engine_backends import CRITICAL, NORMAL, Clock, event, events, open_sqlite
from tests.engine_logfile import as_version_0, check

EXIT = 9
ACKED = "acked.jsonl"


def told(stream: str, receipts: Sequence[Receipt]) -> bytes:
    """Give a line that says what was acked."""
    rows = [[stream, r.id, r.lane, r.position.epoch, r.position.offset] for r in receipts]
    return json.dumps(rows).encode() + b"\n"


def acked_rows(lines: bytes) -> list[Any]:
    """Take the rows out of whole lines; the last one may have been cut by the kill."""
    return [
        row for line in lines.splitlines(keepends=True) if line.endswith(b"\n") for row in json.loads(line)
    ]


async def assert_there(path: Path, rows: Sequence[Any]) -> None:
    """Assert that all that was acked is in the log at its position, and that the log agrees with itself."""
    engine = open_sqlite(path)
    states = await engine.describe()
    for stream, name, lane, epoch, offset in rows:
        assert epoch == states.epoch
        state = states.streams[stream][lane]
        assert offset <= state.head
        if offset > state.trimmed:
            found = (await engine.read(stream, lane, offset - 1, 1)).events[0]
            assert (found.offset, found.event.id) == (offset, name)
    await engine.aclose()
    check(path)


def append_until_killed(path: Path, seed: int) -> None:
    """Append batches of all sizes from several callers, and print each receipt once it is there."""
    chance = random.Random(seed)

    def batch(caller: int, n: int) -> list[Event]:
        return [
            event(
                f"{seed}-{caller}-{n}-{k}",
                "x" * chance.randrange(600),
                lane=chance.choice([CRITICAL, NORMAL]),
            )
            for k in range(chance.choice([1, 1, 3, 40]))
        ]

    async def caller(engine: Any, number: int) -> None:
        n = 0
        while True:
            stream = chance.choice(["s", "t"])
            os.write(1, told(stream, await engine.append(stream, batch(number, n))))
            n += 1

    async def run() -> None:
        engine = open_sqlite(path)
        await asyncio.gather(*(caller(engine, number) for number in range(4)))

    asyncio.run(run())


async def _live(path: Path, acked: int) -> None:
    """Do a little of everything that writes."""
    clock = Clock()
    engine = open_sqlite(path, clock, retention=Retention(events=6), ids_age=10.0)
    for stream, some in (
        ("s", [event(1), event(2, lane=CRITICAL)]),
        ("t", events(range(10))),
        ("s", [event(1), event(3), *events(range(10, 14), lane=CRITICAL)]),
    ):
        os.write(acked, told(stream, await engine.append(stream, some)))
    await engine.append("s", [])
    await engine.trim("s", NORMAL, 1)
    await engine.trim()
    os.write(acked, told("t", await engine.append("t", [event(99)])))
    clock.advance(11)
    await engine.trim()
    os.write(acked, told("s", await engine.append("s", [event(100)])))
    await engine.aclose()


def die_before_statement(path: Path, number: int) -> None:
    """Live, but end before the statement of that number; returns when there are fewer."""
    count = 0

    def trace(*_: object) -> bool:
        nonlocal count
        count += 1
        if count == number:
            os._exit(EXIT)
        return True

    apsw.connection_hooks.append(lambda conn: conn.set_exec_trace(trace))
    acked = os.open(path.with_name(ACKED), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    asyncio.run(_live(path, acked))


def in_a_child(path: Path, number: int) -> bool:
    """Fork a child that dies before a statement; tells whether it came that far."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            die_before_statement(path, number)
            status = 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in {0, EXIT}
    return status == EXIT


def start_old(path: Path) -> None:
    """Make a log of version 0 with something in it."""

    async def fill() -> None:
        engine = open_sqlite(path)
        receipts = await engine.append("old", events(range(3)))
        path.with_name(ACKED).write_bytes(told("old", receipts))
        await engine.aclose()

    asyncio.run(fill())
    as_version_0(path)


def die_before_each_statement(folder: Path, *, old: bool) -> int:
    """Die before statement 1, 2, 3, … of a life on a fresh log and look at what is left; returns how many."""
    number = 1
    while True:
        place = folder / str(number)
        place.mkdir()
        path = place / "log.db"
        if old:
            start_old(path)
        died = in_a_child(path, number)
        # What is acked must be there; and a second life on what the first one left must come to its end.
        acked = place / ACKED
        for life in range(2):
            if path.exists():
                asyncio.run(assert_there(path, acked_rows(acked.read_bytes()) if acked.exists() else []))
            if life == 0:
                assert not in_a_child(path, 0)
        if not died:
            return number - 1
        shutil.rmtree(place)
        number += 1


if __name__ == "__main__":
    if sys.argv[1] == "append":
        append_until_killed(Path(sys.argv[2]), int(sys.argv[3]))
    else:
        sys.stdout.write(str(die_before_each_statement(Path(sys.argv[2]), old=sys.argv[3] == "old")))
