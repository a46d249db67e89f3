"""A publish goes straight to its handler: most requests are one, and the table of routes costs much."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.requests import Request

from steadcast.errors import SteadcastError
from steadcast.http.problems import problem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.routing import Route
    from starlette.types import ASGIApp, Receive, Scope, Send


class Straight:
    """Serves one method of one route by itself; everything else goes on to the table that has it as well.

    The answers are the same: it leaves out what the table does for handlers of other kinds.
    """

    def __init__(
        self, app: ASGIApp, route: Route, method: str, serve: Callable[[Request], Awaitable[ASGIApp]]
    ) -> None:
        """Stand before an ASGI application; `serve` raises errors of the tree."""
        self._app = app
        self._route = route
        self._method = method
        self._serve = serve

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        found = None
        if scope["type"] == "http" and scope["method"] == self._method and not scope.get("root_path"):
            found = self._route.path_regex.match(scope["path"])
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["route"] = self._route
        scope["path_params"] = found.groupdict()
        try:
            answer = await self._serve(Request(scope, receive, send))
        except SteadcastError as error:
            answer = problem(error)
        await answer(scope, receive, send)
