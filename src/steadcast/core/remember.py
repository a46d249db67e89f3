"""The first answers to emissions, so that a repeated emission gets the same one. Pure."""

from __future__ import annotations

import hashlib
import sys
from collections import OrderedDict
from typing import Final, Generic, TypeVar

A = TypeVar("A")

KEPT_SECONDS: Final = 600.0
KEPT_ANSWERS: Final = 10_000
KEPT_BYTES: Final = 64 * 1024 * 1024
LONG: Final = 128
"""Characters: of what is longer in a key its digest stands there, for a client thinks of its event's name."""
NODE: Final = 64
"""Bytes that a value takes in memory, about, besides what it holds."""

Key = tuple[str, ...]


def key_of(*parts: str) -> Key:
    """Make a key, which is short whatever its parts are."""
    return tuple([part if len(part) <= LONG else _digest(part) for part in parts])


def _digest(part: str) -> str:
    return hashlib.sha256(part.encode("utf-8", "surrogatepass")).hexdigest()


def weight_of(answer: object, most: int = KEPT_BYTES) -> int:
    """Tell how many bytes an answer takes in memory, about; no more than `most` of it are looked at."""
    weight, rest = 0, [answer]
    while rest and weight <= most:
        each = rest.pop()
        weight += NODE
        if isinstance(each, dict):
            rest += [*each, *each.values()]
        elif isinstance(each, (list, tuple, set, frozenset)):
            rest += each
        else:
            weight += sys.getsizeof(each)
    return weight


class Remembered(Generic[A]):
    """Answers by key for `seconds`, at most `limit`, of `room` bytes; the oldest go first, counted."""

    def __init__(
        self, *, seconds: float = KEPT_SECONDS, limit: int = KEPT_ANSWERS, room: int = KEPT_BYTES
    ) -> None:
        """Begin empty."""
        self.evicted = 0
        self.expired = 0
        self.weight = 0
        self._seconds = seconds
        self._limit = limit
        self._room = room
        self._answers: OrderedDict[Key, tuple[float, A, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def get(self, now: float, key: Key) -> A | None:
        """Give the answer that is kept for a key, or None."""
        self._expire(now)
        found = self._answers.get(key)
        return found[1] if found else None

    def keep(self, now: float, key: Key, answer: A) -> None:
        """Keep an answer; the first one for a key stays."""
        self._expire(now)
        if key in self._answers:
            return
        self._answers[key] = (now, answer, 0)
        self._evict()

    def weigh(self, key: Key, weight: int) -> None:
        """Note how many bytes the answer of a key takes, once that is known."""
        found = self._answers.get(key)
        if found is not None:
            kept_at, answer, before = found
            self._answers[key] = (kept_at, answer, weight)
            self.weight += weight - before
            self._evict()

    def forget(self, key: Key) -> None:
        """Drop an answer, so that a repetition runs the handler again."""
        gone = self._answers.pop(key, None)
        if gone is not None:
            self.weight -= gone[2]

    def _evict(self) -> None:
        while len(self._answers) > self._limit or self.weight > self._room:
            _, (_, _, weight) = self._answers.popitem(last=False)
            self.weight -= weight
            self.evicted += 1

    def _expire(self, now: float) -> None:
        while self._answers:
            key, (kept_at, _, _) = next(iter(self._answers.items()))
            if now - kept_at < self._seconds:
                return
            self.forget(key)
            self.expired += 1
