"""What the hub writes, and to whom."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from steadcast.wire import encode_batch, size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from steadcast.errors import SteadcastError
    from steadcast.event import Batch

T = TypeVar("T")


class Frame:
    """A batch with its JSON, encoded once; the forms that transports make of it are made once as well."""

    __slots__ = ("_forms", "batch", "payload", "size")

    def __init__(self, batch: Batch) -> None:
        """Encode the batch."""
        self.batch = batch
        self.payload = encode_batch(batch)
        self.size = sum(size_of(entry.event) for entry in batch.events)
        self._forms: dict[Any, Any] = {}  # bounded by the transports that there are

    def form(self, make: Callable[[Frame], T]) -> T:
        """Give what `make` makes of this frame; it is called once."""
        if make not in self._forms:
            self._forms[make] = make(self)
        found: T = self._forms[make]
        return found


class Way(Protocol):
    """How batches reach connections: those that share a way are written to together."""

    def write(self, frame: Frame, targets: Sequence[Any]) -> None:
        """Write a batch to each target; returns at once and raises nothing for a target that is gone."""
        ...


class Connection(Protocol):
    """What the hub writes to: a Socket.IO client, an SSE response."""

    id: str

    def write(self, frame: Frame) -> None:
        """Queue a batch for this client; returns at once."""
        ...

    def kick(self, error: SteadcastError) -> None:
        """Tell the client why, and disconnect it; returns at once."""
        ...


class OneByOne:
    """The way of connections that know no other: each is handed the batch by itself."""

    @staticmethod
    def write(frame: Frame, targets: Sequence[Connection]) -> None:
        """Hand the batch to each connection."""
        for connection in targets:
            connection.write(frame)


ONE_BY_ONE: Final = OneByOne()
