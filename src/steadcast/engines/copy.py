"""Copying a log into another one: page by page, resumable, while the log goes on being written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, TypeVar

import apsw
import msgspec

from steadcast.engines.base import PAGE_EVENTS
from steadcast.engines.sqlite_errors import from_sqlite
from steadcast.engines.sqlite_read import describe, read_page
from steadcast.engines.sqlite_schema import connect
from steadcast.errors import EngineUnavailable, PositionLost
from steadcast.event import LANES

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from steadcast.engines.base import Description, Engine
    from steadcast.event import Batch, Lane

_T = TypeVar("_T")

BUSY: Final = 5.0
"""Seconds for which another program's lock on the file is waited for."""


class Progress(msgspec.Struct):
    """How far a copy went: by stream and lane, the offset up to which everything is in the other log."""

    source: str
    target: str
    done: dict[str, dict[str, int]] = {}


class Step(msgspec.Struct, frozen=True):
    """A page that was copied; `lost` is the range that retention took from the source before it was read."""

    stream: str
    lane: Lane
    upto: int
    added: int
    known: int
    lost: tuple[int, int] | None = None


class Source:
    """A SQLite log that is only read: its server may go on serving it."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises what can't be read about it."""
        self._path = path
        self._conn = connect(path, apsw.SQLITE_OPEN_READWRITE, busy=BUSY)
        self._conn.pragma("query_only", 1)

    def describe(self) -> Description:
        """Tell its epoch, heads and trim marks."""
        return self._told(lambda: describe(self._conn, None))

    def read(self, stream: str, lane: Lane, after: int) -> Batch:
        """Read a page. Raises `PositionLost` where retention was quicker."""
        return self._told(
            lambda: read_page(
                self._conn, path=self._path, stream=stream, lane=lane, after=after, limit=PAGE_EVENTS
            )
        )

    def close(self) -> None:
        """Let go of the file."""
        self._conn.close(force=True)

    def _told(self, work: Callable[[], _T]) -> _T:
        try:
            return work()
        except apsw.Error as error:
            raise from_sqlite(error, self._path, self._conn.system_errno) from error


async def copy_log(source: Source, target: Engine, progress: Progress) -> AsyncGenerator[Step, None]:
    """Copy what `progress` doesn't have yet, lane by lane, and say so page by page.

    Ids keep their events apart from what is there: what was copied before counts as known. The order within a
    lane stays; positions, and with them the epoch, are the target's own. Raises what the target raises.
    """
    for stream, lanes in source.describe().streams.items():
        for lane in LANES:
            done = progress.done.setdefault(stream, {})
            after = done.get(lane, lanes[lane].trimmed)
            while after < lanes[lane].head:
                step = await _page(source, target, stream, lane, after)
                after = done[str(lane)] = step.upto
                yield step


async def _page(source: Source, target: Engine, stream: str, lane: Lane, after: int) -> Step:
    try:
        page = source.read(stream, lane, after)
    except PositionLost as error:
        if error.lost is None:
            raise EngineUnavailable("the log to copy from was replaced meanwhile", temporary=False) from error
        return Step(stream, lane, error.lost[1], 0, 0, error.lost)
    receipts = await target.append(stream, [entry.event for entry in page.events])
    known = sum(receipt.duplicate for receipt in receipts)
    return Step(stream, lane, page.upto, len(receipts) - known, known)
