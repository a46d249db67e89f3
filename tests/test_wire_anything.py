"""The wire: anything thrown at it is taken or refused in words, and what is written reads back the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast import incoming, wire
from steadcast.errors import InvalidInput, SteadcastError
from steadcast.event import LANES, Batch, Entry, Lane, Position, Receipt
from steadcast.wire import Cursor, LaneAnswer, Subscribe

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = "2026-01-31T12:00:00Z"
TOP = 2**53 - 1
LANE_ANSWER = {"status": "new", "cursor": ["e", 1], "head": ["e", 2], "behind": 1}
WIRE_EVENT = {"source": "test", "type": "t", "time": NOW, "priority": "normal", "data": None}


def wire_batch(offsets: list[Any], after: Any) -> dict[str, Any]:
    events = [WIRE_EVENT | {"offset": offset, "id": "n"} for offset in offsets]
    return {"stream": "s", "lane": "normal", "epoch": "e", "after": after, "upto": 9, "events": events}


# Anything at all

PARSERS: dict[str, Callable[[object], object]] = {
    "publish": lambda payload: incoming.parse_publish(payload, now=NOW),
    "subscribe": wire.parse_subscribe,
    "unsubscribe": wire.parse_unsubscribe,
    "ack": wire.parse_ack,
    "batch": wire.parse_batch,
    "lanes": wire.parse_answer,
}
KEYS = ["stream", "lane", "epoch", "offset", "events", "cursors", "from", "last", "after", "upto", "critical"]
KEYS += ["normal", "id", "source", "type", "time", "data", "priority", "subject", "status", "cursor", "head"]
KEYS += ["behind", "lost", "maybe"]
leaves = st.sampled_from(
    [
        None,
        True,
        0,
        1,
        -1,
        TOP,
        TOP + 1,
        2**70,
        0.5,
        float("nan"),
        "s",
        "e",
        "normal",
        "critical",
        "start",
        NOW,
        "",
        "�",
        "a\nb",
        "new",
        "x" * 300,
        b"\xff",
    ]
)
junk = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS) | leaves, inner, max_size=7)
    ),
    max_leaves=12,
)
nearly = st.one_of(
    st.fixed_dictionaries(
        {
            "stream": st.just("s"),
            "events": st.lists(
                st.fixed_dictionaries(
                    {"id": leaves, "source": leaves, "type": leaves},
                    optional={"time": leaves, "data": junk, "priority": leaves},
                ),
                max_size=2,
            ),
        }
    ),
    st.fixed_dictionaries({"stream": st.just("s"), "cursors": junk}, optional={"from": junk}),
    st.fixed_dictionaries({"stream": st.just("s"), "lane": leaves, "epoch": leaves, "offset": leaves}),
    st.builds(wire_batch, st.lists(leaves, max_size=3), leaves),
    st.fixed_dictionaries({"critical": junk, "normal": st.just(LANE_ANSWER)}),
)


@pytest.mark.parametrize("name", PARSERS)
@given(payload=junk | nearly)
def test_whatever_comes_in_is_taken_or_refused_as_an_error_of_the_tree(name: str, payload: object) -> None:
    error = None
    try:
        PARSERS[name](payload)
    except SteadcastError as raised:
        error = raised
    if error is not None:
        assert isinstance(error, InvalidInput)
        assert "field" in error.fields or "limit" in error.fields
        assert json.dumps(error.as_wire())


@pytest.mark.parametrize("name", PARSERS)
@pytest.mark.parametrize("payload", [None, 1, "x", [], True, b"x"], ids=repr)
def test_a_payload_is_an_object(name: str, payload: object) -> None:
    with pytest.raises(InvalidInput) as caught:
        PARSERS[name](payload)
    assert (caught.value.code, caught.value.fields) == ("invalid_request", {"field": name})


# Round trips

texts = st.text(st.characters(exclude_categories=("Cc", "Cs")), min_size=1, max_size=20)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
raw_events = st.fixed_dictionaries(
    {"id": texts, "source": texts, "type": texts, "data": values},
    optional={"subject": texts, "priority": st.sampled_from(["critical", "normal"]), "time": st.just(NOW)},
)


@given(st.lists(raw_events, min_size=1, max_size=4), st.integers(0, TOP - 100))
def test_a_published_event_comes_back_from_a_batch_as_it_was(
    events: list[dict[str, Any]], after: int
) -> None:
    stream, taken = incoming.parse_publish({"stream": "s", "events": events}, now=NOW)
    entries = tuple(Entry(after + 1 + n, event) for n, event in enumerate(taken))
    sent = Batch(stream, Lane.NORMAL, "e", after, after + len(taken), entries)
    got = wire.parse_batch(json.loads(wire.encode_batch(sent)))
    assert (got.stream, got.lane, got.epoch, got.after, got.upto) == ("s", "normal", "e", after, sent.upto)
    for raw_event, entry, original in zip(events, got.events, taken, strict=True):
        assert entry.event.data == raw_event["data"]
        assert msgspec.structs.replace(entry.event, data=None) == msgspec.structs.replace(original, data=None)


offsets = st.integers(0, TOP)
cursors = st.builds(Cursor, st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True), offsets, st.none() | texts)


@given(st.dictionaries(st.sampled_from(LANES), cursors), st.sampled_from(["start", "end", {"last": 5}]))
def test_a_subscribe_comes_back_as_it_was(kept: dict[Lane, Cursor], start: object) -> None:
    payload = json.loads(json.dumps(wire.subscribe_wire("s", kept, start)))
    assert wire.parse_subscribe(payload) == Subscribe("s", kept, wire.check_from(start))


positions = st.builds(Position, st.just("e"), offsets)
lane_answers = st.builds(
    LaneAnswer,
    status=st.sampled_from(["new", "resumed", "trimmed", "reset"]),
    cursor=positions,
    head=positions,
    behind=st.none() | offsets,
    lost=st.none() | st.tuples(offsets, offsets),
    maybe=st.booleans(),
)


@given(st.fixed_dictionaries(dict.fromkeys(LANES, lane_answers)))
def test_an_answer_comes_back_as_it_was(lanes: dict[Lane, LaneAnswer]) -> None:
    payload = json.loads(json.dumps(wire.answer_wire(lanes)))
    assert payload["ok"] is True
    assert wire.parse_answer(payload["lanes"]) == lanes


def test_an_answer_names_lost_and_maybe_only_where_they_say_something() -> None:
    answer = LaneAnswer(status="resumed", cursor=Position("e", 1), head=Position("e", 1), behind=None)
    assert wire.answer_wire({Lane.NORMAL: answer}) == {
        "ok": True,
        "lanes": {"normal": {"status": "resumed", "cursor": ["e", 1], "head": ["e", 1], "behind": None}},
    }


def test_results_are_written_as_the_protocol_has_them() -> None:
    receipts = [Receipt("1", Lane.CRITICAL, Position("e", 7), duplicate=True)]
    expected = [{"id": "1", "lane": "critical", "position": ["e", 7], "duplicate": True}]
    assert wire.receipts_wire(receipts) == expected


def test_a_batch_is_written_as_the_protocol_has_it() -> None:
    event = wire.check_event(
        {"id": "1", "source": "test", "type": "t", "subject": "x", "data": [1.5]}, now=NOW
    )
    batch = Batch("s", Lane.NORMAL, "e", 1, 4, (Entry(3, event),))
    assert json.loads(wire.encode_batch(batch)) == {
        "stream": "s",
        "lane": "normal",
        "epoch": "e",
        "after": 1,
        "upto": 4,
        "events": [
            {
                "offset": 3,
                "id": "1",
                "source": "test",
                "type": "t",
                "time": NOW,
                "priority": "normal",
                "data": [1.5],
                "subject": "x",
            }
        ],
    }
