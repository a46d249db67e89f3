"""docs/asyncapi.yaml says what the wire says: what a server sends fits it, what wire.py refuses does not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import socketio
import yaml  # type: ignore[import-untyped]
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from steadcast import wire
from steadcast.errors import SteadcastError
from tests.support.server import Server

DOCUMENT: Any = yaml.safe_load((Path(__file__).parents[2] / "docs" / "asyncapi.yaml").read_text())
SCHEMAS = DOCUMENT["components"]["schemas"]


def fits(name: str, payload: object) -> bool:
    schema = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": SCHEMAS}}
    return bool(Draft202012Validator(schema).is_valid(payload))


def test_every_message_has_a_schema_and_an_operation() -> None:
    messages = set(DOCUMENT["components"]["messages"])
    assert set(DOCUMENT["channels"]["root"]["messages"]) == messages
    assert messages <= set(SCHEMAS)
    assert set(DOCUMENT["operations"]) == messages - {"subscribed", "published"}
    for name in SCHEMAS:
        Draft202012Validator.check_schema(SCHEMAS[name])


EVENT = {"id": "1", "source": "/s", "type": "t", "data": None}


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("subscribe", {"stream": "s"}),
        ("subscribe", {"stream": "s", "from": {"last": 3}, "cursors": {"normal": ["e", 1, "id"]}}),
        ("subscribe", {"stream": "s", "cursors": {"critical": ["e", 0]}, "from": "start"}),
        ("subscribe", {"stream": ""}),
        ("subscribe", {"stream": "-s"}),
        ("subscribe", {"stream": "s", "from": "middle"}),
        ("subscribe", {"stream": "s", "from": {"last": -1}}),
        ("subscribe", {"stream": "s", "cursors": {"normal": ["e"]}}),
        ("subscribe", {"stream": "s", "cursors": {"normal": ["e", -1]}}),
        ("subscribe", {"stream": "s", "cursors": {"normal": ["e", 2**53]}}),
        ("subscribe", {"stream": "s", "cursors": {"other": ["e", 1]}}),
        ("unsubscribe", {"stream": "a.b"}),
        ("unsubscribe", {}),
        ("ack", {"stream": "s", "lane": "normal", "epoch": "e", "offset": 4}),
        ("ack", {"stream": "s", "lane": "fast", "epoch": "e", "offset": 4}),
        ("ack", {"stream": "s", "lane": "normal", "epoch": "e!", "offset": 4}),
        ("ack", {"stream": "s", "lane": "normal", "epoch": "e"}),
        ("event", EVENT),
        ("event", EVENT | {"priority": "critical", "subject": "x", "time": "2026-01-01T00:00:00Z"}),
        ("event", EVENT | {"priority": "high"}),
        ("event", EVENT | {"id": ""}),
        ("event", EVENT | {"id": "x" * 257}),
        ("event", EVENT | {"type": 1}),
        ("event", {"id": "1", "source": "/s", "type": "t"} | {"subject": ""}),
    ],
)  # fmt: skip
def test_what_the_wire_takes_fits_and_what_it_refuses_does_not(name: str, payload: Any) -> None:
    takers: dict[str, Callable[[Any], object]] = {
        "subscribe": wire.parse_subscribe,
        "unsubscribe": wire.parse_unsubscribe,
        "ack": wire.parse_ack,
        "event": lambda raw: wire.check_event(raw, now="2026-01-01T00:00:00Z"),
    }
    try:
        takers[name](payload)
        taken = True
    except SteadcastError:
        taken = False
    assert fits(name, payload) is taken


async def test_what_a_server_sends_fits(tmp_path: Path) -> None:
    heard: dict[str, list[Any]] = {"welcome": [], "batch": [], "ping": [], "goaway": []}
    server = Server(tmp_path, STEADCAST_PING_INTERVAL="0.2")
    await asyncio.to_thread(server.start)
    client = socketio.AsyncClient(reconnection=False)
    try:
        for name, payloads in heard.items():
            client.on(name, payloads.append)
        await client.connect(server.url, transports=["websocket"])
        answers = {
            "published": await client.call(
                "publish", {"stream": "s", "events": [EVENT, EVENT | {"id": "2"}]}
            ),
            "subscribed": await client.call("subscribe", {"stream": "s", "from": "start"}),
        }
        refused = await client.call("publish", {"stream": "s", "events": [EVENT | {"data": 1}]})
        async with asyncio.timeout(20):
            while not all(heard[name] for name in ("welcome", "batch", "ping")):
                await asyncio.sleep(0.02)
        server.process.terminate()  # type: ignore[union-attr]
        async with asyncio.timeout(20):
            while not heard["goaway"]:
                await asyncio.sleep(0.02)
    finally:
        await client.disconnect()
        await asyncio.to_thread(server.__exit__)
    for name, payload in [*answers.items(), ("published", refused)]:
        assert fits(name, payload), (name, payload)
    assert refused["ok"] is False
    for name, payloads in heard.items():
        for payload in payloads:
            assert fits(name, payload), (name, payload)
