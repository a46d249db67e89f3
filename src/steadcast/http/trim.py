"""Trimming a lane on purpose, past an event that nobody can read: for whoever runs the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from steadcast.errors import HandlerTimeout, InvalidRequest, PositionLost
from steadcast.event import Lane  # noqa: TC001 - msgspec reads the annotations at run time
from steadcast.http.access import address_of, identity_of
from steadcast.http.reads import json_response, parse_lane, parse_offset, parse_position
from steadcast.wire import check_stream

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from steadcast.engines.base import LaneState
    from steadcast.http.context import Context

log = structlog.get_logger("steadcast.http")

_FLAGS: Final = {"true": True, "false": False}


class Trimmed(msgspec.Struct, frozen=True, kw_only=True):
    """What trimming took, or with `dry_run` would take.

    `events` counts them; `lost` are the offsets that are gone by it (first and last), None where there was
    nothing to do; `trimmed` is the lane's mark now, and `head` its last offset. Not `complete` where it took
    longer than a request may: asked again, it goes on.
    """

    stream: str
    lane: Lane
    epoch: str
    dry_run: bool
    events: int
    lost: tuple[int, int] | None
    trimmed: int
    head: int
    complete: bool


class _Wish(msgspec.Struct, frozen=True):
    """What is to go; `epoch` is the log's that is meant, where that was said."""

    stream: str
    lane: Lane
    upto: int
    epoch: str | None


async def trim(context: Context, request: Request) -> Response:
    """Drop a lane's events up to and with an offset: `POST /v1/streams/{stream}/trim?lane=&upto=`."""
    query = request.query_params
    epoch, upto = _parse_upto(query.get("upto", ""))
    wish = _Wish(check_stream(request.path_params["stream"]), parse_lane(query.get("lane", "")), upto, epoch)
    dry_run = _FLAGS.get(query.get("dry_run", "false"))
    if dry_run is None:
        raise InvalidRequest("dry_run is true or false", field="dry_run")
    told = await (_count(context, wish) if dry_run else _trim(context, wish))
    if told.lost is not None and not dry_run:
        context.hub.counts["trimmed"] += told.events
        log.warning(
            "trimmed by hand",
            by=identity_of(request).name,
            address=address_of(request.scope),
            stream=told.stream,
            lane=str(told.lane),
            epoch=told.epoch,
            lost=f"{told.lost[0]} to {told.lost[1]}",
            events=told.events,
        )
    return json_response(told)


async def _count(context: Context, wish: _Wish) -> Trimmed:
    """Tell what trimming would take."""
    epoch, state = await _look(context, wish)
    events = await _due(context, wish)
    lost = (state.trimmed + 1, wish.upto) if events else None
    return _told(wish, epoch, state, events=events, lost=lost, dry_run=True, complete=True)


async def _trim(context: Context, wish: _Wish) -> Trimmed:
    """Trim for as long as a request may take; each step of it stands.

    Raises `HandlerTimeout` where nothing went by then.
    """
    epoch, before = await _look(context, wish)
    due = left = await _due(context, wish)
    if due:
        try:
            await context.within("trim", context.engine.trim(wish.stream, wish.lane, wish.upto))
        except HandlerTimeout:
            left = await _due(context, wish)
            if left == due:
                raise
        else:
            left = await _due(context, wish)
    _, after = await _look(context, msgspec.structs.replace(wish, epoch=epoch))
    lost = (before.trimmed + 1, after.trimmed) if after.trimmed > before.trimmed else None
    return _told(wish, epoch, after, events=due - left, lost=lost, dry_run=False, complete=not left)


async def _due(context: Context, wish: _Wish) -> int:
    counting = context.engine.trim(wish.stream, wish.lane, wish.upto, dry_run=True)
    return await context.within("trim", counting)


async def _look(context: Context, wish: _Wish) -> tuple[str, LaneState]:
    """Describe the lane; refuses what isn't there."""
    found = await context.within("describe", context.engine.describe(wish.stream))
    lanes = found.streams[wish.stream]
    if not any(state.head for state in lanes.values()):
        raise InvalidRequest(
            f"the log has no stream of the name {wish.stream}", code="not_found", field="stream"
        )
    if wish.epoch not in {None, found.epoch}:
        raise PositionLost("the position is of another epoch", epoch=found.epoch, code="reset")
    head = lanes[wish.lane].head
    if wish.upto > head:
        raise InvalidRequest(f"the lane ends at offset {head}", field="upto", limit=head)
    return found.epoch, lanes[wish.lane]


def _told(
    wish: _Wish,
    epoch: str,
    state: LaneState,
    *,
    events: int,
    lost: tuple[int, int] | None,
    dry_run: bool,
    complete: bool,
) -> Trimmed:
    return Trimmed(
        stream=wish.stream,
        lane=wish.lane,
        epoch=epoch,
        dry_run=dry_run,
        events=events,
        lost=lost,
        trimmed=state.trimmed,
        head=state.head,
        complete=complete,
    )


def _parse_upto(text: str) -> tuple[str | None, int]:
    """Turn `OFFSET` or `EPOCH:OFFSET` into epoch and offset; raises `InvalidRequest`."""
    if ":" not in text:
        return None, parse_offset(text, "upto")
    position = parse_position(text, "upto")
    return position.epoch, position.offset
