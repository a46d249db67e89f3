"""An answer's head goes out with what follows it, in one write: two take the kernel twice as long.

The ASGI specification asks for it: no response begins before its first body event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

CONTINUE: Final = b"HTTP/1.1 100 "


class Joined:
    """What uvicorn's cycle needs of a transport, for one answer that has a body, be it empty."""

    __slots__ = ("_head", "_transport", "write")

    write: Callable[[bytes], None]

    def __init__(self, transport: asyncio.Transport) -> None:
        """Write to `transport`."""
        self._transport = transport
        self._head = b""
        self.write = self._hold

    def close(self) -> None:
        """Close the transport, behind what was written here."""
        if self._head:
            self._transport.write(self._head)
        self._transport.close()

    def is_closing(self) -> bool:
        """Tell whether the transport is closed, or about to be."""
        return self._transport.is_closing()

    def _hold(self, data: bytes) -> None:
        if data.startswith(CONTINUE):
            self._transport.write(data)  # a client waits for it with its body
        else:
            self._head, self.write = data, self._join

    def _join(self, data: bytes) -> None:
        head, self._head, self.write = self._head, b"", self._transport.write
        self._transport.write(head + data)
