"""A publish read in one go: what is taken that way is exactly what the careful way takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from steadcast.core.dedup import fingerprints
from steadcast.errors import InvalidEvent, InvalidRequest, SteadcastError, TooLarge
from steadcast.incoming import Publish, parse_publish, read_cloudevents, read_message
from steadcast.wire import MAX_BATCH_EVENTS, MAX_DEPTH, MAX_EVENT_BYTES, check_events

if TYPE_CHECKING:
    from collections.abc import Sequence

    from steadcast.event import Event

NOW = "2026-01-31T12:00:00Z"
PLAIN = {"id": "1", "source": "/s", "type": "t"}

texts = st.text(min_size=1, max_size=20) | st.sampled_from(
    ["1", "order.paid", "ä\u0085", "a\x7f", "x" * 300, ""]
)
times = st.sampled_from(
    [
        None,
        NOW,
        "2026-02-29T00:00:00Z",
        "2026-01-01T23:59:60Z",
        "2026-01-31t12:00:00.5+01:00",
        "2026-01-31",
        "",
        f"{NOW}\n{NOW}",
        f"{NOW}\n",
    ]
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
plain_events = st.fixed_dictionaries(
    {"id": texts, "source": texts, "type": texts},
    optional={
        "data": values,
        "time": times,
        "subject": st.none() | texts,
        "priority": st.sampled_from(["critical", "normal", "high", None]),
        "specversion": st.sampled_from(["1.0", None]),
    },
)
anything = st.lists(plain_events | st.just(PLAIN) | values, max_size=4)


def taken(events: Sequence[Event]) -> list[tuple[Any, ...]]:
    return [
        (
            e.id,
            e.source,
            e.type,
            e.time,
            bytes(e.data),
            e.priority,
            e.subject,
            isinstance(e.data, msgspec.Raw),
        )
        for e in events
    ]


def carefully(raw: Any) -> Any:
    try:
        return taken(check_events(raw, now=NOW))
    except SteadcastError as error:
        return error.as_wire()


def in_one_go(payload: Any) -> Any:
    try:
        return taken(parse_publish(payload, now=NOW)[1])
    except SteadcastError as error:
        return error.as_wire()


@given(anything)
@example([PLAIN | {"data": float("nan")}])
@example([PLAIN | {"data": "x" * MAX_EVENT_BYTES}])
@example([PLAIN | {"data": "x" * (MAX_EVENT_BYTES - 100)}])
@example([PLAIN | {"data": json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH)}])
@example([PLAIN | {"data": json.loads("[" * 129 + "]" * 129)}])
@example([PLAIN] * MAX_BATCH_EVENTS)
@example([PLAIN] * (MAX_BATCH_EVENTS + 1))
@example([PLAIN | {"data": {1, 2}}])
@example([PLAIN | {"data": b"ab"}])
@example([PLAIN | {"data": {"a": [bytearray(b"ab")]}}])
@example([PLAIN | {"data": {"a": "\ud800"}}])
@example([PLAIN | {"id": "\ud800"}])
@example([PLAIN | {"time": f"{NOW}\n{NOW}"}])
@example([PLAIN | {"more": 1}])
def test_a_publish_is_taken_or_refused_exactly_as_the_careful_way_does(raw: list[Any]) -> None:
    assert in_one_go({"stream": "s", "events": raw}) == carefully(raw)


@given(anything, st.booleans())
@example([PLAIN | {"id": "a\x7f"}], False)
@example([PLAIN | {"subject": "\u0085"}], False)
def test_a_batch_that_is_read_in_one_go_is_what_the_careful_way_takes(
    raw: list[Any], ascii_only: bool
) -> None:
    body = json.dumps(raw, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    read = read_cloudevents(body, batched=True, now=NOW)
    if read is not None:
        assert (taken(read[0]), read[1]) == (carefully(raw), 0)


@given(anything)
@example(
    [PLAIN | {"data": {"b": 1e16, "a": [-0.0, 2**64, None]}}, PLAIN | {"subject": "s", "data": "\u2028"}]
)
def test_what_is_read_in_one_go_has_the_fingerprints_of_its_events(raw: list[Any]) -> None:
    read = read_cloudevents(json.dumps(raw).encode(), batched=True, now=NOW)
    if read is not None:
        assert read[0].fingerprints == fingerprints(list(read[0]))


@given(anything, st.booleans())
@example([PLAIN | {"data": "x" * MAX_EVENT_BYTES}], True)
@example([PLAIN | {"data": json.loads("[" * 129 + "]" * 129)}], True)
@example([PLAIN | {"id": "a\x7f"}], False)
@example([PLAIN | {"time": f"{NOW}\n{NOW}"}], False)
@example([PLAIN] * (MAX_BATCH_EVENTS + 1), True)
@example([], True)
def test_a_message_that_is_read_in_one_go_is_taken_or_refused_as_the_careful_way_does(
    raw: list[Any], ascii_only: bool
) -> None:
    sent = ["publish", {"stream": "s", "events": raw}, {"emission": "1"}]
    read = read_message(json.dumps(sent, ensure_ascii=ascii_only))
    if read is not None:
        [name, payload, *more] = read
        assert (name, more) == ("publish", sent[2:])
        assert in_one_go(payload) == carefully(raw)


def test_what_most_clients_publish_is_read_in_one_go_and_can_be_given_back() -> None:
    payload = {"stream": "s", "events": [PLAIN | {"data": {"a": [1, 2**70]}}, PLAIN | {"subject": "x"}]}
    read = read_message(json.dumps(["publish", payload]))
    assert read is not None
    assert isinstance(read[1], Publish)
    assert msgspec.to_builtins(read[1]) == payload


@pytest.mark.parametrize(
    "sent",
    [
        ["subscribe", {"stream": "s"}],
        ["publish"],
        ["publish", {"stream": "s"}],
        ["publish", {"stream": "s", "events": [PLAIN], "more": 1}],
        ["publish", {"stream": "s", "events": [PLAIN | {"more": 1}]}],
        ["publish", {"stream": "s", "events": [PLAIN]}, {"emission": "1"}, 2],
    ],
)
def test_another_message_is_left_to_the_usual_decoder(sent: list[Any]) -> None:
    assert read_message(json.dumps(sent)) is None


@pytest.mark.parametrize("batched", [True, False])
def test_what_most_producers_send_is_read_in_one_go(batched: bool) -> None:
    sent = PLAIN | {
        "specversion": "1.0",
        "datacontenttype": "application/json",
        "time": NOW,
        "data": {"a": "ü"},
    }
    body = json.dumps([sent] if batched else sent, indent=1).encode()
    read = read_cloudevents(body, batched=batched, now="")
    assert read is not None
    [event], left_out = read
    assert (event.time, bytes(event.data), left_out) == (NOW, '{"a":"ü"}'.encode(), 1)


@pytest.mark.parametrize(
    "more",
    [
        {"data_base64": "AA=="},
        {"specversion": "0.3"},
        {"traceparent": "00-1"},
        {"time": "yesterday"},
        {"time": f"{NOW}\n{NOW}"},
        {"id": "a\u0007"},
        {"subject": ""},
    ],
)
def test_what_is_unusual_or_wrong_is_left_to_the_careful_way(more: dict[str, Any]) -> None:
    body = json.dumps(PLAIN | more).encode()
    assert read_cloudevents(body, batched=False, now=NOW) is None


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"id": "\\ud800"}', b"[" * 100_000, b"[1e400]"])
def test_what_is_no_json_is_left_to_the_careful_way(body: bytes) -> None:
    assert read_cloudevents(body, batched=True, now=NOW) is None
    assert read_cloudevents(body, batched=False, now=NOW) is None


def test_a_bad_event_is_named_by_its_index() -> None:
    with pytest.raises(InvalidEvent) as caught:
        parse_publish({"stream": "s", "events": [PLAIN, PLAIN | {"type": 1}]}, now=NOW)
    assert caught.value.fields == {"field": "type", "index": 1}


def test_no_events_and_too_many_are_refused() -> None:
    with pytest.raises(InvalidRequest):
        parse_publish({"stream": "s", "events": []}, now=NOW)
    with pytest.raises(TooLarge):
        parse_publish({"stream": "s", "events": [PLAIN] * (MAX_BATCH_EVENTS + 1)}, now=NOW)
