"""The floor of publishing: what SQLite commits durably with nothing around it (WAL, `synchronous=FULL`)."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import apsw

from benchmarks import events, machine
from benchmarks.rows import Key, Sample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.cells import Scale


def commits(tools: Path, scale: Scale) -> Iterator[Sample]:
    """Commit batches of several sizes, one after the other."""
    body = events.compact(events.event()["data"])
    for size in scale.batches:
        with tempfile.TemporaryDirectory(dir=tools) as folder, machine.pinned(machine.CORE_OF_SERVER):
            cpu = time.process_time()
            count, seconds = _commit(Path(folder) / "log.db", body, size, scale.seconds)
            yield Sample(
                Key("publish", "sqlite", "commits alone", 1, size),
                cpu_us=(time.process_time() - cpu) / count * 1e6,
                deliveries_per_s=count / seconds,
            )


def _commit(path: Path, body: str, size: int, seconds: float) -> tuple[int, float]:
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "wal")
    connection.pragma("synchronous", "full")
    connection.execute(
        "create table event"
        " (offset integer primary key, id text, source text, type text, time text, data text)"
    )
    count, since = 0, time.monotonic()
    while time.monotonic() - since < seconds:
        rows = [(str(count + i), "bench", "reading", "2026-01-31T12:00:00Z", body) for i in range(size)]
        with connection:
            connection.executemany(
                "insert into event(id, source, type, time, data) values(?, ?, ?, ?, ?)", rows
            )
        count += size
    connection.close()
    return count, time.monotonic() - since
