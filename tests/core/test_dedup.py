"""What names an event, and what its body is."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from steadcast.core.dedup import fingerprint, fingerprints, identity, old_identity
from steadcast.event import Event, Lane

texts = st.text(st.characters(codec="utf-8"), max_size=40)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def event(data: Any = None, **fields: Any) -> Event:
    raw = data if isinstance(data, msgspec.Raw) else msgspec.Raw(msgspec.json.encode(data))
    given_fields = {"id": "1", "source": "/s", "type": "t", "time": "2026-01-01T00:00:00Z"} | fields
    return Event(data=raw, **given_fields)


@given(st.tuples(texts, texts), st.tuples(texts, texts))
def test_two_names_are_one_only_if_source_and_id_are(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (identity(*one) == identity(*other)) == (one == other)


@given(texts)
def test_moving_a_letter_in_a_long_name_is_another_name_too(text: str) -> None:
    names = {identity(text[:cut] + "s" * 200, text[cut:]) for cut in range(len(text) + 1)}
    assert len(names) == len(text) + 1
    assert not names & {identity(text[:cut], text[cut:]) for cut in range(len(text) + 1)}


@given(texts)
def test_moving_a_letter_from_source_to_id_is_another_name(text: str) -> None:
    names = {identity(text[:cut], text[cut:]) for cut in range(len(text) + 1)}
    assert len(names) == len(text) + 1


@given(texts, texts)
def test_a_name_is_short(source: str, event_id: str) -> None:
    assert len(identity(source * 20, event_id * 20)) <= 128


def test_ids_that_begin_with_their_time_stay_in_its_order() -> None:
    ids = [f"0190a5d0-{n:04x}-7000-8000-0123456789ab" for n in range(0, 0xFFFF, 77)]
    names = [identity(f"/source/{n % 5}", event_id) for n, event_id in enumerate(ids)]
    assert names == sorted(names)


def test_names_are_the_same_in_every_process_and_version() -> None:
    assert identity("/source", "id") == b"id/source\0002"
    assert (
        identity("/source", "long" * 40).hex()
        == "6c6f6e676c6f6e676c6f6e676c6f6e676c6f6e676c6f6e67ba61d9ad4f32f1fc166261d7a41e954400"
    )
    assert old_identity("/source", "id").hex() == "6964a4b5ffa65c90aea65b037b63574bddb6"
    assert (
        fingerprint(event({"b": 1, "a": [None, "ä"]}, subject="s")).hex()
        == "dc5687ae3bb1123d5fb516bd59e72a5d"
    )


@given(json_values, json_values)
def test_two_bodies_are_one_only_if_their_json_is(one: Any, other: Any) -> None:
    sorted_json = [msgspec.json.encode(value, order="sorted") for value in (one, other)]
    same = sorted_json[0] == sorted_json[1]
    assert (fingerprint(event(one)) == fingerprint(event(other))) == same


def _reordered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _reordered(inner) for key, inner in reversed(value.items())}
    return [_reordered(inner) for inner in value] if isinstance(value, list) else value


@given(json_values)
def test_neither_the_order_of_keys_nor_white_space_counts(value: Any) -> None:
    spaced = msgspec.json.format(msgspec.json.encode(_reordered(value)), indent=2)
    assert fingerprint(event(msgspec.Raw(spaced))) == fingerprint(event(value))


def test_data_that_is_no_raw_json_counts_by_its_value() -> None:
    plain = Event(id="1", source="/s", type="t", time="2026-01-01T00:00:00Z", data={"a": 1})
    assert fingerprint(plain) == fingerprint(event({"a": 1}))


@pytest.mark.parametrize(
    "other", [event(1, type="x"), event(1, subject="x"), event(1, subject=""), event("1"), event([1])]
)
def test_type_subject_and_data_count(other: Event) -> None:
    assert fingerprint(other) != fingerprint(event(1))


@pytest.mark.parametrize(
    "other",
    [
        event(1, time="2030-01-01T00:00:00Z"),
        event(1, priority=Lane.CRITICAL),
        event(1, id="2"),
        event(1, source="/x"),
    ],
)
def test_time_priority_and_the_name_itself_do_not(other: Event) -> None:
    assert fingerprint(other) == fingerprint(event(1))


@pytest.mark.parametrize("number", [b"1e400", b"[-1e999]"])
def test_numbers_that_no_double_holds_are_compared_as_written(number: bytes) -> None:
    same = fingerprint(event(msgspec.Raw(number)))
    assert fingerprint(event(msgspec.Raw(number))) == same
    assert fingerprint(event(msgspec.Raw(number + b" "))) != same


@given(
    st.lists(st.tuples(texts, st.none() | texts, json_values | st.just(msgspec.Raw(b"1e400"))), max_size=5)
)
def test_fingerprints_taken_together_are_those_taken_one_by_one(
    bodies: list[tuple[str, str | None, Any]],
) -> None:
    all_of_them = [event(data, type=kind, subject=subject) for kind, subject, data in bodies]
    assert fingerprints(all_of_them) == [fingerprint(each) for each in all_of_them]
