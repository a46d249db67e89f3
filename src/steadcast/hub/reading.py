"""One look at a stream for all who subscribe to it in the same step of the event loop."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from steadcast.engines.base import Description, Engine


class _Look:
    """A look that begins with the loop's next step, and those who wait for it."""

    __slots__ = ("task", "waiting")

    def __init__(self, task: asyncio.Task[Description]) -> None:
        """Begin with nobody."""
        self.task = task
        self.waiting = 0


class Looks:
    """Describes streams, once for all who ask in the same step.

    A look that has begun answers nobody who comes after: its heads may be older than what they know to be in
    the log (a publish that was answered before the subscribe), and a lane without a cursor would begin below
    its end. So the heads are never older than the subscribe.
    """

    def __init__(self, engine: Engine) -> None:
        """Look into `engine`."""
        self._engine = engine
        self._next: dict[str, _Look] = {}  # emptied with each step

    async def describe(self, stream: str) -> Description:
        """Describe a stream as it is now or later; raises what the engine raises."""
        look = self._next.get(stream)
        if look is None:
            look = self._next[stream] = _Look(asyncio.create_task(self._look(stream)))
        look.waiting += 1
        try:
            await asyncio.wait({look.task})
        finally:
            look.waiting -= 1
            if look.task.done():
                # Known by this: who is cancelled in the same step as the look fails asks for no result.
                look.task.cancelled() or look.task.exception()
            elif not look.waiting:
                look.task.cancel()  # those who asked have given up: a log that hangs is left alone
                self._forget(stream, look)
        return look.task.result()

    def _forget(self, stream: str, look: _Look) -> None:
        if self._next.get(stream) is look:
            del self._next[stream]

    async def _look(self, stream: str) -> Description:
        del self._next[stream]
        return await self._engine.describe(stream)
