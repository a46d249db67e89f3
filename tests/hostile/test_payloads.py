"""Anything sent as a payload over Socket.IO or HTTP is taken or refused in words; nobody is thrown out."""

from __future__ import annotations

import asyncio
import io
import json
from typing import Any

import httpx
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from steadcast.app import Steadcast
from steadcast.engines.memory import MemoryEngine
from tests.support.engine import Place, listening, said
from tests.support.plain import PLAIN

TOP = 2**53
KEYS = ["stream", "lane", "epoch", "offset", "events", "cursors", "from", "last", "critical", "normal", "id"]
KEYS += ["source", "type", "time", "data", "priority", "subject", "emission", "heads"]
NASTY = [
    "",
    "s",
    "steadcast.dead",
    "../../etc/passwd",
    "a\nb\r\nINFO forged",
    "\x1b[31m",
    "\x00",
    "\U0001d518" * 50,
]
NASTY += ["x" * 70_000, "critical", "start", "2026-01-31T12:00:00Z", "__proto__", "%s%n", "\u202e", "$" * 300]
leaves = st.sampled_from([None, True, 0, -1, 1, TOP, -TOP, 2**70, 1e308, 0.1, *NASTY]) | st.text(max_size=20)
anything = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS) | leaves.map(str), inner, max_size=6)
    ),
    max_leaves=15,
)
EVENTS = ["subscribe", "unsubscribe", "ack", "pong", "publish", "ping", "batch", "nothing", "connect", "\n"]
calls = st.tuples(st.sampled_from(EVENTS), st.lists(anything, max_size=3), st.booleans())


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(calls, min_size=1, max_size=12))
def test_no_payload_ends_a_connection_or_goes_unanswered(made: list[tuple[str, list[Any], bool]]) -> None:
    asyncio.run(_send(made))


async def _send(made: list[tuple[str, list[Any], bool]]) -> None:
    cast = Steadcast(engine=MemoryEngine())
    with capture_logs() as logs:
        async with listening(cast.sio) as place, place.websocket() as socket:
            await said(socket)
            await socket.send("40")
            awaited = set()
            for number, (event, arguments, acked) in enumerate(made):
                await socket.send(f"42{number if acked else ''}{json.dumps([event, *arguments])}")
                if acked and event in {"subscribe", "unsubscribe", "publish"}:
                    awaited.add(number)
            await socket.send('42999["unsubscribe",{"stream":"end"}]')
            awaited.add(999)
            while awaited:
                text = str(await said(socket))
                if text.startswith("43"):
                    number = int(text[2 : text.index("[")])
                    (answer,) = json.loads(text[text.index("[") :])
                    awaited.discard(number)
                    if number != 999:
                        assert answer["ok"] or answer["error"]["code"]
    await cast.aclose()
    assert cast.sio.statistics()["connections"] == 0
    assert not [entry for entry in logs if "exc_info" in entry], logs


@pytest.fixture
async def place() -> Any:
    cast = Steadcast(engine=MemoryEngine())
    async with listening(cast.sio) as running:
        yield running
    await cast.aclose()


@pytest.mark.parametrize("depth", [100, 5_000, 100_000])
async def test_deep_nesting_is_refused_in_words(place: Place, depth: int) -> None:
    async with place.websocket() as socket:
        await said(socket)
        await socket.send("40")
        deep = "[" * depth + "]" * depth
        one = f'{{"id":"1","source":"s","type":"t","data":{deep}}}'
        await socket.send(f'427["publish",{{"stream":"s","events":[{one}]}}]')
        while True:
            text = str(await said(socket))
            if text.startswith(("437", '42["error"')):
                break
        said_of_it = json.loads(text[3:] if text.startswith("437") else text[2:])
        assert said_of_it[0] == "error" or said_of_it[0]["ok"] or said_of_it[0]["error"]["code"]
        await socket.send('428["unsubscribe",{"stream":"s"}]')
        while not str(await said(socket)).startswith("438"):
            pass


async def test_nothing_that_comes_in_can_forge_a_line_of_the_log() -> None:
    written = io.StringIO()
    structlog.configure(
        processors=[structlog.processors.add_log_level, structlog.dev.ConsoleRenderer(colors=False)],
        wrapper_class=structlog.make_filtering_bound_logger("debug"),
        logger_factory=structlog.PrintLoggerFactory(written),
        cache_logger_on_first_use=False,
    )
    forged = "x\n2026-01-01 [error] all is lost\r\x1b[2J"
    try:
        cast = Steadcast(engine=MemoryEngine())
        async with listening(cast.sio) as place, place.websocket() as socket:
            await said(socket)
            auth = {"client": {"id": forged, "version": forged}}
            await socket.send("40" + json.dumps(auth))
            for event in ("subscribe", "publish", forged):
                await socket.send("42" + json.dumps([event, {"stream": forged, "events": [{"id": forged}]}]))
            await socket.send('429["unsubscribe",{"stream":"s"}]')
            while not str(await said(socket)).startswith("439"):
                pass
            transport = httpx.ASGITransport(cast)
            async with httpx.AsyncClient(
                verify=PLAIN, transport=transport, base_url="http://localhost"
            ) as http:
                await http.get("/v1/streams/" + "%0a%0d%1b[31mforged/events")
                await http.post("/v1/hooks/claude", content=b"\xff\n\x1b", headers={"x-forged": "\x1b"})
        await cast.aclose()
    finally:
        structlog.get_logger("steadcast").info("the end", was=forged)
        structlog.reset_defaults()
    lines = written.getvalue().splitlines()
    assert "the end" in lines[-1], "the log is what was looked at"
    assert not [line for line in lines if line.startswith("2026-01-01") or "\x1b" in line], lines
