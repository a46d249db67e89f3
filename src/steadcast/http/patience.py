"""How long a client may take to say what it wants: uvicorn waits for ever for the head of a request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio
    from collections import Counter

HEAD_TIMEOUT: Final = 10.0
"""Seconds from a connection's start, or a request's first byte, to the end of its head."""


def patient(counts: Counter[str], head_timeout: float = HEAD_TIMEOUT) -> type[H11Protocol]:
    """Make a protocol class for uvicorn (`http=`) that cuts whoever drips a head, counted as `slow_heads`."""

    class PatientProtocol(H11Protocol):
        """HTTP/1.1 with an end to its patience."""

        _waiting: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE and not self.transport.is_closing():
                self._wait()
            else:
                self._stop_waiting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if self._waiting is None:
                self._waiting = self.loop.call_later(head_timeout, self._cut)

        def _stop_waiting(self) -> None:
            if self._waiting is not None:
                self._waiting.cancel()
                self._waiting = None

        def _cut(self) -> None:
            self._waiting = None
            counts["slow_heads"] += 1
            self.transport.close()

    return PatientProtocol
