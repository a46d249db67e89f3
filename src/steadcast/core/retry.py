"""The queue in which events wait for an engine that failed.

An entry moves through `TRANSITIONS`:

    WAITING   until its next retry is due
    TRYING    handed out by a `Retry`; its outcome is to be told
    GONE      succeeded, or abandoned for one of `REASONS`

All counts are of events, and at any moment: queued = succeeded + abandoned + queue_size.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, Generic, Literal, TypeAlias, TypeVar

import msgspec

from steadcast.core.backoff import Backoff
from steadcast.errors import IllegalInput
from steadcast.event import LANES, Lane

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

E = TypeVar("E")

Reason = Literal["exhausted", "expired", "evicted", "refused", "closed"]
REASONS: Final[tuple[Reason, ...]] = ("exhausted", "expired", "evicted", "refused", "closed")
"""Why an entry is given up: its retries are used up, it is too old, the queue was full, a retry was refused
for good, or the queue was closed."""

MAX_RETRIES: Final = 3
DELAYS: Final = Backoff(base=1.0, factor=2.0, cap=8.0, spread=0.0)
"""1, 2, 4, 8, 8, ... seconds: kept in full, since a delay is the earliest time of a retry."""
AGE_LIMIT: Final = 30.0
MAX_SIZE: Final = 1_000


class State(Enum):
    """Where an entry stands; see the module's table."""

    WAITING = auto()
    TRYING = auto()
    GONE = auto()


class _In(Enum):
    TAKE = auto()
    SUCCEED = auto()
    FAIL = auto()
    POSTPONE = auto()
    GIVE_UP = auto()


TRANSITIONS: Final[Mapping[tuple[State, _In], State]] = {
    (State.WAITING, _In.TAKE): State.TRYING,
    (State.WAITING, _In.GIVE_UP): State.GONE,
    (State.TRYING, _In.SUCCEED): State.GONE,
    (State.TRYING, _In.FAIL): State.WAITING,
    (State.TRYING, _In.POSTPONE): State.WAITING,
    (State.TRYING, _In.GIVE_UP): State.GONE,
}


class Retry(msgspec.Struct, Generic[E], frozen=True):
    """Try this entry now, and tell the queue the outcome; `retry` counts from 1."""

    ticket: int
    entry: E
    retry: int


class Abandon(msgspec.Struct, Generic[E], frozen=True):
    """This entry is given up after so many retries."""

    ticket: int
    entry: E
    reason: Reason
    retries: int


Effect: TypeAlias = Retry[E] | Abandon[E]


@dataclass(slots=True, kw_only=True)
class _Held(Generic[E]):
    ticket: int
    entry: E
    lane: Lane
    size: int
    since: float
    due: float
    retries: int = 0
    state: State = State.WAITING

    def move(self, given: _In) -> None:
        target = TRANSITIONS.get((self.state, given))
        if target is None:
            raise IllegalInput(f"{given.name} while {self.state.name}", ticket=self.ticket)
        self.state = target


class RetryQueue(Generic[E]):
    """Entries that wait for a retry, critical ones before normal ones, each lane in order of arrival.

    An entry is opaque; `size` is how many events it stands for: they are tried, evicted and abandoned
    together. `backoff` gives the delays between retries, which are the earliest times. `age_limit` is in
    seconds and counts from `since`, also while a circuit breaker refuses. `max_size` counts events; a full
    queue makes room from its oldest normal entries, for a critical one also from its oldest critical
    ones, and where that isn't enough the newcomer itself is evicted. What is being tried is never evicted.
    """

    def __init__(
        self,
        *,
        max_retries: int = MAX_RETRIES,
        backoff: Backoff = DELAYS,
        age_limit: float = AGE_LIMIT,
        max_size: int = MAX_SIZE,
    ) -> None:
        """Begin empty; raises ValueError for numbers that make no queue."""
        if max_retries < 1 or age_limit <= 0 or max_size < 1:
            raise ValueError("a retry queue needs max_retries >= 1, age_limit > 0 and max_size >= 1")
        self.abandoned_by: dict[Reason, int] = dict.fromkeys(REASONS, 0)
        self._max_retries = max_retries
        self._backoff = backoff
        self._age_limit = age_limit
        self._max_size = max_size
        self._lanes: dict[Lane, dict[int, _Held[E]]] = {lane: {} for lane in LANES}
        self._tickets = 0
        self._queued = self._retried = self._succeeded = self._size = 0
        self._closed = False

    @property
    def stats(self) -> dict[str, int]:
        """The specification's five numbers; `abandoned_by` has the reasons beside them."""
        return {
            "queued": self._queued,
            "retried": self._retried,
            "succeeded": self._succeeded,
            "abandoned": sum(self.abandoned_by.values()),
            "queue_size": self._size,
        }

    # Inputs

    def put(
        self, now: float, entry: E, *, lane: Lane = Lane.NORMAL, size: int = 1, since: float | None = None
    ) -> list[Abandon[E]]:
        """Take in an entry whose first try failed; tells what had to go for it, perhaps the entry itself.

        `since` is when it was handed over, `now` by default; its first retry is due one delay from `now`.
        """
        if size < 1:
            raise IllegalInput("an entry stands for at least one event")
        self._tickets += 1
        since = now if since is None else since
        due = now + self._backoff.delay(1)
        held = _Held(ticket=self._tickets, entry=entry, lane=lane, size=size, since=since, due=due)
        victims = self._victims(held)
        self._lanes[lane][held.ticket] = held
        self._queued += size
        self._size += size
        if self._closed:
            return [self._give_up(held, "closed")]
        return [self._give_up(victim, "evicted") for victim in victims]

    def handle_timeout(self, now: float) -> list[Effect[E]]:
        """Give up what is too old, and hand out what is due: critical first, oldest first."""
        expired = self.expire(now)
        return [*expired, *(self._take(held) for held in list(self._waiting()) if held.due <= now)]

    def expire(self, now: float) -> list[Abandon[E]]:
        """Give up what is too old and hand nothing out: for as long as the engine is to be spared."""
        old = [held for held in self._waiting() if self._expires(held) <= now]
        return [self._give_up(held, "expired") for held in old]

    def next_deadline(self) -> float | None:
        """Give the time at which `handle_timeout` has something to do, or None."""
        return min((min(held.due, self._expires(held)) for held in self._waiting()), default=None)

    def succeeded(self, ticket: int) -> None:
        """Note that a retry succeeded."""
        held = self._tried(ticket, _In.SUCCEED)
        self._retried += held.size
        self._succeeded += held.size
        self._remove(held)

    def failed(self, now: float, ticket: int) -> list[Abandon[E]]:
        """Note that a retry failed: the entry waits for the next one, or is given up after the last."""
        held = self._tried(ticket, _In.FAIL)
        self._retried += held.size
        held.retries += 1
        if held.retries >= self._max_retries:
            return [self._give_up(held, "exhausted")]
        held.due = now + self._backoff.delay(held.retries + 1)
        return self._give_up_when_closed(held)

    def postponed(self, ticket: int) -> list[Abandon[E]]:
        """Note that a retry wasn't made, since the breaker refused it: it stays due and counts nowhere."""
        return self._give_up_when_closed(self._tried(ticket, _In.POSTPONE))

    def refused(self, ticket: int) -> list[Abandon[E]]:
        """Note that a retry was refused for good."""
        held = self._find(ticket, State.TRYING)
        self._retried += held.size
        held.retries += 1
        return [self._give_up(held, "refused")]

    def close(self, now: float) -> list[Effect[E]]:
        """Hand out everything for one last try; what fails or comes from now on is given up as closed."""
        self._closed = True
        expired = self.expire(now)
        return [*expired, *(self._take(held) for held in list(self._waiting()))]

    # Entries

    def _waiting(self) -> Iterator[_Held[E]]:
        for lane in LANES:
            for held in self._lanes[lane].values():
                if held.state is State.WAITING:
                    yield held

    def _expires(self, held: _Held[E]) -> float:
        return held.since + self._age_limit

    def _victims(self, newcomer: _Held[E]) -> list[_Held[E]]:
        """Choose the fewest that make room, in the order of eviction; the newcomer where none can."""
        missing = self._size + newcomer.size - self._max_size
        if missing <= 0:
            return []
        lanes = [Lane.NORMAL] if newcomer.lane is Lane.NORMAL else [Lane.NORMAL, Lane.CRITICAL]
        victims = []
        for held in (each for lane in lanes for each in self._lanes[lane].values()):
            if held.state is State.WAITING:
                victims.append(held)
                missing -= held.size
                if missing <= 0:
                    return victims
        return [newcomer]

    def _take(self, held: _Held[E]) -> Retry[E]:
        held.move(_In.TAKE)
        return Retry(held.ticket, held.entry, held.retries + 1)

    def _find(self, ticket: int, state: State) -> _Held[E]:
        held = next((lane[ticket] for lane in self._lanes.values() if ticket in lane), None)
        if held is None or held.state is not state:
            raise IllegalInput(f"no entry with this ticket is {state.name}", ticket=ticket)
        return held

    def _tried(self, ticket: int, given: _In) -> _Held[E]:
        held = self._find(ticket, State.TRYING)
        held.move(given)
        return held

    def _give_up_when_closed(self, held: _Held[E]) -> list[Abandon[E]]:
        return [self._give_up(held, "closed")] if self._closed else []

    def _give_up(self, held: _Held[E], reason: Reason) -> Abandon[E]:
        held.move(_In.GIVE_UP)
        self._remove(held)
        self.abandoned_by[reason] += held.size
        return Abandon(held.ticket, held.entry, reason, held.retries)

    def _remove(self, held: _Held[E]) -> None:
        del self._lanes[held.lane][held.ticket]
        self._size -= held.size
