"""Who is in which room, from both sides: the library looks through every room for each client that goes.

Each client has a room of its own, so a thousand clients that are cut at once would cost a million looks.
"""

from __future__ import annotations

from typing import Any

import socketio


class Rooms(socketio.AsyncManager):  # type: ignore[misc]
    """The library's rooms, and for each client the rooms that it is in."""

    def __init__(self) -> None:
        """Begin without a client."""
        super().__init__()
        self._of: dict[tuple[str, str], dict[str | None, None]] = {}  # as many as there are clients

    def basic_enter_room(
        self, sid: str, namespace: str, room: str | None, eio_sid: str | None = None
    ) -> None:
        """Put a client into a room; raises ValueError and KeyError as the library does."""
        super().basic_enter_room(sid, namespace, room, eio_sid)
        self._of.setdefault((namespace, sid), {})[room] = None

    def basic_leave_room(self, sid: str, namespace: str, room: str | None) -> None:
        """Take a client out of a room, if it is there."""
        super().basic_leave_room(sid, namespace, room)
        entered = self._of.get((namespace, sid), {})
        entered.pop(room, None)
        if not entered:
            self._of.pop((namespace, sid), None)

    def basic_disconnect(self, sid: str, namespace: str, **_: Any) -> None:
        """Take a client out of everything."""
        for room in list(self._of.get((namespace, sid), ())):
            self.basic_leave_room(sid, namespace, room)
        self.callbacks.pop(sid, None)
        for pending in (self.pending_connect, self.pending_disconnect):
            if sid in pending.get(namespace, ()):
                pending[namespace].remove(sid)
                if not pending[namespace]:
                    del pending[namespace]

    def get_rooms(self, sid: str, namespace: str) -> list[str]:
        """List the rooms that a client is in."""
        return [room for room in self._of.get((namespace, sid), ()) if room is not None]
