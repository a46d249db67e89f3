"""The words of the house as values."""

from __future__ import annotations

import msgspec
import pytest

from steadcast import event
from steadcast.event import LANES, Batch, Entry, Event, Lane, Position, Receipt

EVENT = Event("1", "test", "t", "2026-01-31T12:00:00Z", {"n": 1})
VALUES: list[msgspec.Struct] = [
    EVENT,
    Position("e", 1),
    Entry(1, EVENT),
    Batch("s", Lane.NORMAL, "e", 0, 1, (Entry(1, EVENT),)),
    Receipt("1", Lane.NORMAL, Position("e", 1), duplicate=False),
]


def test_critical_is_read_before_normal() -> None:
    assert LANES == (Lane.CRITICAL, Lane.NORMAL) == tuple(Lane)
    assert [str(lane) for lane in LANES] == ["critical", "normal"]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_no_value_can_be_changed(value: msgspec.Struct) -> None:
    for field in value.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(value, field, None)


def test_every_value_of_the_module_is_tried_here() -> None:
    structs = {
        each for each in vars(event).values() if isinstance(each, type) and issubclass(each, msgspec.Struct)
    }
    assert structs - {msgspec.Struct} == {type(value) for value in VALUES}


def test_equal_positions_are_the_same_key() -> None:
    assert {Position("e", 1): "x"}[Position("e", 1)] == "x"
    assert Position("e", 1) != Position("f", 1)


def test_a_position_is_epoch_and_offset_on_the_wire() -> None:
    assert msgspec.json.encode(Position("e", 1)) == b'["e",1]'


def test_an_event_is_normal_and_has_no_subject_unless_it_says_so() -> None:
    assert (EVENT.priority, EVENT.subject) == (Lane.NORMAL, None)
    assert b"subject" not in msgspec.json.encode(EVENT)


def test_the_data_of_an_event_is_carried_as_bytes_and_never_decoded() -> None:
    carried = msgspec.structs.replace(EVENT, data=msgspec.Raw(b'{"n":1.000}'))
    assert b'"data":{"n":1.000}' in msgspec.json.encode(carried)
