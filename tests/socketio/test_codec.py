"""Packets as our own server reads them: a publish in one go, everything else as the library does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio import packet

from steadcast.incoming import Publish
from steadcast.socketio.codec import JsonPacket, read_event

EVENTS = '[{"id":"1","source":"/s","type":"t","data":{"a":[1.5,"ü"]}}]'
PUBLISH = f'["publish",{{"stream":"s","events":{EVENTS}}}]'


class Library(packet.Packet):  # type: ignore[misc]
    """The library's reader of packets, with our JSON."""

    json = JsonPacket.json


def read(cls: type[packet.Packet], text: str) -> tuple[Any, ...]:
    got = cls(encoded_packet=text)
    return got.packet_type, got.namespace, got.id, msgspec.to_builtins(got.data), got.attachment_count


@pytest.mark.parametrize(
    "text",
    [
        f"2{PUBLISH}",
        f"27{PUBLISH}",
        f"2007{PUBLISH}",
        f"2{'1' * 40}{PUBLISH}",
        f"2/admin,7{PUBLISH}",
        f"51-7{PUBLISH}",
        f"3{PUBLISH}",
        '27["publish",{"stream":"s","events":[]}]',
        '27["publish",1]',
        '27["publish"]',
        '2["ack",{"stream":"s"}]',
        '0{"token":"x"}',
    ],
)
def test_a_packet_is_what_the_library_reads(text: str) -> None:
    assert read(JsonPacket, text) == read(packet.Packet, text)


@given(
    st.sampled_from(["2", "2", "2", "0", "3", "5", "", "9"]),
    st.sampled_from(["", "", "1-", "-", "/", "/a,", "/a?b=c,"]),
    st.sampled_from(["", "7", "007", "1" * 15, "1" * 16, "1" * 101, "٣"]),
    st.sampled_from(
        [PUBLISH, "[]", "[1]", '["a"', '["a",{"b-c":1}]', '[["publish",1]]', "{}", "", "1", " []"]
    ),
)
def test_whatever_stands_before_an_event_is_read_as_the_library_reads_it(
    kind: str, space: str, ack_id: str, body: str
) -> None:
    text = kind + space + ack_id + body
    event = read_event(text)
    try:
        got = Library(encoded_packet=text)
    except ValueError:
        assert event is None
        return
    plain = (packet.EVENT, None, 0)
    if event is not None:
        assert (got.packet_type, got.namespace, got.attachment_count) == plain
        assert (got.data, got.id) == (msgspec.to_builtins(event[0]), event[1])
    assert read(JsonPacket, text) == read(Library, text)


def test_a_publish_on_the_default_namespace_is_read_in_one_go_and_no_other() -> None:
    def payload(text: str) -> Any:
        return JsonPacket(encoded_packet=text).data[1]

    assert isinstance(payload(f"27{PUBLISH}"), Publish)
    assert isinstance(payload(f"27{PUBLISH[:-1]},{{}}]"), Publish)
    assert isinstance(payload(f"2/admin,7{PUBLISH}"), dict)
    assert isinstance(payload(f"51-7{PUBLISH}"), dict)
