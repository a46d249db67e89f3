"""The log's way: flows that are not live read the log page by page, until one joins its group.

A flow joins in the same step in which its page was written: there is no await between the two.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final

import structlog

from steadcast.core.paging import cut
from steadcast.errors import PositionLost, SteadcastError
from steadcast.event import LANES, Batch, Lane
from steadcast.hub.frame import Frame

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from steadcast.core.session import Flow, Group
    from steadcast.engines.base import Engine
    from steadcast.hub.groups import Groups

log = structlog.get_logger("steadcast.hub")

READERS: Final = 4
"""Pages that are read at the same time."""
RETRY_READ: Final = 0.5
"""Seconds until a page is read again after the engine failed to give it."""


class Replay:
    """The pages that are wanted, and those who read them: critical lanes first, then in turn."""

    def __init__(
        self, engine: Engine, groups: Groups, counts: Counter[str], clock: Callable[[], float]
    ) -> None:
        """Read from `engine`; `clock` gives monotonic seconds."""
        self._engine = engine
        self._groups = groups
        self._counts = counts
        self._clock = clock
        self._wanted: dict[Lane, deque[Flow]] = {lane: deque() for lane in LANES}  # bounded by the flows
        self._work = asyncio.Semaphore(0)

    def pump(self, flow: Flow) -> None:
        """Do the next thing for a replaying flow: join, wait for the group, or read a page."""
        if not flow.wants_page:
            return
        group = self._groups.of(flow)
        if flow.join(group):
            return
        if flow.epoch == group.epoch and flow.sent > group.position:
            self._groups.wait(flow)
            return
        flow.reading = True
        self._wanted[flow.lane].append(flow)
        self._work.release()

    async def read_pages(self) -> None:
        """Read what is wanted, for ever; several of these run beside each other."""
        while True:
            await self._work.acquire()
            lane = next(lane for lane in LANES if self._wanted[lane])
            await self._read_page(self._wanted[lane].popleft())

    async def _read_page(self, flow: Flow) -> None:
        stream = flow.session.stream
        try:
            page = await self._engine.read(stream, flow.lane, flow.sent, flow.page_limit)
        except PositionLost as error:
            self._counts["overtaken"] += 1
            flow.skip(error.epoch, error.lost[1] if error.lost else 0)
            self._again(flow)
        except SteadcastError as error:
            self._counts["reads_failed"] += 1
            log.warning("reading the log failed", stream=stream, lane=str(flow.lane), code=error.code)
            asyncio.get_running_loop().call_later(RETRY_READ, self._again, flow)
        else:
            flow.reading = False
            self._write_page(flow, page)

    def _again(self, flow: Flow) -> None:
        flow.reading = False
        self.pump(flow)

    def _write_page(self, flow: Flow, page: Batch) -> None:
        """Write a page, cut at the group's position, and join in the same step where it ends there."""
        if not flow.wants_page:
            return
        group = self._groups.of(flow)
        page = cut(page, group.position) if page.epoch == group.epoch else page
        if page.upto <= flow.sent and page.epoch == flow.epoch:
            self._stand(flow, group)
            return
        frame = Frame(page)
        flow.session.owner.write(frame)
        flow.wrote(self._clock(), page.epoch, page.upto, len(page.events), frame.size)
        self._counts["replayed"] += len(page.events)
        self.pump(flow)

    def _stand(self, flow: Flow, group: Group) -> None:
        """Wait with a flow for which the log has nothing yet."""
        if not flow.join(group):
            flow.reading = True
            asyncio.get_running_loop().call_later(RETRY_READ, self._again, flow)
