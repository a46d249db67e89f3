"""How long a client may take to say what it wants, and how much it may say that comes to nothing.

uvicorn waits for ever for the head of a request and for the rest of its body, answered or not, and its parser
in C (httptools) knows no limit: neither for a head, nor for what may stand behind a chunked body, nor for
requests that are sent ahead of their answers. A handshake that its WebSockets can't read it leaves open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from steadcast.errors import InvalidRequest
from steadcast.http.body import WHOLE
from steadcast.http.joined import Joined

if TYPE_CHECKING:
    import asyncio
    from collections import Counter

HEAD_TIMEOUT: Final = 10.0
"""Seconds from a connection's start, or a request's first byte, to the end of its head."""
BODY_TIMEOUT: Final = 60.0
"""Seconds from the end of a head to the end of its body. Who reads one may be less patient, and say so."""
HEAD_BYTES: Final = 16 * 1024
"""Bytes that may follow one another without completing a head or being a body's."""
MOST_AHEAD: Final = 32
"""Requests of one connection that may wait for the answer to the one before."""


class PatientProtocol(HttpToolsProtocol):
    """HTTP/1.1 with an end to its patience.

    It cuts whoever drips a head (counted as `slow_heads`) or a body (`slow_bodies`), sends what has no end
    (`endless_heads`). Who sends too many requests at once has the first ones answered, and is closed behind
    them (`too_far_ahead`): what has no answer may be sent again (RFC 9112, section 9.3.2).
    """

    counts: Counter[str]
    head_timeout = HEAD_TIMEOUT
    body_timeout = BODY_TIMEOUT
    _waiting: asyncio.TimerHandle | None = None
    _body_due: asyncio.TimerHandle | None = None
    _held_up = False
    _begun = False
    _in_body = False
    _upgraded = False
    _wasted = 0
    _too_far = False
    _answering: Any = None
    """The cycle whose request is being handled; `cycle` is that of the last one that came."""

    # What uvicorn and the transport call

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and tell who answers: uvicorn tells the last request, which may still wait for its turn."""
        self._stop_waiting()
        self._stop_waiting_for_body()
        if self._answering is not None and not self._answering.response_complete:
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what came in, and see whether it led anywhere."""
        if self._too_far:
            return  # read, since what is left unread at its end would reset the connection under its answers
        self._wasted += len(data)
        super().data_received(data)
        if self._wasted > HEAD_BYTES and not self.transport.is_closing():
            self.counts["endless_heads"] += 1
            self.send_400_response("What was sent has no end.")
        if self._head_is_due() and not self.transport.is_closing():
            self._wait()
        else:
            self._stop_waiting()
        if self._in_body and not self._upgraded and not self.transport.is_closing():
            self._wait_for_body()

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over to another protocol."""
        self._upgraded = True
        super().handle_websocket_upgrade()
        self._look_at_handshake(self.transport.get_protocol())
        self.parser = None  # type: ignore[assignment]  # it refers to this: garbage in a circle, for each client

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, and close; in words where no answer is due that it could be taken for."""
        if self._too_far:
            return  # the last answer that is due closes
        if self._answer_is_due():
            self.transport.close()
        else:
            super().send_400_response(msg)

    # What the parser finds

    def on_message_begin(self) -> None:
        """Note that a head begins."""
        self._begun = True
        super().on_message_begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header, but not what stands behind a body: the application has its headers already."""
        if not self._in_body:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Note the end of a head; raises `InvalidRequest`, which the parser takes as an error of its own."""
        if len(self.pipeline) >= MOST_AHEAD:
            self.counts["too_far_ahead"] += 1
            self._too_far, self._begun, self._wasted = True, False, 0
            self.cycle.keep_alive = False
            raise InvalidRequest("too many requests wait for an answer")
        self._begun, self._in_body, self._wasted = False, True, 0
        before = self.cycle
        super().on_headers_complete()
        if self.cycle is not before and self.scope["method"] != "HEAD":
            self.cycle.transport = Joined(self.transport)  # type: ignore[assignment]  # it uses no more of one
        if self.cycle is not before and not self.pipeline:
            self._answering = self.cycle

    def on_response_complete(self) -> None:
        """Go on with the request that waits."""
        if self.pipeline:
            self._answering = self.pipeline[-1][0]
        super().on_response_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of a body."""
        self._wasted = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note the end of a request."""
        self._in_body, self._wasted = False, 0
        self._stop_waiting_for_body()
        self.scope[WHOLE] = True  # type: ignore[typeddict-unknown-key]  # the application's to know
        super().on_message_complete()

    def _look_at_handshake(self, protocol: Any) -> None:
        """Refuse a handshake that can't be read, such as one with a body, or a line over 8 KiB."""
        connection = getattr(protocol, "conn", None)
        if connection is None or connection.handshake_exc is None or self.transport.is_closing():
            return
        self.counts["handshakes_refused"] += 1
        answer = b"".join(connection.data_to_send())
        if answer and not self._answer_is_due():
            self.transport.write(answer)
            self.transport.close()
        else:
            self.send_400_response("This is no handshake of a WebSocket.")

    # The end of its patience

    def _answer_is_due(self) -> bool:
        cycle: Any = self.cycle
        return cycle is not None and not cycle.response_complete

    def _head_is_due(self) -> bool:
        """Tell whether a head has to come next: one has begun, or all that came was answered."""
        if self._in_body or self._upgraded:
            return False
        return self._begun or not self._answer_is_due()

    def _wait(self) -> None:
        if self._waiting is None:
            self._waiting = self.loop.call_later(self.head_timeout, self._cut)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _cut(self) -> None:
        self._waiting = None
        self.counts["slow_heads"] += 1
        self.transport.close()

    def _wait_for_body(self) -> None:
        if self._body_due is None:
            self._body_due = self.loop.call_later(self.body_timeout, self._cut_body)

    def _stop_waiting_for_body(self) -> None:
        if self._body_due is not None:
            self._body_due.cancel()
            self._body_due = None

    def _cut_body(self) -> None:
        self._body_due = None
        before, self._held_up = self._held_up, self.flow.read_paused
        if before or self._held_up:
            self._wait_for_body()  # the client couldn't go on for a part of the time: it has all of it anew
            return
        self.counts["slow_bodies"] += 1
        self.transport.close()


def patient(
    counts: Counter[str], head_timeout: float = HEAD_TIMEOUT, body_timeout: float = BODY_TIMEOUT
) -> type[PatientProtocol]:
    """Make a protocol class for uvicorn (`http=`) that counts into `counts`; timeouts are in seconds."""
    own = {"counts": counts, "head_timeout": head_timeout, "body_timeout": body_timeout}
    return type("Patient", (PatientProtocol,), own)
