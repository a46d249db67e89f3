"""How long to wait before trying again: exponential, capped, with the jitter handed in as a number."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff: `base`, `base * factor`, ... seconds, never above `cap`.

    `spread` says how much of a delay jitter may take away: 0 leaves delays exact, 1 is full jitter.
    Jitter only shortens, so that `cap` stays what it says; clients that lost the same server then come
    back spread out instead of all at once. Where a delay must be kept in full, hand in jitter 0.

    Raises ValueError for numbers that make no backoff.
    """

    base: float = 1.0
    factor: float = 2.0
    cap: float = 8.0
    spread: float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.base <= self.cap < math.inf:
            raise ValueError("a backoff needs 0 < base <= cap < infinity")
        if not 1 <= self.factor < math.inf:
            raise ValueError("a backoff's factor is at least 1")
        if not 0 <= self.spread <= 1:
            raise ValueError("a backoff's spread is between 0 and 1")

    def delay(self, attempt: int, jitter: float = 0.0) -> float:
        """Give the seconds to wait before retry number `attempt` (1 is the first); `jitter` is 0 to 1."""
        if attempt < 1:
            raise ValueError("retries are counted from 1")
        if not 0 <= jitter <= 1:
            raise ValueError("jitter is between 0 and 1")
        return self._exact(attempt) * (1 - self.spread * jitter)

    def _exact(self, attempt: int) -> float:
        # Compared as logarithms: the power itself overflows at a thousand or so failures in a row.
        if (attempt - 1) * math.log(self.factor) >= math.log(self.cap / self.base):
            return self.cap if self.factor > 1 else self.base
        return self.base * self.factor ** (attempt - 1)
