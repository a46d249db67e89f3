"""The floors of publishing: what SQLite commits durably with nothing around it (WAL, `synchronous=FULL`).

Once as little as an event can be, one row; and once what an event is in the log: its row, its id in the index
by which a retry is known, and the lane's head.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

import apsw

from benchmarks import events, machine
from benchmarks.rows import Key, Sample
from steadcast.core.dedup import FINGERPRINT_BYTES, identity
from steadcast.engines.sqlite_schema import open_log, transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.cells import Scale

    Commit = Callable[[int, int], None]

_TIME: Final = "2026-01-31T12:00:00Z"


def commits(tools: Path, scale: Scale) -> Iterator[Sample]:
    """Commit batches of several sizes, one after the other, in both ways."""
    for size in scale.batches:
        for variant, begin in (
            ("commits alone", _rows_alone),
            ("commits of the log's rows", _rows_of_the_log),
        ):
            with tempfile.TemporaryDirectory(dir=tools) as folder, machine.pinned(machine.CORE_OF_SERVER):
                commit = begin(Path(folder) / "log.db")
                cpu = time.process_time()
                count, seconds = _repeat(commit, size, scale.seconds)
                yield Sample(
                    Key("publish", "sqlite", variant, 1, size),
                    cpu_us=(time.process_time() - cpu) / count * 1e6,
                    deliveries_per_s=count / seconds,
                )


def _repeat(commit: Commit, size: int, seconds: float) -> tuple[int, float]:
    count, since = 0, time.monotonic()
    while time.monotonic() - since < seconds:
        commit(count, size)
        count += size
    return count, time.monotonic() - since


def _rows_alone(path: Path) -> Commit:
    body = events.compact(events.event()["data"])
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.execute(
        "create table event"
        " (offset integer primary key, id text, source text, type text, time text, data text)"
    )

    def commit(first: int, size: int) -> None:
        rows = [(str(first + i), "bench", "reading", _TIME, body) for i in range(size)]
        with connection:
            connection.executemany(
                "insert into event(id, source, type, time, data) values(?, ?, ?, ?, ?)", rows
            )

    return commit


def _rows_of_the_log(path: Path) -> Commit:
    body = events.compact(events.event())
    log = open_log(path, busy=1.0)
    log.conn.execute("insert into lanes (number, stream, lane) values (2, 'bench', 'normal')")

    def commit(first: int, size: int) -> None:
        keys = range(first, first + size)
        names = [(identity("bench", f"{key:012}"), bytes(FINGERPRINT_BYTES), key) for key in keys]
        with transaction(log.conn):
            log.conn.executemany("insert into ids values (1, ?, ?, ?, 0)", names)
            log.conn.executemany("insert into events values (?, 0, ?)", [(key, body) for key in keys])
            log.conn.execute("update lanes set head = head + ?, bytes = bytes + ?", (size, size * len(body)))

    return commit
