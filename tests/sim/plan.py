"""What a seed is to do, and how small the house's limits are while it does."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from steadcast.core import cursor, paging, receiving, session
from steadcast.engines import page


class Limits(NamedTuple):
    """The house's limits in events: small ones are met often, as FoundationDB's knobs are turned down."""

    page: int
    window: int
    acks: int
    inbox: int
    watch: int


SIZES = (
    Limits(page=4, window=8, acks=3, inbox=24, watch=12),
    Limits(page=8, window=32, acks=8, inbox=64, watch=64),
    Limits(page=16, window=48, acks=12, inbox=4_096, watch=16_384),
    Limits(page=256, window=1_024, acks=64, inbox=4_096, watch=16_384),
)


SQLITE_SHARE = 0.15
"""So many of the histories are played on a log in a SQLite file; the others on one in memory."""


class Fault(NamedTuple):
    """When, what, and the seed of its own choices."""

    at: float
    kind: str
    seed: int


@dataclass(frozen=True)
class Plan:
    """One history: shrinking takes things out of it, and what is left plays as it did before."""

    seed: int
    kinds: tuple[str, ...]
    seconds: float = 20.0
    publishers: int = 2
    spooling: bool = False
    subscribers: int = 2
    streams: int = 1
    sqlite: bool = False
    limits: Limits = SIZES[1]
    faults: tuple[Fault, ...] = field(default_factory=tuple)

    @classmethod
    def of(cls, seed: int, kinds: tuple[str, ...]) -> Plan:
        """Draw a plan from a seed."""
        rng = random.Random(seed)
        seconds = rng.choice((8.0, 16.0, 30.0))
        times = sorted(rng.uniform(0.5, seconds) for _ in range(rng.randint(0, 14)))
        return cls(
            seed,
            kinds,
            seconds=seconds,
            publishers=rng.randint(1, 2),
            spooling=rng.random() < 0.4,
            subscribers=rng.randint(1, 3),
            streams=rng.choice((1, 1, 2, 3)),
            sqlite=rng.random() < SQLITE_SHARE,
            limits=rng.choice(SIZES),
            faults=tuple(Fault(at, rng.choice(kinds), rng.randrange(2**31)) for at in times),
        )

    def smaller(self) -> Iterator[Plan]:
        """Give plans with one thing less each."""
        for n in range(len(self.faults)):
            yield replace(self, faults=self.faults[:n] + self.faults[n + 1 :])
        if self.subscribers > 1:
            yield replace(self, subscribers=self.subscribers - 1)
        if self.publishers > 1:
            yield replace(self, publishers=self.publishers - 1)
        if self.streams > 1:
            yield replace(self, streams=self.streams - 1)
        if self.spooling:
            yield replace(self, spooling=False)
        shorter = self.seconds * 0.7
        if shorter > 0.5 and all(fault.at < shorter for fault in self.faults):
            yield replace(self, seconds=shorter)


_PLACES = (
    (session, "PAGE_EVENTS", "page"),
    (paging, "PAGE_EVENTS", "page"),
    (page, "PAGE_EVENTS", "page"),
    (cursor, "ACK_EVENTS", "acks"),
    (receiving, "INBOX_EVENTS", "inbox"),
)


@contextmanager
def turned_down(limits: Limits) -> Iterator[None]:
    """Set the house's limits for a while."""
    before = [getattr(module, name) for module, name, _ in _PLACES]
    for module, name, which in _PLACES:
        setattr(module, name, getattr(limits, which))
    try:
        yield
    finally:
        for (module, name, _), value in zip(_PLACES, before, strict=True):
            setattr(module, name, value)
