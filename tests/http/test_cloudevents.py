"""The three content modes of the CloudEvents HTTP binding, without a server."""

from __future__ import annotations

import contextlib
import json
from base64 import b64encode
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast.errors import InvalidEvent, InvalidRequest, SteadcastError
from steadcast.http.cloudevents import header_text, receive

STRUCTURED = {"content-type": "application/cloudevents+json; charset=UTF-8"}
BATCH = {"content-type": "application/cloudevents-batch+json"}
JSON = {"content-type": "application/json"}
CE = {"ce-specversion": "1.0", "ce-id": "1", "ce-source": "/s", "ce-type": "t"}
EVENT = {"id": "1", "source": "/s", "type": "t"}


def body(value: Any) -> bytes:
    return json.dumps(value).encode()


def refused(headers: dict[str, str], content: bytes) -> SteadcastError:
    with pytest.raises(SteadcastError) as caught:
        receive(headers, content)
    return caught.value


def test_binary_mode_takes_attributes_from_headers_and_data_from_the_body() -> None:
    headers = {
        **CE,
        "content-type": "application/json; charset=utf-8",
        "ce-time": "2026-01-31T12:00:00Z",
        "ce-subject": "a%20b",
        "ce-priority": "critical",
        "host": "localhost",
    }
    received = receive(headers, b'{"a": [1]}')
    assert received.events == {
        **EVENT,
        "time": "2026-01-31T12:00:00Z",
        "subject": "a b",
        "priority": "critical",
        "data": {"a": [1]},
    }
    assert (received.batched, received.left_out) == (False, 0)


@pytest.mark.parametrize(
    ("content_type", "content", "data"),
    [
        ("application/json", b"[1, null]", [1, None]),
        ("application/vnd.x+json", b'{"a": 1}', {"a": 1}),
        ("", b'{"a": 1}', {"a": 1}),
        ("application/json", b"", None),
        ("application/octet-stream", b"", None),
        ("text/plain", "grün".encode(), "grün"),
        ("text/plain; charset=iso-8859-1", "grün".encode("latin-1"), "grün"),
        ("application/xml", b"<a/>", "<a/>"),
        ("image/svg+xml", b"<svg/>", "<svg/>"),
        ("image/png", b"\x89PNG\xff", {"datacontenttype": "image/png", "data_base64": "iVBOR/8="}),
    ],
)
def test_binary_mode_gives_each_content_type_its_json_value(
    content_type: str, content: bytes, data: object
) -> None:
    headers = CE | ({"content-type": content_type} if content_type else {})
    assert receive(headers, content).events["data"] == data


def test_binary_mode_leaves_out_extensions_and_counts_them() -> None:
    received = receive({**CE, "ce-dataschema": "x", "ce-traceparent": "00-1"}, b"1")
    assert received.events == {**EVENT, "data": 1}
    assert received.left_out == 2


def test_one_mark_makes_a_binary_event_so_that_the_missing_ones_can_be_named() -> None:
    assert receive({**JSON, "ce-type": "t"}, b"1").events == {"type": "t", "data": 1}


@pytest.mark.parametrize("headers", [STRUCTURED, JSON, {}, {"content-type": "application/x+json"}])
def test_structured_mode_takes_one_event_with_or_without_specversion(headers: dict[str, str]) -> None:
    for event in (EVENT | {"data": 1}, EVENT | {"data": 1, "specversion": "1.0"}):
        assert receive(headers, body(event)) == (EVENT | {"data": 1}, False, 0)


def test_structured_mode_leaves_out_what_has_no_place_and_counts_it() -> None:
    event = EVENT | {"specversion": "1.0", "dataschema": "x", "datacontenttype": "text/plain", "ext": 1}
    assert receive(STRUCTURED, body(event | {"data": "s"})) == (EVENT | {"data": "s"}, False, 3)


def test_base64_data_keeps_its_content_type() -> None:
    event = EVENT | {"data_base64": "aGk=", "datacontenttype": "image/png"}
    kept = {"datacontenttype": "image/png", "data_base64": "aGk="}
    assert receive(STRUCTURED, body(event)) == (EVENT | {"data": kept}, False, 0)
    assert refused(STRUCTURED, body(event | {"data": 1})).fields == {"field": "data_base64"}


@pytest.mark.parametrize("data", [5, True, [], {"a": 1}, "!!!", "aGk", "aG k=", "ä"])
def test_data_that_is_no_base64_is_refused_with_its_index(data: object) -> None:
    event = EVENT | {"data_base64": data}
    assert refused(STRUCTURED, body(event)).fields == {"field": "data_base64"}
    assert refused(BATCH, body([EVENT, event])).fields == {"field": "data_base64", "index": 1}


def test_data_in_base64_of_a_content_type_that_is_no_text_is_refused() -> None:
    event = EVENT | {"data_base64": "aGk=", "datacontenttype": 5}
    assert refused(STRUCTURED, body(event)).fields == {"field": "datacontenttype"}


@pytest.mark.parametrize("headers", [BATCH, JSON])
def test_a_batch_is_an_array(headers: dict[str, str]) -> None:
    events = [EVENT | {"specversion": "1.0"}, EVENT | {"id": "2", "ext": 1}]
    assert receive(headers, body(events)) == ([EVENT, EVENT | {"id": "2"}], True, 1)
    assert receive(headers, b"[]") == ([], True, 0)


def test_a_batch_that_is_no_array_is_refused() -> None:
    assert refused(BATCH, body(EVENT)).code == "invalid_request"


@pytest.mark.parametrize("version", ["0.3", 1.0, 1, True, "", [], {}])
def test_another_specversion_is_refused_with_its_index(version: object) -> None:
    error = refused(BATCH, body([EVENT, EVENT | {"specversion": version}]))
    assert (error.code, error.fields) == ("invalid_event", {"field": "specversion", "index": 1})
    assert refused({**CE, "ce-specversion": "0.3"}, b"").fields == {"field": "specversion"}


@pytest.mark.parametrize(
    "content_type",
    [
        "application/cloudevents+avro",
        "application/cloudevents",
        "application/cloudevents-batch",
        "application/cloudevents+json; charset=utf-16",
        "application/json; charset=latin1",
        "application/x-www-form-urlencoded",
        "text/plain",
        "multipart/form-data; boundary=x",
    ],
)
def test_what_is_no_cloudevent_is_an_unsupported_media_type(content_type: str) -> None:
    error = refused({"content-type": content_type}, body(EVENT))
    assert error.code == "unsupported_media_type"


def test_text_in_a_foreign_charset_is_refused() -> None:
    error = refused({**CE, "content-type": "text/plain; charset=koi8-r"}, b"x")
    assert error.code == "unsupported_media_type"
    assert refused({**CE, "content-type": "text/plain"}, b"\xff").fields == {"field": "data"}


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b'"\xc0\xa0"', b"NaN", b"[" * 100_000, b"1e999"])
def test_what_is_no_json_is_told_so(content: bytes) -> None:
    assert refused(JSON, content).code == "invalid_json"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("Euro%20%E2%82%AC%20%F0%9F%98%80", "Euro € 😀"),
        ("%e2%82%ac", "€"),
        ("%41", "A"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("%2520", "%20"),
        ('"a b"', "a b"),
        (r'"a \"b\" \\"', r'a "b" \ '.rstrip()),
        ('"half', '"half'),
        ("grÃ¼n", "grün"),
    ],
)
def test_header_values_are_unquoted_then_percent_decoded_once(value: str, text: str) -> None:
    assert header_text(value, "subject") == text


@pytest.mark.parametrize("value", ["%C0%A0", "%FF", "\xff", "%ED%A0%80"])
def test_header_values_that_are_no_utf8_are_refused(value: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        header_text(value, "subject")
    assert caught.value.fields == {"field": "subject"}


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_survives_the_bindings_encoding(text: str) -> None:
    assert header_text(quote(text, safe=""), "subject") == text


@given(st.binary())
def test_every_body_of_a_foreign_type_is_kept(content: bytes) -> None:
    data = receive({**CE, "content-type": "application/x-thing"}, content).events["data"]
    assert data == (
        {"datacontenttype": "application/x-thing", "data_base64": b64encode(content).decode()}
        if content
        else None
    )


@given(st.sampled_from([STRUCTURED, BATCH, JSON, CE, CE | {"content-type": "text/plain"}, {}]), st.binary())
def test_no_body_does_more_than_be_refused(headers: dict[str, str], content: bytes) -> None:
    with contextlib.suppress(InvalidRequest, InvalidEvent):
        assert receive(headers, content).left_out == 0
