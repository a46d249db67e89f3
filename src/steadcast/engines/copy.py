"""Copying a log into another one: page by page, resumable, while the log goes on being written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import apsw
import msgspec

from steadcast.engines import open_jetstream, sqlite_path
from steadcast.engines.base import PAGE_EVENTS
from steadcast.engines.sqlite_errors import from_sqlite
from steadcast.engines.sqlite_read import describe, read_page
from steadcast.engines.sqlite_schema import check_readable, connect
from steadcast.errors import EngineUnavailable, InvalidRequest, PositionLost
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
    """A page that was copied; `lost` is the range that retention took from the source before it was read.

    `head` is the lane's in the source, when its copy began.
    """

    stream: str
    lane: Lane
    upto: int
    head: int
    added: int
    known: int
    lost: tuple[int, int] | None = None


class Place(msgspec.Struct, frozen=True):
    """Where a page of the source begins, in a lane that ended at `head`."""

    stream: str
    lane: Lane
    epoch: str
    after: int
    head: int


class Source(Protocol):
    """A log that is only read: its servers may go on serving it. Every engine is one."""

    async def describe(self) -> Description:
        """Tell its epoch, heads and trim marks."""
        ...

    async def read(self, stream: str, lane: Lane, after: int) -> Batch:
        """Read a page. Raises `PositionLost` where retention was quicker."""
        ...

    async def aclose(self) -> None:
        """Let go of it."""
        ...


def open_source(url: str) -> Source:
    """Open the log that a `sqlite:` or `nats:` URL names, which must be there.

    Raises `InvalidRequest` for another URL and for a file that isn't there, `EngineRefused` for one that
    can't be read; a log that isn't in JetStream is refused by the first call.
    """
    if url.partition(":")[0] in {"nats", "tls"}:
        return open_jetstream(url, reading=True)
    path = sqlite_path(url)
    if not path.exists():
        raise InvalidRequest(f"there is no log {path}", field="engine")
    return FileSource(path)


class FileSource:
    """A SQLite log, read beside its server, whose lock is only for those that write."""

    def __init__(self, path: Path) -> None:
        """Open the file. Raises `EngineRefused` for one that is no log, or that this version can't read."""
        self._path = path
        self._conn = connect(path, apsw.SQLITE_OPEN_READWRITE, busy=BUSY)
        self._conn.pragma("query_only", 1)
        self._told(lambda: check_readable(self._conn, path))

    async def describe(self) -> Description:
        """Tell its epoch, heads and trim marks."""
        return self._told(lambda: describe(self._conn, None))

    async def read(self, stream: str, lane: Lane, after: int) -> Batch:
        """Read a page. Raises `PositionLost` where retention was quicker."""
        return self._told(
            lambda: read_page(
                self._conn, path=self._path, stream=stream, lane=lane, after=after, limit=PAGE_EVENTS
            )
        )

    async def aclose(self) -> None:
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
    found = await source.describe()
    if found.epoch != progress.source:
        raise _replaced()
    for stream, lanes in found.streams.items():
        for lane in LANES:
            done = progress.done.setdefault(stream, {})
            head, after = lanes[lane].head, done.get(lane, lanes[lane].trimmed)
            while after < head:
                step = await _page(source, target, Place(stream, lane, found.epoch, after, head))
                after = done[str(lane)] = step.upto
                yield step


async def _page(source: Source, target: Engine, at: Place) -> Step:
    try:
        page = await source.read(at.stream, at.lane, at.after)
    except PositionLost as error:
        if error.lost is None or error.epoch != at.epoch:
            raise _replaced() from error
        return Step(at.stream, at.lane, error.lost[1], at.head, 0, 0, error.lost)
    if page.epoch != at.epoch:
        raise _replaced()
    receipts = await target.append(at.stream, [entry.event for entry in page.events])
    known = sum(receipt.duplicate for receipt in receipts)
    return Step(at.stream, at.lane, page.upto, at.head, len(receipts) - known, known)


def _replaced() -> EngineUnavailable:
    return EngineUnavailable("the log to copy from was replaced meanwhile", temporary=False)
