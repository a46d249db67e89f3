"""The CloudEvents 1.0.2 HTTP binding, receiving side: headers and body to raw events. Pure.

The mode is chosen as the binding's section 1.4 says, and wider where no CloudEvent is lost by it:

| Content-Type | `ce-*` headers | mode |
|---|---|---|
| `application/cloudevents-batch+json` | any | batched |
| `application/cloudevents+json` | any | structured |
| anything else | some of id, source, type, specversion | binary |
| `application/json`, `*+json`, or none | none of these | structured, or batched where the body is an array |

In binary mode the body becomes `data`: JSON types and no type at all as their JSON value, `text/*` and XML
as a string, everything else as `{"datacontenttype", "data_base64"}`; an empty body as null. A structured
event's `data_base64` becomes the same object. `specversion` is "1.0" where it is given. Attributes that an
event of this house has no place for (`dataschema`, `datacontenttype`, extensions other than `priority`) are
left out, and counted: their producers aren't refused, and who needs one puts it into `data`.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any, Final, NamedTuple, NoReturn
from urllib.parse import unquote_to_bytes

from steadcast.errors import InvalidEvent, InvalidRequest, TooLarge
from steadcast.http.body import decode_json
from steadcast.wire import MAX_BATCH_EVENTS

if TYPE_CHECKING:
    from collections.abc import Mapping

_EVENT = "application/cloudevents"
_BATCH = "application/cloudevents-batch"
_FORMAT = "+json"
_ATTRIBUTES: Final = frozenset({"id", "source", "type", "time", "subject", "priority"})
_TAKEN: Final = _ATTRIBUTES | {"data"}
"""The members that an event of ours has."""
_MARKS: Final = ("ce-id", "ce-source", "ce-type", "ce-specversion")
"""Headers that make a request with a foreign content type a CloudEvent in binary mode."""
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_JSON_CHARSETS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
"""JSON is UTF-8 (RFC 8259, section 8.1), of which ASCII is a part."""
_TEXT_CHARSETS: Final = _JSON_CHARSETS | {"iso-8859-1", "latin1"}


class Received(NamedTuple):
    """What a request holds: one raw event, or a list of them, and how many attributes were left out."""

    events: Any
    batched: bool
    left_out: int


def receive(headers: Mapping[str, str], body: bytes) -> Received:
    """Read a request's events; what they hold is checked by `wire.check_event`.

    Raises `InvalidRequest` (`invalid_json`, `unsupported_media_type`), `InvalidEvent`, and `TooLarge`
    (`batch_too_large`).
    """
    content_type = headers.get("content-type", "")
    media = content_type.partition(";")[0].strip().lower()
    if media.startswith(_EVENT):
        _check_format(media, content_type)
        return _structured(decode_json(body), batched=media.startswith(_BATCH))
    if any(mark in headers for mark in _MARKS):
        return _binary(headers, media, content_type, body)
    if media and not _is_json(media):
        raise InvalidRequest(
            f"{media[:100]} is not taken here: send application/json, application/cloudevents+json, "
            "application/cloudevents-batch+json, or any type with ce-* headers",
            code="unsupported_media_type",
        )
    _check_charset(content_type, _JSON_CHARSETS)
    value = decode_json(body)
    return _structured(value, batched=isinstance(value, list))


def is_batch(headers: Mapping[str, str], body: bytes) -> bool | None:
    """Tell whether a request holds a batch in JSON (True) or one event (False); None: ask `receive`."""
    content_type = headers.get("content-type", "").lower().replace(" ", "").removesuffix(";charset=utf-8")
    if content_type == "application/json" and not any(mark in headers for mark in _MARKS):
        return body.startswith(b"[")
    return {f"{_BATCH}{_FORMAT}": True, f"{_EVENT}{_FORMAT}": False}.get(content_type)


def header_text(value: str, name: str) -> str:
    """Decode a `ce-*` header's value (section 3.1.3.2): unquote, then percent-decode once, strictly UTF-8.

    `value` is as the server gives it, each byte a character. Raises `InvalidEvent` naming the attribute.
    """
    if value.startswith('"') and (quoted := _QUOTED.fullmatch(value)):
        value = re.sub(r"\\(.)", r"\1", quoted[1])
    try:
        return unquote_to_bytes(value.encode("latin-1")).decode()
    except UnicodeDecodeError as error:
        raise InvalidEvent(f"{name} is not UTF-8 in percent-encoding", field=name) from error


def _structured(value: Any, *, batched: bool) -> Received:
    if not batched:
        event, left_out = _mapped(value, None)
        return Received(event, batched=False, left_out=left_out)
    if not isinstance(value, list):
        raise InvalidRequest("a batch is a JSON array of events", field="events")
    if len(value) > MAX_BATCH_EVENTS:
        raise TooLarge(
            f"at most {MAX_BATCH_EVENTS} events at once", code="batch_too_large", limit=MAX_BATCH_EVENTS
        )
    left_out = 0
    for index, each in enumerate(value):
        if isinstance(each, dict) and not each.keys() <= _TAKEN:
            value[index], count = _mapped(each, index)
            left_out += count
    return Received(value, batched=True, left_out=left_out)


def _mapped(raw: Any, index: int | None) -> tuple[Any, int]:
    """Give a raw event with our members alone, and how many others it had."""
    if not isinstance(raw, dict) or raw.keys() <= _TAKEN:
        return raw, 0
    _check_version(raw.get("specversion"), index)
    event = {name: value for name, value in raw.items() if name in _TAKEN}
    read = {"specversion"}
    if raw.get("data_base64") is not None:
        if "data" in raw:
            _refuse("data_base64", "stands beside data; an event has one of them", index)
        _check_encoded(raw.get("datacontenttype"), raw["data_base64"], index)
        event["data"] = _encoded(raw.get("datacontenttype"), raw["data_base64"])
        read |= {"data_base64", "datacontenttype"}
    return event, len(raw.keys() - _TAKEN - read)


def _binary(headers: Mapping[str, str], media: str, content_type: str, body: bytes) -> Received:
    event: dict[str, Any] = {"data": _data(media, content_type, body)}
    left_out = 0
    for header, value in headers.items():
        if not header.startswith("ce-"):
            continue
        name = header[3:]
        if name in _ATTRIBUTES:
            event[name] = header_text(value, name)
        elif name == "specversion":
            _check_version(header_text(value, name), None)
        else:
            left_out += 1
    return Received(event, batched=False, left_out=left_out)


def _data(media: str, content_type: str, body: bytes) -> Any:
    if not body:
        return None
    if not media or _is_json(media):
        _check_charset(content_type, _JSON_CHARSETS)
        return decode_json(body)
    if media.startswith("text/") or media == "application/xml" or media.endswith("+xml"):
        charset = _check_charset(content_type, _TEXT_CHARSETS)
        try:
            return body.decode(charset)
        except UnicodeDecodeError as error:
            raise InvalidEvent(f"data is not {charset}", field="data") from error
    return _encoded(content_type, b64encode(body).decode())


def _encoded(content_type: object, data: object) -> dict[str, object]:
    return {"datacontenttype": content_type or "application/octet-stream", "data_base64": data}


def _check_encoded(content_type: object, data: Any, index: int | None) -> None:
    """See that what is answered as kept can be read: base64 as RFC 4648 has it, and the name of a type."""
    if content_type is not None and not isinstance(content_type, str):
        _refuse("datacontenttype", "must be a string", index)
    try:
        b64decode(data, validate=True)
    except (TypeError, ValueError):
        _refuse("data_base64", "must be base64", index)


def _is_json(media: str) -> bool:
    return media in {"application/json", "text/json"} or media.endswith(_FORMAT)


def _check_format(media: str, content_type: str) -> None:
    if media.removeprefix(_BATCH).removeprefix(_EVENT) != _FORMAT:
        raise InvalidRequest(
            f"{media[:100]}: of the CloudEvents formats, JSON is taken", code="unsupported_media_type"
        )
    _check_charset(content_type, _JSON_CHARSETS)


def _check_charset(content_type: str, known: frozenset[str]) -> str:
    found = _CHARSET.search(content_type)
    charset = found[1].lower() if found else "utf-8"
    if charset not in known:
        raise InvalidRequest(
            f"charset {charset[:40]} is not taken here: use utf-8", code="unsupported_media_type"
        )
    return charset


def _check_version(version: object, index: int | None) -> None:
    if version is not None and version != "1.0":
        _refuse("specversion", 'must be "1.0"', index)


def _refuse(field: str, why: str, index: int | None) -> NoReturn:
    fields: dict[str, Any] = {"field": field} if index is None else {"field": field, "index": index}
    raise InvalidEvent(f"{field} {why}", **fields)
