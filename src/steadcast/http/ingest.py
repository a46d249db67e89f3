"""Events coming in: CloudEvents, a coding agent's hooks, and the hooks of Claude MPM."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from steadcast.client.ids import mint_id
from steadcast.errors import InvalidEvent
from steadcast.http.access import address_of, client_of, identity_of
from steadcast.http.body import decode_loosely, read_body
from steadcast.http.claude import STREAM, hook_event, mpm_event
from steadcast.http.cloudevents import header_text, is_batch, receive
from steadcast.http.reads import json_response
from steadcast.incoming import read_cloudevents
from steadcast.wire import check_event, check_events, check_publishable, check_time

if TYPE_CHECKING:
    from collections.abc import Sequence

    from starlette.requests import Request

    from steadcast.event import Event
    from steadcast.http.context import Context


async def publish(context: Context, request: Request) -> Response:
    """Take CloudEvents in any of the three modes: `POST /v1/streams/{stream}/events`.

    200 with the results in the order sent once all are durable; all or nothing. An empty batch, which
    CloudEvents allows, has no results.
    """
    stream = check_publishable(request.path_params["stream"])
    body = await read_body(context, request)
    batched = is_batch(request.headers, body)
    if batched is not None and (plain := read_cloudevents(body, batched=batched, now=context.now())):
        events, left_out = plain
        context.counts["attributes_left_out"] += left_out
        return await _append(context, request, stream, events)
    received = receive(request.headers, body)
    context.counts["attributes_left_out"] += received.left_out
    if not received.batched:
        return await _append(context, request, stream, [check_event(received.events, now=context.now())])
    if not received.events:
        return json_response({"results": []})
    return await _append(context, request, stream, check_events(received.events, now=context.now()))


async def claude_hook(context: Context, request: Request) -> Response:
    """Take a Claude Code hook's JSON as it is: `POST /v1/hooks/claude`.

    `ce-id` and `ce-time` come from `steadcast hook`; without them an id is minted and the time is now.
    """
    body = _masked(context, decode_loosely(await read_body(context, request)))
    raw = hook_event(
        body, event_id=_event_id(request), time=_time_or(request.headers.get("ce-time"), context)
    )
    return await _append(context, request, STREAM, [check_event(raw, now=raw["time"])])


async def mpm(context: Context, request: Request) -> Response:
    """Take the body of Claude MPM's hooks, and answer 204 as the server does that they expect."""
    body = _masked(context, decode_loosely(await read_body(context, request)))
    raw = mpm_event(body, event_id=_event_id(request), now=context.now())
    raw["time"] = _time_or(raw["time"], context)
    await _append(context, request, STREAM, [check_event(raw, now=raw["time"])])
    return Response(status_code=204)


async def _append(context: Context, request: Request, stream: str, events: Sequence[Event]) -> Response:
    client = client_of(identity_of(request), address_of(request.scope))
    await context.rates.publish(client, len(events))
    receipts = await context.append(stream, events)
    return json_response({"results": receipts})


def _masked(context: Context, body: Any) -> Any:
    masked = context.masking.body(body)
    context.counts["bodies_masked"] += masked != body
    return masked


def _event_id(request: Request) -> str:
    given = request.headers.get("ce-id")
    return mint_id() if given is None else header_text(given, "id")


def _time_or(given: Any, context: Context) -> str:
    """Give a time that a hook told, or now: an event matters more than its time's form."""
    if given is not None:
        try:
            return check_time(given)
        except InvalidEvent:
            context.counts["times_replaced"] += 1
    return context.now()
