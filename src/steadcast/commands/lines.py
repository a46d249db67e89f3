"""Lines from a pipe, in groups of what is there: a live pipe isn't held up, a file goes quickly."""

from __future__ import annotations

import os
import select
from collections import deque

_CHUNK = 256 * 1024


class Lines:
    """The lines of a file descriptor. Holds at most one group and one line of `longest` bytes."""

    def __init__(self, source: int, *, longest: int) -> None:
        self._source = source
        self._longest = longest
        self._waiting: deque[bytes | None] = deque()
        self._rest = b""
        self._too_long = False
        self._ended = False
        self._number = 0

    def next_group(self, events: int, size: int) -> list[tuple[int, bytes | None]]:
        """Wait for a line and give it with those that have come in by then; empty at the end.

        A group has at most `events` lines, and ends with the line that brings it to `size` bytes. Lines are
        numbered from 1, empty ones are left out, and None stands for one that is too long.
        """
        group: list[tuple[int, bytes | None]] = []
        held = 0
        while len(group) < events and held < size:
            if not self._waiting and not self._read(block=not group):
                break
            while self._waiting and len(group) < events and held < size:
                line = self._waiting.popleft()
                self._number += 1
                if line is None or line.strip():
                    group.append((self._number, line))
                    held += len(line or b"")
        return group

    def _read(self, *, block: bool) -> bool:
        """Read on; False at the end, and where nothing is there and `block` is False."""
        if self._ended:
            return False
        # Waited for here, not in the read: it raises at once where a parent has made its pipe non-blocking.
        if not select.select([self._source], [], [], None if block else 0)[0]:
            return False
        chunk = os.read(self._source, _CHUNK)
        if not chunk:
            self._ended = True
            if self._rest or self._too_long:
                self._take(b"")
            return bool(self._waiting)
        first, *others = chunk.split(b"\n")
        self._hold(first)
        for part in others:
            self._take(b"")
            self._hold(part)
        return True

    def _hold(self, part: bytes) -> None:
        self._rest += part
        if len(self._rest) > self._longest:
            self._too_long = True
            self._rest = b""

    def _take(self, last: bytes) -> None:
        self._hold(last)
        self._waiting.append(None if self._too_long else self._rest)
        self._rest = b""
        self._too_long = False
