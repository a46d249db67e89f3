"""Appends: one after the other on their way out, their acks awaited together."""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec

from steadcast.engines.jetstream_check import window_of
from steadcast.engines.jetstream_link import (
    BATCHES_FULL,
    ID_IN_BATCH_KNOWN,
    ID_IN_PROCESS,
    Answered,
    away,
)
from steadcast.engines.jetstream_records import event_headers, key_of
from steadcast.engines.page import conflict
from steadcast.errors import IdConflict, QueueFull, SteadcastError, TooLarge
from steadcast.event import Position, Receipt
from steadcast.plain_log import plain_log

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from nats.aio.msg import Msg

    from steadcast.engines.jetstream_index import Known
    from steadcast.engines.jetstream_link import Link
    from steadcast.engines.jetstream_log import Log
    from steadcast.engines.page import Prepared

log = plain_log("steadcast.jetstream")

QUEUE_EVENTS: Final = 32_768
"""Events that may be on their way, unless a single append holds more …"""
QUEUE_BYTES: Final = 64 * 1024 * 1024
"""… and bytes of their JSON."""
BATCH_EVENTS: Final = 1_000
"""Events that a server takes as one batch, by its own default."""
BATCHES: Final = 4
"""Batches on their way at the same time: a stream takes 50, from all nodes together."""
TRIES: Final = 20
PAUSE: Final = 0.05
"""Seconds until a server is asked again that can't say yet what became of an id."""


class Counts(msgspec.Struct, kw_only=True):
    """Events that were to be appended: accepted = pending + appended + duplicates + conflicts + failed."""

    accepted: int = 0
    pending: int = 0
    appended: int = 0
    duplicates: int = 0
    conflicts: int = 0
    failed: int = 0
    refused: int = 0
    pending_bytes: int = 0
    salted: int = 0


@dataclass(slots=True, eq=False)
class _Job:
    stream: str
    items: list[Prepared]
    keys: list[bytes]
    size: int
    answer: asyncio.Future[list[Receipt]]


class Appender:
    """Takes appends in the order in which they come, and answers each once its events can be read.

    A job whose ids are on their way with another job waits for that, and all behind it.
    """

    def __init__(
        self,
        log: Log,
        wall: Callable[[], float],
        *,
        max_events: int = QUEUE_EVENTS,
        max_bytes: int = QUEUE_BYTES,
    ) -> None:
        """Prepare; the first append starts the task. `wall` gives seconds."""
        self.counts = Counts()
        self._log = log
        self._wall = wall
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._jobs: deque[_Job] = deque()  # bounded by the counts
        self._wake = asyncio.Event()
        self._flying: dict[bytes, asyncio.Task[None]] = {}
        self._batches = asyncio.Semaphore(BATCHES)
        self._tasks: set[asyncio.Task[None]] = set()
        self._writer: asyncio.Task[None] | None = None

    async def append(self, stream: str, items: list[Prepared]) -> list[Receipt]:
        """Append, all or none. Raises `IdConflict`, `QueueFull`, `TooLarge` and `EngineUnavailable`."""
        if len(items) > BATCH_EVENTS:
            raise TooLarge("too many events at once", code="batch_too_large", limit=BATCH_EVENTS)
        size = sum(item.size for item in items)
        self._check_room(len(items), size)
        job = _Job(
            stream, items, [key_of(stream, item) for item in items], size,
            asyncio.get_running_loop().create_future(),
        )  # fmt: skip
        self.counts.accepted += len(items)
        self.counts.pending += len(items)
        self.counts.pending_bytes += size
        self._jobs.append(job)
        self._wake.set()
        if self._writer is None:
            self._writer = asyncio.create_task(self._write(), name="steadcast-jetstream-append")
        return await asyncio.shield(job.answer)

    async def aclose(self) -> None:
        """Finish what came in, and stop."""
        while self._jobs or self._tasks:
            under_way: list[asyncio.Future[Any]] = [*self._tasks, *(job.answer for job in self._jobs)]
            await asyncio.wait(under_way)
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)

    def _check_room(self, events: int, size: int) -> None:
        waiting = self.counts.pending
        if waiting and (
            waiting + events > self._max_events or self.counts.pending_bytes + size > self._max_bytes
        ):
            self.counts.refused += events
            raise QueueFull("too much is on its way to JetStream", limit=self._max_events, retry_after=1.0)

    # Sending

    async def _write(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._jobs:
                try:
                    link = await self._log.ready()
                except SteadcastError as error:
                    # Nobody who came while the log was waited for waits for it again.
                    while self._jobs:
                        self._fail(self._jobs.popleft(), error)
                    continue
                try:
                    await self._begin(self._jobs[0], link)
                except SteadcastError as error:
                    self._fail(self._jobs[0], error)
                except Exception as error:  # noqa: BLE001 - a defect fails its own append, not all that follow
                    self._fail(self._jobs[0], _defect(error))
                # Only now, so that `aclose` always finds it.
                self._jobs.popleft()

    async def _begin(self, job: _Job, link: Link) -> None:
        """Answer a job that adds nothing; send another, and leave the rest to a task."""
        while blockers := {self._flying[key] for key in job.keys if key in self._flying}:
            await asyncio.wait(blockers)
        self._check_lag()
        known = self._known(job)
        fresh = _fresh(job, known)
        if not fresh:
            self._answer(job, known, frozenset())
            return
        if len(fresh) > 1:
            await self._batches.acquire()
        try:
            waiting = await self._send(link, job, fresh, "")
        except BaseException:
            self._release(fresh)
            raise
        task = asyncio.create_task(self._finish(job, link, fresh, waiting))
        for key in fresh:
            self._flying[key] = task
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _release(self, fresh: Collection[bytes]) -> None:
        if len(fresh) > 1:
            self._batches.release()

    def _check_lag(self) -> None:
        """Refuse while ids may have left JetStream's window before this node has read them."""
        limit = window_of(self._log.config) / 2
        if asyncio.get_running_loop().time() - self._log.caught_up > limit:
            raise away(f"this node lags more than {limit:g} s behind the log")

    async def _send(
        self, link: Link, job: _Job, fresh: dict[bytes, Prepared], salt: str
    ) -> asyncio.Future[Msg]:
        """Send the events, more than one as a batch of JetStream's, and give the future of the one ack."""
        at = int(self._wall() * 1000)
        messages = [
            (
                self._log.subjects.event(job.stream, item.event.priority),
                item,
                event_headers(key, item, at, salt),
            )
            for key, item in fresh.items()
        ]
        if len(messages) == 1:
            [(subject, item, headers)] = messages
            return await link.send(subject, item.encoded, headers)
        batch = secrets.token_hex(8)
        for number, (subject, item, headers) in enumerate(messages, 1):
            headers |= {"Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
            if number == len(messages):
                break
            await link.put(subject, item.encoded, headers)
        return await link.send(subject, item.encoded, headers | {"Nats-Batch-Commit": "1"})

    # Being answered

    async def _finish(
        self, job: _Job, link: Link, fresh: dict[bytes, Prepared], waiting: asyncio.Future[Msg]
    ) -> None:
        keys = list(fresh)
        try:
            await self._settle(job, link, fresh, waiting)
        except SteadcastError as error:
            self._fail(job, error)
        except Exception as error:  # noqa: BLE001 - its caller must not wait for ever
            self._fail(job, _defect(error))
        finally:
            self._release(keys)
            for key in keys:
                del self._flying[key]

    async def _settle(
        self, job: _Job, link: Link, fresh: dict[bytes, Prepared], waiting: asyncio.Future[Msg]
    ) -> None:
        """Wait for the ack, and for the node's own consumer; ask again where others had the same ids."""
        for _ in range(TRIES):
            salt = ""
            seq = await self._acked(link, waiting)
            if seq > 0:
                await self._log.reached(seq)
                self._answer(job, self._known(job), fresh.keys())
                return
            if seq < 0:
                await self._log.reached(-seq)
            else:
                await asyncio.sleep(PAUSE)
                await self._log.reached(await self._log.probe())
            known = self._known(job)
            still = _fresh(job, known)
            if not still:
                self._answer(job, known, frozenset())
                return
            if seq < 0 and still.keys() == fresh.keys():
                # JetStream knows an id that the whole log no longer does: it was forgotten within the window.
                salt = f"-{self._log.index.seq}"
                self.counts.salted += 1
            fresh = still
            waiting = await self._send(link, job, fresh, salt)
        raise away("JetStream can't say what became of the ids")

    async def _acked(self, link: Link, waiting: asyncio.Future[Msg]) -> int:
        """Give the sequence that an ack names: negative where the id was known, 0 where it can't say yet."""
        try:
            ack: dict[str, Any] = await link.answer(waiting)
        except Answered as error:
            if error.code in {ID_IN_PROCESS, BATCHES_FULL}:
                return 0
            if error.code == ID_IN_BATCH_KNOWN:
                return -(await self._log.probe())
            raise error.told() from error
        return -int(ack["seq"]) if ack.get("duplicate") else int(ack["seq"])

    # Answering

    def _known(self, job: _Job) -> dict[bytes, Known]:
        """Look the ids up. Raises `IdConflict` where one is known with another body."""
        known = self._log.index.find(job.keys)
        first: dict[bytes, bytes] = {}
        for index, (key, item) in enumerate(zip(job.keys, job.items, strict=True)):
            there = known.get(key)
            if (there.fingerprint if there else first.setdefault(key, item.fingerprint)) != item.fingerprint:
                raise conflict(item, index)
        return known

    def _answer(self, job: _Job, known: dict[bytes, Known], fresh: Any) -> None:
        seen: set[bytes] = set()
        receipts = []
        for key, item in zip(job.keys, job.items, strict=True):
            there = known.get(key)
            if there is None:
                raise away("the log doesn't have what JetStream acked: it began anew")
            position = Position(self._log.epoch, there.seq)
            receipts.append(
                Receipt(item.event.id, there.lane, position, duplicate=key in seen or key not in fresh)
            )
            seen.add(key)
        duplicates = sum(receipt.duplicate for receipt in receipts)
        self.counts.duplicates += duplicates
        self.counts.appended += len(receipts) - duplicates
        self._done(job)
        job.answer.set_result(receipts)

    def _fail(self, job: _Job, error: SteadcastError) -> None:
        if isinstance(error, IdConflict):
            self.counts.conflicts += len(job.items)
        else:
            self.counts.failed += len(job.items)
        self._done(job)
        job.answer.set_exception(error)
        # A caller that has given up meanwhile would leave it unseen, and asyncio complains of that.
        job.answer.exception()

    def _done(self, job: _Job) -> None:
        self.counts.pending -= len(job.items)
        self.counts.pending_bytes -= job.size


def _defect(error: Exception) -> SteadcastError:
    log.error("an append failed by a defect", exc_info=error)
    return away(f"an append failed: {type(error).__name__}")


def _fresh(job: _Job, known: dict[bytes, Known]) -> dict[bytes, Prepared]:
    """Give the events that aren't known, each id once."""
    fresh: dict[bytes, Prepared] = {}
    for key, item in zip(job.keys, job.items, strict=True):
        if key not in known:
            fresh.setdefault(key, item)
    return fresh
