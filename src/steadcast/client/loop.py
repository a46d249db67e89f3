"""What belongs to one event loop, and says so in another."""

from __future__ import annotations

import asyncio

from steadcast.errors import InvalidRequest


class OneLoop:
    """The event loop that something is used in: the first one.

    In another loop its futures would be waited for for ever, since only their own loop wakes who waits.
    """

    def __init__(self, what: str) -> None:
        """Say what it is, as its caller knows it."""
        self._what = what
        self._loop: asyncio.AbstractEventLoop | None = None

    def check(self) -> None:
        """Raise `InvalidRequest` in another loop than the first, and outside of any."""
        try:
            running = asyncio.get_running_loop()
        except RuntimeError as error:
            raise self._elsewhere() from error
        if self._loop is None:
            self._loop = running
        if running is not self._loop:
            raise self._elsewhere()

    def _elsewhere(self) -> InvalidRequest:
        return InvalidRequest(
            f"{self._what} belongs to the asyncio event loop that it was first used in: from a thread, hand"
            " its coroutines there by asyncio.run_coroutine_threadsafe(…, loop); make a new one for each"
            " asyncio.run",
            field="loop",
        )
