"""Log lines of what is called from anywhere, a logging handler too: kept under its lock, told without it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from steadcast.client.delivery import Delivery

log = logging.getLogger("steadcast.publisher")
log.addHandler(logging.NullHandler())

HELD: Final = 1_000
"""So many lines wait to be told; the oldest go first."""

_Line: TypeAlias = tuple[int, str, tuple[object, ...], Exception | None]


class Aside:
    """Keeps log lines until they can be told.

    Under a lock they can't: a handler may be waiting for that lock, inside the handler's own. And what a
    thread has to say while it tells is left out: where a handler publishes what is logged, and the disk
    refuses, each line would bring the next. `unsaid` counts those, refusals of a kind that was told, what a
    full line gave up, and what a handler raised at.
    """

    def __init__(self) -> None:
        """Nothing is said yet."""
        self.unsaid = 0
        self._lines: deque[_Line] = deque(maxlen=HELD)
        self._within = threading.local()
        self._refused: set[tuple[str, int, str]] = set()

    def sent(self, delivery: Delivery) -> None:
        """Say what was refused; of a stream that takes nothing, once for each reason until it does.

        A line may be published as an event itself, by a handler in whatever thread: where its stream is one
        that the token doesn't cover, each line would bring the next.
        """
        taken = {item.stream for item in delivery.accepted}
        self._refused = {kind for kind in self._refused if kind[0] not in taken}
        for item, outcome in delivery.refused:
            kind = (item.stream, outcome.status, outcome.code)
            if kind in self._refused or len(self._refused) == HELD:
                self.unsaid += 1
                continue
            self._refused.add(kind)
            self.say("event %s of stream %s was refused: %s", item.id, item.stream, outcome.reason)

    def say(
        self, text: str, *about: object, level: int = logging.WARNING, error: Exception | None = None
    ) -> None:
        """Keep a line; `error` makes it one, and goes with its traceback."""
        if self._telling:
            self.unsaid += 1
            return
        self.unsaid += len(self._lines) == HELD
        self._lines.append((level if error is None else logging.ERROR, text, about, error))

    def tell(self) -> None:
        """Log what was said, unless this thread is about to."""
        if not self._lines or self._telling:
            return
        self._within.telling = True
        try:
            while line := self._next():
                level, text, about, error = line
                log.log(level, text, *about, exc_info=error)
        except Exception:  # noqa: BLE001 - a handler of the program's raised: counted
            self.unsaid += 1
        finally:
            self._within.telling = False

    def _next(self) -> _Line | None:
        try:
            return self._lines.popleft()
        except IndexError:
            return None  # there is none, or another thread tells it

    @property
    def _telling(self) -> bool:
        return getattr(self._within, "telling", False)
