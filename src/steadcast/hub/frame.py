"""What the hub writes, and to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from steadcast.wire import encode_batch, size_of

if TYPE_CHECKING:
    from steadcast.errors import SteadcastError
    from steadcast.event import Batch


class Frame:
    """A batch with its JSON, encoded once; a transport may keep its own form of it in `framed`."""

    __slots__ = ("batch", "framed", "payload", "size")

    def __init__(self, batch: Batch) -> None:
        """Encode the batch."""
        self.batch = batch
        self.payload = encode_batch(batch)
        self.size = sum(size_of(entry.event) for entry in batch.events)
        self.framed: object = None


class Connection(Protocol):
    """What the hub writes to: a Socket.IO client, an SSE response."""

    id: str

    def write(self, frame: Frame) -> None:
        """Queue a batch for this client; returns at once."""
        ...

    def kick(self, error: SteadcastError) -> None:
        """Tell the client why, and disconnect it; returns at once."""
        ...
