"""For tests, yours too: a clock that stands still, an engine that fails on request, a network that does.

engine = FaultyEngine(MemoryEngine())
engine.fill_disk()          # appends raise `engine_full`
engine.append_hangs = True  # appends wait until this is False again
engine.heal()               # every fault is off
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import Counter
from typing import TYPE_CHECKING, Self

from steadcast.engines.base import PAGE_EVENTS
from steadcast.errors import EngineUnavailable, SteadcastError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steadcast.engines.base import Description, Engine, Retention, Watch
    from steadcast.event import Batch, Event, Lane, Receipt

__all__ = ["FaultProxy", "FaultyEngine", "ManualClock"]


class ManualClock:
    """A clock that only moves when told to; calling it gives the seconds.

    It stands in for a monotonic clock (use `advance` alone) as well as for a wall clock (which may `jump`).
    """

    def __init__(self, now: float = 0.0) -> None:
        """Begin at `now`, in seconds."""
        self.now = now

    def __call__(self) -> float:
        """Give the seconds."""
        return self.now

    def advance(self, seconds: float) -> float:
        """Let time pass and give the new time; raises ValueError where it would run backwards."""
        if not seconds >= 0:
            raise ValueError("time passes forwards; a wall clock may `jump`")
        self.now += seconds
        return self.now

    def jump(self, seconds: float) -> float:
        """Set a wall clock forwards or backwards, as an operator or NTP does."""
        self.now += seconds
        return self.now


class FaultyEngine:
    """Any engine, with faults that are switched on and off by these attributes.

    `append_error`   appends raise it before the log is touched; `append_errors_left` says how many still do,
                     None for all
    `append_delay`   seconds that each append takes longer
    `append_hangs`   appends wait until it is False again, and then go on
    `answers_lost`   appends become durable, and then raise `EngineUnavailable` instead of answering
    `read_error`, `describe_error`, `trim_error`   what these methods raise
    `watch_silent`   watches drop what they should bring, without a sign

    `counts` has what was asked for (`appends`, `reads`, `describes`, `trims`, `watches`) and what was done to
    it (`appends_failed`, `appends_hung`, `answers_lost`, `reads_failed`, `describes_failed`, `trims_failed`,
    `batches_swallowed`, `watches_ended`). Everything else goes to the engine as it is.
    An engine's wall clock jumps where it was given a `ManualClock` for it.
    """

    def __init__(self, engine: Engine) -> None:
        """Stand before an engine, without a fault."""
        self.engine = engine
        self.retention: Retention = engine.retention
        self.dense: bool = engine.dense
        self.counts: Counter[str] = Counter()
        self._free = asyncio.Event()
        self._watches: set[_FaultyWatch] = set()
        self.heal()

    def heal(self) -> None:
        """Switch every fault off; what hangs goes on."""
        self.append_error: SteadcastError | None = None
        self.append_errors_left: int | None = None
        self.append_delay = 0.0
        self.answers_lost = False
        self.read_error: SteadcastError | None = None
        self.describe_error: SteadcastError | None = None
        self.trim_error: SteadcastError | None = None
        self.watch_silent = False
        self.append_hangs = False

    @property
    def append_hangs(self) -> bool:
        """Whether appends wait instead of going on."""
        return not self._free.is_set()

    @append_hangs.setter
    def append_hangs(self, hangs: bool) -> None:
        if hangs:
            self._free.clear()
        else:
            self._free.set()

    def fail_appends(self, times: int | None = None, error: SteadcastError | None = None) -> None:
        """Let the next `times` appends fail, all of them for None; `error` is by default that it is away."""
        self.append_errors_left = times
        self.append_error = error or EngineUnavailable("the engine is away")

    def fill_disk(self) -> None:
        """Let appends fail as on a full disk; reads go on."""
        self.fail_appends(error=EngineUnavailable("the disk is full", code="engine_full"))

    def go_away(self) -> None:
        """Let every method fail as when the engine's server is gone, and watches fall silent."""
        error = EngineUnavailable("the engine is away")
        self.fail_appends(error=error)
        self.read_error = self.describe_error = self.trim_error = error
        self.watch_silent = True

    def end_watches(self) -> None:
        """End every watch that is open now, as a lost connection does."""
        for watch in list(self._watches):
            self.counts["watches_ended"] += 1
            watch.end()

    # The engine's methods

    async def append(self, stream: str, events: Sequence[Event]) -> list[Receipt]:
        """Append, or fail in the way that is switched on."""
        self.counts["appends"] += 1
        if not self._free.is_set():
            self.counts["appends_hung"] += 1
            await self._free.wait()
        if self.append_delay:
            await asyncio.sleep(self.append_delay)
        self._fail_append()
        receipts = await self.engine.append(stream, events)
        if self.answers_lost:
            self.counts["answers_lost"] += 1
            raise EngineUnavailable("the connection broke before the answer came")
        return receipts

    async def read(
        self, stream: str, lane: Lane, after: int, limit: int = PAGE_EVENTS, *, kept: bool = False
    ) -> Batch:
        """Read, or raise `read_error`."""
        self._meet("reads", self.read_error)
        return await self.engine.read(stream, lane, after, limit, kept=kept)

    def watch(self) -> Watch:
        """Follow, until `end_watches`; nothing comes while `watch_silent`."""
        self.counts["watches"] += 1
        watch = _FaultyWatch(self, self.engine.watch())
        self._watches.add(watch)
        return watch

    async def describe(self, stream: str | None = None) -> Description:
        """Describe, or raise `describe_error`."""
        self._meet("describes", self.describe_error)
        return await self.engine.describe(stream)

    async def trim(
        self,
        stream: str | None = None,
        lane: Lane | None = None,
        upto: int | None = None,
        *,
        dry_run: bool = False,
    ) -> int:
        """Trim, or raise `trim_error`."""
        self._meet("trims", self.trim_error)
        return await self.engine.trim(stream, lane, upto, dry_run=dry_run)

    async def aclose(self) -> None:
        """Close the engine; what hangs goes on, and fails as the engine says."""
        self._free.set()
        await self.engine.aclose()

    def _fail_append(self) -> None:
        error, left = self.append_error, self.append_errors_left
        if error is None or left == 0:
            return
        if left is not None:
            self.append_errors_left = left - 1
        self.counts["appends_failed"] += 1
        # Raised many times: each raise would add its frames to the traceback of the one before.
        raise error.with_traceback(None)

    def _meet(self, what: str, error: SteadcastError | None) -> None:
        self.counts[what] += 1
        if error is not None:
            self.counts[f"{what}_failed"] += 1
            raise error.with_traceback(None)


class _FaultyWatch:
    """An engine's watch that can fall silent or end."""

    def __init__(self, owner: FaultyEngine, watch: Watch) -> None:
        self._owner = owner
        self._watch = watch
        self._over = False
        self._ended: asyncio.Future[None] | None = None

    def __aiter__(self) -> _FaultyWatch:
        return self

    async def __anext__(self) -> Batch:
        while True:
            batch = await self._next()
            if not self._owner.watch_silent:
                return batch
            self._owner.counts["batches_swallowed"] += 1

    def end(self) -> None:
        """Let the follower see the end, behind a batch that has come already."""
        self._over = True
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        self._owner._watches.discard(self)  # noqa: SLF001 - the two classes are one thing

    async def aclose(self) -> None:
        """Stop following."""
        self.end()
        await self._watch.aclose()

    async def _next(self) -> Batch:
        """Wait for the engine's next batch or for the end; a batch that has come goes first."""
        following = asyncio.ensure_future(self._watch.__anext__())
        if self._ended is None:
            self._ended = asyncio.get_running_loop().create_future()
            if self._over:
                self._ended.set_result(None)
        try:
            await asyncio.wait((following, self._ended), return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                return following.result()
            raise StopAsyncIteration
        finally:
            if not following.done():
                following.cancel()
                await asyncio.gather(following, return_exceptions=True)


class FaultProxy:
    """A TCP proxy on loopback in front of a server, with faults that are switched on and off.

        async with FaultProxy("127.0.0.1", port) as proxy:
            connect_to(proxy.port)
            await proxy.cut()          # every connection is reset; new ones are taken again
            await proxy.cut(reset=False)   # the same with FIN
            proxy.half_open()          # connections carry nothing more, and neither end learns of it
            proxy.refusing = True      # new connections are closed at once
            proxy.blackhole = True     # bytes are swallowed both ways, on all connections
            proxy.latency = 0.2        # seconds that every chunk takes longer
            proxy.bandwidth = 1_000    # bytes per second and direction

    `counts`: `connections`, `refused`, `cut`, `half_open`, `bytes_up`, `bytes_down`, `bytes_swallowed`;
    `broken` is how often an end went away while bytes were on their way to it.
    """

    def __init__(self, host: str, port: int) -> None:
        """Stand before the server at `host` and `port`."""
        self.target = (host, port)
        self.port = 0
        self.refusing = False
        self.blackhole = False
        self.latency = 0.0
        self.bandwidth: float | None = None
        self.counts: Counter[str] = Counter()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._half_open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen on a free port."""
        self._server = await asyncio.start_server(self._take, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close everything."""
        if self._server is not None:
            self._server.close()
        await self.cut()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        """The proxy's address."""
        return f"http://127.0.0.1:{self.port}"

    async def cut(self, *, reset: bool = True) -> None:
        """End every connection: with RST, or with FIN where `reset` is False."""
        for writer in list(self._writers):
            if reset:
                # Lingering for no time at all makes the kernel send RST.
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.counts["cut"] += 1
            writer.close()
        self._writers.clear()
        self._half_open.clear()
        await asyncio.sleep(0)

    def half_open(self) -> int:
        """Let the connections that are open now carry nothing more, not even their end; tells how many.

        It is what a cable leaves that was pulled, or a machine that vanished. New connections work.
        """
        fresh = self._writers - self._half_open
        self._half_open |= fresh
        self.counts["half_open"] += len(fresh) // 2  # each connection has a writer for either end
        return len(fresh) // 2

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            self.counts["refused"] += 1
            writer.close()
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.target)
        except OSError:
            self.counts["refused"] += 1
            writer.close()
            return
        self.counts["connections"] += 1
        for source, sink, name in ((reader, up_writer, "bytes_up"), (up_reader, writer, "bytes_down")):
            self._writers.add(sink)
            task = asyncio.create_task(self._pump(source, sink, name))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, name: str) -> None:
        try:
            while chunk := await source.read(64 * 1024 if self.bandwidth is None else 512):
                if self.bandwidth is not None:
                    await asyncio.sleep(len(chunk) / self.bandwidth)
                if self.latency:
                    await asyncio.sleep(self.latency)
                if self.blackhole or sink in self._half_open:
                    self.counts["bytes_swallowed"] += len(chunk)
                    continue
                self.counts[name] += len(chunk)
                sink.write(chunk)
                await sink.drain()
        except OSError:
            self.counts["broken"] += 1
        finally:
            if sink not in self._half_open:
                self._writers.discard(sink)
                sink.close()
