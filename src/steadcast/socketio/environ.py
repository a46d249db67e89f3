"""The `environ` that handlers and `authorize` are given: what a request said, as WSGI names it (PEP 3333).

The library's own names a wrong client, has a class made for each request, and is kept for as long as the
connection is there: this one has what is known of a request, and no more.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from starlette.types import Message, Receive, Scope, Send

NAMES: Final = 256
"""So many names of header fields are kept as `environ` has them; a client may think of any."""
_SECURE: Final = frozenset({"https", "wss"})


class Body:
    """A request's body, read as far as it is asked for."""

    __slots__ = ("_begun", "_receive")

    def __init__(self, begun: Message, receive: Receive) -> None:
        """Begin with the first part, which has come."""
        self._begun = begun
        self._receive = receive

    async def read(self, length: int) -> bytes:
        """Read `length` bytes, or all that there are; once."""
        part = self._begun
        body = bytearray(part.get("body", b""))
        while part.get("more_body") and len(body) < length:
            part = await self._receive()
            body += part.get("body", b"")
        return bytes(body[:length])


async def translate_request(scope: Scope, receive: Receive, send: Send) -> dict[str, Any]:
    """Make the `environ` of an ASGI request."""
    begun = await receive()
    query = scope["query_string"].decode("latin-1")
    address, port = scope.get("client") or ("", 0)
    name, own_port = scope.get("server") or ("", 0)
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.get("method", "GET"),
        "SCRIPT_NAME": "",
        "PATH_INFO": scope["path"],
        "QUERY_STRING": query,
        "RAW_URI": f"{scope['path']}?{query}" if query else scope["path"],
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_NAME": name,
        "SERVER_PORT": str(own_port or ""),
        "REMOTE_ADDR": address,
        "REMOTE_PORT": str(port),
        "asgi.receive": receive,
        "asgi.send": send,
        "asgi.scope": scope,
    }
    for field, content in scope["headers"]:
        key, value = _key(field), content.decode("latin-1")
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    if begun["type"] == "http.request":
        environ["wsgi.input"] = Body(begun, receive)
    scheme = "https" if scope.get("scheme") in _SECURE else "http"
    environ["wsgi.url_scheme"] = environ.get("HTTP_X_FORWARDED_PROTO", scheme)
    return environ


@lru_cache(maxsize=NAMES)
def _key(field: bytes) -> str:
    name = field.decode("latin-1").upper().replace("-", "_")
    return name if name in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{name}"
