"""Which wall time counts when the age of what is kept is told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

log = structlog.get_logger("steadcast.clocks")

MAX_DRIFT: Final = 60.0
"""Seconds by which wall clock and monotonic clock may have drifted apart before age no longer counts."""
BELIEVED: Final = 86_400.0
"""Seconds after which a wall clock that was set, and goes on evenly since, is believed.

A machine that was paused is corrected for good: without this, nothing would grow old until a restart."""


def steady() -> float:
    """Give seconds that no setting of the clock moves, and that go on while the machine sleeps."""
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Clocks:
    """A wall clock that is watched by a monotonic one. Each look counts: `before` and `waits` both look."""

    def __init__(self, wall: Callable[[], float], monotonic: Callable[[], float]) -> None:
        """Believe the wall clock as it stands; both give seconds."""
        self._wall = wall
        self._monotonic = monotonic
        self._apart = wall() - monotonic()
        self._set: tuple[float, float] | None = None
        """How far apart they have been since, and since when."""

    def before(self, age: float) -> int | None:
        """Give the wall time `age` seconds ago in milliseconds; None while the clock can't be trusted."""
        return None if self.waits() else int((self._wall() - age) * 1000)

    def waits(self) -> bool:
        """Tell whether the wall clock was set by more than `MAX_DRIFT`, and isn't believed yet."""
        now = self._monotonic()
        apart = self._wall() - now
        if abs(apart - self._apart) <= MAX_DRIFT:
            self._set = None
            return False
        if self._set is None or abs(apart - self._set[0]) > MAX_DRIFT:
            self._set = (apart, now)
            by = round(apart - self._apart)
            log.warning(
                "the clock was set; for now nothing is trimmed by its age", by=by, believed_in=BELIEVED
            )
        if now - self._set[1] < BELIEVED:
            return True
        self._apart, self._set = apart, None
        log.warning("the clock stayed as it was set; what is kept grows old by it")
        return False
