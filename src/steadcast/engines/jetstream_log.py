"""The log as one node knows it: a connection that is made anew, the index, and what is known of both.

Nothing is served before the node is connected, has seen that the log is the one it knows, and has read it.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections import deque
from contextlib import suppress
from heapq import heapify, heappop, heappush
from itertools import count, groupby
from typing import TYPE_CHECKING, Any, Final

import apsw
import msgspec
import nats.errors

from steadcast.engines.base import PAGE_EVENTS
from steadcast.engines.jetstream_check import check_stream, is_same, keep_spare, stream_config, take_marks
from steadcast.engines.jetstream_follow import Follower
from steadcast.engines.jetstream_index import Index
from steadcast.engines.jetstream_link import (
    NAME_TAKEN,
    STREAM_MISSING,
    WRONG_SEQUENCE,
    Answered,
    Link,
    away,
)
from steadcast.engines.jetstream_records import ROLLUP, EpochBody, Kind, Record, Subjects, decode_event
from steadcast.engines.page import ENTRY_OVERHEAD, PAGE_ROOM
from steadcast.errors import EngineRefused, EngineUnavailable, InvalidRequest, SteadcastError
from steadcast.event import Batch, Entry
from steadcast.plain_log import plain_log

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from steadcast.engines.jetstream_url import Options
    from steadcast.engines.watch import Watches

log = plain_log("steadcast.jetstream")

READY_LIMIT: Final = 2.0
"""Seconds for which a call waits for a log that isn't ready."""
CATCH_UP_LIMIT: Final = 2.0
"""Seconds in which the index must reach what the log is known to hold."""
RETRY_FIRST: Final = 0.1
RETRY_LAST: Final = 2.0

_FORESEEN: Final = (apsw.Error, nats.errors.Error, OSError, ValueError)
"""What a connection, or a record of somebody else's, may raise."""
CANCEL_AGAIN: Final = 0.2
"""Seconds until a task that goes on all the same is cancelled anew."""


class LogCounts(msgspec.Struct, kw_only=True):
    """What happened to a node's way to its log.

    `moved` is how often it left a server on which nothing was answered, `scouted` are servers that were tried
    meanwhile, and on which nothing could be written either.
    """

    connects: int = 0
    moved: int = 0
    scouted: int = 0
    failures: int = 0
    consumers: int = 0
    served: int = 0
    rewound: int = 0
    epochs: int = 0
    folded: int = 0


class Log:
    """The log of one deployment, followed by one node."""

    def __init__(self, options: Options, watches: Watches, *, reading: bool = False) -> None:
        """Prepare; `start` begins to connect. With `reading` the log isn't made where there is none."""
        self.options = options
        self.subjects = Subjects(options.stream)
        self.index = Index()
        self.counts = LogCounts()
        self.caught_up = float("-inf")
        self.config: dict[str, Any] = {}
        self._watches = watches
        self._reading = reading
        # bounded by the URL's servers
        self._servers = deque(random.sample(options.servers, len(options.servers)))
        self._link: Link | None = None
        self._ready = asyncio.Event()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []  # a heap, bounded by who waits
        self._turns = count()
        self._created: str | None = None
        self._troubles: dict[str, SteadcastError] = {}  # bounded by the URL's servers; the last one is newest
        self._task: asyncio.Task[None] | None = None
        self._scouts: set[asyncio.Task[None]] = set()  # one for each connection, and it ends soon after that
        self._asking: asyncio.Task[int] | None = None

    # Life

    def start(self) -> None:
        """Begin to connect; a second call does nothing."""
        if self._task is None:
            self._task = asyncio.create_task(self._run(), name="steadcast-jetstream")

    async def aclose(self) -> None:
        """Disconnect."""
        if self._task is not None:
            await _end(self._task)
        for scout in list(self._scouts):
            await _end(scout)
        self.index.close()

    async def ready(self) -> Link:
        """Give the connection once the log can be served; raises what keeps it from that."""
        self.start()
        if not self._ready.is_set():
            if isinstance(trouble := self._trouble(), EngineRefused):
                raise trouble
            with suppress(TimeoutError):
                async with asyncio.timeout(READY_LIMIT):
                    await self._ready.wait()
        if self._link is None or not self._ready.is_set():
            raise self._trouble()
        return self._link

    def _trouble(self) -> SteadcastError:
        """Say what keeps this node from its log.

        A refusal only where every server has refused, or what is there is no log: one that can't be asked
        now may still let this node in.
        """
        *_, last = [away("the log is being read"), *self._troubles.values()]
        if not isinstance(last, EngineRefused) or last.code == "engine_invalid":
            return last
        refused = sum(isinstance(error, EngineRefused) for error in self._troubles.values())
        return last if refused == len(set(self.options.servers)) else away(last.message)

    @property
    def epoch(self) -> str:
        """The epoch that was read from the log."""
        assert self.index.epoch is not None  # noqa: S101 - nothing is served without one
        return self.index.epoch

    # Reaching

    async def reached(self, seq: int) -> None:
        """Wait until the index has a sequence. Raises `EngineUnavailable` where that takes too long."""
        if self.index.seq >= seq:
            return
        reached: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heappush(self._waiting, (seq, next(self._turns), reached))
        try:
            async with asyncio.timeout(CATCH_UP_LIMIT):
                await reached
        except TimeoutError as error:
            # Who gave up would otherwise stay in the heap for as long as the log stands still.
            self._waiting = [waiter for waiter in self._waiting if not waiter[2].done()]
            heapify(self._waiting)
            raise away("this node lags behind the log") from error

    async def barrier(self) -> None:
        """Wait until the index has all that the stream's leader has now. Raises `EngineUnavailable`.

        Callers that come while one question is under way share the next one: theirs must be asked after
        they came.
        """
        if (asking := self._asking) is not None:
            await asyncio.wait({asking})
        if self._asking is None or self._asking is asking:
            self._asking = asyncio.create_task(self._last_seq())
            # All who asked may have given up when it fails.
            self._asking.add_done_callback(lambda asking: asking.cancelled() or asking.exception())
        last = await asyncio.shield(self._asking)
        try:
            await self.reached(last)
        except EngineUnavailable:
            # The last record may have been purged, and never comes; a new one does, or tells what is wrong.
            await self.reached(await self.probe())

    async def _last_seq(self) -> int:
        link = await self.ready()
        try:
            info = await link.api(f"STREAM.INFO.{self.options.stream}")
        except Answered as error:
            raise error.told() from error
        return int(info["state"]["last_seq"])

    async def probe(self) -> int:
        """Write something that means nothing, and give its sequence. Raises as an append would."""
        return await self._probe(await self.ready())

    async def _probe(self, link: Link) -> int:
        try:
            ack = await link.ask(self.subjects.probe, b"", ROLLUP)
        except Answered as error:
            raise error.told() from error
        return int(ack["seq"])

    # Following

    async def _run(self) -> None:
        delay = RETRY_FIRST
        while True:
            began = asyncio.get_running_loop().time()
            server = self._servers[0]
            self._servers.rotate(-1)
            try:
                await self._serve(server)
            except SteadcastError as error:
                self._fail(error, server)
            except Exception as error:
                # A defect too: without this task nothing would be served any more.
                # The index may have taken half of something.
                self._drop_index()
                self._fail(away(f"{type(error).__name__}: {error}"), server)
                if not isinstance(error, _FORESEEN):
                    log.exception("following the log failed by a defect")
            finally:
                self._ready.clear()
                self._link = None
            served = asyncio.get_running_loop().time() - began > RETRY_LAST
            delay = RETRY_FIRST if served else min(2 * delay, RETRY_LAST)
            await asyncio.sleep(random.uniform(delay / 2, delay))  # noqa: S311 - spreads nodes, guards nothing

    def _fail(self, error: SteadcastError, server: str) -> None:
        self.counts.failures += 1
        before = self._troubles.pop(server, None)
        if before is None or before.message != error.message:
            log.warning("the log is away", server=server.rpartition("@")[2], detail=error.message)
        self._troubles[server] = error

    async def _serve(self, server: str) -> None:
        """Connect, and follow until the connection ends; its consumer may end sooner and is made anew."""
        link = await Link.connect(self.options, server, name="steadcast")
        self.counts.connects += 1
        scout = asyncio.create_task(self._scout(link), name="steadcast-jetstream-scout")
        self._scouts.add(scout)
        scout.add_done_callback(self._scouts.discard)
        try:
            while True:
                rewound = await self._prepare(link)
                await self._follow(link, rewound=rewound)
                if link.ended.is_set():
                    raise away("the connection to JetStream ended")
        finally:
            await link.aclose()

    async def _scout(self, link: Link) -> None:
        """Leave a server on which JetStream says nothing, once another is found that takes a write.

        A partition that cuts it off from the others leaves its connections, and a consumer that lives on it
        goes on with its heartbeats: nothing else would tell. Where no other server takes a write it is the
        log that is away, and what it holds can be read here.
        """
        while True:
            await link.mute.wait()
            if link.ended.is_set():
                return
            link.mute.clear()
            for server in list(self._servers)[:-1]:
                if await self._writes(server) and not link.ended.is_set():
                    log.warning(
                        "nothing is answered here, and another server takes a write", here=link.server
                    )
                    self.counts.moved += 1
                    self._servers.rotate(-self._servers.index(server))
                    await link.aclose()
                    return
            await asyncio.sleep(RETRY_LAST)

    async def _writes(self, server: str) -> bool:
        try:
            link = await Link.connect(self.options, server, name="steadcast-scout")
            try:
                await self._probe(link)
            finally:
                await link.aclose()
        except SteadcastError:
            self.counts.scouted += 1
            return False
        return True

    async def _follow(self, link: Link, *, rewound: str | None) -> None:
        follower = Follower(link, self.subjects, self.options.stream)
        self.counts.consumers += 1
        try:
            last, certain = await self._now(link)
            await follower.start(self.index.seq + 1)
            while self.index.seq < last and (await self._take(link, follower) or certain):
                pass
            self.index.seq = max(self.index.seq, last)
            await self._settle_epoch(link, follower, rewound)
            self._warn_once()
            self._link = link
            self._troubles.clear()
            self._ready.set()
            while True:
                await self._take(link, follower)
        except EngineUnavailable as error:
            if link.ended.is_set() or not self._ready.is_set():
                raise
            log.warning("the log's consumer is made anew", detail=error.message)
        finally:
            await follower.aclose()

    def _warn_once(self) -> None:
        if self._reading:
            return
        if self.counts.served == 0 and self.options.sync == "lazy" and self.options.storage == "file":
            log.warning(
                "acked is as durable as the JetStream servers flush: by default every two minutes",
                advice="set sync_interval: always on each, and say so with sync=always in --engine",
            )
        self.counts.served += 1

    async def _now(self, link: Link) -> tuple[int, bool]:
        """Give the sequence up to which the log must be read to be whole, and whether it will be delivered.

        A consumer may live on a server that lags behind the leader, so what is asked of it proves nothing: a
        record that was written just now has to come. A log that is full takes none, and stands still.
        """
        try:
            return await self._probe(link), True
        except EngineUnavailable as error:
            if error.code != "engine_full":
                raise
            return int((await self._info(link))["state"]["last_seq"]), False

    async def _take(self, link: Link, follower: Follower) -> bool:
        """Fold what comes; False where the server says that nothing more is there."""
        records = await follower.take()
        self.caught_up = max(self.caught_up, follower.heard)
        if not records:
            return False
        if unsure := self.index.unsure(records):
            await take_marks(link, self.options, self.subjects, self.index, unsure)
        self.counts.folded += len(records)
        for _, group in groupby(records, key=lambda record: record.kind is Kind.EPOCH):
            added = self.index.fold(list(group))
            if self._watches and self.index.epoch is not None:
                self._watches.offer(list(_batches(self.index.epoch, added)))
        while self._waiting and self._waiting[0][0] <= self.index.seq:
            reached = heappop(self._waiting)[2]
            if not reached.done():
                reached.set_result(None)
        return True

    # Knowing the log

    async def _info(self, link: Link) -> dict[str, Any]:
        try:
            return await link.api(f"STREAM.INFO.{self.options.stream}")
        except Answered as error:
            if error.code != STREAM_MISSING:
                raise error.told() from error
            if self._reading:
                words = f"there is no log {self.options.stream} in JetStream"
                raise InvalidRequest(words, code="not_found", field="engine") from error
        try:
            return await link.api(f"STREAM.CREATE.{self.options.stream}", stream_config(self.options))
        except Answered as error:
            if error.code != NAME_TAKEN:
                raise error.told() from error
        raise away("another node is making the log")

    async def _prepare(self, link: Link) -> str | None:
        """See that the log is the known one, and read it where it isn't; gives the epoch that is over."""
        info = await self._info(link)
        check_stream(info["config"], self.options)
        await keep_spare(link, self.subjects, info["config"])
        over = None
        if self.index.witness is not None and not await self._same(link, info):
            # A leader that lost its quorum may not know the last records: one that can write does.
            await self._probe(link)
            info = await self._info(link)
            if not await self._same(link, info):
                over = self.index.epoch
                self._forget()
        self._created, self.config = info["created"], info["config"]
        if self.index.seq == 0:
            await self._read_whole(link)
        return over

    async def _same(self, link: Link, info: dict[str, Any]) -> bool:
        return self._created == info["created"] and await is_same(
            link, self.options, self.subjects, self.index, info
        )

    def _forget(self) -> None:
        self.counts.rewound += 1
        log.error("the log is another one than this node knew: a new epoch begins", seen=self.index.seq)
        self._drop_index()

    def _drop_index(self) -> None:
        self._ready.clear()
        self.index.close()
        self.index = Index()

    async def _read_whole(self, link: Link) -> None:
        """Read the log up to now: first what was said about events, then the events' headers."""
        last, certain = await self._now(link)
        events = [self.subjects.events, self.subjects.probe]
        for only, headers_only in (([self.subjects.meta], False), (events, True)):
            follower = Follower(link, self.subjects, self.options.stream)
            try:
                await follower.start(1, only=only, headers_only=headers_only)
                seen = 0
                while seen < last:
                    records = await follower.take()
                    if not records and not certain:
                        break
                    self.index.fold([record for record in records if record.seq <= last])
                    seen = max([seen, *(record.seq for record in records)])
            finally:
                await follower.aclose()
        self.index.seq = last

    async def _settle_epoch(self, link: Link, follower: Follower, over: str | None) -> None:
        """Begin a new epoch where the log has none or was rewound; the one that is read back counts.

        Of several nodes that try, one succeeds, the others read what it wrote.
        """
        index = self.index
        replaced = over is not None and index.epoch_was == over
        if index.epoch is not None and (over is None or replaced):
            return
        body = EpochBody(secrets.token_hex(8), over)
        before = index.epoch_seq
        self.counts.epochs += 1
        try:
            await link.ask(
                self.subjects.epoch,
                json.dumps(msgspec.structs.asdict(body)).encode(),
                {**ROLLUP, "Nats-Expected-Last-Subject-Sequence": str(before)},
            )
        except Answered as error:
            if error.code != WRONG_SEQUENCE:
                raise error.told() from error
        while index.epoch_seq == before:
            await self._take(link, follower)


async def _end(task: asyncio.Task[None]) -> None:
    """Cancel a task until it ends: nats-py takes a cancellation that meets its connect for a failed one."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN)


def _batches(epoch: str, added: Sequence[tuple[int, Record]]) -> Iterator[tuple[Batch, int]]:
    """Cut new events into batches of a lane that fit a page, each with its size.

    Where one is damaged a batch without events stands for its page: the log has those before it.
    """
    by_lane: dict[tuple[str, Any], list[tuple[int, Record]]] = {}
    for before, record in added:
        by_lane.setdefault((record.stream, record.lane), []).append((before, record))
    for (stream, lane), found in by_lane.items():
        for part in _parts(found):
            try:
                entries = tuple(Entry(record.seq, decode_event(record.body)) for _, record in part)
            except EngineRefused:
                last = part[-1][1].seq
                log.warning("an event is damaged", stream=stream, lane=str(lane), upto=last)
                yield Batch(stream, lane, epoch, last, last, ()), 0
                continue
            size = sum(record.size + ENTRY_OVERHEAD for _, record in part)
            yield Batch(stream, lane, epoch, part[0][0], entries[-1].offset, entries), size


def _parts(found: Sequence[tuple[int, Record]]) -> Iterator[list[tuple[int, Record]]]:
    part: list[tuple[int, Record]] = []
    size = 0
    for before, record in found:
        cost = record.size + ENTRY_OVERHEAD
        if part and (len(part) == PAGE_EVENTS or size + cost > PAGE_ROOM):
            yield part
            part, size = [], 0
        part.append((before, record))
        size += cost
    yield part
