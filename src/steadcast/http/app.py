"""The ASGI application of this floor: the table of routes, and how a request finds its handler."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from steadcast.errors import SteadcastError
from steadcast.http import access, clients, dead, ingest, reads, sse, status
from steadcast.http.dashboard import Dashboard
from steadcast.http.edge import Edge
from steadcast.http.problems import on_error, on_http_exception

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from steadcast.http.context import Context

    Handler = Callable[[Context, Request], Awaitable[ASGIApp]]


class Endpoint(NamedTuple):
    """One method of one path. `handler` raises errors of the tree.

    `open` ones ask for no token; `admin` ones show or change how the server treats others, and are for
    whoever runs it.
    """

    method: str
    path: str
    handler: Handler
    open: bool = False
    admin: bool = False


ENDPOINTS: Final = (
    Endpoint("POST", "/v1/streams/{stream}/events", ingest.publish),
    Endpoint("GET", "/v1/streams/{stream}/events", reads.page),
    Endpoint("GET", "/v1/streams/{stream}/sse", sse.feed),
    Endpoint("GET", "/v1/streams", reads.streams),
    Endpoint("POST", "/v1/hooks/claude", ingest.claude_hook),
    Endpoint("POST", "/api/events", ingest.mpm),
    Endpoint("GET", "/v1/clients", clients.listing, admin=True),
    Endpoint("POST", "/v1/clients/{id}/ping", clients.ping, admin=True),
    Endpoint("POST", "/v1/clients/{id}/disconnect", clients.disconnect, admin=True),
    Endpoint("GET", "/v1/dead", dead.listing, admin=True),
    Endpoint("POST", "/v1/dead/{id}/redrive", dead.redrive, admin=True),
    Endpoint("DELETE", "/v1/dead/{id}", dead.drop, admin=True),
    Endpoint("POST", "/v1/login", access.login, open=True),
    Endpoint("POST", "/v1/logout", access.logout, open=True),
    Endpoint("GET", "/v1/stats", status.stats),
    Endpoint("GET", "/metrics", status.metrics),
    Endpoint("GET", "/healthz", status.healthz, open=True),
    Endpoint("GET", "/readyz", status.readyz, open=True),
    Endpoint("GET", "/openapi.json", status.openapi, open=True),
)


class LabelledRoute(Route):
    """A route that is counted under the path of the table, whatever the base path."""

    def __init__(self, base: str, path: str, serve: Callable[..., object], methods: Iterable[str]) -> None:
        """Serve a path of the table; HEAD goes with GET, but for a feed, which never ends."""
        super().__init__(base + path, serve, methods=list(methods))
        self.label = path
        if path.endswith("/sse") and self.methods is not None:
            self.methods.discard("HEAD")


def build(context: Context, more: Iterable[Endpoint] = ()) -> Starlette:
    """Build the application: the routes of `ENDPOINTS` and of `more`, and the page, under the base path.

    Socket.IO stands before it. The caller starts the hub, and calls `context.feeds.end()` before it waits for
    open connections. Raises OSError where the dashboard's files can't be read.
    """
    by_path: dict[str, dict[str, Endpoint]] = {}
    for endpoint in (*ENDPOINTS, *more):
        by_path.setdefault(endpoint.path, {})[endpoint.method] = endpoint
    routes = [
        LabelledRoute(context.base, path, partial(_serve, context, methods), methods)
        for path, methods in by_path.items()
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(Edge, context)],
        exception_handlers={SteadcastError: on_error, HTTPException: on_http_exception},
    )
    app.router.redirect_slashes = False  # an unknown path is a 404, in words
    app.router.default = Dashboard(context.base, context.static)
    return app


async def _serve(context: Context, methods: dict[str, Endpoint], request: Request) -> ASGIApp:
    method = "GET" if request.method == "HEAD" else request.method
    endpoint = methods[method]
    if not endpoint.open:
        headers = request.headers
        token = access.bearer(headers.get("authorization"))
        access.authorize(context, token=token, cookie=headers.get("cookie"))
    return await endpoint.handler(context, request)
