"""The wire, protocol version 1: values to and from JSON, and the validation of what comes in.

Everything here is pure. Refusals are raised as errors of the tree, with the index and field they are about.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, Final, Literal, NoReturn, TypeVar

import msgspec

from steadcast.errors import InvalidEvent, InvalidRequest, InvalidStream, TooLarge
from steadcast.event import LANES, Batch, Entry, Event, Lane, Position, Receipt

VERSION: Final = 1
MAX_EVENT_BYTES: Final = 256 * 1024
MAX_BATCH_EVENTS: Final = 1_000
"""The most events that one publish takes."""
PAGE_EVENTS: Final = 256
"""A batch holds at most this many events …"""
PAGE_BYTES: Final = 256 * 1024
"""… and at most this many bytes, unless a single event is larger: that goes alone."""
MAX_DEPTH: Final = 128
MAX_OFFSET: Final = 2**53 - 1
"""The largest integer that every JSON reader keeps exactly (RFC 8259, section 6)."""

SYSTEM_PREFIX: Final = "steadcast."
_STREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_EPOCH = re.compile(r"[A-Za-z0-9_-]{1,64}")
TIME: Final = re.compile(
    r"\d{4}-\d\d-\d\d[Tt](?:[01]\d|2[0-3]):[0-5]\d:(?:[0-5]\d|60)(?:\.\d{1,9})?"
    r"(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)",
    re.ASCII,
)
CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
TEXT_LIMITS: Final = {"id": 256, "source": 1024, "type": 256, "subject": 1024}

T = TypeVar("T")
Status = Literal["new", "resumed", "trimmed", "reset"]


class Cursor(msgspec.Struct, frozen=True, array_like=True):
    """The last position that a subscriber applied, and that event's id where it knows it."""

    epoch: str
    offset: int
    id: str | None = None

    def as_wire(self) -> list[str | int]:
        """Give `[epoch, offset]` or `[epoch, offset, id]`."""
        place: list[str | int] = [self.epoch, self.offset]
        return place if self.id is None else [*place, self.id]


class Subscribe(msgspec.Struct, frozen=True):
    """A validated `subscribe`: `last` is N of `from: {last: N}`, 0 for "end", None for "start"."""

    stream: str
    cursors: dict[Lane, Cursor]
    last: int | None


class Ack(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A validated `ack`: everything of the lane up to the offset is applied.

    Decoded as it comes in, it has no other fields: those wouldn't even be checked to be UTF-8.
    """

    stream: str
    lane: Lane
    epoch: str
    offset: int


class LaneAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One lane's part of the answer to `subscribe`."""

    status: Status
    cursor: Position
    head: Position
    behind: int | None
    lost: tuple[int, int] | None = None
    maybe: bool = False


class WireEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event as a `batch` carries it."""

    offset: int
    id: str
    source: str
    type: str
    time: str
    priority: str
    data: Any
    subject: str | None = None


class WireBatch(msgspec.Struct, frozen=True):
    """A `batch` as it travels."""

    stream: str
    lane: Lane
    epoch: str
    after: int
    upto: int
    events: list[WireEvent]


_encoder = msgspec.json.Encoder()


def check_stream(name: object) -> str:
    """Return the stream's name, or raise `InvalidStream`."""
    if not isinstance(name, str) or not _STREAM.fullmatch(name):
        raise InvalidStream(
            "a stream's name is 1 to 128 of A-Z a-z 0-9 . _ : -, the first a letter or digit", field="stream"
        )
    return name


def check_publishable(name: object) -> str:
    """Return a stream's name that outsiders may publish to, or raise `InvalidStream`."""
    stream = check_stream(name)
    if stream.startswith(SYSTEM_PREFIX):
        raise InvalidStream(f"names that begin with {SYSTEM_PREFIX} are the system's own", field="stream")
    return stream


def visible(text: str) -> str:
    """Give a foreign text as a line of a log can hold it: what is no sign to be seen is escaped."""
    return CONTROL.sub(lambda sign: sign[0].encode("unicode_escape").decode(), text)


def _refuse(field: str, why: str, index: int | None = None) -> NoReturn:
    fields: dict[str, Any] = {"field": field} if index is None else {"field": field, "index": index}
    raise InvalidEvent(f"{field} {why}", **fields)


def _text(raw: dict[str, Any], field: str, index: int | None) -> str:
    value = raw.get(field)
    limit = TEXT_LIMITS[field]
    if not isinstance(value, str) or not value:
        _refuse(field, "must be a non-empty string", index)
    if len(value) > limit:
        _refuse(field, f"is longer than {limit} characters", index)
    if CONTROL.search(value):
        _refuse(field, "has control characters", index)
    return value


def check_time(value: object, index: int | None = None) -> str:
    """Return an RFC 3339 time as it is, or raise `InvalidEvent`.

    RFC 3339 knows leap seconds; they are refused, because neither Python's nor JavaScript's dates hold them.
    """
    if isinstance(value, str) and TIME.fullmatch(value):
        if value[17:19] == "60":
            _refuse("time", "is in a leap second, which most readers can't hold: write second 59", index)
        try:
            datetime.fromisoformat(value[:19].upper())
        except ValueError:
            _refuse("time", "is no date that exists", index)
        return value
    _refuse("time", "must be RFC 3339, like 2026-01-31T12:00:00Z", index)


def time_text(moment: datetime, precision: str = "microseconds") -> str:
    """Give a moment of UTC as RFC 3339; `precision` is as `datetime.isoformat` has it."""
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")


def whole_number(text: str, most: int) -> int | None:
    """Read decimal digits as a number from 0 to `most`; None where they are none.

    `int` alone takes signs, blanks, underscores and other scripts' digits, and raises above 4,300 of them.
    """
    digits = text.lstrip("0") or "0"
    if not (text and digits.isascii() and digits.isdigit() and len(digits) <= len(str(most))):
        return None
    number = int(digits)
    return number if number <= most else None


def _deep(value: object, limit: int) -> bool:
    """Tell whether arrays and objects are nested in each other more than `limit` times."""
    level = [value]
    for _ in range(limit):
        level = [
            child
            for node in level
            if isinstance(node, (dict, list))
            for child in (node.values() if isinstance(node, dict) else node)
        ]
    return any(isinstance(node, (dict, list)) for node in level)


def holds_bytes(value: object) -> bool:
    """Tell whether bytes stand anywhere in a value."""
    if isinstance(value, dict):
        return any(map(holds_bytes, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(holds_bytes, value))
    return isinstance(value, (bytes, bytearray, memoryview))


def compact(data: object, index: int | None = None) -> msgspec.Raw:
    """Encode an event's data once, as compact JSON; raise `InvalidEvent` where it isn't JSON.

    NaN, the infinities and bytes are refused: the encoder would make null and base64 of them without a word.
    """
    try:
        encoded = _encoder.encode(data)
        deep = encoded.count(b"[") + encoded.count(b"{") > MAX_DEPTH and _deep(
            msgspec.json.decode(encoded), MAX_DEPTH
        )
        if b"null" in encoded and not deep and not isinstance(data, msgspec.Raw):
            json.dumps(data, allow_nan=False, default=str, skipkeys=True)
        if not deep and holds_bytes(data):
            raise TypeError("it holds bytes; send them as text, in base64 for one")  # noqa: TRY301 - as the rest
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        _refuse("data", f"is not JSON: {str(error)[:100]}", index)
    if deep:
        _refuse("data", f"is nested deeper than {MAX_DEPTH}", index)
    return msgspec.Raw(encoded)


def check_event(raw: object, *, now: str, index: int | None = None) -> Event:
    """Turn one event of a `publish` into an `Event`, or raise `InvalidEvent` or `TooLarge`.

    `now` (RFC 3339) stands in for a missing `time`. `data` of the result is compact JSON.
    """
    if not isinstance(raw, dict):
        _refuse("event", "must be an object", index)
    priority = raw.get("priority", "normal")
    if not isinstance(priority, str) or priority not in LANES:
        _refuse("priority", 'must be "critical" or "normal"', index)
    event = Event(
        id=_text(raw, "id", index),
        source=_text(raw, "source", index),
        type=_text(raw, "type", index),
        time=now if raw.get("time") is None else check_time(raw["time"], index),
        data=compact(raw.get("data"), index),
        priority=Lane(priority),
        subject=None if raw.get("subject") is None else _text(raw, "subject", index),
    )
    if size_of(event) > MAX_EVENT_BYTES:
        fields: dict[str, Any] = {} if index is None else {"index": index}
        raise TooLarge(f"an event has at most {MAX_EVENT_BYTES} bytes", limit=MAX_EVENT_BYTES, **fields)
    return event


def size_of(event: Event) -> int:
    """Give an event's size in bytes, as limits and windows count it: data, texts and 64 for the rest."""
    texts = f"{event.id}{event.source}{event.type}{event.subject or ''}"
    size = len(texts) if texts.isascii() else len(texts.encode(errors="surrogatepass"))
    return size + 64 + _data_size(event.data)


def _data_size(data: object) -> int:
    if isinstance(data, msgspec.Raw):
        return len(memoryview(data))
    try:
        return len(_encoder.encode(data))
    except (TypeError, ValueError, OverflowError):
        # A receiver counts what it was given, also what no server of ours would have taken.
        return len(json.dumps(data, default=str, skipkeys=True))


def check_events(raw: object, *, now: str) -> list[Event]:
    """Turn a list of events into `Event`s; raise with the index of the first bad one."""
    if not isinstance(raw, list) or not raw:
        raise InvalidRequest("events must be a list with at least one event", field="events")
    if len(raw) > MAX_BATCH_EVENTS:
        raise TooLarge(
            f"at most {MAX_BATCH_EVENTS} events at once", code="batch_too_large", limit=MAX_BATCH_EVENTS
        )
    return [check_event(each, now=now, index=index) for index, each in enumerate(raw)]


def as_object(payload: object, name: str) -> dict[str, Any]:
    """Return a payload that is an object, or raise `InvalidRequest`; `name` is the event's."""
    if not isinstance(payload, dict):
        raise InvalidRequest(f"{name} takes an object", field=name)
    return payload


def _offset(value: object, field: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= MAX_OFFSET:
        raise InvalidRequest(f"{field}: an offset is a whole number from 0 to 2^53-1", field=field)
    return value


def check_epoch(value: object, field: str = "epoch") -> str:
    """Return an epoch, or raise `InvalidRequest`."""
    if not isinstance(value, str) or not _EPOCH.fullmatch(value):
        raise InvalidRequest(f"{field}: an epoch is 1 to 64 of A-Z a-z 0-9 _ -", field=field)
    return value


def _lane(value: object) -> Lane:
    if not isinstance(value, str) or value not in LANES:
        raise InvalidRequest('lane must be "critical" or "normal"', field="lane")
    return Lane(value)


def check_cursor(value: object, field: str = "cursors") -> Cursor:
    """Turn `[epoch, offset, id?]` into a `Cursor`, or raise `InvalidRequest`."""
    if not isinstance(value, (list, tuple)) or len(value) not in {2, 3}:
        raise InvalidRequest(f"{field}: a cursor is [epoch, offset] or [epoch, offset, id]", field=field)
    last_id = value[2] if len(value) == 3 else None  # noqa: PLR2004 - the form named in the line above
    if last_id is not None and not _is_id(last_id):
        raise InvalidRequest(f"{field}: the id of a cursor is that of an event", field=field)
    return Cursor(check_epoch(value[0], field), _offset(value[1], field), last_id)


def _is_id(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= TEXT_LIMITS["id"] and not CONTROL.search(value)


def check_from(value: object) -> int | None:
    """Turn `from` into the number of last events, 0 for "end" and None for "start"."""
    match value:
        case None | "end":
            return 0
        case "start":
            return None
        case {"last": int(last)} if not isinstance(last, bool) and 0 <= last <= MAX_OFFSET:
            return last
    raise InvalidRequest('from must be "start", "end" or {"last": N}', field="from")


def parse_subscribe(payload: object) -> Subscribe:
    """Validate a `subscribe` payload; raise `InvalidStream` or `InvalidRequest`."""
    fields = as_object(payload, "subscribe")
    cursors = fields.get("cursors")
    if cursors is None:
        cursors = {}
    if not isinstance(cursors, dict) or any(lane not in LANES for lane in cursors):
        raise InvalidRequest('cursors is an object with "critical" and "normal"', field="cursors")
    return Subscribe(
        check_stream(fields.get("stream")),
        {Lane(lane): check_cursor(cursor) for lane, cursor in cursors.items() if cursor is not None},
        check_from(fields.get("from")),
    )


def subscribe_wire(stream: str, cursors: dict[Lane, Cursor], start: object) -> dict[str, Any]:
    """Give the payload of a `subscribe`; `start` is its `from`."""
    kept = {str(lane): cursor.as_wire() for lane, cursor in cursors.items()}
    return {"stream": stream, "cursors": kept, "from": start}


def parse_unsubscribe(payload: object) -> str:
    """Validate an `unsubscribe` payload and return the stream."""
    return check_stream(as_object(payload, "unsubscribe").get("stream"))


def parse_ack(payload: object) -> Ack:
    """Validate an `ack` payload; raise `InvalidStream` or `InvalidRequest`."""
    fields = as_object(payload, "ack")
    return Ack(
        check_stream(fields.get("stream")),
        _lane(fields.get("lane")),
        check_epoch(fields.get("epoch")),
        _offset(fields.get("offset"), "offset"),
    )


def wire_event(entry: Entry) -> WireEvent:
    """Give an event in the form in which a batch or a page carries it."""
    event = entry.event
    return WireEvent(
        entry.offset,
        event.id,
        event.source,
        event.type,
        event.time,
        event.priority,
        event.data,
        event.subject,
    )


def encode_batch(batch: Batch) -> bytes:
    """Encode a batch's JSON; `data` that is already JSON is copied, not decoded."""
    return _encoder.encode(
        WireBatch(
            batch.stream,
            batch.lane,
            batch.epoch,
            batch.after,
            batch.upto,
            [wire_event(e) for e in batch.events],
        )
    )


def parse_batch(payload: object) -> Batch:
    """Turn a received `batch` into a `Batch`; raise `InvalidRequest` where it isn't one.

    Its offsets rise within (`after`, `upto`]: a receiver's cursor moves along them.
    """
    raw = _convert(payload, WireBatch, "batch")
    if not _STREAM.fullmatch(raw.stream):
        raise InvalidRequest("stream: a batch names its stream", field="stream")
    check_epoch(raw.epoch)
    last = _offset(raw.after, "after")
    for event in raw.events:
        if not last < event.offset <= raw.upto:
            raise InvalidRequest("offset: the events of a batch rise from after to upto", field="offset")
        last = event.offset
    if _offset(raw.upto, "upto") < raw.after:
        raise InvalidRequest("upto: a batch doesn't end before it begins", field="upto")
    entries = tuple(
        Entry(e.offset, Event(e.id, e.source, e.type, e.time, e.data, _lane(e.priority), e.subject))
        for e in raw.events
    )
    return Batch(raw.stream, raw.lane, raw.epoch, raw.after, raw.upto, entries)


def parse_answer(payload: object) -> dict[Lane, LaneAnswer]:
    """Turn the `lanes` of a `subscribe` answer into values; raise `InvalidRequest` where they aren't."""
    lanes = _convert(payload, dict[Lane, LaneAnswer], "lanes")
    for lane in LANES:
        if lane not in lanes:
            raise InvalidRequest("lanes: both lanes are always answered", field="lanes")
        for place in (lanes[lane].cursor, lanes[lane].head):
            check_epoch(place.epoch)
            _offset(place.offset, "lanes")
    return lanes


def _convert(payload: object, form: type[T], field: str) -> T:
    try:
        return msgspec.convert(payload, form)
    except (msgspec.ValidationError, RecursionError) as error:
        raise InvalidRequest(f"{field}: {str(error)[:200]}", field=field) from error


def answer_wire(lanes: dict[Lane, LaneAnswer]) -> dict[str, Any]:
    """Give the acknowledgement of a `subscribe`."""
    wire = {str(lane): msgspec.to_builtins(answer) for lane, answer in lanes.items()}
    return {"ok": True, "lanes": wire}


def receipts_wire(receipts: list[Receipt]) -> list[dict[str, Any]]:
    """Give the `results` of a publish, over Socket.IO and HTTP alike."""
    results: list[dict[str, Any]] = msgspec.to_builtins(receipts)
    return results
