"""Who comes in when many come at once: a few at a time, so that live clients keep half of the time.

After an outage everybody connects and subscribes in the same second. Each handshake, connect and subscribe is
some hundred microseconds of work, and a thousand in a row would stop every delivery for that long.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final

from steadcast.errors import RateLimited

if TYPE_CHECKING:
    from collections.abc import Callable

AT_ONCE: Final = 16
"""So many are let in together; then there is a pause."""
WAITING: Final = 5_000
"""So many may wait to be let in; more are refused, counted."""
PATIENCE: Final = 2.0
"""Seconds that one waits at most: a subscribe has 3 s in all, and the reason is to be told within them."""
STEPS: Final = 5
"""Steps of the event loop that a connect or a subscribe takes, about: for so long a turn is measured."""
ENDS: Final = ("admitted", "full", "overdue", "left")
"""What becomes of who asks: let in, refused since too many wait or the wait was too long, gone meanwhile."""
SOONEST: Final = 0.5
LATEST: Final = 10.0
"""Seconds, a range, after which somebody who was refused is asked to come back."""


class Admission:
    """Lets handshakes, connects and subscribes in by turns.

    A turn takes as long as the event loop needs for its next steps, with the work of those who were let in
    and of everybody else; the pause behind it is as long. Who comes while nobody waits goes straight in.
    """

    def __init__(
        self,
        *,
        at_once: int = AT_ONCE,
        waiting: int = WAITING,
        patience: float = PATIENCE,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Let `at_once` in with each turn, and `waiting` wait, each for at most `patience` seconds."""
        self.counts: Counter[str] = Counter({"asked": 0, **dict.fromkeys(ENDS, 0)})
        self._at_once = at_once
        self._limit = waiting
        self._patience = patience
        self._clock = clock
        self._room = at_once
        self._turning = False
        self._waiting: OrderedDict[asyncio.Future[None], float] = OrderedDict()
        self._waited = 0.0

    def statistics(self) -> dict[str, int | float]:
        """Count who asked: each was admitted, refused (`full`, `overdue`), has left, or is `waiting`.

        `waited` is how long the last one that had to wait did, in seconds.
        """
        return {**self.counts, "waiting": len(self._waiting), "waited": round(self._waited, 3)}

    async def enter(self) -> None:
        """Wait to be let in; raises `RateLimited` where too many wait, or this one has for too long."""
        self.counts["asked"] += 1
        if self._room and not self._waiting:
            self._take_room()
            return
        if len(self._waiting) >= self._limit:
            raise self._refused("full")
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting[turn] = self._clock()
        overdue = loop.call_later(self._patience, self._give_up, turn)
        try:
            await turn
        finally:
            overdue.cancel()
            if self._waiting.pop(turn, None) is not None:
                self.counts["left"] += 1

    def _take_room(self) -> None:
        self.counts["admitted"] += 1
        self._room -= 1
        if not self._turning:
            self._turning = True
            self._measure(self._clock(), STEPS)

    def _measure(self, began: float, steps: int) -> None:
        """Let the loop go round, then pause for as long as that took."""
        loop = asyncio.get_running_loop()
        if steps:
            loop.call_soon(self._measure, began, steps - 1)
        else:
            loop.call_later(self._clock() - began, self._begin_turn)

    def _begin_turn(self) -> None:
        self._turning = False
        self._room = self._at_once
        while self._room and self._waiting:
            turn, since = self._waiting.popitem(last=False)
            if self._has_left(turn):
                continue
            self._waited = self._clock() - since
            turn.set_result(None)
            self._take_room()

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if self._waiting.pop(turn, None) is not None and not self._has_left(turn):
            turn.set_exception(self._refused("overdue"))

    def _has_left(self, turn: asyncio.Future[None]) -> bool:
        """Tell, and count, that who waited was cancelled in this very step, and couldn't say so yet."""
        self.counts["left"] += turn.done()
        return turn.done()

    def _refused(self, reason: str) -> RateLimited:
        self.counts[reason] += 1
        wait = min(max(self._waited, SOONEST), LATEST)
        return RateLimited("too many connect or subscribe at once", retry_after=round(wait, 3))
