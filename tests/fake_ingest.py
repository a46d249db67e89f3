"""A small real HTTP server that takes events as Steadcast's ingest does, and misbehaves when told to."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import deque
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping


@dataclass
class Received:
    """A request as it came in."""

    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: int


@dataclass
class Answer:
    """What to answer: a status, a JSON body or raw text, and how."""

    status: int = 200
    json: Any = None
    text: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    drip: float = 0.0
    cut: bool = False


def problem(status: int, code: str, *, temporary: bool | None = None, **more: Any) -> Answer:
    """Give a problem details answer (RFC 9457)."""
    body = {"type": "about:blank", "title": code, "status": status, "detail": f"it is {code}", "code": code}
    if temporary is not None:
        body["temporary"] = temporary
    return Answer(status, body | more)


class FakeIngest:
    """Listens on a free port of 127.0.0.1.

    `applied` holds what was taken, each event once, in order, as (path, id); `requests` all that came.
    The next answers can be queued with `then`; `rule`, if set, is asked for every request before that.
    """

    def __init__(self, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Received] = []
        self.applied: list[tuple[str, str]] = []
        self.bodies: list[Any] = []
        self.rule: Callable[[Received], Answer | None] | None = None
        self.changed = threading.Condition()
        self.stopping = threading.Event()
        self._known: set[tuple[str, str]] = set()
        self._queued: deque[Answer] = deque()
        self._open: set[Any] = set()
        fake = self

        class Handler(_Handler):
            owner = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = False
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def then(self, *answers: Answer) -> None:
        """Queue answers for the next requests."""
        self._queued.extend(answers)

    def ids(self, path: str | None = None) -> list[str]:
        """Give the ids that were applied, in order."""
        return [event_id for where, event_id in self.applied if path in {None, where}]

    def wait(self, condition: Callable[[], bool], timeout: float = 30.0) -> None:
        """Wait until the condition holds, looked at after each request."""
        with self.changed:
            assert self.changed.wait_for(condition, timeout), "it never came"

    def stop(self) -> None:
        """Stop listening, and cut all connections."""
        self.stopping.set()
        self._server.shutdown()
        self._thread.join()
        for connection in list(self._open):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._server.server_close()

    def answer(self, received: Received) -> Answer:
        """Decide, and apply what is accepted."""
        with self.changed:
            self.requests.append(received)
            answer = self.rule(received) if self.rule else None
            if answer is None and self._queued:
                answer = self._queued.popleft()
            answer = replace(answer) if answer else Answer()
            if answer.status == 200 and answer.json is None and answer.text is None:
                answer.json = {"results": [self._apply(received, event) for event in events_of(received)]}
            self.changed.notify_all()
        return answer

    def _apply(self, received: Received, event: Any) -> dict[str, Any]:
        event_id = received.headers.get("ce-id") or event["id"]
        key = (received.path, event_id)
        duplicate = key in self._known
        if not duplicate:
            self._known.add(key)
            self.applied.append(key)
            self.bodies.append(event)
        lane = event.get("priority", "normal")
        return {
            "id": event_id,
            "lane": lane,
            "position": ["epoch", self.applied.index(key) + 1],
            "duplicate": duplicate,
        }


def events_of(received: Received) -> list[Any]:
    """Give the events of a request."""
    value = json.loads(received.body)
    return value if isinstance(value, list) else [value]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FakeIngest

    def setup(self) -> None:
        super().setup()
        self.owner._open.add(self.request)

    def finish(self) -> None:
        self.owner._open.discard(self.request)
        super().finish()

    def handle(self) -> None:
        try:
            super().handle()
        except (OSError, ValueError):
            self.close_connection = True  # the client, or `stop`, has cut it

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = self.owner.answer(Received(self.path, headers, body, self.client_address[1]))
        if answer.delay and self.owner.stopping.wait(answer.delay):
            self.close_connection = True
            return
        if answer.cut:
            self.close_connection = True
            return
        self._send(answer)

    def _send(self, answer: Answer) -> None:
        is_json = answer.json is not None
        text = json.dumps(answer.json) if is_json else (answer.text or "")
        lines = [f"HTTP/1.1 {answer.status} Told", f"Content-Length: {len(text.encode())}"]
        lines.append(f"Content-Type: {'application/json' if is_json else 'text/html'}")
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        content = ("\r\n".join(lines) + "\r\n\r\n" + text).encode()
        if not answer.drip:
            self.wfile.write(content)
            return
        for byte in content:
            self.wfile.write(bytes([byte]))
            if self.owner.stopping.wait(answer.drip):
                return

    def log_message(self, *_: Any) -> None:
        """Say nothing: tests read what came from `requests`."""
