"""A queue and a flag, as asyncio has them, for what every connection has.

Each of asyncio's is made of deques, which take 760 bytes whether something is in them or not: for a client on
a WebSocket that is seven kilobytes. These take them only while something waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class _Awaited:
    """Something that tasks wait for; they are woken all together, and look for themselves."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        self._waiting: tuple[asyncio.Future[None], ...] = ()  # bounded by the tasks that there are

    async def _change(self) -> None:
        """Wait for the next change."""
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting = (*(each for each in self._waiting if not each.done()), change)
        await change

    def _changed(self) -> None:
        waiting, self._waiting = self._waiting, ()
        for change in waiting:
            if not change.done():
                change.set_result(None)


class Flag(_Awaited):
    """`asyncio.Event`, as far as uvicorn uses it."""

    __slots__ = ("_up",)

    def __init__(self) -> None:
        """Begin set."""
        super().__init__()
        self._up = True

    def set(self) -> None:
        """Let go who waits, and who comes."""
        self._up = True
        self._changed()

    def clear(self) -> None:
        """Let wait who comes."""
        self._up = False

    async def wait(self) -> None:
        """Wait until it is set."""
        while not self._up:
            await self._change()


class Queue(_Awaited, Generic[T]):
    """`asyncio.Queue`, as far as uvicorn and Engine.IO use it; whoever puts something in bounds it."""

    __slots__ = ("_items", "_unfinished")

    def __init__(self) -> None:
        """Begin empty."""
        super().__init__()
        self._items: deque[T] | None = None
        self._unfinished = 0

    def qsize(self) -> int:
        """Count what waits."""
        return len(self._items) if self._items is not None else 0

    def empty(self) -> bool:
        """Tell whether nothing waits."""
        return self._items is None

    def put_nowait(self, item: T) -> None:
        """Add something at the end."""
        if self._items is None:
            self._items = deque()  # bounded by whoever puts something in
        self._items.append(item)
        self._unfinished += 1
        self._changed()

    async def put(self, item: T) -> None:
        """Do the same, for those who await it."""
        self.put_nowait(item)

    def get_nowait(self) -> T:
        """Take the first; raises `asyncio.QueueEmpty`."""
        if self._items is None:
            raise asyncio.QueueEmpty
        item = self._items.popleft()
        if not self._items:
            self._items = None
        return item

    async def get(self) -> T:
        """Wait for the first, and take it; a task that is cancelled meanwhile takes nothing."""
        while self._items is None:
            await self._change()
        return self.get_nowait()

    def task_done(self) -> None:
        """Say that one that was taken is done with."""
        self._unfinished -= 1
        if not self._unfinished:
            self._changed()

    async def join(self) -> None:
        """Wait until all that was put in is done with."""
        while self._unfinished:
            await self._change()
