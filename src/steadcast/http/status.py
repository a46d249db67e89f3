"""How the server is: stats, metrics, health, and the description of this interface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from steadcast.errors import SteadcastError, Unavailable
from steadcast.http import metrics as exposition
from steadcast.http.openapi import document
from steadcast.http.problems import problem
from steadcast.http.reads import json_response
from steadcast.wire import VERSION

if TYPE_CHECKING:
    from starlette.requests import Request

    from steadcast.engines.base import Description
    from steadcast.http.context import Context


async def stats(context: Context, _request: Request) -> Response:
    """Answer `GET /v1/stats`; always 200, an engine that is away is told in its place."""
    body: dict[str, Any] = {
        "node": context.node,
        "version": context.version,
        "protocol": VERSION,
        "time": context.now(),
        "uptime": round(max(0.0, context.wall() - context.started), 3),
        "hub": context.hub.statistics(),
        "engine": await _engine(context),
        "http": _http(context),
    }
    return json_response(body | context.stats())


async def metrics(context: Context, request: Request) -> Response:
    """Answer `GET /metrics`: the Prometheus text format, or OpenMetrics where it is asked for."""
    body, content_type = exposition.render(
        context.requests,
        accept=request.headers.get("accept", ""),
        hub=context.hub.statistics(),
        http=context.counts,
        stats={
            "engine": _engine_statistics(context),
            **context.stats(),
            "feeds": len(context.feeds),
            "uptime_seconds": max(0.0, context.wall() - context.started),
        },
        description=await _description(context),
    )
    return Response(body, headers={"Content-Type": content_type, "Cache-Control": "no-store"})


async def healthz(_context: Context, _request: Request) -> Response:
    """Answer `GET /healthz`: 200 as long as the event loop runs."""
    return json_response({"status": "ok"})


async def readyz(context: Context, _request: Request) -> Response:
    """Answer `GET /readyz`: 200, or 503 with the reasons in words."""
    reasons = await context.problems()
    if not reasons:
        return json_response({"status": "ready"})
    return problem(Unavailable("; ".join(reasons), code="not_ready", reasons=reasons))


async def openapi(context: Context, request: Request) -> Response:
    """Answer `GET /openapi.json`."""
    server = context.server_url or context.address(request.scope) or "/"
    return json_response(document(version=context.version, server=server))


def _engine_statistics(context: Context) -> dict[str, Any]:
    """Give what the engine counts of itself, where it counts."""
    statistics = getattr(context.engine, "statistics", None)
    found = msgspec.to_builtins(statistics()) if callable(statistics) else {}
    return found if isinstance(found, dict) else {}


def _http(context: Context) -> dict[str, Any]:
    return {"feeds": len(context.feeds), "counts": dict(context.counts)}


async def _description(context: Context) -> Description | None:
    try:
        return await context.within("describe", context.engine.describe())
    except SteadcastError:
        context.counts["describe_failed"] += 1
        return None


async def _engine(context: Context) -> dict[str, Any]:
    description = await _description(context)
    if description is None:
        return {"available": False, "statistics": _engine_statistics(context)}
    lanes = [state for states in description.streams.values() for state in states.values()]
    return {
        "available": True,
        "epoch": description.epoch,
        "streams": len(description.streams),
        "events": sum(state.events for state in lanes),
        "bytes": sum(state.bytes for state in lanes),
        "statistics": _engine_statistics(context),
    }
