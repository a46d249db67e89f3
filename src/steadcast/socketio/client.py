"""One Socket.IO connection as the hub sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from engineio import packet as engine_packet

from steadcast.core.scopes import ANYBODY, expired
from steadcast.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable

    import socketio

    from steadcast.core.scopes import Identity
    from steadcast.errors import SteadcastError
    from steadcast.hub import Frame

NAMESPACE = "/"


def stock_packet(frame: Frame) -> engine_packet.Packet:
    """Give a frame's Engine.IO packet, which every client of the group shares."""
    return engine_packet.Packet(engine_packet.MESSAGE, f'2["batch",{frame.payload.decode()}]')


class Client:
    """A connected client; writing never blocks, the ack window bounds what can be queued for it."""

    def __init__(
        self,
        server: socketio.AsyncServer,
        sid: str,
        eio_sid: str,
        *,
        client_id: str | None = None,
        spawn: Callable[[Any], object],
        identity: Identity = ANYBODY,
    ) -> None:
        """Know the connection and whose it is; `spawn` keeps a task until it is done."""
        self.id = sid
        self.client_id = client_id
        self.dropped = 0
        self.kicked: str | None = None
        self._server = server
        self._eio_sid = eio_sid
        self._spawn = spawn
        self.gate = Gate(identity)

    def write(self, frame: Frame) -> None:
        """Queue a batch; it is dropped, counted, where the connection is closing or its token has expired."""
        if self.gate.shut:
            self.kick(expired())
        socket = self._server.eio.sockets.get(self._eio_sid)
        if self.kicked is not None or socket is None or socket.closed or socket.closing:
            self.dropped += 1
            return
        socket.queue.put_nowait(frame.form(stock_packet))

    @property
    def address(self) -> str | None:
        """The client's address, as the server or a proxy that it trusts tells it; None where nobody does."""
        known = self._server.environ.get(self._eio_sid, {}).get("asgi.scope", {}).get("client")
        return known[0] if known else None

    async def send(self, event: str, payload: object) -> bool:
        """Send an event to this client; False where its connection is gone."""
        socket = self._server.eio.sockets.get(self._eio_sid)
        if socket is None or socket.closed or socket.closing:
            return False
        packet = self._server.packet_class(2, data=[event, payload], namespace=NAMESPACE)
        await self._server._send_packet(self._eio_sid, packet)  # noqa: SLF001 - the library's own way to one client
        return True

    def kick(self, error: SteadcastError) -> None:
        """Tell the client why and disconnect it; once."""
        if self.kicked is None:
            self.kicked = error.code
            self._spawn(self._leave(error))

    async def _leave(self, error: SteadcastError) -> None:
        await self.send("error", error.as_wire())
        await self._server.disconnect(self.id, NAMESPACE)
        await self.hang_up()

    async def hang_up(self, patience: float = 2.0) -> None:
        """Close the connection below as well, after `patience` seconds whether it drained or not."""
        socket = self._server.eio.sockets.get(self._eio_sid)
        if socket is None:
            return
        try:
            await asyncio.wait_for(socket.close(), patience)
        except TimeoutError:
            # A stopped client never drains its queue: what is in it would be kept for nothing.
            self.dropped += socket.queue.qsize()
            while not socket.queue.empty():
                socket.queue.get_nowait()
                socket.queue.task_done()

    @property
    def queued(self) -> int:
        """How many packets wait in the transport's queue."""
        socket = self._server.eio.sockets.get(self._eio_sid)
        return socket.queue.qsize() if socket is not None else 0

    @property
    def transport(self) -> str:
        """The transport that is in use: websocket or polling."""
        socket = self._server.eio.sockets.get(self._eio_sid)
        return "websocket" if socket is not None and socket.upgraded else "polling"
