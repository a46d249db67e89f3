"""Around every request: Host and Origin, security headers, the count of what was answered, and the last net.

Plain ASGI: a wrapper that buffers would hold an SSE response back.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect

from steadcast.errors import Draining, RateLimited, SteadcastError
from steadcast.http.access import SAFE_METHODS, address_of, check_host, check_origin
from steadcast.http.problems import internal, problem
from steadcast.plain_log import plain_log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from steadcast.http.context import Context

log = plain_log("steadcast.http")

PROBES: Final = frozenset({"/healthz", "/readyz"})
"""Asked by watchdogs under any name or address, and telling nothing worth stealing."""
CUT_RETRY: Final = 1.0
"""Seconds after which a request may be sent again that was cut short by the server's end."""
FEED_ROUTE: Final = "/v1/streams/{stream}/sse"
METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"})
"""Methods that are counted by name; all others are one, so that nobody can make up metrics."""
SECURITY: Final = {
    "content-security-policy": (
        "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
LIMITED: Final = "steadcast.limited"
"""Where a WebSocket's scope keeps that it came over the rate, for its connect to be refused."""
_SECURITY_RAW: Final = [(name.encode(), value.encode()) for name, value in SECURITY.items()]


def path_of(scope: Scope) -> str:
    """Give a request's path without the root that the application is mounted under (`root_path`)."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def raw_path_of(scope: Scope) -> bytes:
    """Give the path as it came over the wire, mounts and all; a slash where the server doesn't tell."""
    raw: bytes = scope.get("raw_path") or b"/"
    return raw.partition(b"?")[0]


def as_asked(scope: Scope) -> Scope:
    """Take off a slash that wasn't asked for: Litestar puts one behind each path that it mounts."""
    path: str = scope["path"]
    if not path.endswith("/") or path_of(scope) == "/":
        return scope
    return scope if raw_path_of(scope).lower().endswith((b"/", b"%2f")) else {**scope, "path": path[:-1]}


class Edge:
    """The outermost layer of our own."""

    def __init__(self, app: ASGIApp, context: Context) -> None:
        """Wrap an ASGI application."""
        self._app = app
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; whatever goes wrong, it is answered and counted."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope = as_asked(scope)
        began = time.perf_counter()
        status = 0

        async def send_marked(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), *_SECURITY_RAW]
            await send(message)

        try:
            await self._serve(scope, receive, send_marked)
        except ClientDisconnect:
            self._context.counts["clients_gone"] += 1
        except asyncio.CancelledError:
            if status:
                raise  # half a response is out, as below
            # The server ends, and has waited for this one as long as it does.
            self._context.counts["cut_short"] += 1
            gone = Draining("the server is going away", retry_after=CUT_RETRY)
            await problem(gone)(scope, receive, send_marked)
        except Exception as error:
            self._context.counts["internal_errors"] += 1
            log.exception("a request failed", path=ascii(scope["path"][:200]), error=type(error).__name__)
            if status:
                raise  # half a response is out: only an end of the connection can say so
            await internal()(scope, receive, send_marked)
        finally:
            self._observe(scope, status, time.perf_counter() - began)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._admit(scope)
        except SteadcastError as error:
            self._context.counts[f"refused_{error.code}"] += 1
            await problem(error)(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        if path_of(scope).removeprefix(self._context.base) in PROBES:
            return
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        host = _text(headers.get(b"host"))
        check_host(self._context, host)
        if scope["method"] not in SAFE_METHODS:
            check_origin(self._context, _text(headers.get(b"origin")), host)

    def _observe(self, scope: Scope, status: int, seconds: float) -> None:
        route: Any = getattr(scope.get("route"), "label", "none")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._context.requests.observe(route, method, status, None if route == FEED_ROUTE else seconds)


class Door:
    """Before Socket.IO: who comes under a foreign name, from a page of another origin, or too often.

    Who may come in does so by turns: a handshake is half of what a connect costs.
    """

    def __init__(self, app: ASGIApp, context: Context, enter: Callable[[], Awaitable[None]]) -> None:
        """Stand before an ASGI application; `enter` waits for a turn, or raises `RateLimited`."""
        self._app = app
        self._context = context
        self._enter = enter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a handshake or poll in, or refuse it in words, a WebSocket too where the server can."""
        send = _marked(send) if scope["type"] == "http" else send
        try:
            await self._admit(scope)
        except SteadcastError as error:
            self._context.counts[f"refused_{error.code}"] += 1
            await _refuse(problem(error), scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _admit(self, scope: Scope) -> None:
        headers: dict[bytes, bytes] = dict(reversed(scope["headers"]))
        host = _text(headers.get(b"host"))
        check_host(self._context, host)
        check_origin(self._context, _text(headers.get(b"origin")), host)
        query = scope["query_string"]
        if b"sid=" in query and b"sid" in parse_qs(query):
            return  # goes on with a connection that is there
        try:
            await self._context.rates.connect(address_of(scope))
        except RateLimited as error:
            if scope["type"] != "websocket":
                raise
            # A browser hides the answer to a WebSocket's handshake from its page: Socket.IO tells it.
            scope[LIMITED] = error
            return
        try:
            await self._enter()
        except RateLimited:
            if scope["type"] != "websocket":
                raise
            # The same: its connect asks for a turn as well, and is refused in words.


async def _refuse(response: Response, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await response(scope, receive, send)
        return
    await receive()
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008})
        return
    head = {"status": response.status_code, "headers": response.raw_headers}
    await send({"type": "websocket.http.response.start", **head})
    await send({"type": "websocket.http.response.body", "body": response.body})


def _marked(send: Send) -> Send:
    async def send_marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *_SECURITY_RAW]
        await send(message)

    return send_marked


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("latin-1")
