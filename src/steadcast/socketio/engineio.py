"""Engine.IO, protocol 4, as its document has it: for the Socket.IO server that Steadcast makes itself.

The library's server is taken over at its extension points, the classes of its server and its sockets, and
only where it departs from the document or hurts: what is said to a poll that is doubled, cut or ended, when
a client that doesn't pong is gone, and that a bad or too large message is answered. One timer stands for
each connection, and neither reading nor writing makes a task for each message.

https://github.com/socketio/engine.io-protocol
"""

from __future__ import annotations

import asyncio
import binascii
import re
import time
from collections import Counter
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final

import engineio
import msgspec
from engineio import exceptions, packet, payload
from engineio.async_socket import AsyncSocket

from steadcast.socketio.environ import translate_request
from steadcast.socketio.fanout import CARRIER
from steadcast.socketio.queues import Queue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from steadcast.socketio.fanout import Carrier

UPGRADE_TIMEOUT: Final = 10.0
"""Seconds that an upgrade to WebSocket may take."""
CLOSE_TIMEOUT: Final = 5.0
"""Seconds that a client may take to take the end of its session."""
QUEUE_LIMIT: Final = 10_000
"""Packets that wait for one client; one that doesn't take them is disconnected, and they are counted."""
QUEUE_BYTES: Final = 64 * 1024 * 1024
"""The same in bytes, without batches, which have the ack window."""
FIRST_BYTES: Final = 64 * 1024
"""Bytes of a message, or a POST, of a client that has not connected yet: who shows no token costs little."""
KEPT_CLOSED: Final = 30.0
"""Seconds for which the session of a client that is gone is still known, as one that is closed."""

MESSAGE: Final = b"4"
"""How a message's packet begins in a text."""

_TRANSPORT = re.compile(rb"(?:^|&)transport=[^&]")

_UNREADABLE = (ValueError, IndexError, KeyError, binascii.Error)
"""What the library's decoders raise for what is no packet (UnicodeDecodeError is a ValueError)."""


class _Payload(payload.Payload):  # type: ignore[misc]
    # A client that was away flushes all that it has in one POST; what bounds it is its size.
    max_decode_packets = 10_000


class ProtocolError(exceptions.EngineIOError):  # type: ignore[misc]
    """A request that the protocol forbids in this state; the library answers it 400."""


class EngineSocket(AsyncSocket):  # type: ignore[misc]
    """One client's connection."""

    server: EngineServer
    last_ping: float | None
    connected: bool
    upgrading: bool
    upgraded: bool
    closing: bool
    closed: bool

    def __init__(self, server: EngineServer, sid: str) -> None:
        """Begin a session."""
        super().__init__(server, sid)
        self._timer: asyncio.TimerHandle | None = None
        self._reading: asyncio.Task[Any] | None = None  # who reads the WebSocket, while it is read
        self._carrier: Carrier | None = None
        self._context: Context | None = None
        self._waiting = False
        self._writing = False
        self._polled = False
        self._given_up = False
        self._known = False
        self._queued_bytes = 0

    def know(self) -> None:
        """Let this client say as much as others: it has connected to a namespace."""
        self._known = True
        if self._carrier is not None:
            self._carrier.limit(None)

    # Packets that go out

    async def poll(self) -> list[packet.Packet]:
        """Wait for what is to be sent; an empty list is the end.

        Unlike the library's, it has no timeout: one that fires while a packet is handed over loses it.
        """
        first = await self.queue.get()
        self.queue.task_done()
        packets = [] if first is None else [first]
        self._queued_bytes -= _size(first)
        while first is not None and not self.queue.empty():
            following = self.queue.get_nowait()
            self.queue.task_done()
            if following is None:
                self.queue.put_nowait(None)
                break
            self._queued_bytes -= _size(following)
            packets.append(following)
        return packets

    async def send(self, pkt: packet.Packet) -> None:
        """Send or queue a packet; a client that takes none is disconnected. Raises SocketIsClosedError."""
        if self.closed:
            raise exceptions.SocketIsClosedError
        if self._carrier is not None and self.idle and self._carrier.say(pkt.encode()):
            return
        size = len(pkt.data) if isinstance(pkt.data, (str, bytes)) else 0
        if self.queue.qsize() >= QUEUE_LIMIT or 0 < self._queued_bytes > QUEUE_BYTES - size:
            self.server.counts["overflowing_clients"] += 1
            self.server.counts["packets_dropped"] += self._drop_queued()
            await self.close(wait=False, abort=True, reason=self.server.reason.TRANSPORT_ERROR)
            return
        pkt.queued = size  # the same for all who share it
        self._queued_bytes += size
        self.queue.put_nowait(pkt)

    @property
    def idle(self) -> bool:
        """Whether all that was sent before is with a WebSocket's transport: nothing can be overtaken."""
        return self._carrier is not None and not self._writing and self.queue.empty()

    def _drop_queued(self) -> int:
        dropped: int = self.queue.qsize()
        while not self.queue.empty():
            self.queue.get_nowait()
            self.queue.task_done()
        self._queued_bytes = 0
        return dropped

    # Heartbeat

    def schedule_ping(self) -> None:
        """Ping the client after the interval; called when it connects, and at each of its pongs."""
        self.last_ping = None
        if self.closing:
            return
        self._set_timer(self.server.ping_interval, self._ping)

    def _ping(self) -> None:
        self.last_ping = time.time()
        self.queue.put_nowait(packet.Packet(packet.PING))
        self._set_timer(self.server.ping_timeout, self._expire)

    def _expire(self) -> None:
        self.server.counts["ping_timeouts"] += 1
        self.server.spawn(self.close(wait=False, reason=self.server.reason.PING_TIMEOUT))

    def _set_timer(self, delay: float, then: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(delay, then)

    async def check_ping_timeout(self) -> bool:
        """See whether the connection is there; its timer ends it. Raises SocketIsClosedError."""
        if self.closed:
            raise exceptions.SocketIsClosedError
        return True

    # The end

    async def close(self, wait: bool = True, abort: bool = False, reason: str | None = None) -> None:
        """End the session; `abort` says nothing to the client, `wait` until what is queued has gone."""
        if self.closed or self.closing:
            return
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        await self.server._trigger_event(  # noqa: SLF001 - the library's own way to its handlers
            "disconnect", self.sid, reason or self.server.reason.SERVER_DISCONNECT, run_async=False
        )
        if not abort:
            self.queue.put_nowait(packet.Packet(packet.CLOSE))
        elif self._polled:
            self.queue.put_nowait(packet.Packet(packet.NOOP))  # a poll that waits is answered, not left
        self.closed = True
        if self.upgraded:
            self.server.sockets.pop(self.sid, None)
            self.queue.put_nowait(None)
            asyncio.get_running_loop().call_later(CLOSE_TIMEOUT, self._give_up)
        else:
            self.server.forget_later(self.sid)
        if wait and (self.upgraded or self._polled):
            await self.queue.join()

    def _give_up(self) -> None:
        """End a WebSocket whose client takes nothing, not even the end."""
        if self._reading is not None:
            self._given_up = True
            self.server.counts["closes_timed_out"] += 1
            self.server.counts["packets_dropped"] += self._drop_queued()
            self._reading.cancel()

    # Polling

    async def handle_get_request(self, environ: dict[str, Any]) -> Any:
        """Answer a poll, or upgrade; a second poll at the same time ends the session."""
        if environ.get("HTTP_UPGRADE", "").lower() == "websocket":
            if self.upgrading:
                return self.server.second_upgrade()
            return await self._upgrade_websocket(environ)
        if self.upgrading or self.upgraded:
            return [packet.Packet(packet.NOOP)]
        if self._polled:
            await self.close(wait=False, reason=self.server.reason.TRANSPORT_ERROR)
            raise ProtocolError
        self._polled = True
        try:
            return await self._poll_while_there(environ["asgi.receive"])
        finally:
            self._polled = False

    async def _poll_while_there(self, receive: Callable[[], Awaitable[Any]]) -> list[packet.Packet]:
        """Poll until the request is gone: what an aborted one took from the queue would be lost unseen."""
        poll, gone = asyncio.ensure_future(self.poll()), asyncio.ensure_future(receive())
        try:
            await asyncio.wait({poll, gone}, return_when=asyncio.FIRST_COMPLETED)
            if poll.done():
                return poll.result()
        finally:
            poll.cancel()
            gone.cancel()
        self.server.counts["polls_cut"] += 1
        await self.close(wait=False, abort=True, reason=self.server.reason.TRANSPORT_CLOSE)
        raise ProtocolError

    async def handle_post_request(self, environ: dict[str, Any]) -> None:
        """Take what a client sent by POST; what is no payload ends the session, as `ProtocolError`."""
        try:
            length = int(environ.get("CONTENT_LENGTH", "0"))
            if not 0 <= length <= (self.server.hard_limit if self._known else FIRST_BYTES):
                raise ValueError("too large to be read")
            body = await environ["wsgi.input"].read(length)
            for pkt in _Payload(encoded_payload=body.decode()).packets:
                await self._take(pkt)
        except (*_UNREADABLE, exceptions.UnknownPacketError) as error:
            self.server.counts["protocol_errors"] += 1
            await self.close(wait=False, reason=self.server.reason.TRANSPORT_ERROR)
            raise ProtocolError from error

    async def _take(self, pkt: packet.Packet) -> None:
        if pkt.data is not None and len(pkt.data) > self.server.max_http_buffer_size:
            self.server.counts["messages_too_large"] += 1
            await self.server.on_too_large(self.sid, pkt.data[:256])
        else:
            await self.receive(pkt)

    # WebSocket

    async def _websocket_handler(self, ws: Any) -> None:
        if self.connected and not await self._upgrades(ws):
            self.upgrading = False
            await ws.close()
            return
        self.connected = self.upgraded = True
        self.upgrading = False
        writing = asyncio.ensure_future(self._write(ws))
        self._reading = asyncio.current_task()
        self._carrier, self._context = CARRIER.get(), copy_context()
        if self._carrier is not None:
            self._carrier.listen(self._hear)
            self._carrier.limit(None if self._known else FIRST_BYTES)
        try:
            await self._read(ws)
        except asyncio.CancelledError:
            if self._reading is None or not self._given_up:
                raise
            self._reading.uncancel()
        finally:
            if self._carrier is not None:
                self._carrier.listen(None)
            self._reading = self._carrier = None
            await self.close(wait=False, abort=True, reason=self.server.reason.TRANSPORT_CLOSE)
            self.queue.put_nowait(None)
            if self._given_up:
                writing.cancel()
            await asyncio.wait({writing})

    async def _upgrades(self, ws: Any) -> bool:
        """Go through the upgrade: probe, the end of the poll that waits, and the client's word."""
        self.upgrading = True
        try:
            async with asyncio.timeout(UPGRADE_TIMEOUT):
                if await ws.wait() != "2probe":
                    return False
                await ws.send("3probe")
                self.queue.put_nowait(packet.Packet(packet.NOOP))
                return bool(await ws.wait() == "5")
        except (OSError, TimeoutError):
            self.server.counts["upgrades_failed"] += 1
            return False

    async def _write(self, ws: Any) -> None:
        try:
            while packets := await self.poll():
                self._writing = True
                for pkt in packets:
                    await ws.send(pkt.encode())
                self._writing = False
        except Exception:  # noqa: BLE001 - each ASGI server has its own error for a client that is gone
            self.server.counts["writes_failed"] += 1
        await ws.close()

    async def _read(self, ws: Any) -> None:
        """Take what comes until the connection or the session ends."""
        try:
            while not self.closed:
                self._waiting = True
                data = await ws.wait()
                self._waiting = False
                await self._take(packet.Packet(encoded_packet=data))
        except OSError:
            return  # how the library's driver says that the connection has ended; its end is told and counted
        except (*_UNREADABLE, exceptions.UnknownPacketError):
            self.server.counts["protocol_errors"] += 1

    def _hear(self, text: bytes) -> bool:
        """Take a message at once where `_read` waits for one; False leaves it to `_read`."""
        if not self._waiting or self.closed or len(text) > self.server.max_http_buffer_size:
            return False
        if not text.startswith(MESSAGE):
            return False
        try:
            message = text[len(MESSAGE) :].decode()
        except UnicodeDecodeError:
            return False  # nothing is decided by this: the WebSocket ends with it
        return self.server.hear(self.sid, message, self._context)


class EngineServer(engineio.AsyncServer):  # type: ignore[misc]
    """The server of Engine.IO connections; `counts` has what went wrong by reason."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Take the library's options; connections are watched by their own timers."""
        super().__init__(*args, **options | {"monitor_clients": False})
        self._async: dict[str, Any] = {**self._async, "translate_request": translate_request}
        self.counts: Counter[str] = Counter()
        self.on_too_large: Callable[[str, str | bytes], Awaitable[None]] = _ignore
        self.hear: Callable[[str, str, Context | None], bool] = _leave
        """Is offered a client's message before the handler of `message`; tells whether it took it."""
        self._tasks: set[asyncio.Task[Any]] = set()

    @property
    def hard_limit(self) -> int:
        """Bytes of a message that are still read, so that one over the limit is refused in words."""
        return 2 * int(self.max_http_buffer_size)

    def create_queue(self, *_: object, **__: object) -> Queue[packet.Packet | None]:
        """Make what a client's packets wait in."""
        return Queue()  # bounded by `send`, and by the ack window for batches

    @staticmethod
    def message(data: str | bytes) -> packet.Packet:
        """Make the packet of a message."""
        return packet.Packet(packet.MESSAGE, data)

    def know(self, sid: str) -> None:
        """Let a client say as much as others: it has connected to a namespace."""
        socket = self.sockets.get(sid)
        if socket is not None:
            socket.know()

    def spawn(self, coroutine: Any, context: Context | None = None) -> None:
        """Run something beside, by default in a copy of the context, and keep it until it is done."""
        task = asyncio.get_running_loop().create_task(coroutine, context=context)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def forget_later(self, sid: str) -> None:
        """Forget a closed session after a while."""
        asyncio.get_running_loop().call_later(KEPT_CLOSED, self.sockets.pop, sid, None)

    async def handle_request(self, scope: Any, receive: Any, send: Any) -> Any:
        """Handle a request; one that names no transport is refused, where the library assumes polling."""
        if not _TRANSPORT.search(scope["query_string"]):
            environ = await self._async["translate_request"](scope, receive, send)
            return await self._make_response(self._bad_request("Transport unknown"), environ)
        return await super().handle_request(scope, receive, send)

    async def _handle_connect(
        self, environ: dict[str, Any], transport: str, jsonp_index: int | None = None
    ) -> Any:
        sid = self.generate_id()
        socket = self.sockets[sid] = EngineSocket(self, sid)
        opening = msgspec.json.encode(self._opening(sid, transport)).decode()
        await socket.send(packet.Packet(packet.OPEN, opening))
        refused = await self._trigger_event("connect", sid, environ, run_async=False)
        if refused is not None and refused is not True:
            del self.sockets[sid]
            return self._unauthorized(refused or None)
        socket.schedule_ping()
        if transport == "websocket":
            return await socket.handle_get_request(environ)
        socket.connected = True
        return self._ok(await socket.poll(), jsonp_index=jsonp_index)

    def _opening(self, sid: str, transport: str) -> dict[str, Any]:
        return {
            "sid": sid,
            "upgrades": self._upgrades(sid, transport),
            "pingTimeout": int(self.ping_timeout * 1000),
            "pingInterval": int(self.ping_interval * 1000),
            "maxPayload": self.max_http_buffer_size,
        }

    def _ok(self, packets: Any = None, headers: Any = None, jsonp_index: int | None = None) -> Any:
        answer = super()._ok(packets, headers, jsonp_index)
        return answer if packets is not None else answer | {"response": b"ok"}

    def second_upgrade(self) -> Any:
        """Refuse a WebSocket for a session that is being upgraded already."""
        return self._bad_request("The session is being upgraded")

    def _method_not_found(self) -> Any:
        return self._bad_request("Bad handshake method")


def _size(pkt: packet.Packet | None) -> int:
    """Give what a packet was counted with when it was queued: batches and what ends a session with 0."""
    size: int = getattr(pkt, "queued", 0)
    return size


async def _ignore(_sid: str, _prefix: str | bytes) -> None:
    return


def _leave(_sid: str, _message: str, _context: Context | None) -> bool:
    return False
