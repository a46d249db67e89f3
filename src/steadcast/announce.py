"""New streams are told in a stream of their own: `steadcast.streams`, an event for each.

The event's id is the new stream's name, so whoever announces a stream again, this server or another one on
the same log, is answered that it is known. Nothing depends on it: who wants to know which streams there are
asks the engine.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from contextvars import Context
from itertools import islice
from typing import TYPE_CHECKING, Final

import msgspec

from steadcast.errors import SteadcastError
from steadcast.event import Event, Lane
from steadcast.plain_log import plain_log
from steadcast.wire import PAGE_EVENTS, SYSTEM_PREFIX

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from steadcast.engines.base import Engine, LaneState
    from steadcast.event import Batch, Receipt

log = plain_log("steadcast.streams")

STREAM: Final = f"{SYSTEM_PREFIX}streams"
CREATED: Final = f"{SYSTEM_PREFIX}stream.created"
SOURCE: Final = "steadcast"
WAITING: Final = 1_000
"""So many names wait to be announced; more are looked up in the engine afterwards, counted."""
RETRY: Final = 1.0
"""Seconds until it is tried again after the log failed."""


class Announcements:
    """Appends an event to `steadcast.streams` for each stream that the log didn't have before.

    `append` is the way into the log, by default the engine's own; `now` gives the wall time as RFC 3339.
    `counts`: `announced`, `known` (it had been announced), `overflowed` (names that had to be looked up),
    `failed` (tries), `refused` (for good).
    """

    def __init__(self, engine: Engine, *, now: Callable[[], str], retry: float = RETRY) -> None:
        """Stand ready; `start` begins by looking for what was never announced. `retry` is in seconds."""
        self.append: Callable[[str, Sequence[Event]], Awaitable[list[Receipt]]] = engine.append
        self.counts: Counter[str] = Counter()
        self._engine = engine
        self._now = now
        self._retry = retry
        self._waiting: dict[str, None] = {}
        self._incomplete = True
        self._failing = ""
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to announce."""
        self._wake.set()
        # A context of its own: whoever publishes first is not whom this is for.
        self._task = asyncio.create_task(self._run(), name="steadcast-announce", context=Context())

    async def aclose(self) -> None:
        """Stop; what wasn't announced is found at the next start."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def saw(self, batch: Batch | None) -> None:
        """Take a batch that the engine's watch gave: the first of a lane begins behind offset 0.

        None, and a batch without events, say that batches are missing: a lane's first may be among them.
        """
        if batch is not None and batch.stream.startswith(SYSTEM_PREFIX):
            return
        if batch is None or not batch.events:
            self._incomplete = True
        elif batch.after:
            return
        elif len(self._waiting) < WAITING:
            self._waiting[batch.stream] = None
        else:
            self.counts["overflowed"] += 1
            self._incomplete = True
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._announce_waiting()
                if self._incomplete:
                    await self._catch_up()
                self._failing = ""
            except SteadcastError as error:
                self.counts["failed"] += 1
                if error.code != self._failing:  # else a line a second, for as long as the log is away
                    log.warning("new streams could not be announced for now", code=error.code)
                self._failing = error.code
                await self._try_again()
            except Exception:
                # A defect in one round must not end the work for ever.
                self.counts["failed"] += 1
                log.exception("announcing new streams failed")
                await self._try_again()

    async def _try_again(self) -> None:
        self._incomplete = True
        self._wake.set()
        await asyncio.sleep(self._retry)

    async def _announce_waiting(self) -> None:
        while self._waiting:
            names = list(islice(self._waiting, PAGE_EVENTS))
            await self._announce(names)
            for name in names:
                self._waiting.pop(name, None)

    async def _catch_up(self) -> None:
        """Announce every stream that the engine has and `steadcast.streams` doesn't tell of."""
        self._incomplete = False
        try:
            streams = (await self._engine.describe()).streams
            held = (
                name
                for name, lanes in streams.items()
                if not name.startswith(SYSTEM_PREFIX) and any(state.head for state in lanes.values())
            )
            told = await self._told(streams.get(STREAM, {}).get(Lane.NORMAL))
            missing = iter([name for name in held if name not in told])
            while names := list(islice(missing, PAGE_EVENTS)):
                await self._announce(names)
        except SteadcastError:
            self._incomplete = True
            raise

    async def _told(self, state: LaneState | None) -> set[str]:
        """Read which streams were announced, of those events that are retained."""
        told: set[str] = set()
        at, head = (state.trimmed, state.head) if state is not None else (0, 0)
        while at < head:
            page = await self._engine.read(STREAM, Lane.NORMAL, at)
            told.update(entry.event.id for entry in page.events)
            if page.upto <= at:
                break
            at = page.upto
        return told

    async def _announce(self, names: Iterable[str]) -> None:
        now = self._now()
        events = [_created(name, now) for name in names]
        try:
            receipts = await self.append(STREAM, events)
        except SteadcastError as error:
            if error.temporary:
                raise
            # Trying the same again can't help, and what comes later would wait behind it.
            self.counts["refused"] += len(events)
            log.warning("new streams can't be announced", code=error.code, detail=error.message)
            return
        known = sum(receipt.duplicate for receipt in receipts)
        self.counts["known"] += known
        self.counts["announced"] += len(receipts) - known


def _created(name: str, now: str) -> Event:
    data = msgspec.Raw(msgspec.json.encode({"stream": name}))
    return Event(name, SOURCE, CREATED, now, data, Lane.NORMAL, name)
