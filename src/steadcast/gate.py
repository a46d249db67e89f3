"""The gate of one connection: what its token allows, for as long as it does.

A Socket.IO client and an SSE response have one each. It is asked at subscribe, at publish and before each
batch or page that is written, and its one timer ends the connection when the token does, live or replaying.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

from steadcast.core.scopes import ANYBODY, expired

if TYPE_CHECKING:
    from collections.abc import Callable

    from steadcast.core.scopes import Identity, Scope
    from steadcast.errors import SteadcastError

LONGEST: Final = 600.0
"""Seconds after which a timer looks at the wall clock again: it may have been set meanwhile."""


class Gate:
    """Asked before anything passes; `wall` gives Unix time in seconds."""

    def __init__(self, identity: Identity = ANYBODY, *, wall: Callable[[], float] = time.time) -> None:
        """Stand open for an identity."""
        self.identity = identity
        self._wall = wall
        self._timer: asyncio.TimerHandle | None = None

    def check(self, scope: Scope, stream: str | None = None) -> None:
        """Raise `NotAllowed`: `forbidden`, or `token_expired`, which is temporary."""
        self.identity.check(scope, stream, now=self._wall())

    @property
    def shut(self) -> bool:
        """Whether the token has expired."""
        return self.identity.expires is not None and self.identity.expired(self._wall())

    def watch(self, end: Callable[[SteadcastError], None]) -> None:
        """Call `end` with the reason once the token has expired; until `close`."""
        if self.identity.expires is None:
            return
        if self.shut:
            end(expired())
            return
        left = min(self.identity.expires - self._wall(), LONGEST)
        self._timer = asyncio.get_running_loop().call_later(left, self.watch, end)

    def close(self) -> None:
        """Let the timer go: the connection has ended."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
