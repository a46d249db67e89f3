"""Events as they come in, a whole publish in one go.

`wire.check_event` says what is wrong with an event, and where. Nearly every publish has nothing wrong with
it, and is read here straight into structs and checked all together, at a quarter of the cost. Whatever isn't
plainly right that way goes to `wire`, which takes it or refuses it in words; what is taken comes out the same
either way.
"""

from __future__ import annotations

import re
from datetime import date
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec

from steadcast.core.dedup import Fingerprinted, fingerprints_of
from steadcast.errors import InvalidEvent
from steadcast.event import Event, Lane
from steadcast.wire import (
    CONTROL,
    MAX_BATCH_EVENTS,
    MAX_DEPTH,
    MAX_EVENT_BYTES,
    TEXT_LIMITS,
    TIME,
    as_object,
    check_events,
    check_publishable,
    compact,
    holds_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

_SURELY_SMALL: Final = 2 * MAX_DEPTH
"""Bytes: each level of arrays and objects takes two."""
_ROOM_FOR_TEXTS: Final = 16 * 1024
"""Bytes: more than the longest id, source, type and subject come to in UTF-8."""

_Id = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_LIMITS["id"])]
_Source = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_LIMITS["source"])]
_Type = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_LIMITS["type"])]
_Subject = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_LIMITS["subject"])]


class _Given(msgspec.Struct, omit_defaults=True, gc=False):
    id: _Id
    source: _Source
    type: _Type
    data: Any = None
    time: str | None = None
    priority: Lane = Lane.NORMAL
    subject: _Subject | None = None


class _CloudEvent(_Given, forbid_unknown_fields=True, gc=False):
    """The attributes that nearly all CloudEvents in JSON keep to."""

    specversion: Literal["1.0"] | None = None
    datacontenttype: Any = msgspec.UNSET


class Publish(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """A `publish` payload that was read straight from its text; `parse_publish` may still refuse it.

    `msgspec.to_builtins` gives what any other JSON decoder would.
    """

    stream: str
    events: list[_CloudEvent]


class _Message(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """A Socket.IO event's JSON; the second argument is what `emitWithRetry` adds."""

    event: Literal["publish"]
    payload: Publish
    emission: Any = msgspec.UNSET


_TIMES: Final = re.compile(rf"(?:(?!.{{17}}60){TIME.pattern}\n)*", TIME.flags)
"""Times, each on a line, none in a leap second."""

_encoder = msgspec.json.Encoder()
_decode_one = msgspec.json.Decoder(_CloudEvent).decode
_decode_list = msgspec.json.Decoder(list[_CloudEvent]).decode
_decode_message = msgspec.json.Decoder(_Message).decode


def parse_publish(payload: object, *, now: str) -> tuple[str, Sequence[Event]]:
    """Turn a `publish` payload into its stream and events.

    `now` (RFC 3339) stands in for a missing `time`. Raises `InvalidStream`, `InvalidRequest`, and what
    `wire.check_events` raises.
    """
    if isinstance(payload, Publish):
        stream, given = check_publishable(payload.stream), payload.events
        return stream, _printed(given, now) or check_events(list(map(msgspec.structs.asdict, given)), now=now)
    fields = as_object(payload, "publish")
    stream, raw = check_publishable(fields.get("stream")), fields.get("events")
    return stream, _convert(raw, now) or check_events(raw, now=now)


def read_cloudevents(body: bytes, *, batched: bool, now: str) -> tuple[Fingerprinted, int] | None:
    """Read a batch, or a single event, in CloudEvents' JSON format: the events, and the attributes left out.

    None where something isn't plainly right, or isn't plain.
    """
    try:
        given = _decode_list(body) if batched else [_decode_one(body)]
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None  # nothing is decided by this: the careful way finds it too, and says it
    if not _holds_no_control(body) and not _texts_right(given):
        return None
    events = _printed(given, now)
    if events is None:
        return None
    return events, sum([each.datacontenttype is not msgspec.UNSET for each in given])


def read_message(text: str) -> list[Any] | None:
    """Read the JSON of a Socket.IO event `publish`: its name, a `Publish`, and what else there is.

    None where it is another event, or where its form or texts aren't plainly right.
    """
    try:
        body = text.encode()
        message = _decode_message(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None  # as in `read_cloudevents`
    if not _holds_no_control(body) and not _texts_right(message.payload.events):
        return None
    more = [] if message.emission is msgspec.UNSET else [message.emission]
    return [message.event, message.payload, *more]


def _printed(given: list[_CloudEvent], now: str) -> Fingerprinted | None:
    """Make events of what was read from JSON; their texts are right."""
    events = _checked(given, now, was_json=True)
    if events is None:
        return None
    prints = fingerprints_of([(each.type, each.subject, each.data) for each in given])
    return Fingerprinted(events, prints)


def _convert(raw: object, now: str) -> list[Event] | None:
    if not isinstance(raw, list):
        return None
    try:
        given = msgspec.convert(raw, list[_Given])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None  # as in `read_cloudevents`
    return _checked(given, now, was_json=False) if _texts_right(given) else None


def _checked(given: list[_CloudEvent] | list[_Given], now: str, *, was_json: bool) -> list[Event] | None:
    """Make events of what is right altogether. `was_json`: their data was read from JSON a moment ago."""
    if not 0 < len(given) <= MAX_BATCH_EVENTS:
        return None
    if not _times_right([each.time for each in given if each.time is not None]):
        return None
    try:
        lines = _encoder.encode_lines([each.data for each in given]).splitlines()
        if not was_json:
            _refuse_altered(given, lines)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError, InvalidEvent):
        return None  # as in `read_cloudevents`
    if max(map(len, lines)) > _SURELY_SMALL and not all(map(_is_small, lines)):
        return None
    return [
        Event(
            each.id,
            each.source,
            each.type,
            each.time or now,
            msgspec.Raw(line),
            each.priority,
            each.subject,
        )
        for each, line in zip(given, lines, strict=True)
    ]


def _holds_no_control(body: bytes) -> bool:
    """Tell whether no text in some JSON that was read can hold a control character.

    Those below 0x20 are only ever escaped (RFC 8259, section 7), and those above 0x7f aren't ASCII.
    """
    return body.isascii() and b"\\" not in body and b"\x7f" not in body


def _texts_right(given: list[_CloudEvent] | list[_Given]) -> bool:
    texts = {text for each in given for text in (each.source, each.type, each.subject or "")}
    joined = "".join([*[each.id for each in given], *texts])
    return joined.isprintable() or not CONTROL.search(joined)


def _times_right(times: list[str]) -> bool:
    lines = "\n".join([*times, ""])
    if lines.count("\n") != len(times) or _TIMES.fullmatch(lines) is None:
        return False
    try:
        for day in {text[:10] for text in times}:
            date.fromisoformat(day)
    except ValueError:
        return False  # as in `read_cloudevents`
    return True


def _is_small(line: bytes) -> bool:
    """Tell whether data is certainly within the limits for size and depth."""
    if len(line) <= _SURELY_SMALL:
        return True
    deep = line.count(b"[") + line.count(b"{") > MAX_DEPTH
    return not deep and len(line) <= MAX_EVENT_BYTES - _ROOM_FOR_TEXTS


def _refuse_altered(given: list[_CloudEvent] | list[_Given], lines: list[bytes]) -> None:
    """Raise `InvalidEvent` for what the encoder makes something else of without a word: infinities, bytes."""
    for each, line in zip(given, lines, strict=True):
        if each.data is not None and (b"null" in line or holds_bytes(each.data)):
            compact(each.data)
