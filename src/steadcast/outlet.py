"""Standard error, as a server may use it: a log that nobody reads, or nobody can be written to, stops nobody.

A write to a pipe whose reader stands still waits for it, and with the loop's every client; one to a pipe
whose reader has gone raises, into whatever was being told.
"""

from __future__ import annotations

import os
import select
import threading
from collections import Counter, deque
from typing import Final

import structlog

log = structlog.get_logger("steadcast.log")

ROOM: Final = 1024 * 1024
"""Bytes of lines that wait to be written; what finds no room is lost, and counted."""
PATIENCE: Final = 1.0
"""Seconds that the last lines may take."""


class Outlet:
    """A text stream, as loggers know one, that is written by a thread of its own.

    `counts` of lines: accepted = pending + `written` + `lost`. How many were lost is told by a line of the
    log as soon as it takes lines again, and by `log_lines_lost` where `lost_in` says.
    """

    def __init__(self, descriptor: int | None, *, room: int = ROOM) -> None:
        """Write to a file's descriptor; where there is none, as with `2>&-`, all is lost."""
        self.counts: Counter[str] = Counter()
        self._descriptor = descriptor
        self._room = room
        self._size = 0
        self._lines: deque[bytes] = deque()  # bounded by `room`
        self._told = 0
        self._also: Counter[str] = Counter()
        self._change = threading.Condition()
        threading.Thread(target=self._run, name="steadcast-log", daemon=True).start()

    @property
    def pending(self) -> int:
        """How many lines wait."""
        return len(self._lines)

    def lost_in(self, counts: Counter[str]) -> None:
        """Count what is lost here too, from now on."""
        self._also = counts

    def write(self, text: str) -> int:
        """Take a line; returns at once, and raises nothing."""
        line = text.encode("utf-8", "backslashreplace")
        with self._change:
            self.counts["accepted"] += 1
            if self._size + len(line) > self._room:
                self._lose(1)
            else:
                self._lines.append(line)
                self._size += len(line)
                self._change.notify_all()
        return len(text)

    def flush(self) -> None:
        """Do nothing: what was taken is on its way."""

    def isatty(self) -> bool:
        """Tell whether a person looks on."""
        return self._descriptor is not None and os.isatty(self._descriptor)

    def settle(self, patience: float = PATIENCE) -> None:
        """Wait until all is written, at most `patience` seconds."""
        with self._change:
            self._change.wait_for(lambda: not self._lines, patience)

    def _lose(self, lines: int) -> None:
        self.counts["lost"] += lines
        self._also["log_lines_lost"] += lines

    # On the thread

    def _run(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._lines)
                taken = list(self._lines)
            went = self._put(b"".join(taken))
            with self._change:
                for line in taken:
                    self._lines.popleft()
                    self._size -= len(line)
                if went:
                    self.counts["written"] += len(taken)
                else:
                    self._lose(len(taken))
                self._change.notify_all()
            if went:
                self._confess()

    def _put(self, data: bytes) -> bool:
        """Write to the descriptor, however long that takes; tells whether it took it all."""
        if self._descriptor is None:
            return False
        try:
            while data:
                data = data[self._some(self._descriptor, data) :]
        except OSError:
            return False  # who calls counts it
        return True

    @staticmethod
    def _some(descriptor: int, data: bytes) -> int:
        try:
            return os.write(descriptor, data)
        except BlockingIOError:
            # Whoever started it has made it non-blocking; it is theirs too, and left so.
            select.select((), (descriptor,), ())
            return 0

    def _confess(self) -> None:
        lost = self.counts["lost"]
        if lost > self._told:
            log.warning("lines of this log were lost, since nobody took them", lines=lost - self._told)
            self._told = lost
