"""What the application gives the routes: who is connected, and what died. Either may be missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from steadcast.event import Receipt


class Connections(Protocol):
    """Who is connected; see `steadcast.socketio.connections`."""

    def __len__(self) -> int:
        """Tell how many there are."""
        ...

    def __iter__(self) -> Iterator[Any]:
        """Give each client."""
        ...

    def get(self, sid: str) -> Any:
        """Give the client of a connection, or None."""
        ...

    def metrics(self, client: Any) -> dict[str, Any]:
        """Give one client's figures."""
        ...

    async def ping(self, client: Any, patience: float) -> float | None:
        """Ping one client now; gives its round trip in seconds, or None without a pong in time."""
        ...


class DeadStore(Protocol):
    """What keeps dead events; see `steadcast.socketio.dead`."""

    async def list(self) -> Any:
        """Give `dead`, oldest first, and whether that is `complete`."""
        ...

    async def redrive(self, dead: str) -> Receipt | None:
        """Append a dead event to its stream again; None where there is none with this id."""
        ...

    async def drop(self, dead: str) -> bool:
        """Forget a dead event; tells whether there was one."""
        ...
