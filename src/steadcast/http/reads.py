"""Reading the log: a page of a lane, and the list of streams."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import quote, urlencode

import msgspec
from starlette.responses import Response

from steadcast.errors import EngineUnavailable, InvalidRequest, PositionLost
from steadcast.event import LANES, Lane, Position
from steadcast.http.access import identity_of
from steadcast.wire import (
    MAX_OFFSET,
    PAGE_EVENTS,
    Cursor,
    WireEvent,
    check_cursor,
    check_from,
    check_stream,
    time_text,
    whole_number,
    wire_event,
)

if TYPE_CHECKING:
    from starlette.requests import Request

    from steadcast.engines.base import Description, LaneState
    from steadcast.event import Batch, Entry
    from steadcast.http.context import Context

NDJSON: Final = "application/x-ndjson"
_NDJSON_TYPES: Final = (NDJSON, "application/ndjson", "application/jsonl", "application/jsonlines")
PAGE_HEADERS: Final = ("Steadcast-Epoch", "Steadcast-After", "Steadcast-Upto", "Steadcast-Head")
"""What a page in NDJSON says of itself."""
_TRIES: Final = 3
"""Times that a page is begun anew when retention overtakes it."""

_encoder: Final = msgspec.json.Encoder()


class PageEvent(WireEvent, frozen=True):
    """An event as a page has it: as in a `batch`, and with the time at which the log took it (RFC 3339)."""

    kept: str | None = None


class Page(msgspec.Struct, frozen=True):
    """A page of a lane: honest as a batch is, with the lane's head and the address of the next page.

    `next` is None where the page ends at the head; whoever wants to follow asks again behind `upto`.
    """

    stream: str
    lane: Lane
    epoch: str
    after: int
    upto: int
    head: int
    events: list[PageEvent]
    next: str | None


class LaneSummary(msgspec.Struct, frozen=True):
    """What `GET /v1/streams` tells of a lane; `trimmed` is the offset up to which events are gone."""

    head: Position
    trimmed: int
    events: int
    bytes: int


class StreamSummary(msgspec.Struct, frozen=True):
    """A stream's name and lanes; `system` ones are written by the server alone."""

    stream: str
    system: bool
    lanes: dict[Lane, LaneSummary]


class Streams(msgspec.Struct, frozen=True):
    """The answer to `GET /v1/streams`; `retention` is per lane: age in seconds, events, bytes."""

    epoch: str
    retention: dict[str, float]
    streams: list[StreamSummary]


async def page(context: Context, request: Request) -> Response:
    """Answer `GET /v1/streams/{stream}/events`; 410 where the position can't be read."""
    stream = check_stream(request.path_params["stream"])
    query = request.query_params
    lane = parse_lane(query.get("lane", "normal"))
    limit = parse_limit(query.get("limit"), PAGE_EVENTS, f"a page has at most {PAGE_EVENTS} events")
    after = query.get("after")
    if after is not None and "from" in query:
        raise InvalidRequest("a page begins behind `after` or at `from`, not both", field="from")
    address = f"{context.address(request.scope)}/v1/streams/{quote(stream)}/events"
    try:
        if after is not None:
            batch = await _read_behind(context, stream, lane, parse_position(after), limit)
        else:
            batch = await _read_from(context, stream, lane, parse_from(query.get("from", "start")), limit)
    except PositionLost as error:
        _lost(error, address, lane, limit)
    head = await _head(context, batch)
    link = None if batch.upto >= head else _link(address, lane, limit, f"{batch.epoch}:{batch.upto}")
    events = [_page_event(entry) for entry in batch.events]
    answer = Page(stream, lane, batch.epoch, batch.after, batch.upto, head, events, link)
    return _ndjson(answer) if _wants_ndjson(request) else _json(answer)


async def streams(context: Context, request: Request) -> Response:
    """Answer `GET /v1/streams`: those that may be read."""
    identity = identity_of(request)
    description = await context.within("describe", context.engine.describe())
    retention = context.engine.retention
    kept = {"age": retention.age, "events": retention.events, "bytes": retention.bytes}
    found = [
        StreamSummary(name, name.startswith("steadcast."), _lanes(description, states))
        for name, states in sorted(description.streams.items())
        if identity.covers(name)
    ]
    return json_response(Streams(description.epoch, kept, found))


def _page_event(entry: Entry) -> PageEvent:
    event = msgspec.structs.asdict(wire_event(entry))
    return PageEvent(**event, kept=None if entry.kept is None else _rfc3339(entry.kept))


def _rfc3339(at: int) -> str:
    moment = datetime.fromtimestamp(at // 1000, UTC).replace(microsecond=at % 1000 * 1000)
    return time_text(moment, "milliseconds")


def json_response(body: object, status: int = 200) -> Response:
    """Answer with JSON that nobody keeps."""
    headers = {"Cache-Control": "no-store"}
    return Response(_encoder.encode(body), status, headers, "application/json")


def parse_lane(text: str) -> Lane:
    """Turn `lane` into a lane; raises `InvalidRequest`."""
    if text not in LANES:
        raise InvalidRequest('lane is "critical" or "normal"', field="lane")
    return Lane(text)


def parse_limit(text: str | None, most: int, words: str) -> int:
    """Turn `limit` into a number, at most and by default `most`; raises `InvalidRequest` with `words`."""
    if text is None:
        return most
    limit = whole_number(text, MAX_OFFSET)
    if not limit:
        raise InvalidRequest(f"limit is a whole number from 1; {words}", field="limit")
    return min(limit, most)


def parse_position(text: str, field: str = "after") -> Cursor:
    """Turn `EPOCH:OFFSET` into a cursor; raises `InvalidRequest`."""
    epoch, _, offset = text.partition(":")
    return check_cursor([epoch, parse_offset(offset, field)], field)


def parse_offset(text: str, field: str) -> int:
    """Turn digits into an offset; raises `InvalidRequest`."""
    offset = whole_number(text, MAX_OFFSET)
    if offset is None:
        raise InvalidRequest(f"{field} has offsets from 0 to 2^53-1", field=field)
    return offset


def parse_from(text: str) -> int | None:
    """Turn `start`, `end` or `last:N` into the number of last events: None for start, 0 for end."""
    word, colon, count = text.partition(":")
    if colon and word == "last":
        return check_from({"last": parse_offset(count, "from")})
    if text not in {"start", "end"}:
        raise InvalidRequest("from is start, end or last:N", field="from")
    return check_from(text)


async def _read_behind(context: Context, stream: str, lane: Lane, after: Cursor, limit: int) -> Batch:
    try:
        reading = context.engine.read(stream, lane, after.offset, limit, kept=True)
        batch = await context.within("read", reading)
    except PositionLost as error:
        if error.epoch == after.epoch:
            raise
        raise _reset(error.epoch) from error
    if batch.epoch != after.epoch:
        raise _reset(batch.epoch)
    return batch


def _reset(epoch: str) -> PositionLost:
    return PositionLost("the position is of another epoch", epoch=epoch, code="reset")


async def _read_from(context: Context, stream: str, lane: Lane, last: int | None, limit: int) -> Batch:
    """Read from the start, the end or the last N; begins anew where retention goes on meanwhile."""
    for _ in range(_TRIES):
        offset = -last if last else await _start(context, stream, lane, last)
        try:
            return await context.within("read", context.engine.read(stream, lane, offset, limit, kept=True))
        except PositionLost:
            context.counts["pages_overtaken"] += 1
    raise EngineUnavailable("retention overtook the page; try again")


async def _start(context: Context, stream: str, lane: Lane, last: int | None) -> int:
    state = _state(await context.within("describe", context.engine.describe(stream)), stream, lane)
    if state is None:
        return 0
    return state.trimmed if last is None else state.head


async def _head(context: Context, batch: Batch) -> int:
    """Give the lane's head, read after the page so that it is never below it."""
    description = await context.within("describe", context.engine.describe(batch.stream))
    if description.epoch != batch.epoch:
        raise _reset(description.epoch)
    state = _state(description, batch.stream, batch.lane)
    return batch.upto if state is None else max(batch.upto, state.head)


def _state(description: Description, stream: str, lane: Lane) -> LaneState | None:
    return description.streams.get(stream, {}).get(lane)


def _lanes(description: Description, states: dict[Lane, LaneState]) -> dict[Lane, LaneSummary]:
    return {
        lane: LaneSummary(Position(description.epoch, state.head), state.trimmed, state.events, state.bytes)
        for lane, state in states.items()
    }


def _lost(error: PositionLost, address: str, lane: Lane, limit: int) -> NoReturn:
    """Add where to go on: behind what is gone, or at the start of the new epoch."""
    behind = None if error.lost is None else f"{error.epoch}:{error.lost[1]}"
    error.fields["next"] = _link(address, lane, limit, behind)
    raise error


def _link(address: str, lane: Lane, limit: int, after: str | None) -> str:
    query = {"lane": str(lane)} | ({} if after is None else {"after": after}) | {"limit": str(limit)}
    return f"{address}?{urlencode(query, safe=':')}"


def _wants_ndjson(request: Request) -> bool:
    accept = request.headers.get("accept", "")
    return any(each in accept for each in _NDJSON_TYPES)


def _link_header(answer: Page) -> dict[str, str]:
    return {} if answer.next is None else {"Link": f'<{answer.next}>; rel="next"'}


def _json(answer: Page) -> Response:
    response = json_response(answer)
    response.headers.update(_link_header(answer))
    return response


def _ndjson(answer: Page) -> Response:
    """One event a line; what a page says around its events stands in headers."""
    said = (answer.epoch, str(answer.after), str(answer.upto), str(answer.head))
    headers = {"Cache-Control": "no-store", **dict(zip(PAGE_HEADERS, said, strict=True))}
    return Response(_encoder.encode_lines(answer.events), 200, headers | _link_header(answer), NDJSON)
