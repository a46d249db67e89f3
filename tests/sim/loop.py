"""An event loop whose time is virtual: it sleeps in no time, and runs the same way every time."""

from __future__ import annotations

import asyncio
from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Any, Never

if TYPE_CHECKING:
    from collections.abc import Callable


MOST_STEPS = 300_000
"""More callbacks than any history needs: whoever comes so far runs in a circle."""


class Stuck(RuntimeError):
    """Nothing is scheduled any more, or there is no end of it, and the simulation hasn't ended."""


class VirtualLoop(asyncio.BaseEventLoop):
    """Time stands still while code runs, and jumps to the next timer when nothing is left to run.

    asyncio's own scheduler with what a simulation has no use for left out: no selector, no threads, no
    sweep over cancelled timers. `steps` counts the callbacks that were run.
    """

    _ready: deque[asyncio.Handle]

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.steps = 0
        self._made = 0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []

    def time(self) -> float:
        return self.now

    def call_at(  # type: ignore[override]  # asyncio's own types are wider than what is used here
        self, when: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        self._made += 1
        heappush(self._timers, (when, self._made, timer))
        return timer

    def call_later(  # type: ignore[override]  # as above
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self.now + delay, callback, *args, context=context)

    def call_soon(  # type: ignore[override]  # as above
        self, callback: Callable[..., Any], *args: Any, context: Any = None
    ) -> asyncio.Handle:
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def run_in_executor(  # type: ignore[override]  # as above
        self, _executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """Run it in a step of its own: a simulation has one thread."""
        answer = self.create_future()
        self.call_soon(self._execute, answer, func, args)
        return answer

    @staticmethod
    def _execute(answer: asyncio.Future[Any], func: Callable[..., Any], args: tuple[Any, ...]) -> None:
        if answer.done():
            return
        try:
            answer.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - it is whoever waits that is told
            answer.set_exception(error)

    def _run_once(self) -> None:
        ready = self._ready
        if self.steps > MOST_STEPS:
            raise Stuck
        if not ready:
            self._to_the_next_timer()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if not handle._cancelled:
                self.steps += 1
                handle._run()

    def _to_the_next_timer(self) -> None:
        timers = self._timers
        while timers:
            when, _, timer = heappop(timers)
            if not timer._cancelled:
                self.now = max(self.now, when)
                self._ready.append(timer)
                return
        raise Stuck

    def _timer_handle_cancelled(self, _handle: asyncio.TimerHandle) -> None:
        """Do nothing: a cancelled timer is passed over when its turn comes."""

    def _write_to_self(self) -> Never:
        msg = "a simulation has one thread"
        raise RuntimeError(msg)
