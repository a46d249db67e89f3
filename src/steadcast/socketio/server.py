"""The Socket.IO server that Steadcast makes where it isn't given one: the library's, kept to the protocol.

https://github.com/socketio/socket.io-protocol
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import socketio
from socketio import packet

from steadcast.errors import TooLarge
from steadcast.socketio.codec import UNREADABLE, JsonPacket, read_event
from steadcast.socketio.engineio import EngineServer
from steadcast.socketio.rooms import Rooms

if TYPE_CHECKING:
    from contextvars import Context

MAX_MESSAGE: Final = 4 * 1024 * 1024 + 64 * 1024
"""Bytes of one message: a body of 4 MiB, and what stands around it."""
CONNECT_TIMEOUT: Final = 45.0
"""Seconds in which a client asks to connect to a namespace; one that only holds a connection open is cut."""
HELD_LIMIT: Final = 1_000
"""Packets for a client that is still inside its connect; more are dropped, and counted."""

COUNTED: Final = (
    "protocol_errors",
    "messages_too_large",
    "ping_timeouts",
    "connect_timeouts",
    "polls_cut",
    "upgrades_failed",
    "writes_failed",
    "closes_timed_out",
    "overflowing_clients",
    "packets_dropped",
    "held_dropped",
)
"""What is counted of connections, whether it has happened or not."""
ATTACHMENTS: Final = 64
"""Binary parts of one message."""

_FROM_CLIENTS: Final = {
    packet.CONNECT,
    packet.DISCONNECT,
    packet.EVENT,
    packet.ACK,
    packet.BINARY_EVENT,
    packet.BINARY_ACK,
}
_EVENT = re.compile(r"2(?:(/[^,]*),)?(\d{1,15})?\[")
"""How a message of Socket.IO begins that is an event: type, namespace, acknowledgement, arguments."""
_NAMESPACE = re.compile(r"\d(?:\d+-)?(/[^,?]*)")
"""How one begins that names its namespace: type, number of binary parts, namespace."""


class Server(socketio.AsyncServer):  # type: ignore[misc]
    """python-socketio's server, where the protocol or its users need more; `counts` says what happened.

    A client inside its connect to a namespace gets nothing of that before it is answered. One that breaks the
    protocol is disconnected, and one that sends too much at once is told so.
    """

    def __init__(self, *, connect_timeout: float = CONNECT_TIMEOUT, **options: Any) -> None:
        """Take the library's options; `connect_timeout` is in seconds."""
        super().__init__(**options)
        self.counts: Counter[str] = Counter()
        self._connect_timeout = connect_timeout
        self._unconnected: dict[str, asyncio.TimerHandle] = {}
        self._held: dict[str, dict[str, list[Any]]] = {}  # by connection, and namespace that it connects to
        self._attached: dict[str, str] = {}  # of these connections, the namespace of the last text
        self.eio.on_too_large = self._refuse_too_large
        if self.async_handlers and issubclass(self.packet_class, JsonPacket):
            self.eio.hear = self._hear

    def statistics(self) -> dict[str, int]:
        """Count connections, and what went wrong with them, by reason; the names are `COUNTED`."""
        counted = {reason: self.eio.counts[reason] + self.counts[reason] for reason in COUNTED}
        return {"connections": len(self.eio.sockets), **counted}

    def _engineio_server_class(self) -> type[EngineServer]:
        return EngineServer

    # Connecting

    async def _handle_eio_connect(self, eio_sid: str, environ: dict[str, Any]) -> Any:
        cut = asyncio.get_running_loop().call_later(self._connect_timeout, self._cut_unconnected, eio_sid)
        self._unconnected[eio_sid] = cut
        return await super()._handle_eio_connect(eio_sid, environ)

    def _cut_unconnected(self, eio_sid: str) -> None:
        del self._unconnected[eio_sid]
        self.counts["connect_timeouts"] += 1
        self.eio.spawn(self.eio.disconnect(eio_sid))

    async def _handle_eio_disconnect(self, eio_sid: str, reason: str) -> None:
        self._connect_came(eio_sid)
        await super()._handle_eio_disconnect(eio_sid, reason)

    def _connect_came(self, eio_sid: str) -> None:
        waiting = self._unconnected.pop(eio_sid, None)
        if waiting is not None:
            waiting.cancel()

    async def _handle_connect(self, eio_sid: str, namespace: str | None, data: Any) -> None:
        namespace = namespace or "/"
        self._connect_came(eio_sid)
        if not self._serves(namespace):
            refusal = self.packet_class(
                packet.CONNECT_ERROR, data={"message": "Invalid namespace"}, namespace=namespace
            )
            await self._send_packet(eio_sid, refusal)
            return
        self._held.setdefault(eio_sid, {}).setdefault(namespace, [])
        held: list[Any] = []
        try:
            await super()._handle_connect(eio_sid, namespace, data)
        finally:
            held = self._let_go(eio_sid, namespace)
        if self.manager.sid_from_eio_sid(eio_sid, namespace) is not None:
            self.eio.know(eio_sid)
            for pkt in held:
                await self.eio.send_packet(eio_sid, pkt)

    def _let_go(self, eio_sid: str, namespace: str) -> list[Any]:
        """Hold nothing more for a connect that is answered; gives what was held."""
        inside = self._held.get(eio_sid, {})
        held = inside.pop(namespace, [])
        if not inside:
            self._held.pop(eio_sid, None)
            self._attached.pop(eio_sid, None)
        return held

    def _serves(self, namespace: str) -> bool:
        named = namespace in self.handlers or namespace in self.namespace_handlers
        return named or self.namespaces == "*" or namespace in self.namespaces

    async def _send_packet(self, eio_sid: str, pkt: Any) -> None:
        held = self._held.get(eio_sid, {}).get(pkt.namespace or "/")
        if held is None or pkt.packet_type in {packet.CONNECT, packet.CONNECT_ERROR}:
            await super()._send_packet(eio_sid, pkt)
            return
        encoded = pkt.encode()
        for each in encoded if isinstance(encoded, list) else [encoded]:
            self._hold(held, self.eio.message(each))

    async def _send_eio_packet(self, eio_sid: str, eio_pkt: Any) -> None:
        held = self._held_for(eio_sid, eio_pkt.data)
        if held is not None:
            self._hold(held, eio_pkt)
        else:
            await super()._send_eio_packet(eio_sid, eio_pkt)

    def _held_for(self, eio_sid: str, data: str | bytes) -> list[Any] | None:
        """Give what is held for the namespace of a message, None where it may go out.

        The binary parts of a message follow its text, and name no namespace.
        """
        inside = self._held.get(eio_sid)
        if inside is None:
            return None
        if isinstance(data, str):
            named = _NAMESPACE.match(data)
            self._attached[eio_sid] = named[1] if named else "/"
        return inside.get(self._attached.get(eio_sid, "/"))

    def _hold(self, held: list[Any], eio_pkt: Any) -> None:
        if len(held) >= HELD_LIMIT:
            self.counts["held_dropped"] += 1
        else:
            held.append(eio_pkt)

    # Messages

    def _hear(self, eio_sid: str, message: str, context: Context | None) -> bool:
        """Take an event in the default namespace at once; False leaves a message to `_handle_eio_message`.

        Either way its handler runs in a task, and they begin in the order in which the events came.
        """
        sid = self.manager.sid_from_eio_sid(eio_sid, "/")
        if eio_sid in self._binary_packet or not self.manager.is_connected(sid, "/"):
            return False
        event = read_event(message)
        if event is None:
            return False
        data, ack_id = event
        handling = self._handle_event_internal(self, sid, eio_sid, _named(data), "/", ack_id)
        self.eio.spawn(handling, context.copy() if context is not None else None)
        return True

    async def _handle_eio_message(self, eio_sid: str, data: str | bytes) -> None:
        """Take a message; what breaks the protocol ends the connection, as the protocol has it."""
        try:
            pkt = self._assembled(eio_sid, data)
        except (ValueError, IndexError, KeyError, TypeError, RecursionError):
            await self._break_off(eio_sid)
            return
        if pkt is None:
            return
        if pkt.packet_type == packet.CONNECT:
            await self._handle_connect(eio_sid, pkt.namespace, pkt.data)
        elif pkt.packet_type == packet.DISCONNECT:
            await self._handle_disconnect(eio_sid, pkt.namespace, self.reason.CLIENT_DISCONNECT)
        elif pkt.packet_type in {packet.EVENT, packet.BINARY_EVENT}:
            await self._handle_event(eio_sid, pkt.namespace, pkt.id, _named(pkt.data))
        else:
            await self._handle_ack(eio_sid, pkt.namespace, pkt.id, pkt.data)

    def _assembled(self, eio_sid: str, data: str | bytes) -> Any:
        """Give a whole packet, or None where binary parts are still to come; raises what decoders raise."""
        begun = self._binary_packet.get(eio_sid)
        if (begun is not None) != isinstance(data, bytes):
            raise ValueError("text and binary messages come in their turns")
        if begun is not None:
            if not begun.add_attachment(data):
                return None
            del self._binary_packet[eio_sid]
            return begun
        if not data:
            raise ValueError("an empty message")
        pkt = self.packet_class(encoded_packet=data)
        if pkt.packet_type not in _FROM_CLIENTS:
            raise ValueError("no packet that a client sends")
        if pkt.packet_type not in {packet.BINARY_EVENT, packet.BINARY_ACK} or not pkt.attachment_count:
            return pkt
        if pkt.attachment_count > ATTACHMENTS:
            raise ValueError("too many attachments")
        if not self.manager.sid_from_eio_sid(eio_sid, pkt.namespace or "/"):
            raise ValueError("a binary packet before the connect")
        self._binary_packet[eio_sid] = pkt
        return None

    async def _break_off(self, eio_sid: str) -> None:
        self.counts["protocol_errors"] += 1
        self._binary_packet.pop(eio_sid, None)
        await self.eio.disconnect(eio_sid)

    async def _refuse_too_large(self, eio_sid: str, begins: str | bytes) -> None:
        """Refuse a message that is too large in words, and fail its acknowledgement; the connection stays."""
        limit = self.eio.max_http_buffer_size
        error = TooLarge(f"a message has at most {limit} bytes", code="body_too_large", limit=limit)
        found = _EVENT.match(begins) if isinstance(begins, str) else None
        namespace = (found.group(1) if found else None) or "/"
        if self.manager.sid_from_eio_sid(eio_sid, namespace) is None:
            await self._break_off(eio_sid)
            return
        if found and found.group(2):
            failed = {"ok": False, "error": error.as_wire()}
            answer = self.packet_class(packet.ACK, data=[failed], namespace=namespace, id=int(found.group(2)))
            await self._send_packet(eio_sid, answer)
        told = self.packet_class(packet.EVENT, data=["error", error.as_wire()], namespace=namespace)
        await self._send_packet(eio_sid, told)


def _named(data: Any) -> list[Any]:
    if isinstance(data, list) and data and isinstance(data[0], str):
        return data
    return [UNREADABLE, "a message is a list that begins with the event's name"]


def own_server(**options: Any) -> Server:
    """Make the Socket.IO server that Steadcast uses when it isn't given one.

    `options` are the library's; without `cors_allowed_origins` only pages of its own origin may come.
    """
    defaults: dict[str, Any] = {
        "async_mode": "asgi",
        "client_manager": Rooms(),
        "serializer": JsonPacket,
        "max_http_buffer_size": MAX_MESSAGE,
        "cors_allowed_origins": None,
        "cors_credentials": False,
    }
    return Server(**defaults | options)
