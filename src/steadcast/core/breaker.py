"""The circuit breaker in front of the engine: a dead engine isn't hammered, and is noticed when it is back.

    CLOSED      lets everything through; `failures` in a row within `window` seconds open it
    OPEN        refuses until its time is over, which doubles from one opening to the next, up to a cap
    HALF_OPEN   has let one probe through and refuses the rest: its verdict closes or opens

Only failures of the engine count; the refusal of bad input, or of too much at once, says nothing about it.
"""

from __future__ import annotations

from collections import Counter, deque
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, NewType

from steadcast.core.backoff import Backoff
from steadcast.errors import IllegalInput

if TYPE_CHECKING:
    from collections.abc import Mapping

Permit = NewType("Permit", int)
"""What `allow` gives; a verdict counts only while the breaker hasn't moved since."""


class State(Enum):
    """Where a breaker stands; see the module's table."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class _In(Enum):
    FAILED_OFTEN = auto()
    TIME_OVER = auto()
    PROBE_SUCCEEDED = auto()
    PROBE_FAILED = auto()
    PROBE_GONE = auto()


TRANSITIONS: Final[Mapping[tuple[State, _In], State]] = {
    (State.CLOSED, _In.FAILED_OFTEN): State.OPEN,
    (State.OPEN, _In.TIME_OVER): State.HALF_OPEN,
    (State.HALF_OPEN, _In.PROBE_SUCCEEDED): State.CLOSED,
    (State.HALF_OPEN, _In.PROBE_FAILED): State.OPEN,
    (State.HALF_OPEN, _In.PROBE_GONE): State.OPEN,
}

FAILURES: Final = 5
WINDOW: Final = 30.0
"""Seconds. Long enough that five appends in a row which hang for 5 s each open the breaker."""
OPEN_FOR: Final = Backoff(base=1.0, factor=2.0, cap=8.0, spread=0.0)
"""Seconds by opening. The cap is well below the retry queue's age limit: an engine that comes back
is found while the events that wait for it are still young enough."""


class Breaker:
    """A circuit breaker. Whoever got a permit gives it back with exactly one verdict.

    Verdicts are `succeeded`, `failed`, and `released` where nothing was learnt about the engine.
    `counts` has `allowed`, `refused`, `succeeded`, `failed`, `released`, `late` (verdicts on permits from
    before the last move: they say nothing about the engine as it is now) and `opened`.
    """

    def __init__(
        self, *, failures: int = FAILURES, window: float = WINDOW, open_for: Backoff = OPEN_FOR
    ) -> None:
        """Begin closed. `window` is in seconds; raises ValueError for numbers that make no breaker."""
        if failures < 1 or window <= 0:
            raise ValueError("a breaker needs failures >= 1 and window > 0")
        self.state = State.CLOSED
        self.counts: Counter[str] = Counter()
        self._limit = failures
        self._window = window
        self._open_for = open_for
        self._failures: deque[float] = deque(maxlen=failures)
        self._openings = 0
        self._until = 0.0
        self._moves = 1

    def allow(self, now: float) -> Permit | None:
        """Give a permit to use the engine, or None while it is to be spared."""
        if self.state is State.OPEN and now >= self._until:
            self._move(_In.TIME_OVER)
        elif self.state is not State.CLOSED:
            self.counts["refused"] += 1
            return None
        self.counts["allowed"] += 1
        return Permit(self._moves)

    def succeeded(self, now: float, permit: Permit) -> None:  # noqa: ARG002 - every verdict takes the time
        """Note that the engine did what it was asked."""
        if self._late(permit, "succeeded"):
            return
        self._failures.clear()
        if self.state is State.HALF_OPEN:
            self._openings = 0
            self._move(_In.PROBE_SUCCEEDED)

    def failed(self, now: float, permit: Permit) -> None:
        """Note that the engine failed or took too long."""
        if self._late(permit, "failed"):
            return
        self._failures.append(now)
        if self.state is State.HALF_OPEN:
            self._open(now, _In.PROBE_FAILED)
        elif len(self._failures) == self._limit and now - self._failures[0] <= self._window:
            self._open(now, _In.FAILED_OFTEN)

    def released(self, now: float, permit: Permit) -> None:  # noqa: ARG002 - see `succeeded`
        """Note that the permit's use said nothing about the engine; the next one may probe at once."""
        if not self._late(permit, "released") and self.state is State.HALF_OPEN:
            self._move(_In.PROBE_GONE)

    def retry_after(self, now: float) -> float:
        """Give the seconds after which trying makes sense: 0 when a permit would be given now."""
        if self.state is State.CLOSED:
            return 0.0
        if self.state is State.OPEN:
            return max(0.0, self._until - now)
        return self._open_for.delay(1)

    def _late(self, permit: Permit, verdict: str) -> bool:
        if not 0 < permit <= self._moves:
            raise IllegalInput("a verdict on a permit that was never given")
        late = permit != self._moves
        self.counts["late" if late else verdict] += 1
        return late

    def _open(self, now: float, given: _In) -> None:
        self._openings += 1
        self._until = now + self._open_for.delay(self._openings)
        self._failures.clear()
        self.counts["opened"] += 1
        self._move(given)

    def _move(self, given: _In) -> None:
        self.state = TRANSITIONS[self.state, given]
        self._moves += 1
