"""The first answers to emissions, so that a repeated emission gets the same one. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Generic, TypeVar

A = TypeVar("A")

KEPT_SECONDS: Final = 600.0
KEPT_ANSWERS: Final = 10_000


class Remembered(Generic[A]):
    """Answers by key, for `seconds` and at most `limit` of them; the oldest go first, counted."""

    def __init__(self, *, seconds: float = KEPT_SECONDS, limit: int = KEPT_ANSWERS) -> None:
        """Begin empty."""
        self.evicted = 0
        self.expired = 0
        self._seconds = seconds
        self._limit = limit
        self._answers: OrderedDict[tuple[str, ...], tuple[float, A]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, now: float, key: tuple[str, ...]) -> A | None:
        """Give the answer that is kept for a key, or None."""
        self._expire(now)
        found = self._answers.get(key)
        return found[1] if found else None

    def keep(self, now: float, key: tuple[str, ...], answer: A) -> None:
        """Keep an answer; the first one for a key stays."""
        self._expire(now)
        if key in self._answers:
            return
        self._answers[key] = (now, answer)
        if len(self._answers) > self._limit:
            self._answers.popitem(last=False)
            self.evicted += 1

    def forget(self, key: tuple[str, ...]) -> None:
        """Drop an answer, so that a repetition runs the handler again."""
        self._answers.pop(key, None)

    def _expire(self, now: float) -> None:
        while self._answers:
            key, (kept_at, _) = next(iter(self._answers.items()))
            if now - kept_at < self._seconds:
                return
            del self._answers[key]
            self.expired += 1
