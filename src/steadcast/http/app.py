"""The ASGI application of this floor: the table of routes, and how a request finds its handler."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route

from steadcast.core.scopes import EVERY, Scope
from steadcast.errors import NotAllowed, SteadcastError
from steadcast.http import access, clients, dead, ingest, reads, sse, status, trim
from steadcast.http.claude import STREAM as CLAUDE
from steadcast.http.dashboard import Dashboard
from steadcast.http.edge import Edge
from steadcast.http.problems import on_error, on_http_exception
from steadcast.http.straight import Straight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from starlette.requests import Request
    from starlette.types import ASGIApp

    from steadcast.http.context import Context

    Handler = Callable[[Context, Request], Awaitable[ASGIApp]]


class Endpoint(NamedTuple):
    """One method of one path, and whom it is for. `handler` raises errors of the tree.

    `scope` is asked for before the handler runs, on the stream of the path or else on `stream`; where there
    is neither, the handler shows what the identity covers. OPEN ones ask for nothing. Who names no scope
    gets the strictest.
    """

    method: str
    path: str
    handler: Handler
    scope: Scope | None = Scope.ADMIN
    stream: str | None = None


OPEN: Final = None


ENDPOINTS: Final = (
    Endpoint("POST", "/v1/streams/{stream}/events", ingest.publish, Scope.PUBLISH),
    Endpoint("GET", "/v1/streams/{stream}/events", reads.page, Scope.SUBSCRIBE),
    Endpoint("GET", "/v1/streams/{stream}/sse", sse.feed, Scope.SUBSCRIBE),
    Endpoint("POST", "/v1/streams/{stream}/trim", trim.trim, Scope.ADMIN),
    Endpoint("GET", "/v1/streams", reads.streams, Scope.SUBSCRIBE),
    Endpoint("POST", "/v1/hooks/claude", ingest.claude_hook, Scope.PUBLISH, CLAUDE),
    Endpoint("POST", "/api/events", ingest.mpm, Scope.PUBLISH, CLAUDE),
    Endpoint("GET", "/v1/clients", clients.listing, Scope.ADMIN),
    Endpoint("POST", "/v1/clients/{id}/ping", clients.ping, Scope.ADMIN),
    Endpoint("POST", "/v1/clients/{id}/disconnect", clients.disconnect, Scope.ADMIN),
    Endpoint("GET", "/v1/dead", dead.listing, Scope.ADMIN),
    Endpoint("POST", "/v1/dead/{id}/redrive", dead.redrive, Scope.ADMIN),
    Endpoint("DELETE", "/v1/dead/{id}", dead.drop, Scope.ADMIN),
    Endpoint("POST", "/v1/login", access.login, OPEN),
    Endpoint("POST", "/v1/logout", access.logout, OPEN),
    Endpoint("GET", "/v1/stats", status.stats, Scope.SUBSCRIBE, EVERY),
    Endpoint("GET", "/metrics", status.metrics, Scope.SUBSCRIBE, EVERY),
    Endpoint("GET", "/healthz", status.healthz, OPEN),
    Endpoint("GET", "/readyz", status.readyz, OPEN),
    Endpoint("GET", "/openapi.json", status.openapi, OPEN),
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
    first = routes[0]  # that of most requests
    app = Starlette(
        routes=routes,
        middleware=[
            Middleware(Edge, context),
            *_cors(context),
            Middleware(Straight, first, ENDPOINTS[0].method, first.endpoint),
        ],
        exception_handlers={SteadcastError: on_error, HTTPException: on_http_exception},
    )
    app.router.redirect_slashes = False  # an unknown path is a 404, in words
    app.router.default = Dashboard(context.base, context.static)
    return app


def _cors(context: Context) -> list[Middleware]:
    """Let pages of the origins that are set read and write, with a token and never with a cookie."""
    if not context.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=list(context.cors_origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["Link", "Retry-After", *reads.PAGE_HEADERS],
        )
    ]


async def _serve(context: Context, methods: dict[str, Endpoint], request: Request) -> ASGIApp:
    method = "GET" if request.method == "HEAD" else request.method
    endpoint = methods[method]
    if endpoint.scope is not OPEN:
        headers, scope = request.headers, request.scope
        identity = await access.authorize(
            context,
            token=access.bearer(headers.get("authorization")),
            cookie=headers.get("cookie"),
            host=headers.get("host"),
            address=access.address_of(scope),
        )
        stream = request.path_params.get("stream", endpoint.stream)
        try:
            identity.check(endpoint.scope, stream, now=context.wall())
        except NotAllowed as error:
            context.counts[error.code] += 1
            raise
        scope[access.IDENTITY] = identity
        if context.begin is not None:
            await context.begin()  # mounted without a lifespan: who follows would be told nothing
        if endpoint.scope is Scope.PUBLISH:
            with context.tracer.publish(stream, headers):
                return await endpoint.handler(context, request)
    return await endpoint.handler(context, request)
