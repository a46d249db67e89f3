"""Time limits that many share: one timer for all that have the same time.

Each publish is under two of them, and to set and cancel a timer takes the event loop longer than to keep the
time of one. Who began first is over first, so a timer for the oldest is enough.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, Self, cast

if TYPE_CHECKING:
    from types import TracebackType

STILL: Final = 0.5
"""Seconds by which a timer is late where the loop stood still, as in a handler that never awaits."""
MOMENT: Final = 0.1
"""Seconds in which the loop hears what came meanwhile."""


class Deadlines:
    """What is under way within its time, however many lengths of time there are."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._lines: dict[float, _Line] = {}  # as many as there are lengths, which are settings

    def within(self, seconds: float | None) -> Within:
        """Limit what the current task awaits in a `with`, as `asyncio.timeout` does; None is no limit."""
        if seconds is None:
            return Within(None)
        if seconds not in self._lines:
            self._lines[seconds] = _Line(seconds)
        return Within(self._lines[seconds])


class _Line:
    """All that has the same time, in the order in which it began."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._running: dict[Within, float] = {}  # the oldest first, as many as there are tasks
        self._timer: asyncio.TimerHandle | None = None
        self._spared = float("-inf")

    def join(self, limited: Within) -> None:
        loop = asyncio.get_running_loop()
        self._running[limited] = end = loop.time() + self._seconds
        if self._timer is None:
            self._timer = loop.call_at(end, self._look)

    def leave(self, limited: Within) -> None:
        self._running.pop(limited, None)
        if not self._running and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._running:
            oldest, end = next(iter(self._running.items()))
            if end > loop.time():
                self._timer = loop.call_at(end, self._look)
                return
            if loop.time() - end > STILL and end > self._spared:
                # What came while the loop stood still comes behind timers: it may be what is waited for.
                self._spared = loop.time()
                self._timer = loop.call_later(MOMENT, self._look)
                return
            del self._running[oldest]
            oldest.end()


class Within:
    """A limit for the current task. Raises TimeoutError when its time is over.

    `over` tells that one from a TimeoutError of what was awaited.
    """

    __slots__ = ("_cancelling", "_line", "_task", "over")

    def __init__(self, line: _Line | None) -> None:
        """Stand in a line; None is without a limit."""
        self.over = False
        self._line = line

    def __enter__(self) -> Self:
        """Begin."""
        self._task = cast("asyncio.Task[Any]", asyncio.current_task())
        self._cancelling = self._task.cancelling()
        if self._line is not None:
            self._line.join(self)
        return self

    def end(self) -> None:
        """Cancel what is awaited: its time is over."""
        self.over = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        """Let go; a cancellation that is this limit's alone becomes a TimeoutError."""
        if self._line is not None:
            self._line.leave(self)
        if self.over and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
