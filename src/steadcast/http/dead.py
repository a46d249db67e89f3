"""Dead events: what was given up after its retries, to be looked at, re-driven and dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response

from steadcast.errors import InvalidRequest
from steadcast.event import Event, Receipt  # noqa: TC001 - msgspec reads the annotations at run time
from steadcast.http.reads import json_response

if TYPE_CHECKING:
    from starlette.requests import Request

    from steadcast.http.context import Context


class DeadEvent(msgspec.Struct, frozen=True, kw_only=True):
    """A dead event as `GET /v1/dead` tells it."""

    id: str
    stream: str
    reason: str
    at: str
    attempts: int
    error: str | None
    garbled: bool
    event: Event


class DeadListing(msgspec.Struct, frozen=True):
    """Dead events, oldest first; not `complete` where the log couldn't be read and some may be missing."""

    dead: list[DeadEvent]
    complete: bool


class Redriven(msgspec.Struct, frozen=True):
    """Where a re-driven event is now."""

    result: Receipt


async def listing(context: Context, _request: Request) -> Response:
    """Answer `GET /v1/dead`."""
    if context.dead is None:
        return json_response(DeadListing([], complete=True))
    found = await context.within("dead", context.dead.list())
    told = [
        DeadEvent(**{name: getattr(each, name) for name in DeadEvent.__struct_fields__})
        for each in found.dead
    ]
    return json_response(DeadListing(told, complete=found.complete))


async def redrive(context: Context, request: Request) -> Response:
    """Append a dead event to its stream again: `POST /v1/dead/{id}/redrive`."""
    name = request.path_params["id"]
    receipt = None if context.dead is None else await context.within("redrive", context.dead.redrive(name))
    if receipt is None:
        raise _unknown(name)
    return json_response(Redriven(receipt))


async def drop(context: Context, request: Request) -> Response:
    """Forget a dead event: `DELETE /v1/dead/{id}`."""
    name = request.path_params["id"]
    if context.dead is None or not await context.within("drop", context.dead.drop(name)):
        raise _unknown(name)
    return Response(status_code=204)


def _unknown(name: str) -> InvalidRequest:
    return InvalidRequest("there is no dead event with this id", code="not_found", id=name[:128])
