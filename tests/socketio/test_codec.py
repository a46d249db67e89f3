"""Packets as our own server reads them: a publish in one go, everything else as the library does."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from socketio import packet

from steadcast.incoming import Publish
from steadcast.socketio.codec import JsonPacket

EVENTS = '[{"id":"1","source":"/s","type":"t","data":{"a":[1.5,"ü"]}}]'
PUBLISH = f'["publish",{{"stream":"s","events":{EVENTS}}}]'


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


def test_a_publish_on_the_default_namespace_is_read_in_one_go_and_no_other() -> None:
    def payload(text: str) -> Any:
        return JsonPacket(encoded_packet=text).data[1]

    assert isinstance(payload(f"27{PUBLISH}"), Publish)
    assert isinstance(payload(f"27{PUBLISH[:-1]},{{}}]"), Publish)
    assert isinstance(payload(f"2/admin,7{PUBLISH}"), dict)
    assert isinstance(payload(f"51-7{PUBLISH}"), dict)
