"""The log's way: flows that are not live read the log page by page, until one joins its group.

A flow joins in the same step in which its page was written: there is no await between the two.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from steadcast.errors import PositionLost, SteadcastError
from steadcast.event import LANES, Lane
from steadcast.hub.pages import Page, Pages, Place
from steadcast.plain_log import plain_log
from steadcast.tracer import NO_TRACER

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable

    from steadcast.core.session import Flow, Group
    from steadcast.engines.base import Engine
    from steadcast.hub.groups import Groups
    from steadcast.tracer import Tracer

log = plain_log("steadcast.hub")

READERS: Final = 4
"""Pages that are read at the same time."""
SHARE: Final = 32
"""So many flows are written a page in one go; then the live ones have their turn."""
RETRY_READ: Final = 0.5
"""Seconds until a page is read again after the engine failed to give it."""
TELL_EVERY: Final = 10.0
"""Seconds for which one line tells of all reads that fail for the same reason."""


class Replay:
    """The pages that are wanted, and those who read them: critical lanes first, then in turn.

    Who wants the same page waits for the same read.
    """

    def __init__(
        self,
        engine: Engine,
        groups: Groups,
        counts: Counter[str],
        clock: Callable[[], float],
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """Read from `engine`; `clock` gives monotonic seconds, `tracer` follows each page that is read."""
        self.pages = Pages(counts)
        self._engine = engine
        self._groups = groups
        self._counts = counts
        self._clock = clock
        self._tracer = tracer
        self._wanted: dict[Lane, OrderedDict[Place, list[Flow]]] = {lane: OrderedDict() for lane in LANES}
        self._reading: dict[Place, list[Flow]] = {}
        self._work = asyncio.Semaphore(0)
        self._told: dict[str, tuple[float, int]] = {}
        """By code, of which there are few: when a failed read was told last, and how many failed since."""

    def pump(self, flow: Flow) -> None:
        """Do the next thing for a replaying flow: join, wait for the group, or want a page."""
        if not flow.wants_page:
            return
        group = self._groups.of(flow)
        if flow.join(group):
            return
        if flow.epoch == group.epoch and flow.sent > group.position:
            self._groups.wait(flow)
            return
        flow.reading = True
        self._want(flow)

    def _want(self, flow: Flow) -> None:
        place = Place(flow.session.stream, flow.lane, flow.epoch, flow.sent, flow.page_limit)
        together = self._reading.get(place) or self._wanted[flow.lane].get(place)
        if together is not None:
            together.append(flow)
            return
        self._wanted[flow.lane][place] = [flow]
        self._work.release()

    async def read_pages(self) -> None:
        """Read what is wanted, for ever; several of these run beside each other."""
        while True:
            await self._work.acquire()
            lane = next(lane for lane in LANES if self._wanted[lane])
            place, flows = self._wanted[lane].popitem(last=False)
            await self._serve(place, flows)

    async def _serve(self, place: Place, flows: list[Flow]) -> None:
        """Give the page at a place to everybody who waits for it."""
        page = self.pages.get(place, self._clock())
        if page is None:
            self._reading[place] = flows
            try:
                with self._tracer.replay(place.stream, place.lane, place.after) as reading:
                    batch = await self._engine.read(place.stream, place.lane, place.after, place.limit)
                    reading.read(batch, len(flows))
            except PositionLost as error:
                self._overtaken(flows, error)
                return
            except Exception as error:  # noqa: BLE001 - a defect costs who waits here a moment, nobody a reader
                self._failed(place, flows, error)
                return
            finally:
                del self._reading[place]
            page = self.pages.keep(place, batch, self._clock())
            self._counts["pages_read"] += 1
        self._counts["pages_served"] += len(flows)
        for number, flow in enumerate(flows, start=1):
            flow.reading = False
            self._give(flow, page)
            if number % SHARE == 0:
                await asyncio.sleep(0)  # those who are live come in between
        await asyncio.sleep(0)

    def _overtaken(self, flows: list[Flow], error: PositionLost) -> None:
        self._counts["overtaken"] += len(flows)
        for flow in flows:
            flow.skip(error.epoch, error.lost[1] if error.lost else 0)
            self._again(flow)

    def _failed(self, place: Place, flows: list[Flow], error: Exception) -> None:
        self._counts["reads_failed"] += 1
        self._tell(place, error)
        for flow in flows:
            self._again_later(flow)

    def _tell(self, place: Place, error: Exception) -> None:
        """Log a failed read: a line for each, twice a second for each place, would be a flood."""
        code = error.code if isinstance(error, SteadcastError) else "internal"
        now = self._clock()
        at, untold = self._told.get(code, (float("-inf"), 0))
        if now - at < TELL_EVERY:
            self._told[code] = (at, untold + 1)
            return
        self._told[code] = (now, 0)
        told = {"stream": place.stream, "lane": str(place.lane), "code": code, "untold": untold}
        why = {"detail": error.message} if isinstance(error, SteadcastError) else {"exc_info": error}
        log.warning("reading the log failed", **told, **why)

    def _again_later(self, flow: Flow) -> None:
        flow.reading = True
        asyncio.get_running_loop().call_later(RETRY_READ, self._again, flow)

    def _again(self, flow: Flow) -> None:
        flow.reading = False
        self.pump(flow)

    def _give(self, flow: Flow, page: Page) -> None:
        try:
            self._write_page(flow, page)
        except Exception:
            # A defect of one connection: the others of this page, and the pages behind it, go on.
            self._counts["writes_failed"] += 1
            log.exception("a page could not be written", stream=flow.session.stream, lane=str(flow.lane))
            self._again_later(flow)

    def _write_page(self, flow: Flow, page: Page) -> None:
        """Write a page, cut at the group's position, and join in the same step where it ends there."""
        if not flow.wants_page:
            return
        group = self._groups.of(flow)
        batch = page.batch
        frame = page.frame(group.position if batch.epoch == group.epoch else batch.upto)
        batch = frame.batch
        if batch.upto <= flow.sent and batch.epoch == flow.epoch:
            self._stand(flow, group)
            return
        # Noted first: a transport that is full pauses the session while it is written to.
        flow.wrote(self._clock(), batch.epoch, batch.upto, len(batch.events), frame.size)
        way, target = flow.session.route
        way.write(frame, (target,))
        self._counts["replayed"] += len(batch.events)
        self.pump(flow)

    def _stand(self, flow: Flow, group: Group) -> None:
        """Wait with a flow for which the log has nothing yet."""
        if not flow.join(group):
            self._again_later(flow)
