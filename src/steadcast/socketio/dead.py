"""Dead events: what was abandoned is kept, so that it can be looked at, re-driven or dropped.

A dead event is first written to a local file, since it died because the engine was away; once the engine
takes events again it is moved into the stream `steadcast.dead`. There is no other store: which dead events
there are follows from that stream's normal lane, read in order, and the rest of the file. A record
(`steadcast.dead`) brings one in, a mark (`steadcast.dead.redriven`, `steadcast.dead.dropped`) takes it out;
`subject` is the dead event's id in both.

Every step may be cut by a crash and done again: a record's id comes from its content, so moving it twice is
a duplicate, and so is re-driving an event, which keeps its own id.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias, TypeVar

import msgspec
import structlog

from steadcast.client.outgoing import utc_now
from steadcast.errors import InvalidRequest, PositionLost, SteadcastError
from steadcast.event import Event, Lane
from steadcast.socketio.dead_file import Dead, DeadFile, Why, decode, encode

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from pathlib import Path

    from steadcast.engines.base import Engine
    from steadcast.event import Entry, Receipt

T = TypeVar("T")

log = structlog.get_logger("steadcast.dead")

STREAM: Final = "steadcast.dead"
RECORD: Final = "steadcast.dead"
REDRIVEN: Final = "steadcast.dead.redriven"
DROPPED: Final = "steadcast.dead.dropped"

LIMIT: Final = 1_000
MAX_BYTES: Final = 16 * 1024 * 1024
"""What waits to be moved comes to at most this many bytes, in memory and, twice that, in the file."""
CHUNK: Final = 256
CHUNK_BYTES: Final = 1024 * 1024
"""What is moved at once."""
REACH: Final = 4
"""The stream is read back over this many times the limit: records and the marks between them."""


class Listing(msgspec.Struct, frozen=True):
    """Dead events, oldest first; not `complete` where the log couldn't be read and some may be missing."""

    dead: list[Dead]
    complete: bool


class _Line(NamedTuple):
    number: int
    key: str
    content: bytes


class _Found(NamedTuple):
    name: str
    offset: int
    place: int
    dead: Dead


class _Fold(NamedTuple):
    """What the stream says is dead, oldest first; how many records and marks it has, and where it ends."""

    found: dict[str, _Found]
    places: int
    upto: int


_Lines: TypeAlias = list[_Line]
_Contents: TypeAlias = list[bytes]


class DeadEvents:
    """The dead events of one server: at most `limit`, the oldest go first, counted.

    `append` is how events enter the log, by default the engine's own; the broadcaster puts its guarded way
    here. `path` is the file, which no other process may use. `now` gives the wall time as RFC 3339.

    `counts`: `buried` and `recovered` (found in the file at the start) are what came in; it is pending,
    `moved`, `evicted`, `unmovable` (the log refused it for good) or `removed` (re-driven or dropped before it
    was moved). Besides: `redriven`, `dropped`, `unmarked` (re-driven, but the mark failed), `trimmed` (left
    the stream for its limit), `garbled`, `torn` (lines that a crash cut), `unreadable` (records in the log),
    and the failures `loads_failed`, `saves_failed`, `moves_failed`, `reads_failed`, `trims_failed`.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        append: Callable[[str, Sequence[Event]], Awaitable[list[Receipt]]] | None = None,
        path: Path | None = None,
        limit: int = LIMIT,
        max_bytes: int = MAX_BYTES,
        now: Callable[[], str] = utc_now,
    ) -> None:
        """Stand ready; `start` reads what an earlier process left in the file."""
        self.append = append or engine.append
        self.counts: Counter[str] = Counter()
        self._engine = engine
        self._file = DeadFile(path)
        self._limit = limit
        self._max_bytes = max_bytes
        self._now = now
        self._lines: deque[_Line] = deque()
        self._bytes = 0
        self._numbers = 0
        self._numbers_before = 0
        self._saved = 0
        self._loaded = False
        self._untidy = limit
        self._disk = asyncio.Lock()
        self._log = asyncio.Lock()

    # Life

    async def start(self) -> None:
        """Take over what is in the file; where that can't be read it is counted, and tried again later."""
        async with self._disk:
            await self._load()

    def bury(
        self, stream: str, events: Iterable[Event], *, reason: str, attempts: int, error: str | None = None
    ) -> None:
        """Take in events that were given up; `keep` makes them durable."""
        why = Why(reason, self._now(), attempts, error)
        for event in events:
            self.counts["buried"] += 1
            self._hold(encode(stream, event, why))

    async def keep(self) -> None:
        """Write what was buried to the file, and move it into the stream where the engine takes it."""
        await self.save()
        await self.move()

    async def save(self) -> None:
        """Write what isn't yet in the file; a failure is counted, and made up for by the next call."""
        async with self._disk:
            if not await self._load():
                return
            fresh = [line for line in self._lines if line.number > self._saved]
            if not fresh:
                return
            upto = fresh[-1].number
            size = sum(len(line.content) for line in fresh)
            overgrown = (
                self._file.lines + len(fresh) > 2 * self._limit
                or self._file.bytes + size > 2 * self._max_bytes
            )
            write = self._file.replace if overgrown else self._file.append
            lines = [line.content for line in (self._lines if overgrown else fresh)]
            if await self._on_disk(write, lines):
                self._saved = upto

    async def move(self) -> None:
        """Move what waits into the stream; what fails for now stays, counted."""
        async with self._log:
            before = self.counts["moved"] + self.counts["unmovable"]
            while self._lines and await self._move(self._chunk()):
                pass
            left = self.counts["moved"] + self.counts["unmovable"] - before
            if left:
                await self._rewrite()
                self._untidy += left
                await self._tidy()

    # Looking, re-driving, dropping

    async def list(self) -> Listing:
        """Give the newest dead events, at most `limit`, oldest first."""
        async with self._log:
            try:
                found, complete = (await self._read()).found, True
            except SteadcastError as error:
                self.counts["reads_failed"] += 1
                log.warning("dead events in the log can't be read", code=error.code)
                found, complete = {}, False
            for line in self._lines:
                found.pop(line.key, None)
                found[line.key] = _Found("", 0, 0, decode(line.content))
            return Listing([each.dead for each in found.values()][-self._limit :], complete)

    async def redrive(self, dead: str) -> Receipt | None:
        """Append a dead event to its stream again, as it was; None where there is none with this id.

        Raises what the append raises, `InvalidRequest` for a garbled one; it then stays dead.
        """
        async with self._log:
            given_up = await self._find(dead)
            if given_up is None:
                return None
            if given_up.garbled:
                raise InvalidRequest("the data of this event couldn't be kept", field="id")
            [receipt] = await self.append(given_up.stream, [given_up.event])
            self.counts["redriven"] += 1
            try:
                await self._take_out(dead, REDRIVEN)
            except SteadcastError as error:
                # It is in the log all the same, and doing it again is harmless.
                self.counts["unmarked"] += 1
                log.warning("a re-driven event is still listed as dead", id=dead, code=error.code)
            return receipt

    async def drop(self, dead: str) -> bool:
        """Forget a dead event; tells whether there was one. Raises `Unavailable` where the log can't tell."""
        async with self._log:
            gone = await self._take_out(dead, DROPPED)
            self.counts["dropped"] += gone
            return gone

    def statistics(self) -> dict[str, object]:
        """Tell what waits to be moved, and what was counted."""
        return {"pending": len(self._lines), "pending_bytes": self._bytes, "counts": dict(self.counts)}

    # The lines that wait

    def _hold(self, content: bytes) -> None:
        self._numbers += 1
        line = self._line(self._numbers, content)
        self._lines.append(line)
        self._bytes += len(content)
        self._evict()

    def _line(self, number: int, content: bytes) -> _Line:
        dead = decode(content)
        self.counts["garbled"] += dead.garbled
        return _Line(number, dead.id, content)

    def _evict(self) -> None:
        while len(self._lines) > self._limit or self._bytes > self._max_bytes:
            self._bytes -= len(self._lines.popleft().content)
            self.counts["evicted"] += 1

    def _waiting(self, dead: str) -> _Lines:
        return [line for line in self._lines if line.key == dead]

    async def _find(self, dead: str) -> Dead | None:
        waiting = self._waiting(dead)
        if waiting:
            return decode(waiting[-1].content)
        found = (await self._read()).found.get(dead)
        return found.dead if found else None

    def _chunk(self) -> _Lines:
        chunk: _Lines = []
        size = 0
        for line in self._lines:
            size += len(line.content)
            if chunk and (len(chunk) == CHUNK or size > CHUNK_BYTES):
                break
            chunk.append(line)
        return chunk

    async def _move(self, chunk: _Lines) -> bool:
        """Move some lines; False where the engine doesn't take them now."""
        try:
            await self.append(STREAM, [_record_event(line) for line in chunk])
        except SteadcastError as error:
            if error.temporary:
                self.counts["moves_failed"] += 1
                return False
            if len(chunk) > 1:
                return all([await self._move([line]) for line in chunk])
            log.warning("a dead event can't be kept in the log", id=chunk[0].key, code=error.code)
            self._leave(chunk, "unmovable")
        else:
            self._leave(chunk, "moved")
        return True

    def _leave(self, lines: _Lines, outcome: str) -> None:
        # New ones may have evicted some of them meanwhile: those are counted as evicted.
        gone = {line.number for line in lines}
        before = len(self._lines)
        self._lines = deque(line for line in self._lines if line.number not in gone)
        self._bytes = sum(len(line.content) for line in self._lines)
        self.counts[outcome] += before - len(self._lines)

    # The file

    async def _load(self) -> bool:
        """Read the file before it is written: writing could lose what it holds.

        That is once, unless a server wrote to it that went on beside this one until it ended.
        """
        try:
            if self._loaded and not await _in_thread(self._file.changed):
                return True
            contents, torn = await _in_thread(self._file.load)
        except OSError as error:
            self._disk_failed("loads_failed", error)
            return False
        self._loaded = True
        self.counts["torn"] += torn
        self._take_over(contents)
        return True

    def _take_over(self, contents: _Contents) -> None:
        """Hold what the file has and this server doesn't know: behind what was in it, before what wasn't."""
        held = {line.content for line in self._lines}
        found: _Lines = []
        for content in contents:
            if content not in held:
                self._numbers_before -= 1
                found.append(self._line(self._numbers_before, content))
                self._bytes += len(content)
        self.counts["recovered"] += len(found)
        known = [line for line in self._lines if line.number <= self._saved]
        fresh = [line for line in self._lines if line.number > self._saved]
        self._lines = deque((*known, *found, *fresh))
        self._evict()

    async def _rewrite(self) -> None:
        async with self._disk:
            if not await self._load():
                return
            lines = list(self._lines)
            upto = self._numbers
            if await self._on_disk(self._file.replace, [line.content for line in lines]):
                self._saved = upto

    async def _on_disk(self, write: Callable[[_Contents], None], lines: _Contents) -> bool:
        try:
            await _in_thread(lambda: write(lines))
        except OSError as error:
            self._disk_failed("saves_failed", error)
            return False
        return True

    def _disk_failed(self, count: str, error: OSError) -> None:
        self.counts[count] += 1
        log.error("the file of dead events failed", count=count, path=str(self._file.path), error=str(error))

    # The stream

    async def _read(self) -> _Fold:
        """Fold the stream's end: what a record brought in and no mark took out."""
        found: dict[str, _Found] = {}
        place = 0
        after = -REACH * self._limit
        while True:
            try:
                page = await self._engine.read(STREAM, Lane.NORMAL, after)
            except PositionLost as error:
                if error.lost is None:
                    raise
                after = error.lost[1]
                continue
            for entry in page.events:
                place += 1
                self._fold(found, place, entry)
            if not page.events:
                return _Fold(found, place, page.upto)
            after = page.upto

    def _fold(self, found: dict[str, _Found], place: int, entry: Entry) -> None:
        event = entry.event
        key = event.subject or ""
        found.pop(key, None)
        if event.type != RECORD:
            return
        try:
            found[key] = _Found(event.id, entry.offset, place, decode(event.data))
        except msgspec.DecodeError:
            self.counts["unreadable"] += 1
            log.warning("a record in the log is of a form that is not known", id=event.id)

    async def _take_out(self, dead: str, mark: str) -> bool:
        waiting = self._waiting(dead)
        try:
            found = (await self._read()).found.get(dead)
        except SteadcastError:
            if not waiting:
                raise
            # What only the file knows can go all the same.
            self.counts["reads_failed"] += 1
            found = None
        if found is not None:
            data = msgspec.Raw(msgspec.json.encode({"record": found.name}))
            event = Event(f"{found.name}.{mark}", "steadcast", mark, self._now(), data, subject=dead)
            await self.append(STREAM, [event])
        if waiting:
            self._leave(waiting, "removed")
            await self._rewrite()
        self._untidy += 1
        await self._tidy()
        return bool(found or waiting)

    async def _tidy(self) -> None:
        """Now and then trim the stream: to its limit, and so that reading it back reaches what is kept."""
        if self._untidy <= self._limit / 10:
            return
        try:
            found, places, upto = await self._read()
            oldest = places - (REACH - 1) * self._limit
            kept = [each for each in list(found.values())[-self._limit :] if each.place > oldest]
            done = min((each.offset - 1 for each in kept), default=upto)
            if done > 0:
                await self._engine.trim(STREAM, Lane.NORMAL, done)
        except SteadcastError as error:
            self.counts["trims_failed"] += 1
            log.warning("trimming the dead events failed", code=error.code)
            return
        self._untidy = 0
        self.counts["trimmed"] += len(found) - len(kept)


def _record_event(line: _Line) -> Event:
    digest = blake2b(line.content, digest_size=8).hexdigest()
    at = decode(line.content).at
    return Event(f"{line.key}.{digest}", "steadcast", RECORD, at, msgspec.Raw(line.content), subject=line.key)


async def _in_thread(work: Callable[[], T]) -> T:
    """Run work that blocks in a thread; one that is cancelled still ends before the caller goes on."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        # Two writers at the file at the same time would lose lines.
        await asyncio.gather(task, return_exceptions=True)
        raise
