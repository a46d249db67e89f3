"""One Socket.IO connection as the hub sees it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from engineio import packet as engine_packet

from steadcast.core.scopes import ANYBODY
from steadcast.gate import Gate
from steadcast.socketio.fanout import Marker

if TYPE_CHECKING:
    from collections.abc import Callable

    import socketio

    from steadcast.core.scopes import Identity
    from steadcast.core.session import Session
    from steadcast.errors import SteadcastError
    from steadcast.hub import Frame, Hub
    from steadcast.socketio.fanout import Carrier, Door, Fanout
    from steadcast.wire import Ack

NAMESPACE = "/"


def stock_packet(frame: Frame) -> engine_packet.Packet:
    """Give a frame's Engine.IO packet, which every client of the group shares."""
    return engine_packet.Packet(engine_packet.MESSAGE, f'2["batch",{frame.payload.decode()}]')


class Client:
    """A connected client; writing never blocks, the ack window bounds what can be queued for it."""

    __slots__ = (
        "_carrier",
        "_eio_sid",
        "_fanout",
        "_hub",
        "_opening",
        "_server",
        "_spawn",
        "client_id",
        "dropped",
        "gate",
        "id",
        "kicked",
    )

    def __init__(
        self,
        server: socketio.AsyncServer,
        hub: Hub,
        fanout: Fanout,
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
        self._hub = hub
        self._fanout = fanout
        self._eio_sid = eio_sid
        self._spawn = spawn
        self.gate = Gate(identity)
        self._carrier: Carrier | None = None
        self._opening = False

    @property
    def emitter(self) -> tuple[str, str]:
        """Whose emissions' ids these are: a token's client, over all its connections.

        Who names another's client doesn't get its answers. Those that name none share their ids: a connection
        alone couldn't be known again after a cut, when an emission is repeated.
        """
        return self.gate.identity.name, self.client_id or ""

    # How batches get there

    @property
    def direct(self) -> bool:
        """Whether batches are written to its transport directly."""
        return self._carrier is not None

    def begin(self, session: Session) -> None:
        """Let a session have batches, behind the answer that was queued just now."""
        if self._fanout.open_carrier() is None:
            self._hub.begin(session)  # its batches go through the same queue as the answer
        else:
            self._when_sent(lambda carrier: self._begin(session, carrier))

    def _begin(self, session: Session, carrier: Carrier) -> None:
        self._go_direct(carrier)
        self._hub.begin(session)

    def heard(self) -> None:
        """Go the direct way from now on, if the message that came in says that it is open by now.

        Until all that was queued before is out, nothing is written; the log has it.
        """
        if self._carrier is not None or self._opening or not self._hub.sessions(self):
            return
        if self._fanout.open_carrier() is not None:
            self._opening = True
            self._hub.pause(self)
            self._when_sent(self._opened)

    def _opened(self, carrier: Carrier) -> None:
        self._go_direct(carrier)
        if not (carrier.paused or carrier.over or self.kicked):
            self._hub.resume(self)

    def _when_sent(self, then: Callable[[Carrier], None]) -> None:
        carrier = self._fanout.open_carrier()
        socket = self._socket()
        if socket is None or carrier is None:
            return
        loop = asyncio.get_running_loop()
        if getattr(socket, "idle", False):  # a server that isn't our own can't tell
            loop.call_soon(then, carrier)
        else:
            socket.queue.put_nowait(Marker(lambda: loop.call_soon(then, carrier)))

    def _go_direct(self, carrier: Carrier) -> None:
        if self._carrier is None and self._socket() is not None:
            self._carrier = carrier
            self._hub.reroute(self, self._fanout.way_of(carrier), self._gated(carrier.open(self)))

    def paused(self) -> None:
        """Write nothing more for now: the transport is full, or ends."""
        self._fanout.counts.pauses += 1
        self._hub.pause(self)

    def resumed(self) -> None:
        """Go on where the transport stopped."""
        if self.kicked is None:
            self._hub.resume(self)

    def acked(self, ack: Ack) -> bool:
        """Take an ack that acknowledges something."""
        return self._hub.acked(self, ack)

    def gone(self) -> None:
        """Let go of the transport: the connection is over."""
        if self._carrier is not None:
            self._carrier.leave(self)
            self._carrier = None

    def write(self, frame: Frame) -> None:
        """Queue a batch; it is dropped, counted, where the connection is closing or its token has ended."""
        if (why := self.gate.ended) is not None:
            self.kick(why)
        socket = self._socket()
        if self.kicked is not None or socket is None:
            self.dropped += 1
        else:
            socket.queue.put_nowait(frame.form(stock_packet))

    def _gated(self, door: Door) -> Door:
        """Ask for the token before each write, where it is one that expires.

        One that is taken back before needs no asking: nothing is written behind the kick that follows.
        """
        if self.gate.identity.expires is not None:
            door.shut = self._shut
        return door

    def _shut(self) -> bool:
        """Tell whether nothing may be written any more."""
        if (why := self.gate.ended) is not None:
            self.kick(why)
        self.dropped += self.kicked is not None
        return self.kicked is not None

    def _socket(self) -> Any:
        """Give the Engine.IO socket, or None where it is closed or closing."""
        socket = self._server.eio.sockets.get(self._eio_sid)
        return None if socket is None or socket.closed or socket.closing else socket

    # Everything else

    @property
    def address(self) -> str | None:
        """The client's address, as the server or a proxy that it trusts tells it; None where nobody does."""
        known = self._server.environ.get(self._eio_sid, {}).get("asgi.scope", {}).get("client")
        return known[0] if known else None

    async def send(self, event: str, payload: object) -> bool:
        """Send an event to this client; False where its connection is gone."""
        if self._socket() is None:
            return False
        packet = self._server.packet_class(2, data=[event, payload], namespace=NAMESPACE)
        await self._server._send_packet(self._eio_sid, packet)  # noqa: SLF001 - the library's own way to one client
        return True

    def kick(self, error: SteadcastError) -> None:
        """Tell the client why and disconnect it; once."""
        if self.kicked is None:
            self.kicked = error.code
            self._hub.pause(self)  # nothing is written behind the reason
            self._spawn(self._leave(error))

    async def _leave(self, error: SteadcastError) -> None:
        carrier = self._carrier  # the end of the session lets go of it
        await self.send("error", error.as_wire())
        await self._server.disconnect(self.id, NAMESPACE)
        await self._hang_up(carrier)

    async def _hang_up(self, carrier: Carrier | None, patience: float = 2.0) -> None:
        """Close the connection below as well, after `patience` seconds whether it drained or not."""
        socket = self._server.eio.sockets.get(self._eio_sid)
        if socket is None:
            return
        try:
            await asyncio.wait_for(socket.close(), patience)
        except TimeoutError:
            # A stopped client never drains what is buffered: it would be kept for nothing.
            if carrier is not None:
                carrier.abort()
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
