"""The gate of one connection: what its token allows, for as long as it does.

A Socket.IO client and an SSE response have one each. It is asked at subscribe, at publish and before each
batch or page that is written, and its one timer ends the connection when the token does, live or replaying.
Where tokens were taken back, all gates are told to look.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from steadcast.core.scopes import ANYBODY
from steadcast.errors import SteadcastError

if TYPE_CHECKING:
    from collections.abc import Callable

    from steadcast.core.scopes import Identity, Scope
    from steadcast.errors import NotAllowed

LONGEST: Final = 600.0
"""Seconds after which a timer looks at the wall clock again: it may have been set meanwhile."""
SHORTEST: Final = 0.001
"""Seconds until it looks, at the least: less may be lost in the sum with the loop's time, and be no wait."""


class Gate:
    """Asked before anything passes; `wall` gives Unix time in seconds."""

    def __init__(self, identity: Identity = ANYBODY, *, wall: Callable[[], float] = time.time) -> None:
        """Stand open for an identity."""
        self.identity = identity
        self._wall = wall
        self._timer: asyncio.TimerHandle | None = None
        self._end: Callable[[SteadcastError], None] | None = None

    def check(self, scope: Scope, stream: str | None = None) -> None:
        """Raise `NotAllowed`: `forbidden`, or `token_expired` or `token_revoked`, which are temporary.

        These end the connection too, which may be before the timer where the wall clock was set: it takes
        a new connection to show another token.
        """
        try:
            self.identity.check(scope, stream, now=self._wall())
        except SteadcastError:
            self.look()
            raise

    @property
    def ended(self) -> NotAllowed | None:
        """Why nothing passes any more; None while the token holds."""
        identity = self.identity
        if identity.expires is None and identity.grant is None:
            return None
        return identity.ended(self._wall())

    def watch(self, end: Callable[[SteadcastError], None]) -> None:
        """Call `end` with the reason once the token has ended; until `close`."""
        self._end = end
        self.look()

    def look(self) -> None:
        """See whether the token has ended, and when to look again by itself."""
        end = self._end
        if end is None:
            return
        if (why := self.ended) is not None:
            self.close()
            end(why)
        elif self.identity.expires is not None:
            left = max(min(self.identity.expires - self._wall(), LONGEST), SHORTEST)
            self._wait(asyncio.get_running_loop().call_later(left, self.look))

    def close(self) -> None:
        """Let the timer go: the connection has ended."""
        self._end = None
        self._wait(None)

    def _wait(self, timer: asyncio.TimerHandle | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer
