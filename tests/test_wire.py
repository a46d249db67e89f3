"""The wire: what is taken, what is refused and how, and the limits at their edges."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast import incoming, wire
from steadcast.errors import InvalidEvent, SteadcastError
from steadcast.event import Event, Lane
from steadcast.wire import Ack, Subscribe

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = "2026-01-31T12:00:00Z"
TOP = 2**53 - 1


def raw(**changes: Any) -> dict[str, Any]:
    return {"id": "1", "source": "test", "type": "t", "data": {"n": 1}} | changes


def refused(parse: Callable[[], object]) -> dict[str, Any]:
    """Give code and fields of the refusal; refusals of input are never temporary."""
    with pytest.raises(SteadcastError) as caught:
        parse()
    error = caught.value
    assert not error.temporary
    assert error.message
    return {"code": error.code} | error.fields


# Streams

GOOD_STREAMS = ["a", "9", "a" * 128, "a.b:c_d-E", "claude", "steadcast", "Z..", "0:"]
BAD_STREAMS: list[Any] = [
    "",
    "a" * 129,
    ".a",
    "_a",
    "-a",
    ":a",
    "a b",
    "a/b",
    "ä",
    "a\n",
    "\na",
    "a\x00",
    "\u0663",
]
BAD_STREAMS += [None, 1, 1.0, True, b"a", ["a"], {"a": 1}]


@pytest.mark.parametrize("name", GOOD_STREAMS)
def test_a_good_name_of_a_stream_is_taken_as_it_is(name: str) -> None:
    assert wire.check_stream(name) == name
    assert wire.check_publishable(name) == name
    assert wire.parse_unsubscribe({"stream": name}) == name


@pytest.mark.parametrize("name", BAD_STREAMS, ids=repr)
def test_a_bad_name_of_a_stream_is_refused_wherever_it_comes(name: object) -> None:
    ack = {"stream": name, "lane": "normal", "epoch": "e", "offset": 0}
    for parse in (
        lambda: wire.check_stream(name),
        lambda: wire.parse_subscribe({"stream": name}),
        lambda: wire.parse_unsubscribe({"stream": name}),
        lambda: wire.parse_ack(ack),
        lambda: incoming.parse_publish({"stream": name, "events": [raw()]}, now=NOW),
    ):
        assert refused(parse) == {"code": "invalid_stream", "field": "stream"}


def test_the_systems_own_streams_can_be_read_and_not_published_to() -> None:
    assert wire.check_stream("steadcast.dead") == "steadcast.dead"
    found = refused(lambda: incoming.parse_publish({"stream": "steadcast.dead", "events": [raw()]}, now=NOW))
    assert found == {"code": "invalid_stream", "field": "stream"}


# Events


def test_an_event_is_taken_with_its_defaults() -> None:
    event = wire.check_event(raw(), now=NOW)
    assert event == Event("1", "test", "t", NOW, msgspec.Raw(b'{"n":1}'), Lane.NORMAL, None)


def test_an_event_is_taken_with_all_that_it_may_have() -> None:
    full = raw(time="2026-01-01T00:00:00.5+02:00", priority="critical", subject="s", extra="ignored")
    event = wire.check_event(full, now=NOW)
    assert (event.time, event.priority, event.subject) == ("2026-01-01T00:00:00.5+02:00", Lane.CRITICAL, "s")


def test_absent_and_null_are_the_same_for_time_subject_and_data() -> None:
    event = wire.check_event(raw(time=None, subject=None, data=None), now=NOW)
    assert (event.time, event.subject, event.data) == (NOW, None, msgspec.Raw(b"null"))
    without = raw()
    del without["data"]
    assert wire.check_event(without, now=NOW).data == msgspec.Raw(b"null")


LONGEST = {"id": 256, "source": 1024, "type": 256, "subject": 1024}
UGLY = ["a\nb", "a\rb", "\x1b[31m", "a\x00", "\x7f", "\x85", "\x9b", "\ud800", "a\udfffb", "\t"]


@pytest.mark.parametrize(("field", "most"), LONGEST.items())
def test_texts_have_a_length_and_one_character_more_is_refused(field: str, most: int) -> None:
    assert getattr(wire.check_event(raw(**{field: "ä" * most}), now=NOW), field) == "ä" * most
    found = refused(lambda: wire.check_event(raw(**{field: "ä" * (most + 1)}), now=NOW, index=3))
    assert found == {"code": "invalid_event", "field": field, "index": 3}


@pytest.mark.parametrize("field", LONGEST)
@pytest.mark.parametrize("text", UGLY, ids=ascii)
def test_control_characters_and_lone_surrogates_are_refused_so_that_no_log_can_be_forged(
    field: str, text: str
) -> None:
    found = refused(lambda: wire.check_event(raw(**{field: text}), now=NOW, index=0))
    assert found == {"code": "invalid_event", "field": field, "index": 0}


@pytest.mark.parametrize("field", LONGEST)
@pytest.mark.parametrize("value", ["", 1, True, 0.5, [], {}, b"x"], ids=repr)
def test_texts_that_are_none_are_refused(field: str, value: object) -> None:
    found = refused(lambda: wire.check_event(raw(**{field: value}), now=NOW))
    assert found == {"code": "invalid_event", "field": field}


@pytest.mark.parametrize("field", ["id", "source", "type"])
def test_id_source_and_type_must_be_there(field: str) -> None:
    for event in (raw(**{field: None}), {k: v for k, v in raw().items() if k != field}):
        assert refused(lambda e=event: wire.check_event(e, now=NOW))["field"] == field  # type: ignore[misc]


@pytest.mark.parametrize("value", ["low", "CRITICAL", "", None, 1, True, [], {}], ids=repr)
def test_a_priority_is_critical_or_normal(value: object) -> None:
    found = refused(lambda: wire.check_event(raw(priority=value), now=NOW, index=9))
    assert found == {"code": "invalid_event", "field": "priority", "index": 9}


@pytest.mark.parametrize("value", [None, 1, "x", [], [raw()]], ids=repr)
def test_an_event_is_an_object(value: object) -> None:
    found = refused(lambda: wire.check_event(value, now=NOW, index=1))
    assert found == {"code": "invalid_event", "field": "event", "index": 1}


# Times

GOOD_TIMES = [
    "2026-01-31T12:00:00Z",
    "2026-01-31t12:00:00z",
    "2026-01-31T12:00:00.1Z",
    "2026-01-31T12:00:00.123456789Z",
    "2026-01-31T23:59:59+23:59",
    "2026-01-31T00:00:00-00:00",
    "2024-02-29T00:00:00Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
]
BAD_TIMES: list[Any] = [
    "2026-01-31",
    "2026-01-31T12:00:00",
    "2026-01-31 12:00:00Z",
    "2026-1-31T12:00:00Z",
    "2026-02-29T00:00:00Z",
    "2026-13-01T00:00:00Z",
    "2026-00-01T00:00:00Z",
    "2026-01-31T24:00:00Z",
    "2026-01-31T12:60:00Z",
    "2026-01-31T12:00:61Z",
    "2026-01-31T12:00:00.Z",
    "2026-01-31T12:00:00.1234567890Z",
    "2026-01-31T12:00:00+24:00",
    "2026-01-31T12:00:00+23:60",
    "2026-01-31T12:00:00+0200",
    "2026-01-31T12:00:00Z\n",
    "\uff12\uff10\uff12\uff16-01-31T12:00:00Z",
    "2026-01-31T12:00:00.\uff11Z",
    "2026-01-31T12:00:00+\u0660\u0662:00",
    "2026-W05-6T12:00:00Z",
    "0000-01-01T00:00:00Z",
    "",
    1767225600,
    True,
    datetime(2026, 1, 31, tzinfo=UTC),
]


@pytest.mark.parametrize("time", GOOD_TIMES)
def test_a_time_of_rfc_3339_is_kept_as_it_is(time: str) -> None:
    assert wire.check_time(time) == time


@pytest.mark.parametrize("time", BAD_TIMES, ids=ascii)
def test_a_time_that_is_none_is_refused(time: object) -> None:
    found = refused(lambda: wire.check_event(raw(time=time), now=NOW, index=4))
    assert found == {"code": "invalid_event", "field": "time", "index": 4}


@pytest.mark.parametrize("time", ["2026-06-30T23:59:60Z", "2026-06-30T23:59:60.5+00:00"])
def test_a_leap_second_is_refused_in_words(time: str) -> None:
    with pytest.raises(InvalidEvent, match="leap second") as caught:
        wire.check_time(time)
    assert caught.value.fields == {"field": "time"}


zones = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(timezones=zones)


@given(moments)
def test_every_time_that_python_writes_is_taken(moment: datetime) -> None:
    assert wire.check_time(moment.isoformat()) == moment.isoformat()


# Data


@given(st.integers(0, 2**70), st.integers(0, 2**60), st.integers(0, 5000))
def test_digits_are_a_number_up_to_the_most(number: int, most: int, zeros: int) -> None:
    assert wire.whole_number("0" * zeros + str(number), most) == (number if number <= most else None)


@pytest.mark.parametrize(
    "text", ["", " 1", "1 ", "+1", "-1", "1_0", "1.0", "1e3", "x", "\u0661", "\u00b2", "9" * 5000]
)
def test_other_texts_are_no_whole_number(text: str) -> None:
    assert wire.whole_number(text, wire.MAX_OFFSET) is None


def nested(depth: int, core: Any = None) -> Any:
    for level in range(depth):
        core = [core] if level % 2 else {"a": core}
    return core


@pytest.mark.parametrize("core", [None, [], {}, 1])
def test_data_may_be_nested_128_deep_and_not_129(core: Any) -> None:
    depth = 127 if core in ([], {}) else 128
    wide = [nested(depth - 1, core), *([[]] * 200)]
    assert msgspec.json.decode(wire.compact(wide)) == wide
    found = refused(lambda: wire.compact([wide], index=2))
    assert found == {"code": "invalid_event", "field": "data", "index": 2}


def test_brackets_in_strings_are_no_nesting() -> None:
    assert wire.compact(["[" * 1_000])


def test_data_so_deep_that_no_reader_takes_it_is_refused_as_well() -> None:
    assert refused(lambda: wire.compact(nested(100_000)))["field"] == "data"
    assert refused(lambda: wire.compact(msgspec.Raw(b"[" * 100_000)))["field"] == "data"


NO_JSON = [float("nan"), float("inf"), float("-inf"), "\ud800", {"\udfff": 1}, object(), {(1, 2): 3}, 1j]
NO_JSON += [b"x", bytearray(b"x"), memoryview(b"x"), (b"x",)]


@pytest.mark.parametrize("value", NO_JSON, ids=lambda value: ascii(value).partition(" at 0x")[0])
def test_what_is_not_json_is_refused_wherever_it_stands(value: object) -> None:
    for data in (value, [1, [value]], {"a": {"b": value}}):
        found = refused(lambda d=data: wire.compact(d, index=0))  # type: ignore[misc]
        assert found == {"code": "invalid_event", "field": "data", "index": 0}


def test_null_is_json() -> None:
    assert wire.compact({"a": [None, "null"]}) == msgspec.Raw(b'{"a":[null,"null"]}')


def test_an_event_has_at_most_256_kib_and_one_byte_more_is_refused() -> None:
    room = wire.MAX_EVENT_BYTES - 64 - len("1" + "test" + "t") - len('""')
    event = wire.check_event(raw(data="x" * room), now=NOW)
    assert wire.size_of(event) == wire.MAX_EVENT_BYTES == 262_144
    found = refused(lambda: wire.check_event(raw(data="x" * (room + 1)), now=NOW, index=5))
    assert found == {"code": "event_too_large", "limit": 262_144, "index": 5}
    assert "index" not in refused(lambda: wire.check_event(raw(data="x" * (room + 1)), now=NOW))


def test_sizes_are_bytes_not_characters() -> None:
    plain, wide = (wire.check_event(raw(id="1" * 10, data=c * 10), now=NOW) for c in ("x", "ä"))
    assert wire.size_of(wide) == wire.size_of(plain) + 10
    narrow, broad = (wire.check_event(raw(subject=c * 10), now=NOW) for c in ("x", "日"))
    assert wire.size_of(broad) == wire.size_of(narrow) + 20


def test_a_size_is_the_same_for_data_as_bytes_and_as_a_value() -> None:
    event = wire.check_event(raw(data={"a": [1, "ä", None]}), now=NOW)
    value = msgspec.structs.replace(event, data={"a": [1, "ä", None]})
    assert wire.size_of(value) == wire.size_of(event)


@pytest.mark.parametrize("value", ["\ud800", {"a": "\udfff"}, float("nan"), 10**400, 2**64, b"x", {1, 2}])
def test_a_receiver_can_size_whatever_it_was_given(value: object) -> None:
    assert wire.size_of(Event("\ud800", "s", "t", NOW, value)) > 64


# Publish


def test_a_publish_takes_1000_events_and_not_1001() -> None:
    events = [raw(id=str(n)) for n in range(1_001)]
    stream, taken = incoming.parse_publish({"stream": "s", "events": events[:1_000]}, now=NOW)
    assert (stream, len(taken)) == ("s", 1_000)
    found = refused(lambda: incoming.parse_publish({"stream": "s", "events": events}, now=NOW))
    assert found == {"code": "batch_too_large", "limit": 1_000}


def test_a_publish_names_its_first_bad_event() -> None:
    events = [raw(), raw(type=""), raw(id="")]
    found = refused(lambda: incoming.parse_publish({"stream": "s", "events": events}, now=NOW))
    assert found == {"code": "invalid_event", "field": "type", "index": 1}


@pytest.mark.parametrize("events", [None, [], {}, "x", 1, (raw(),)], ids=repr)
def test_events_are_a_list_with_something_in_it(events: object) -> None:
    found = refused(lambda: incoming.parse_publish({"stream": "s", "events": events}, now=NOW))
    assert found == {"code": "invalid_request", "field": "events"}


# Subscribe and ack


def test_a_subscribe_is_taken_with_its_defaults() -> None:
    assert wire.parse_subscribe({"stream": "s"}) == Subscribe("s", {}, 0)
    nulls = {"stream": "s", "cursors": None, "from": None}
    assert wire.parse_subscribe(nulls) == Subscribe("s", {}, 0)
    assert wire.parse_subscribe({"stream": "s", "cursors": {"normal": None}}) == Subscribe("s", {}, 0)


@pytest.mark.parametrize(
    ("given_", "last"),
    [("start", None), ("end", 0), ({"last": 0}, 0), ({"last": 7}, 7), ({"last": TOP}, TOP)],
)
def test_from_says_where_a_lane_without_a_cursor_begins(given_: object, last: int | None) -> None:
    assert wire.check_from(given_) == last


@pytest.mark.parametrize(
    "given_",
    [
        "START",
        "",
        0,
        5,
        [],
        {},
        {"last": -1},
        {"last": True},
        {"last": 1.0},
        {"last": "1"},
        {"last": None},
        {"first": 1},
        {"last": TOP + 1},
        True,
    ],
    ids=repr,
)
def test_another_from_is_refused(given_: object) -> None:
    found = refused(lambda: wire.parse_subscribe({"stream": "s", "from": given_}))
    assert found == {"code": "invalid_request", "field": "from"}


GOOD_CURSORS: list[Any] = [
    ["e", 0],
    ["a-Z_9" + "x" * 59, TOP],
    ["e", 1, "id"],
    ["e", 1, None],
    ("e", 1, "ä" * 256),
]
BAD_CURSORS: list[Any] = [
    *([], ["e"], ["e", 1, "id", 4], "e:1", 1, {"epoch": "e"}),
    *(["e", -1], ["e", TOP + 1], ["e", 1.0], ["e", "1"], ["e", True], ["e", None]),
    *(["", 1], ["x" * 65, 1], ["e\n", 1], ["e.", 1], ["ä", 1], [None, 1], [1, 1]),
    *(["e", 1, 2], ["e", 1, ""], ["e", 1, "a\nb"], ["e", 1, "\ud800"], ["e", 1, "x" * 257], ["e", 1, ["x"]]),
]


@pytest.mark.parametrize("cursor", GOOD_CURSORS, ids=ascii)
def test_a_cursor_is_taken(cursor: Any) -> None:
    taken = wire.parse_subscribe({"stream": "s", "cursors": {"critical": cursor}}).cursors[Lane.CRITICAL]
    assert taken.as_wire() == [each for each in cursor if each is not None]


@pytest.mark.parametrize("cursor", BAD_CURSORS, ids=ascii)
def test_a_cursor_that_is_none_is_refused(cursor: object) -> None:
    found = refused(lambda: wire.parse_subscribe({"stream": "s", "cursors": {"normal": cursor}}))
    assert found == {"code": "invalid_request", "field": "cursors"}


@pytest.mark.parametrize("cursors", [[], "x", 1, {"urgent": ["e", 1]}, {1: ["e", 1]}], ids=repr)
def test_cursors_are_those_of_the_two_lanes(cursors: object) -> None:
    found = refused(lambda: wire.parse_subscribe({"stream": "s", "cursors": cursors}))
    assert found == {"code": "invalid_request", "field": "cursors"}


ACK = {"stream": "s", "lane": "critical", "epoch": "e", "offset": TOP}


def test_an_ack_is_taken() -> None:
    assert wire.parse_ack(ACK) == Ack("s", Lane.CRITICAL, "e", TOP)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("lane", value) for value in (None, "", "Normal", 1, ["normal"], {"a": 1})),
        *(("epoch", value) for value in (None, "", "x" * 65, "e e", 1)),
        *(("offset", value) for value in (None, -1, TOP + 1, 1.5, "1", True)),
    ],
    ids=repr,
)
def test_an_ack_that_is_none_is_refused(field: str, value: object) -> None:
    assert refused(lambda: wire.parse_ack(ACK | {field: value})) == {
        "code": "invalid_request",
        "field": field,
    }


# Batches and answers

WIRE_EVENT = {"source": "test", "type": "t", "time": NOW, "priority": "normal", "data": None}


def wire_batch(offsets: list[Any], **changes: Any) -> dict[str, Any]:
    events = [WIRE_EVENT | {"offset": offset, "id": f"n{offset}"} for offset in offsets]
    whole = {"stream": "s", "lane": "normal", "epoch": "e", "after": 2, "upto": 9, "events": events}
    return whole | changes


def test_a_batch_is_taken_with_holes_and_without_events() -> None:
    assert [entry.offset for entry in wire.parse_batch(wire_batch([3, 5, 9])).events] == [3, 5, 9]
    assert wire.parse_batch(wire_batch([])).events == ()
    assert wire.parse_batch(wire_batch([], after=9)).upto == 9


@pytest.mark.parametrize(
    "payload",
    [
        *(wire_batch(offsets) for offsets in ([2], [1], [4, 4], [5, 4], [10], [3.5], ["3"], [-1])),
        *(wire_batch([], after=after) for after in (10, -1, None, "2", 1.5, TOP + 1)),
        *(wire_batch([], upto=upto) for upto in (1, None, "9", TOP + 1)),
        *(
            wire_batch([3], **wrong)
            for wrong in ({"lane": "x"}, {"epoch": ""}, {"epoch": 1}, {"events": None})
        ),
        wire_batch([]) | {"events": [WIRE_EVENT | {"offset": 3, "id": "n3", "priority": "urgent"}]},
        wire_batch([]) | {"events": [{"offset": 3}]},
        wire_batch([], stream="/"),
        wire_batch([]) | {"events": [7]},
    ],
    ids=lambda payload: ascii(payload)[:80],
)
def test_a_batch_that_would_confuse_a_cursor_is_refused(payload: dict[str, Any]) -> None:
    found = refused(lambda: wire.parse_batch(payload))
    assert found["code"] == "invalid_request"
    assert found["field"]


LANE_ANSWER = {"status": "new", "cursor": ["e", 1], "head": ["e", 2], "behind": 1}


def test_an_answer_is_taken() -> None:
    lost = LANE_ANSWER | {"status": "trimmed", "lost": [1, 1], "maybe": True, "behind": None}
    taken = wire.parse_answer({"critical": LANE_ANSWER, "normal": lost})
    assert taken[Lane.NORMAL].lost == (1, 1)
    assert taken[Lane.NORMAL].maybe
    assert taken[Lane.CRITICAL].behind == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"status": "old"},
        {"cursor": None},
        {"cursor": ["e"]},
        {"cursor": ["", 1]},
        {"cursor": ["e", -1]},
        {"head": ["e", TOP + 1]},
        {"head": ["e e", 1]},
        {"behind": "1"},
        {"lost": [1]},
        {"maybe": 1},
    ],
    ids=repr,
)
def test_an_answer_that_is_none_is_refused(changes: dict[str, Any]) -> None:
    found = refused(lambda: wire.parse_answer({"critical": LANE_ANSWER, "normal": LANE_ANSWER | changes}))
    assert found["code"] == "invalid_request"
    assert found["field"]


def test_an_answer_has_both_lanes() -> None:
    assert refused(lambda: wire.parse_answer({"normal": LANE_ANSWER}))["field"] == "lanes"
