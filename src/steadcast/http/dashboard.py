"""The dashboard's files, read once at start: no path of a request ever opens a file."""

from __future__ import annotations

import hashlib
import mimetypes
from typing import TYPE_CHECKING, Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.websockets import WebSocketClose

from steadcast.errors import InvalidRequest
from steadcast.http.edge import path_of, raw_path_of

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

INDEX: Final = "index.html"
HASHED: Final = "assets/"
"""The folder whose files carry their hash in their name, and so never change."""
FOREVER: Final = "public, max-age=31536000, immutable"
ASK: Final = "no-cache"
MOST: Final = 32 * 1024 * 1024
"""Bytes that are kept in memory; a build that is larger has gone wrong."""
UNBUILT: Final = (
    "The dashboard is not built here.\n\n"
    "Run `make run` in the repository, or install the package from a wheel: it brings the dashboard along.\n"
    "Everything else works: /openapi.json describes the interface, /v1/streams lists what there is.\n"
)

# Python knows a system's own table, which may lack these or have them wrong.
_TYPES: Final = {
    ".css": "text/css",
    ".html": "text/html",
    ".ico": "image/x-icon",
    ".js": "text/javascript",
    ".json": "application/json",
    ".map": "application/json",
    ".mjs": "text/javascript",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}


class StaticFile(msgspec.Struct, frozen=True):
    """A file with the headers that it is sent with."""

    body: bytes
    headers: dict[str, str]


def load(folder: Path) -> dict[str, StaticFile]:
    """Read a folder's files into a table by path; symbolic links out of it are left out.

    Raises `InvalidRequest` where they are more than `MOST` bytes, and OSError where one can't be read.
    """
    root = folder.resolve()
    table: dict[str, StaticFile] = {}
    size = 0
    for path in sorted(root.rglob("*")):
        if not path.is_file() or not path.resolve().is_relative_to(root):
            continue
        body = path.read_bytes()
        size += len(body)
        if size > MOST:
            raise InvalidRequest(f"{folder} has more than {MOST} bytes", field="static", limit=MOST)
        name = path.relative_to(root).as_posix()
        table[name] = StaticFile(body, _headers(name, body))
    return table


class Dashboard:
    """What is at a path that no route has: a file of the page, or nothing. An ASGI application."""

    def __init__(self, base: str, folder: Path) -> None:
        """Read the folder's files; raises what `load` raises."""
        self.label = "/"
        self._base = base
        self._table = load(folder)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; raises `HTTPException` for 404 and 405, which the application answers."""
        if scope["type"] != "http":
            await WebSocketClose()(scope, receive, send)
            return
        await self._answer(Request(scope))(scope, receive, send)

    def _answer(self, request: Request) -> Response:
        path = path_of(request.scope)
        if self._base and path == self._base:
            return RedirectResponse(f"{self._base}/")  # so that the page's relative addresses are right
        *_, last = raw_path_of(request.scope).decode("latin-1").split("/")
        if last and path == f"{self._base}/":
            return RedirectResponse(f"./{last}/")  # the same, where a router has put the slash there
        name = path.removeprefix(f"{self._base}/") or INDEX
        found = self._table.get(name)
        if not path.startswith(f"{self._base}/") or (found is None and name != INDEX):
            raise HTTPException(404)
        if request.method not in {"GET", "HEAD"}:
            raise HTTPException(405, headers={"Allow": "GET, HEAD"})
        request.scope["route"] = self
        if found is None:
            return Response(UNBUILT, headers={"Cache-Control": ASK}, media_type="text/plain")
        if _has(request.headers.get("if-none-match", ""), found.headers["ETag"]):
            return Response(status_code=304, headers=_kept(found))
        return Response(found.body, headers=found.headers)


def _headers(name: str, body: bytes) -> dict[str, str]:
    suffix = name[name.rfind(".") :].lower() if "." in name else ""
    kind = _TYPES.get(suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
    charset = "; charset=utf-8" if kind.startswith("text/") else ""
    return {
        "Content-Type": kind + charset,
        "ETag": f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        "Cache-Control": FOREVER if name.startswith(HASHED) else ASK,
    }


def _kept(found: StaticFile) -> dict[str, str]:
    return {name: value for name, value in found.headers.items() if name != "Content-Type"}


def _has(if_none_match: str, etag: str) -> bool:
    """Compare weakly (RFC 9110, section 13.1.2)."""
    tags = {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
    return etag in tags or "*" in tags
